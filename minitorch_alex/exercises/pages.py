"""Parts of a web page: Markdown with its formulas in MathML, highlighted code, and the frame around all of it.

A page is whole in its file. It fetches nothing and runs nothing, and tells the browser to allow neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from .notebook import LessonError

if TYPE_CHECKING:
    from markdown_it.token import Token

Link = Callable[[str], str | None]  # where a link of the text leads to from the page; None if nowhere
MARK = '<meta name="generator" content="minitorch_alex.exercises html">'  # in every page, to know it again
FUNCTION = re.compile(  # a name such as log that stands for itself, with neither an index nor a bracket behind it
    r"(?<!<msub>)(?<!<msup>)(?<!<munder>)(<m[io]>(?:log|ln|exp|max|min|tanh)</m[io]>)(?!<mo[^>]*>&#x00028;)"
)
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Heading(NamedTuple):
    """One of a page's, for its table of contents; `inside` is HTML."""

    level: int
    anchor: str
    inside: str


class Markdown:
    """Turns Markdown into HTML, with links as `link` says, and gathers the headings."""

    def __init__(self, link: Link) -> None:
        from markdown_it import MarkdownIt
        from mdit_py_plugins.dollarmath import dollarmath_plugin

        def highlight(code: str, language: str, _: str) -> str:
            return highlighted(code, language or "text")

        self.link = link
        self.headings: list[Heading] = []
        self.parser = MarkdownIt("commonmark", {"highlight": highlight}).enable("table")
        self.parser.use(
            dollarmath_plugin, allow_labels=False, double_inline=True,
            renderer=lambda latex, how: formula(latex, how["display_mode"]),
        )  # fmt: skip

    def __call__(self, text: str) -> str:
        tokens = self.parser.parse(text)
        for place, token in enumerate(tokens):
            if token.type == "heading_open":
                token.attrSet("id", self._enter(int(token.tag[1]), tokens[place + 1]))
            for one, following in _links(token.children or ()):
                target = self.link(str(one.attrs["href"]))
                one.hidden = following.hidden = target is None
                one.attrs["href"] = target or ""
        _label_cells(tokens)
        html = self.parser.renderer.render(tokens, self.parser.options, {})
        return html.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")

    def _enter(self, level: int, inline: Token) -> str:
        """Its anchor, which no other heading of the page has."""
        parts = inline.children or []
        words = slug("".join(part.content for part in parts))
        taken = sum(re.fullmatch(rf"{words}(-\d+)?", heading.anchor) is not None for heading in self.headings)
        anchor = f"{words}-{taken + 1}" if taken else words
        inside = self.parser.renderer.render(
            [part for part in parts if not part.type.startswith("link_")], self.parser.options, {}
        )
        self.headings.append(Heading(level, anchor, inside))
        return anchor


def slug(text: str) -> str:
    """A heading's words as an anchor."""
    return re.sub(r"\W+", "-", text.lower()).strip("-") or "section"


def _links(children: Iterable[Token]) -> list[tuple[Token, Token]]:
    """The beginning and the end of each link in a line."""
    ends = [child for child in children if child.type in ("link_open", "link_close")]
    return list(zip(ends[::2], ends[1::2], strict=True))


def _label_cells(tokens: list[Token]) -> None:
    """Let each cell of a table know its column's heading, for screens so narrow that cells stand below one another."""
    headings: list[str] = []
    column = 0
    for token, following in pairwise(tokens):
        if token.type == "thead_open":
            headings = []
        elif token.type == "tr_open":
            column = 0
        elif token.type == "th_open":
            headings.append(following.content)
        elif token.type == "td_open":
            token.attrSet("data-label", headings[column])
            column += 1


def formula(latex: str, alone: bool) -> str:
    """In MathML, which browsers draw themselves; `alone` on a line of its own, or within one."""
    from latex2mathml.converter import convert

    made = convert(latex, display="block" if alone else "inline")
    if "\\" in made:
        raise LessonError(f"there is no MathML for the formula {latex}")
    made = FUNCTION.sub(r'\1<mspace width="0.167em" />', made)
    return made.replace("<math ", f'<math alttext="{escape(latex)}" ', 1)


def highlighted(code: str, language: str = "python") -> str:
    """Code with its parts marked, for the colours of `code_colours`."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    inside = highlight(code, get_lexer_by_name(language), HtmlFormatter(nowrap=True))
    return f'<pre class="code"><code>{inside}</code></pre>\n'


def code_colours() -> str:
    """Style rules for light and for dark screens."""
    from pygments.formatters import HtmlFormatter

    light, dark = (
        "\n".join(HtmlFormatter(style=style).get_token_style_defs(".code")) for style in ("default", "github-dark")
    )
    is_dark = "(prefers-color-scheme: dark)"
    return f"@media not all and {is_dark} {{\n{light}\n}}\n@media {is_dark} {{\n{dark}\n}}"


# -- the frame --------------------------------------------------------------------------
class Neighbour(NamedTuple):
    """A page to go to, and what the link says; `kind` is one of HTML's, such as next."""

    page: str
    says: str
    kind: str = ""


def page(title: str, kind: str, body: str, headings: list[Heading], neighbours: list[Neighbour]) -> str:
    """A whole page, of the kind lesson, index or map. Its only style and its pictures are within it."""
    ways = "".join(map(_way, neighbours))
    begins = re.search(r'<h2|<div class="cell">', body)
    place = begins.start() if begins else len(body)
    return f"""<!DOCTYPE html>
<html lang="en-GB">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
{MARK}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{STYLE}{code_colours()}
</style>
</head>
<body class="{kind}">
<nav class="ways" aria-label="Lessons">
{ways}</nav>
<main>
{body[:place]}{contents(headings)}{body[place:]}</main>
<nav class="ways" aria-label="Lessons, at the end">
{ways}</nav>
</body>
</html>
"""


