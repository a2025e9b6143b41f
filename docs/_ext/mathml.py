"""Formulas as MathML, which browsers draw by themselves: pages need neither scripts from elsewhere nor TeX."""

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx


def _formula(node: nodes.Node, display: str) -> str:
    # Browsers set a function's name tight against its argument.
    return convert(node.astext(), display=display).replace("<mi>log</mi>", '<mi>log</mi><mspace width="0.17em" />')


def _inline(self, node: nodes.math) -> None:
    self.body.append(_formula(node, "inline"))
    raise nodes.SkipNode


def _block(self, node: nodes.math_block) -> None:
    self.body.append(f'<div style="margin: 1em 0; overflow-x: auto">{_formula(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
