"""Tables as HTML and as Markdown, with everything in them escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

#: Characters that mean something in Markdown, GitHub's or MyST's, wherever they stand.
SPECIAL = re.compile(r"([\\`*\[\]{}|~$#])")

#: Underscores mean something only at the edge of a word.
EDGE_UNDERSCORES = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")

#: Line breaks and other control characters, which would end a row of a table.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

#: Longest text of a cell.
LONGEST_CELL = 200

#: Styles of HTML tables. Colours are those of the page, so that a dark theme stays legible.
CELL = "padding:0.15em 0.8em 0.15em 0;border:none;background:transparent;color:inherit;"
LEFT, RIGHT = "text-align:left;", "text-align:right;font-variant-numeric:tabular-nums;"
RULE = "border-bottom:1px solid currentColor;"
TABLE = (
    "border-collapse:collapse;margin:0.3em 0;color:inherit;background:transparent;"
    "font-size:0.9em;line-height:1.4;width:auto;"
)
CAPTION = (
    "caption-side:top;text-align:left;font-weight:bold;color:inherit;padding:0.2em 0;"
    "white-space:nowrap;"
)


def one_line(text: object) -> str:
    """Return a text without line breaks, cut where it is too long for a cell."""
    line = CONTROL.sub(" ", str(text))
    return line if len(line) <= LONGEST_CELL else line[: LONGEST_CELL - 3] + "..."


def markdown_text(text: object) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    line = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return EDGE_UNDERSCORES.sub(r"\\_", SPECIAL.sub(r"\\\1", line))


def markdown_table(
    head: Sequence[object], rows: Sequence[Sequence[object]], right: Sequence[int] = ()
) -> str:
    """Return a table in GitHub's Markdown.

    Parameters
    ----------
    head : sequence of n_columns cells
    rows : sequence of rows of n_columns cells
    right : sequence of int
        Columns whose cells are aligned to the right.
    """
    rule = ["---:" if i in right else "---" for i in range(len(head))]
    lines = [[markdown_text(cell) for cell in head], rule]
    lines += [[markdown_text(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def html_table(
    head: Sequence[object],
    rows: Sequence[Sequence[object]],
    *,
    caption: str | None = None,
    right: Sequence[int] = (),
) -> str:
    """Return an HTML table that needs no style sheet.

    The first cell of each row is its heading.

    Parameters
    ----------
    head : sequence of n_columns cells, perhaps empty
    rows : sequence of rows of n_columns cells
    caption : str, optional
    right : sequence of int
        Columns whose cells are aligned to the right.
    """

    def cell(tag: str, i: int, text: object, more: str = "", scope: str = "") -> str:
        style = CELL + (RIGHT if i in right else LEFT) + more
        return f'<{tag}{scope} style="{style}">{escape(one_line(text))}</{tag}>'

    title = "" if caption is None else f'<caption style="{CAPTION}">{escape(caption)}</caption>'
    top = "".join(cell("th", i, text, RULE, ' scope="col"') for i, text in enumerate(head))
    top = f"<thead><tr>{top}</tr></thead>" if head else ""
    body = ""
    for row in rows:
        first = cell("th", 0, row[0], "font-weight:normal;", ' scope="row"')
        rest = "".join(cell("td", i, text) for i, text in enumerate(row[1:], start=1))
        body += f"<tr>{first}{rest}</tr>"
    return f'<table style="{TABLE}">{title}{top}<tbody>{body}</tbody></table>'


def html_details(summary: str, content: str, *, is_open: bool = False) -> str:
    """Return HTML that a click on its summary unfolds."""
    state = " open" if is_open else ""
    style = "color:inherit;margin:0.3em 0;"
    return (
        f'<details{state} style="{style}"><summary style="cursor:pointer;">{escape(summary)}'
        f"</summary>{content}</details>"
    )


def html_remarks(remarks: Sequence[str]) -> str:
    """Return one HTML paragraph per remark."""
    style = "margin:0.3em 0;color:inherit;max-width:50em;"
    return "".join(f'<p style="{style}"><b>!</b> {escape(text)}</p>' for text in remarks)
