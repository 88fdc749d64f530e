"""README and docs/: their links lead somewhere, their sentences are short, the README is, too.

`make docs` checks the links of the site that is made of them; this needs no program for that.
"""

import re

import pytest
import yaml

from tests.cli_helpers import ROOT
from tests.readme_commands import PAGES, WRITTEN

LONGEST_SENTENCE = 30  # words
LONGEST_README = 150  # lines


def name(page):
    return page.relative_to(ROOT).as_posix()


def without_code(text):
    """The text without its blocks of code; a span of code is one word."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE)
    return re.sub(r"`[^`]+`", "`code`", text)


def sentences(text):
    """The sentences of paragraphs and of list items, as lists of words.

    Not those of headings, tables and the API's directives. A sentence ends at a stop before a
    capital, a digit, a quotation, or what is emphasised or code.
    """
    text = re.sub(r"^(#|\||:::|<).*$", "", without_code(text), flags=re.MULTILINE)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^\s*(?:[-*]|\d+\.) ", "\n\n", text, flags=re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in re.split(r"(?<=[.!?])[)*\"”]*\s+(?=[A-Z0-9*`(\"“])", paragraph.strip()):
            words = [word for word in sentence.split() if re.search(r"\w", word)]
            if words:
                yield words


def headings(page):
    """What GitHub and the site call a page's headings in links, and objects of the API."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        yield re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page):
    links = re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", without_code(page.read_text("utf-8")))
    for link in links:
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{link}: the file does not exist"
        assert target.is_relative_to(ROOT), link
        assert not heading or heading in headings(target), f"{link}: the heading does not exist"


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_no_sentence_is_long(page):
    long = [" ".join(s) for s in sentences(page.read_text("utf-8")) if len(s) > LONGEST_SENTENCE]
    assert not long, "\n".join(long)


def test_the_checks_find_what_they_look_for(tmp_path):
    words = " ".join(["word"] * 31)
    text = f"# {words}\n\n| {words} |\n\n- Short `{words}`.\n- {words}. It (`x`) is. `t2aux` too."
    assert sorted(map(len, sentences(f"{text}\n\n```\n{words}\n```\n"))) == [2, 2, 3, 31]
    page = tmp_path / "page.md"
    page.write_text("# Is the `rows` real, too?\n\n```\n# no heading\n```\n", "utf-8")
    assert list(headings(page)) == ["is-the-rows-real-too"]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= LONGEST_README


def test_the_site_has_every_page_once():
    class Loader(yaml.SafeLoader):
        """Knows Python's objects by their names alone."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    settings = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader)

    def leaves(entry):
        if isinstance(entry, str):
            return [entry]
        entries = entry if isinstance(entry, list) else entry.values()
        return [leaf for one in entries for leaf in leaves(one)]

    listed = leaves(settings["nav"])
    assert len(listed) == len(set(listed))
    own = {leaf for leaf in listed if not leaf.startswith("repository/")}
    assert own == {page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]}
    for leaf in set(listed) - own:
        assert (ROOT / leaf.removeprefix("repository/")).is_file(), leaf
