"""The effective settings of the configurations of rows, however they are written.

A row from an older version or with other gin files is the same row if all effective settings are
the same. A result also stores the settings of its budget, because a file of gin/budgets/ may
change.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Sequence

from t2aux.errors import UserError
from t2aux.reproduce.rows import Configuration

# Configurables that are used without a reference. How a run is saved and logged does not matter.
_ROOTS = ("train", "dataset", "LSTM")
_PAPER = "budgets/paper"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The effective settings of a configuration.

    Attributes:
        in_effect: The parameters of all configurables that it uses, including defaults, as strings
            by name.
        of_budget: The settings of its budget that differ from the paper's, by the name of the macro
            if one sets the parameter.
        error: Why the configuration can't be read, or None.
    """

    in_effect: dict[str, str]
    of_budget: dict[str, str]
    error: str | None = None


def read(configurations: Sequence[Configuration]) -> list[Recipe]:
    """Reads configurations, in a separate process if TensorFlow is not loaded yet.

    Otherwise TensorFlow would remain in the memory of a process that only waits for others.
    """
    wanted = [(list(one.gin_files), list(one.gin_params)) for one in configurations]
    if "tensorflow" in sys.modules:
        return [_read(*one) for one in wanted]
    if not wanted:
        return []
    done = subprocess.run(
        [sys.executable, "-m", "t2aux.reproduce.recipes"],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"Can't read the configurations of rows: {done.stderr}")
    return [Recipe(**one) for one in json.loads(done.stdout.splitlines()[-1])]


def of_flags(flags: Sequence[str], of_budget: dict[str, str] | None = None) -> Configuration:
    """The configuration for flags of `t2aux train`.

    Args:
        flags: The flags, with or without a file of budgets/.
        of_budget: Settings to use instead of that file: its settings at the time of a run.
    """
    named = [re.fullmatch(r"--(gin_file|gin_param)=(.*)", flag, re.DOTALL) for flag in flags]
    files = [match[2] for match in named if match and match[1] == "gin_file"]
    params = [match[2] for match in named if match and match[1] == "gin_param"]
    if of_budget is not None:
        files = [name if not name.startswith("budgets/") else _PAPER for name in files]
        params += [f"{name} = {value}" for name, value in of_budget.items()]
    return Configuration(tuple(files), tuple(params), None)


def _read(gin_files: list[str], gin_params: list[str]) -> Recipe:
    # Imported for the configurables that gin files name.
    import t2aux.training.train  # noqa: F401
    from t2aux import config
    from t2aux.training import settings

    def parsed(files: list[str]) -> tuple[dict[str, str], dict[str, str]]:
        """The effective settings, and the names under which settings are set."""
        config.parse(files, gin_params)
        reached = settings.reached(_ROOTS)
        found, macros = settings.in_effect(reached), settings.macros(reached)
        for name in settings.without_effect(found):
            del found[name]
        return found, {name: macros.get(name, name) for name in settings.bound()}

    with settings.kept():
        try:
            found, names = parsed(gin_files)
            files = [_PAPER if name.startswith("budgets/") else name for name in gin_files]
            paper, paper_names = (found, names) if files == gin_files else parsed(files)
        except UserError as error:
            return Recipe({}, {}, str(error))
    of_budget = {
        # By the name of a macro only if the paper's schedule uses it, too, and not if it is
        # specific to this budget, such as SHORT_EXAMPLES.
        (names[name] if names[name] == paper_names.get(name) else name): value
        for name, value in found.items()
        if name in names and value != paper.get(name)
    }
    return Recipe(found, of_budget)


def main() -> None:
    """Reads configurations from stdin and writes their recipes to stdout, as JSON."""
    from t2aux import logs

    logs.quiet_tensorflow()
    found = [dataclasses.asdict(_read(*one)) for one in json.load(sys.stdin)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
