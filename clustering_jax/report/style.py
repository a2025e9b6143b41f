"""The style sheet of the report. The colours follow Okabe and Ito (2008): colour-blind readers can distinguish them."""

LIGHT = """
color-scheme: light; --page: #fff; --ink: #1a1a1a; --faint: #5c5c5c; --rule: #d8d8d8; --panel: #f5f5f3;
--c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b5558f; --c4: #c98a00; --c5: #3f9fd6; --c6: #333;
"""
DARK = """
color-scheme: dark; --page: #16181a; --ink: #ececec; --faint: #a9adb1; --rule: #3a3e42; --panel: #202326;
--c0: #56b4e9; --c1: #ff8c3c; --c2: #2fc79a; --c3: #e39fc6; --c4: #f0c040; --c5: #8f9dff; --c6: #e0e0e0;
"""
RULES = """
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--page); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; border-bottom: 1px solid var(--rule); padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
.note, figcaption, .unit { color: var(--faint); font-size: .85rem; }
.warning { border-left: 4px solid var(--c1); padding: .4rem .8rem; background: var(--panel); }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
.charts { columns: 21rem; column-gap: 1.5rem; } .charts figure { margin-bottom: 1.2rem; }
.cards { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); margin: .8rem 0; }
.card { background: var(--panel); border-radius: .4rem; padding: .6rem .8rem; min-width: 0; }
.card b { display: block; font-size: 1.6rem; line-height: 1.2; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figcaption { color: var(--ink); font-weight: 600; font-size: .9rem; }
svg { display: block; width: 100%; height: auto; max-width: 34rem; font: 11px system-ui, sans-serif; }
.wide svg { max-width: 42rem; }
svg text { fill: var(--ink); } svg .label { fill: var(--faint); } svg .small { font-size: 9px; }
line.rule { stroke: var(--rule); } .axis { stroke: var(--faint); }
.mark { stroke: var(--faint); stroke-dasharray: 3 3; } .border { fill: none; stroke: var(--rule); }
.line { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round; } .fill { fill: currentColor; }
.bar { fill: var(--c0); } .cell { fill: var(--c0); }
.dot { fill: currentColor; fill-opacity: .75; }
svg .name { font-size: 15px; font-weight: 700; }
svg .halo { paint-order: stroke; stroke: var(--page); stroke-width: 4px; stroke-linejoin: round; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 5rem; }
thead th { color: var(--faint); font-weight: 600; }
table.long td { white-space: normal; overflow-wrap: anywhere; text-align: left; }
table.long td:first-child { padding-right: 1rem; color: var(--faint); }
td small { display: block; color: var(--faint); } .scroll + h3 { margin-top: .8rem; }
.columns { columns: 22rem; column-gap: 2rem; } .columns table { width: 100%; }
.cluster { break-inside: avoid; min-width: 0; }
.cluster img { width: 100%; height: auto; display: block; margin-top: .3rem; }
.sharp { image-rendering: pixelated; }
.word { display: inline-block; background: var(--panel); border: 1px solid var(--rule); border-radius: .7rem;
  padding: 0 .5rem; margin: .1rem .2rem .1rem 0; font-size: .9rem; overflow-wrap: anywhere; }
"""
PRINT = """
@page { margin: 14mm; }
body { font-size: 9.5pt; padding: 0; max-width: none; }
.grid { grid-template-columns: 1fr 1fr; } .charts { columns: 2; } .cards { grid-template-columns: repeat(4, 1fr); }
h2, h2 + .note { break-after: avoid; } .card { border: 1px solid var(--rule); } svg { font-size: 11px; }
.scroll { overflow: visible; }
* { print-color-adjust: exact; }
"""


def sheet() -> str:
    """The style sheet: light by default, dark if the reader's system is dark, and light on paper."""
    colours = "\n".join(f".c{i} {{ color: var(--c{i}); }}" for i in range(7))
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}"
    return f":root {{ {LIGHT} }}\n{dark}\n{RULES}{colours}\n@media print {{ :root {{ {LIGHT} }} {PRINT} }}"
