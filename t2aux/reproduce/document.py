"""A document of headings, paragraphs, tables and drawings, as Markdown or as one HTML page."""

from __future__ import annotations

import dataclasses
import html
import pathlib
from collections.abc import Sequence

from t2aux import files


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading of level 1 to 3."""

    text: str
    level: int = 2


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclasses.dataclass(frozen=True)
class Items:
    """A list of plain texts."""

    texts: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; the first column is its lines' names, the others are aligned to the right."""

    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Drawing:
    """An SVG drawing, with the name of its file beside the Markdown."""

    name: str
    svg: str
    caption: str


Block = Heading | Paragraph | Items | Table | Drawing

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #888; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
caption { caption-side: bottom; text-align: left; color: #555; padding-top: .4rem; }
figure { margin: 1.5rem 0; } figcaption { color: #555; } svg { max-width: 100%; height: auto; }
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
    rows = [block.header, ["---", *["---:"] * (len(block.header) - 1)], *block.lines]
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
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Items):
        return "<ul>" + "".join(f"<li>{html.escape(t)}</li>" for t in block.texts) + "</ul>"
    if isinstance(block, Drawing):
        caption = html.escape(block.caption)
        return f"<figure>{block.svg}<figcaption>{caption}</figcaption></figure>"
    caption = f"<caption>{html.escape(block.caption)}</caption>" if block.caption else ""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in block.header)
    lines = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
        for line in block.lines
    )
    return (
        f'<div class="scroll"><table>{caption}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>{lines}</tbody></table></div>"
    )
