"""The commands that a document shows: fenced or indented blocks, and those between the lines."""

import re

from tests.cli_helpers import ROOT

PROGRAMS = ("t2aux", "t2aux-ondevice", "python", "pip", "make", "export", "docker", "kubectl")
PROGRAMS += ("build/classify", "source", "curl")


# `t2aux report` writes them, with the commands that made their results.
GENERATED = sorted((ROOT / "docs").glob("results*.md"))
# The README and the pages of docs/.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = [page for page in PAGES if page not in GENERATED]


def documents():
    """The text of the README and, after it, of docs/."""
    return "\n\n".join(page.read_text(encoding="utf-8") for page in WRITTEN)


def of(text):
    """All commands, in the order in which they stand; comments are kept."""
    found = []
    fenced = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    indented = re.compile(r"(?:^(?: {4}.*)?\n)+", re.MULTILINE)
    for pattern in (fenced, indented):
        for match in pattern.finditer(text):
            found += [((match.start(), i), line) for i, line in enumerate(_lines(match[0]))]
        text = pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    for match in re.finditer(r"`([^`]+)`", text):
        span = " ".join(match[1].split())
        if (_begins(span) and " " in span) or (span.startswith(("... ", "--")) and "=" in span):
            found.append(((match.start(), 0), span))
    return list(dict.fromkeys(command for _, command in sorted(found)))


def gin_files(text):
    """The bundled gin files that are named between the lines."""
    named = re.findall(
        r"`(?:[^`]*--gin_file=)?((?:datasets|models|cores|training|budgets|paper)/\w+)", text
    )
    return list(dict.fromkeys(named))


def _begins(line):
    word = line.split(" ")[0]
    return word in PROGRAMS or word.startswith("EXPORT_DIR=")


def _lines(block):
    """All lines of a block that begins with a command, else those that do."""
    lines = re.sub(r"\\\n\s*", "", block).splitlines()
    lines = [line.strip() for line in lines if not line.startswith("```")]
    lines = [line for line in lines if line and not line.startswith("#")]
    return lines if lines and _begins(lines[0]) else [line for line in lines if _begins(line)]
