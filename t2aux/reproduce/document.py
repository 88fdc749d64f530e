"""A document of headings, paragraphs, tables and drawings, as Markdown or as one HTML page."""

from __future__ import annotations

import dataclasses
import html
import pathlib
import re
from collections.abc import Sequence

from t2aux import files

# Cells of numbers stay in one line; longer texts may break.
_LONGEST_NUMBER = 22


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading of level 1 to 3."""

    text: str
    level: int = 2


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Plain text; `code` between backticks, as in all other texts."""

    text: str


@dataclasses.dataclass(frozen=True)
class Items:
    """A list of plain texts."""

    texts: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; the first column is its lines' names, the others are aligned to the right.

    Attributes:
        header: The columns' names.
        lines: Of cells.
        caption: Below it.
        groups: Names above the columns after the first, each with the number of its columns; none:
            there is one row of names.
    """

    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    caption: str = ""
    groups: Sequence[tuple[str, int]] = ()


@dataclasses.dataclass(frozen=True)
class Drawing:
    """An SVG drawing, with the name of its file beside the Markdown."""

    name: str
    svg: str
    caption: str


Block = Heading | Paragraph | Items | Table | Drawing

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
p, ul { max-width: 56rem; }
table { border-collapse: collapse; margin: 1rem 0 0; font-variant-numeric: tabular-nums;
  font-size: .92rem; }
th, td { padding: .25rem .55rem; text-align: right; border-bottom: 1px solid #ddd;
  white-space: nowrap; }
th { border-bottom: 2px solid #888; vertical-align: bottom; }
th.group { border-bottom: 1px solid #bbb; text-align: center; }
th.first, td.first { border-left: 1px solid #bbb; }
th:first-child, td:first-child { text-align: left; white-space: normal; border-left: 0;
  min-width: 4rem; }
td.text { white-space: normal; }
.caption, figcaption { color: #555; margin: .4rem 0 1.5rem; max-width: 56rem; }
figure { margin: 1.5rem 0; }
svg { max-width: 100%; height: auto; }
code { font-size: .9em; background: #f2f2f2; padding: 0 .2em; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
"""


def write(blocks: Sequence[Block], folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Writes NAME.md with its drawings beside it, and NAME.html, which needs nothing else.

    Returns:
        The Markdown's and the page's path.

    Raises:
        UserError: They can't be written.
    """
    files.ensure_directory(folder)
    for block in blocks:
        if isinstance(block, Drawing):
            with files.atomic_write(folder / f"{name}-{block.name}.svg") as file:
                file.write(block.svg)
    paths = []
    for suffix, text in (("md", markdown(blocks, name)), ("html", page(blocks))):
        paths.append(folder / f"{name}.{suffix}")
        with files.atomic_write(paths[-1]) as file:
            file.write(text)
    return paths


def markdown(blocks: Sequence[Block], name: str) -> str:
    """The document as Markdown, whose drawings are the files NAME-DRAWING.svg."""
    return "\n\n".join(_markdown(block, name) for block in blocks) + "\n"


def _markdown(block: Block, name: str) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, Items):
        return "\n".join(f"- {text}" for text in block.texts)
    if isinstance(block, Drawing):
        return f"![{block.caption}]({name}-{block.name}.svg)\n\n*{block.caption}*"
    # Markdown has one row of names only.
    above = [""] + [group for group, columns in block.groups for _ in range(columns)]
    header = block.header
    if block.groups:
        header = [": ".join(filter(None, both)) for both in zip(above, header, strict=True)]
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *block.lines]
    table = "\n".join("| " + " | ".join(cell or " " for cell in row) + " |" for row in rows)
    return f"{table}\n\n*{block.caption}*" if block.caption else table


def page(blocks: Sequence[Block]) -> str:
    """The document as one HTML page that loads nothing."""
    title = next((b.text for b in blocks if isinstance(b, Heading)), "")
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{_inline(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{_inline(block.text)}</p>"
    if isinstance(block, Items):
        return "<ul>" + "".join(f"<li>{_inline(text)}</li>" for text in block.texts) + "</ul>"
    if isinstance(block, Drawing):
        return f"<figure>{block.svg}<figcaption>{_inline(block.caption)}</figcaption></figure>"
    return _table(block)


def _table(table: Table) -> str:
    # A paragraph, as a <caption> would be as narrow as its table.
    caption = f'\n<p class="caption">{_inline(table.caption)}</p>' if table.caption else ""
    # The columns at which a group begins, which have a line at their left.
    first, column = set(), 1
    for _, columns in table.groups:
        first.add(column)
        column += columns
    head = "".join(
        f"<th{_class('first' if i in first else '')}>{_inline(name)}</th>"
        for i, name in enumerate(table.header)
    )
    head = f"<tr>{head}</tr>"
    if table.groups:
        above = "".join(
            f'<th class="group first" colspan="{columns}">{_inline(name)}</th>'
            for name, columns in table.groups
        )
        head = f"<tr><th></th>{above}</tr>\n{head}"
    lines = "\n".join(
        "<tr>"
        + "".join(
            f"<td{_class('first' if i in first else '', _kind(cell))}>{_inline(cell)}</td>"
            for i, cell in enumerate(line)
        )
        + "</tr>"
        for line in table.lines
    )
    return (
        f'<div class="scroll"><table><thead>{head}</thead>\n'
        f"<tbody>{lines}</tbody></table></div>{caption}"
    )


def _kind(cell: str) -> str:
    return "text" if len(cell) > _LONGEST_NUMBER else ""


def _class(*names: str) -> str:
    text = " ".join(filter(None, names))
    return f' class="{text}"' if text else ""


def _inline(text: str) -> str:
    """A text as HTML, `code` between backticks as such."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text))
