"""A document from a Jinja2 template: as Markdown, and as one HTML page that needs no other file."""

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
    """A table. The first column is aligned to the left, the others to the right.

    Attributes:
        header: The columns' names.
        lines: Of cells.
        groups: Names above the columns after the first, each with its number of columns; none:
            there is one row of names.
    """

    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    groups: Sequence[tuple[str, int]] = ()

    def markdown(self) -> str:
        """The table in Markdown, which has one row of names only."""
        above = [""] + [group for group, columns in self.groups for _ in range(columns)]
        names = itertools.zip_longest(above, self.header, fillvalue="")
        header = [": ".join(filter(None, both)) for both in names]
        return text_tables.table(self.lines, header, markdown=True)

    def html(self) -> str:
        """The table in HTML."""
        # The columns at which a group begins.
        first = set(itertools.accumulate((columns for _, columns in self.groups), initial=1))
        return render(_FOLDER / "table.html.jinja", table=self, first=first if self.groups else ())


def write(folder: pathlib.Path, name: str, template: str, **values: object) -> list[pathlib.Path]:
    """Writes NAME.md with its drawings beside it, and NAME.html, from a template.

    Args:
        folder: Where to. It is made where needed.
        name: Of the document.
        template: The template's file.
        **values: What the template names, besides `table` and `drawing`.

    Returns:
        The Markdown's and the page's path.

    Raises:
        UserError: They can't be written.
    """
    svg: dict[str, str] = {}

    def drawing(figure: str, draw: Callable[..., str], *arguments: object) -> str:
        """The name of the file of a drawing, which `draw` makes of the arguments, once."""
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
    """Markdown with every paragraph and item on one line, and one empty line between blocks."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip()):
        if not block.startswith(("|", "<")):
            items = re.split(r"\n(?=- )", block)
            block = "\n".join(" ".join(item.split()) for item in items)
        blocks.append(block)
    return "\n\n".join(blocks) + "\n"


def html(text: str, drawings: dict[str, str]) -> str:
    """Markdown as a page that has its drawings, SVG by the names of their files, in it."""
    body = markdown.markdown(text, output_format="xhtml")
    # Of another document in the same folder.
    body = re.sub(r'href="(\w+)\.md"', r'href="\1.html"', body)
    for path, svg in drawings.items():
        body = re.sub(rf'<img [^>]*src="{re.escape(path)}"[^>]*>', lambda _, svg=svg: svg, body)
    title = text.partition("\n")[0].removeprefix("# ")
    return render(_FOLDER / "page.html.jinja", title=title, body=body)
