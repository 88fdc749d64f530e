"""The commands of docs/beam.md: their flags are t2aux's, and what follows -- are Beam's options."""

import re
import shlex

import pytest

from t2aux.pipelines import runners
from tests.cli_helpers import ROOT, t2aux
from tests.readme_commands import of

COMMANDS = [
    shlex.split(command)
    for command in of((ROOT / "docs" / "beam.md").read_text(encoding="utf-8"))
    if " -- " in command
]


@pytest.fixture(scope="module")
def flags():
    """The help of the two commands."""
    return {name: t2aux(name, "--help").stdout for name in ("predict", "data")}


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_flags_and_options_are_known(words, flags):
    assert len(COMMANDS) >= 5
    end = words.index("--")
    given = [word for word in words[:end] if word.startswith("--")]
    for flag in given:
        assert f"  {flag.partition('=')[0]}=" in flags[words[1]], flag
    (name,) = [flag.partition("=")[2] for flag in given if flag.startswith("--runner=")]
    # Names as Google has them.
    written = {"BUCKET": "bucket", "PROJECT": "a-project"}
    options = tuple(
        re.sub("BUCKET|PROJECT", lambda match: written[match[0]], word) for word in words[end + 1 :]
    )
    assert runners.unknown_options(options)[0] == []
    # Nothing that the runner needs is missing.
    runners.Runner(name, options).pipeline_options()