def _way(to: Neighbour) -> str:
    kind = f' rel="{to.kind}"' if to.kind else ""
    return f'<a href="{escape(to.page)}"{kind}>{escape(to.says)}</a>\n'


def contents(headings: list[Heading]) -> str:
    """The sections of a page and their parts, if there are enough to need a table."""
    entries = [h for h in headings if h.level in (2, 3)]
    if len(entries) < 3:
        return ""
    lines = (f'<li class="level{h.level}"><a href="#{h.anchor}">{h.inside}</a></li>\n' for h in entries)
    return f'<nav class="contents" aria-label="On this page">\n<ul>\n{"".join(lines)}</ul>\n</nav>\n'


def preformatted(text: Any, kind: str) -> str:
    """Text as a cell printed it."""
    return f'<pre class="output {kind}">{escape(str(text))}</pre>\n'


STYLE = """\
:root { --text: #1d2025; --page: #ffffff; --soft: #f4f5f7; --line: #d5d9df; --link: #1f5fa8; --good: #1a7f37;
  --bad: #b3261e; --faint: #5c636d; }
@media (prefers-color-scheme: dark) { :root { --text: #dde1e6; --page: #15171b; --soft: #1f2329; --line: #3a4048;
  --link: #8ab6f0; --good: #5cc57a; --bad: #f28b82; --faint: #9aa3ae; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body { margin: 0 auto; padding: 0 1rem 2rem; max-width: 55rem; color: var(--text); background: var(--page);
  font: 1.0625rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.25; margin: 2.2em 0 0.6em; }
h1 { margin-top: 0.8em; font-size: 1.9rem; }
h2 { font-size: 1.4rem; border-top: 1px solid var(--line); padding-top: 0.9em; }
h3 { font-size: 1.15rem; }
main > p, main > ul, main > ol { max-width: 46rem; }
a { color: var(--link); }
hr { border: 0; border-top: 1px solid var(--line); }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { font-size: 0.9em; background: var(--soft); border-radius: 3px; padding: 0.1em 0.25em; }
pre { margin: 0; padding: 0.7em 0.9em; overflow-x: auto; font-size: 0.84rem; line-height: 1.45; }
pre code { font-size: inherit; background: none; padding: 0; }
.code { background: var(--soft); border: 1px solid var(--line); border-radius: 4px; margin: 1em 0; }
.cell { margin: 1.1em 0; }
.cell .code { margin: 0; }
.output { border-left: 3px solid var(--line); margin: 0.4em 0 0 0.4em; }
div.output { padding: 0.3em 0 0.3em 0.6em; overflow-x: auto; }
.rich { border: 0; margin-left: 0; padding-left: 0; }
.rich pre { padding: 0; }
.output img { background: #ffffff; border-radius: 3px; }
img { max-width: 100%; height: auto; display: block; }
.right { border-left-color: var(--good); color: var(--good); font-weight: 600; }
.right::before { content: "\\2713  "; }
.stderr, .error { border-left-color: var(--bad); }
.note { color: var(--faint); font-size: 0.9rem; margin: 0.9em 0 0; }
details.solution { margin-top: 0.5em; }
details.solution summary { cursor: pointer; color: var(--link); padding: 0.35em 0; }
.math.block { overflow-x: auto; padding: 0.3em 0; }
math { font-size: 1.08em; }
.wide { overflow-x: auto; margin: 1em 0; }
table { border-collapse: collapse; font-size: 0.95rem; }
th, td { border-bottom: 1px solid var(--line); padding: 0.45em 0.7em 0.45em 0; text-align: left; vertical-align: top; }
td[style*="right"] { white-space: nowrap; }
.map table { table-layout: fixed; width: 100%; }
.map th:first-child { width: 40%; }
.map th:nth-child(2) { width: 26%; }
.map td code { overflow-wrap: anywhere; font-size: 0.78rem; padding: 0; background: none; }
nav.ways { display: flex; flex-wrap: wrap; gap: 0.3rem 1.5rem; padding: 0.9rem 0; font-size: 0.95rem; }
main + nav.ways { border-top: 1px solid var(--line); margin-top: 3rem; }
nav.contents { background: var(--soft); border-radius: 4px; padding: 0.7rem 1rem; font-size: 0.92rem; }
nav.contents ul { list-style: none; margin: 0; padding: 0; }
nav.contents li { padding: 0.1rem 0; line-height: 1.4; }
nav.contents .level3 { padding-left: 1.1rem; }
nav.contents a { text-decoration: none; }
nav.contents a:hover { text-decoration: underline; }
@media (min-width: 80rem) {
  body:has(nav.contents) { max-width: 75rem; padding-left: 21rem; }
  nav.contents { position: fixed; top: 1rem; left: max(1rem, calc(50vw - 36.5rem)); width: 18rem;
    max-height: calc(100vh - 2rem); overflow-y: auto; }
}
@media (max-width: 44rem) {
  .index table, .map table, .index tbody, .map tbody, .index tr, .map tr, .index td, .map td { display: block; }
  .index thead, .map thead { display: none; }
  .index tr, .map tr { border-bottom: 1px solid var(--line); padding: 0.5em 0; }
  .index td, .map td { border: 0; padding: 0.1em 0; text-align: left !important; }
  .index td:empty, .map td:empty { display: none; }
  .index td[data-label]:not([data-label=""])::before, .map td[data-label]:not([data-label=""])::before {
    content: attr(data-label) ": "; color: var(--faint); }
}
@media print { nav { display: none; } }
"""
