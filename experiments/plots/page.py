"""The parts of a page that opens offline: light and dark, contents, tables, pictures. All text is escaped."""

import base64
import html
import io
from collections.abc import Sequence

GENERATOR = "<meta name='generator' content='parsimony'>"  # marks a page as written here
STYLE = """
:root { color-scheme: light dark; --text: #222; --page: #fff; --soft: #555; --line: #ddd; --box: #f6f6f6; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ddd; --page: #16181c; --soft: #aaa; --line: #3a3d44; --box: #22252b; }
  img.plot { filter: invert(0.9) hue-rotate(180deg); }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
body { color: var(--text); background: var(--page); }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.4rem; border-bottom: 1px solid var(--line); } figure { margin: 1rem 0; }
a { color: inherit; } nav ul { padding-left: 1.2rem; } nav li li { display: inline; margin-right: 0.9rem; }
img { max-width: 100%; } figcaption { color: var(--soft); font-size: 0.9rem; } table { border-collapse: collapse; }
td, th { padding: 0.15rem 0.8rem 0.15rem 0; text-align: right; border-bottom: 1px solid var(--line); }
td:first-child, th:first-child { text-align: left; } pre { background: var(--box); padding: 0.8rem; overflow-x: auto; }
.panels { display: flex; flex-wrap: wrap; gap: 0.6rem 1.6rem; } .panel { max-width: 100%; }
svg.chart { max-width: 100%; height: auto; font-size: 12px; } svg text { fill: var(--text); }
svg .grid { stroke: var(--line); fill: none; } svg .line { fill: none; stroke-width: 1.5; } svg circle:hover { r: 5; }
ul.legend { list-style: none; padding: 0; margin: 0 0 0 3.9rem; font-size: 0.85rem; columns: 2; max-width: 25rem; }
"""


def page(title: str, sections: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> str:
    """A page of sections: [(title, [(title of a part, its HTML)])]; a part without a title stands below the one before.

    The sections and their parts are listed at the top, with links to them.
    """
    contents, body = [], []
    for number, (name, parts) in enumerate(sections):
        anchor = f"section-{number}"
        body.append(f"<h2 id='{anchor}'>{html.escape(name)}</h2>")
        inner = []
        for place, (part, content) in enumerate(parts):
            if part:
                inner.append(f"<li><a href='#{anchor}-{place}'>{html.escape(part)}</a></li>")
                body.append(f"<h3 id='{anchor}-{place}'>{html.escape(part)}</h3>")
            body.append(content)
        below = f"<ul>{''.join(inner)}</ul>" if inner else ""
        contents.append(f"<li><a href='#{anchor}'>{html.escape(name)}</a>{below}</li>")
    return (
        "<!doctype html>\n<html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"{GENERATOR}<title>{html.escape(title)}</title><style>{STYLE}</style>\n<h1>{html.escape(title)}</h1>\n"
        f"<nav aria-label='contents'><ul>{''.join(contents)}</ul></nav>\n" + "\n".join(body) + "</html>\n"
    )


def text(content: str) -> str:
    return f"<p>{html.escape(content)}</p>"


def verbatim(content: str) -> str:
    return f"<pre>{html.escape(content)}</pre>"


def table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the head."""
    head, *body = rows
    line = lambda tag, cells: "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
    return "<table>" + line("th", head) + "".join(line("td", row) for row in body) + "</table>"


def charts(*drawn: str, caption: str) -> str:
    """Charts side by side."""
    return f"<figure><div class='panels'>{''.join(drawn)}</div><figcaption>{html.escape(caption)}</figcaption></figure>"


def picture(name: str, figure, caption: str, plot: bool = False) -> str:
    """A figure of Matplotlib as a PNG; a `plot` on white turns dark with the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    look = " class='plot'" if plot else ""
    image = f"<img{look} alt='{html.escape(name.removesuffix('.png'), quote=True)}' src='data:image/png;base64,{data}'>"
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"
