"""What the site needs of the repository: the files that its pages link to.

A page links to a file outside of docs/ by its place in the repository, such as
`../results/rows.json`, as GitHub wants it. Here such files become part of the site, in its folder
`repository/`, Markdown files as pages, and the links lead there.
"""

from __future__ import annotations

import pathlib
import posixpath
import re
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, InclusionLevel

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = "repository"
# The pages that the navigation has, whether a page links to them or not.
PAGES = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
_LINK = re.compile(r"(\]\()(?![a-z]+:|#|/)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the repository's files that the pages, and these files in turn, link to."""
    todo = [_in_repository(file.src_uri) for file in files.documentation_pages()]
    todo += PAGES
    seen = set()
    while todo:
        name = todo.pop()
        if name in seen or not (ROOT / name).is_file():
            continue
        seen.add(name)
        if not name.startswith("docs/"):
            level = InclusionLevel.NOT_IN_NAV if name not in PAGES else InclusionLevel.INCLUDED
            files.append(
                File.generated(
                    config, _in_site(name), abs_src_path=str(ROOT / name), inclusion=level
                )
            )
        if name.endswith(".md"):
            text = (ROOT / name).read_text(encoding="utf-8")
            todo += [_target(name, link) for _, link in _LINK.findall(text)]
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes the links of a page those of the site."""
    del config, files
    name = _in_repository(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        target = _in_site(_target(name, match[2]))
        return match[1] + posixpath.relpath(target, here or ".")

    return _LINK.sub(link, markdown)


def _target(name: str, link: str) -> str:
    """What a link in one of the repository's files leads to, as a path in the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link))


def _in_site(name: str) -> str:
    """Where the site has one of the repository's files."""
    return name.removeprefix("docs/") if name.startswith("docs/") else f"{FOLDER}/{name}"


def _in_repository(uri: str) -> str:
    """The reverse."""
    inside = uri.startswith(f"{FOLDER}/")
    return uri.removeprefix(f"{FOLDER}/") if inside else f"docs/{uri}"
