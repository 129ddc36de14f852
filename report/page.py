"""One-page HTML reports: text, tables and images in a single file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TypeAlias

from .. import __version__
from ..bundle.atomic import write_atomic
from ..bundle.transaction import now
from .overlays import Tile, png_data_uri

#: A heading, lines of text, and rows of images.
Section: TypeAlias = tuple[str, Sequence[str], list[list[Tile]]]

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; background: #f4f6f8; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 34px 0 8px; }
.lead { color: #52606d; margin: 0 0 18px; }
table { border-collapse: collapse; background: #fff; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid #e4e8ec; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { background: #e9eef3; font-weight: 600; }
pre { background: #fff; padding: 12px 14px; white-space: pre-wrap; border-left: 3px solid #9fb3c8; margin: 8px 0; }
.good { color: #127a3a; font-weight: 600; } .bad { color: #b3261e; font-weight: 600; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px; }
figure { margin: 0; background: #fff; padding: 6px; } img { width: 100%; display: block; }
figcaption { font-size: 12px; color: #52606d; padding-top: 4px; overflow-wrap: anywhere; }
"""


@dataclass
class Page:
    """An HTML page, written from top to bottom.

    Attributes:
        title: heading of the page.
        lead: one sentence below the heading.
    """

    title: str
    lead: str
    _parts: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """Start a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def verdict(self, text: str, *, is_good: bool) -> None:
        """Add a sentence, in green where ``is_good``, else in red."""
        self._parts.append(f'<p class="{"good" if is_good else "bad"}">{escape(text)}</p>')

    def lines(self, sentences: Sequence[str]) -> None:
        """Add lines of text in a fixed-width font."""
        self._parts.append(f"<pre>{escape(chr(10).join(sentences))}</pre>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table; its first column is left-aligned."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def images(self, items: Sequence[Tile]) -> None:
        """Add images, uint8 (H, W, 3) RGB or (H, W) grey, with captions, in a grid."""
        figures = [
            f'<figure><img src="{png_data_uri(image)}" alt="{escape(caption, quote=True)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for image, caption in items
        ]
        self._parts.append(f'<div class="images">{"".join(figures)}</div>')

    def write(self, path: Path) -> None:
        """Write the page to a file, atomically; its folder is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        title, lead = escape(self.title), escape(self.lead)
        text = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
            f'<body><main><h1>{title}</h1><p class="lead">{lead}</p>{"".join(self._parts)}</main></body></html>\n'
        )
        write_atomic(path, text.encode())


def write_report(
    path: Path, title: str, *, sentences: Sequence[str], state: str = "", sections: Sequence[Section] = ()
) -> None:
    """Write the report of one command as an HTML page.

    Args:
        path: HTML file to write; its folder is made.
        title: heading of the page.
        sentences: text of the report, a line each.
        state: word above the text, green where it is ``"passed"`` and else red; "" for none.
        sections: images below the text.
    """
    page = Page(title, f"Written by lineproof {__version__}, {now()}.")
    if state:
        page.verdict(state.capitalize(), is_good=state == "passed")
    page.lines(sentences)
    for heading, lines, rows in sections:
        page.heading(heading)
        if lines:
            page.lines(lines)
        for tiles in rows:
            page.images(tiles)
    page.write(path)
