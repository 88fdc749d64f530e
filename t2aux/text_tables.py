"""Tables of text: for a terminal, or in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import tabulate


def table(
    rows: Sequence[Sequence[object]],
    header: Sequence[str] = (),
    *,
    left: Sequence[int] = (0,),
    indent: str = "",
    markdown: bool = False,
) -> str:
    """Lays out a table.

    Args:
        rows: Of cells, which are shown as they are.
        header: The columns' names; none: there is no header.
        left: The columns that are aligned to the left; the others are to the right.
        indent: What every line begins with.
        markdown: As Markdown; else with spaces between the columns.

    Returns:
        Lines without a line end after the last.
    """
    columns = len(header or rows[0])
    if markdown:
        rows = [[escaped(cell) for cell in row] for row in rows]
    text = tabulate.tabulate(
        rows,
        headers=header,
        tablefmt="pipe" if markdown else "plain",
        disable_numparse=True,
        preserve_whitespace=True,
        colalign=["left" if i in left else "right" for i in range(columns)],
    )
    return "\n".join(f"{indent}{line}".rstrip() for line in text.splitlines())


def escaped(cell: object) -> str:
    """A text as a cell of a Markdown table."""
    return str(cell).replace("|", r"\|").replace("\n", " ")
