"""Text tables for a terminal or in Markdown."""

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
    """Formats a table.

    Args:
        rows: The rows of cells, which are shown unchanged.
        header: The names of the columns; empty: no header.
        left: The columns to align left; the others are aligned right.
        indent: The prefix of every line.
        markdown: Whether to use Markdown; otherwise columns are separated by spaces.

    Returns:
        The lines, without a newline at the end.
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
    """Escapes a text for a cell of a Markdown table."""
    return str(cell).replace("|", r"\|").replace("\n", " ")
