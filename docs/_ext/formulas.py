"""Renders formulas as SVG outlines, so that a page needs neither a script, nor TeX, nor a mathematics font."""

import html
import re

import ziamath
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)
ziamath.config.svg2 = False  # Each formula holds its own outlines: identifiers would clash on a page of several.
ziamath.config.precision = 2
EM = 16.0
TALLEST = 8.0
VIEW_BOX = re.compile(r'width="[\d.]+" height="[\d.]+" viewBox="(\S+) (\S+) (\S+) (\S+)"')


def to_svg(latex: str, *, inline: bool) -> str:
    """Renders one formula.

    Args:
      latex: The formula, without dollar signs.
      inline: Whether the formula is part of a line of text.

    Returns:
      An SVG element in units of the font size, whose baseline lies on the baseline of the text.

    Raises:
      ValueError: If the formula is taller than eight lines. ziamath draws brackets of `\\left` too tall around
        sums; `\\Bigl` and `\\Bigr` give a fixed size.
    """
    svg = ziamath.Latex(latex, size=EM, color="currentColor", inline=inline).svg()
    x, y, width, height = (float(v) for v in VIEW_BOX.search(svg).groups())
    if height > TALLEST * EM:
        raise ValueError(f"formula is {height / EM:.0f} em tall, use \\Bigl and \\Bigr instead of \\left and \\right")
    style = f"width: {width / EM:.3f}em; height: {height / EM:.3f}em; vertical-align: {-(height + y) / EM:.3f}em"
    attributes = f'role="img" aria-label="{html.escape(latex)}" style="{style}" viewBox="{x} {y} {width} {height}"'
    return VIEW_BOX.sub(lambda _: attributes, svg, count=1)


def _formula(node: nodes.Node, *, inline: bool) -> str:
    try:
        return to_svg(node.astext(), inline=inline)
    except Exception as error:
        logger.warning("formula %r: %s", node.astext(), error, location=node)
        return f"<code>{html.escape(node.astext())}</code>"


def _inline(self, node: nodes.math) -> None:
    self.body.append(_formula(node, inline=True))
    raise nodes.SkipNode


def _block(self, node: nodes.math_block) -> None:
    drawing = _formula(node, inline=False)
    self.body.append(f'<div style="margin: 1em 0; overflow-x: auto; text-align: center">{drawing}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("outlines", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
