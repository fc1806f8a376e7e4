"""The few HTML elements a report is made of. Every text is escaped here; the page loads nothing."""

import base64
import html
from collections.abc import Sequence

STYLE = """
:root { --page: #ffffff; --ink: #1c2128; --soft: #57606a; --line: #d8dee4; --card: #f6f8fa; --accent: #0072b2;
  --blue: #0072b2; --good: #00734f; --bad: #b34700; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --page: #14181d; --ink: #e3e8ee; --soft: #9aa5b1; --line: #343c46;
  --card: #1d232a; --accent: #56b4e9; --blue: #3d9be0; --good: #2fbf94; --bad: #ff9a52; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header, footer { max-width: 66rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .35rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .75rem; padding-top: 1.25rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
.soft, figcaption, footer { color: var(--soft); font-size: .9rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 1rem 0 0; font-size: .9rem; }
a { color: var(--accent); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .75rem; margin: 1.5rem 0 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; }
.tile dt { color: var(--soft); font-size: .85rem; }
.tile dd { margin: 0; }
.tile .value { font-size: 1.6rem; font-weight: 600; font-variant-numeric: tabular-nums; letter-spacing: -.01em; }
.tile .note { color: var(--soft); font-size: .85rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .75rem 0; }
caption { text-align: left; color: var(--soft); padding-bottom: .35rem; font-size: .9rem; }
th, td { padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; }
tbody th, td.text { white-space: normal; overflow-wrap: break-word; min-width: 9rem; max-width: 18rem; }
th:first-child, td.text, th.text { text-align: left; }
figure { margin: 1rem 0 1.5rem; }
figure svg { display: block; height: auto; max-width: max(100%, 34rem); }
figcaption { margin-top: .4rem; max-width: 46rem; }
.videos { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: 1rem; }
.videos figure { margin: 0; }
video { width: 100%; height: auto; display: block; border: 1px solid var(--line); border-radius: .4rem; }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .9rem;
  font-size: .82rem; line-height: 1.45; }
summary { cursor: pointer; color: var(--accent); margin: .75rem 0; }
footer { margin-top: 3rem; padding-top: 1rem; padding-bottom: 3rem; border-top: 1px solid var(--line); }
@media print { body { background: #fff; } nav, summary { display: none; } }
"""


def document(title: str, *, lead: str, sections: Sequence[tuple[str, str]], footer: str) -> str:
    """Return a whole page from `sections` (heading, HTML); `lead` is HTML under the title, `footer` plain text.

    Its content security policy forbids every load other than embedded data.
    """
    links = "".join(f'<a href="#{anchor(name)}">{escape(name)}</a>' for name, _ in sections)
    body = "".join(
        f'<section id="{anchor(name)}"><h2>{escape(name)}</h2>\n{content}</section>\n' for name, content in sections
    )
    policy = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n{lead}<nav>{links}</nav>\n</header>\n<main>\n{body}</main>\n"
        f"<footer><p>{escape(footer)}</p></footer>\n</body>\n</html>\n"
    )


def escape(text: str) -> str:
    """Return `text` so that it is shown as it is, in elements and in quoted attributes."""
    return html.escape(text, quote=True)


def anchor(name: str) -> str:
    """Return a heading's id."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower())


def paragraph(text: str, *, soft: bool = False) -> str:
    """Return a paragraph; a soft one is set back."""
    kind = ' class="soft"' if soft else ""
    return f"<p{kind}>{escape(text)}</p>\n"


def heading(text: str) -> str:
    """Return a heading below a section's."""
    return f"<h3>{escape(text)}</h3>\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, texts: int = 1) -> str:
    """Return a table that scrolls where the screen is narrow; the first `texts` columns are text, the others numbers.

    Columns that hold only dashes are left out.
    """
    kept = [k for k in range(len(columns)) if any(row[k] != "-" for row in rows)]
    side = {k: ' class="text"' if k < texts else "" for k in kept}
    head = "".join(f'<th scope="col"{side[k]}>{escape(columns[k])}</th>' for k in kept)
    body = "".join("<tr>" + "".join(_cell(row[k], k, side[k]) for k in kept) + "</tr>\n" for row in rows)
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def _cell(text: str, column: int, side: str) -> str:
    return f'<th scope="row">{escape(text)}</th>' if column == 0 else f"<td{side}>{escape(text)}</td>"


def tiles(items: Sequence[tuple[str, str, str, str]]) -> str:
    """Return headline numbers: (name, value, note, "good", "bad" or "")."""
    parts = [
        f'<div class="tile"><dt>{escape(name)}</dt><dd class="value {tone}">{escape(value)}</dd>'
        f'<dd class="note">{escape(note)}</dd></div>\n'
        for name, value, note, tone in items
    ]
    return f'<dl class="tiles">\n{"".join(parts)}</dl>\n'


def figure(drawing: str, caption: str) -> str:
    """Return inline SVG with its caption."""
    return f'<figure><div class="scroll">{drawing}</div><figcaption>{escape(caption)}</figcaption></figure>\n'


def video(mp4: bytes, caption: str) -> str:
    """Return one video, as wide as the page."""
    data = base64.b64encode(mp4).decode()
    return (
        '<figure><video controls="" muted="" loop="" playsinline="" preload="metadata" '
        f'src="data:video/mp4;base64,{data}"></video><figcaption>{escape(caption)}</figcaption></figure>\n'
    )


def videos(items: Sequence[tuple[bytes, str]]) -> str:
    """Return a grid of (mp4, caption)."""
    return f'<div class="videos">\n{"".join(video(mp4, caption) for mp4, caption in items)}</div>\n'


def details(summary: str, content: str) -> str:
    """Return `content` folded under `summary`."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}</details>\n"


def code(text: str) -> str:
    """Return preformatted text."""
    return f"<pre>{escape(text)}</pre>\n"
