"""Renders a Jinja2 template as Markdown and as a self-contained HTML page."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import re
from collections.abc import Callable, Sequence

import markdown

from t2aux import files, text_tables
from t2aux.templates import render

_FOLDER = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Table:
    """A table. The first column is aligned left, the others right.

    Attributes:
        header: The names of the columns.
        lines: The lines of cells.
        groups: Names above the columns after the first, each with its number of columns; empty: the
            table has a single header row.
    """

    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    groups: Sequence[tuple[str, int]] = ()

    def markdown(self) -> str:
        """The table in Markdown, which supports only one header row."""
        above = [""] + [group for group, columns in self.groups for _ in range(columns)]
        names = itertools.zip_longest(above, self.header, fillvalue="")
        header = [": ".join(filter(None, both)) for both in names]
        return text_tables.table(self.lines, header, markdown=True)

    def html(self) -> str:
        """The table in HTML."""
        # The first columns of the groups.
        first = set(itertools.accumulate((columns for _, columns in self.groups), initial=1))
        return render(_FOLDER / "table.html.jinja", table=self, first=first if self.groups else ())


def write(folder: pathlib.Path, name: str, template: str, **values: object) -> list[pathlib.Path]:
    """Writes NAME.md with its drawings beside it, and NAME.html, from a template.

    Args:
        folder: The folder, which is created if needed.
        name: The name of the document.
        template: The template's file.
        **values: The variables of the template, in addition to `table` and `drawing`.

    Returns:
        The paths of the Markdown file and the HTML page.

    Raises:
        UserError: A file can't be written.
    """
    svg: dict[str, str] = {}

    def drawing(figure: str, draw: Callable[..., str], *arguments: object) -> str:
        """The file name of a drawing, which `draw` makes once from the arguments."""
        path = f"{name}-{figure}.svg"
        if path not in svg:
            svg[path] = draw(*arguments)
        return path

    source = _FOLDER / template
    text = joined(render(source, table=Table.markdown, drawing=drawing, **values))
    page = joined(render(source, table=Table.html, drawing=drawing, **values))
    files.ensure_directory(folder)
    written = {f"{name}.md": text, f"{name}.html": html(page, svg)}
    for path, content in {**svg, **written}.items():
        with files.atomic_write(folder / path) as file:
            file.write(content)
    return [folder / path for path in written]


def joined(text: str) -> str:
    """Joins the lines of every paragraph and item in Markdown, with one empty line between them."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip()):
        if not block.startswith(("|", "<")):
            items = re.split(r"\n(?=- )", block)
            block = "\n".join(" ".join(item.split()) for item in items)
        blocks.append(block)
    return "\n\n".join(blocks) + "\n"


def html(text: str, drawings: dict[str, str]) -> str:
    """Converts Markdown to a page with embedded drawings, given as SVG by file name."""
    body = markdown.markdown(text, output_format="xhtml")
    # Links to other documents in the same folder.
    body = re.sub(r'href="(\w+)\.md"', r'href="\1.html"', body)
    for path, svg in drawings.items():
        body = re.sub(rf'<img [^>]*src="{re.escape(path)}"[^>]*>', lambda _, svg=svg: svg, body)
    title = text.partition("\n")[0].removeprefix("# ")
    return render(_FOLDER / "page.html.jinja", title=title, body=body)
