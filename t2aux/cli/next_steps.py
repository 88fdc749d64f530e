"""The suggested next commands that a command prints at its end, ready to paste."""

from __future__ import annotations

import itertools
import os
import pathlib
import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from t2aux_ondevice.preprocessing import DatasetInfo

# Placeholder for what no command can know.
YOUR_DATA = "YOUR_DATA"
# The flags that select the data; training on it needs them, too.
_OF_DATA = ("gin_search_path", "gin_param", "data_dir", "label_column", "text_column", "encoding")
# The complete configuration to start with and the source that it reads, by the kind of the data.
_STARTS = {
    "image": ("images", "image_folder"),
    "text": ("texts", "csv"),
    "vectors": ("sequences", "series"),
}
_OTHER_START = ("quickstart", "digits")


def command(name: str, **given: object) -> str:
    """Builds a command line.

    Args:
        name: The name of the command.
        **given: The flags and their values: a list for a repeated flag, True for a flag without a
            value, and None or an empty list for one to leave out.

    Returns:
        "t2aux NAME --FLAG=VALUE ...", quoted where a shell needs it.
    """
    words = ["t2aux", name]
    for flag, value in given.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        for v in values:
            if v is not None:
                words.append(f"--{flag}" if v is True else f"--{flag}={_quoted(str(v))}")
    return " ".join(words)


def show(*commands: str) -> None:
    """Prints the next commands to standard output."""
    print(text(*commands), flush=True)


def text(*commands: str) -> str:
    """The text that `show` prints."""
    heading = "Next:"
    if any(YOUR_DATA in line for line in commands):
        heading = f"Next ({YOUR_DATA} is a file or a folder of yours):"
    return "\n".join(["", heading, *(f"  {line}" for line in commands)])


def of_training(model_dir: str) -> list[str]:
    """The next commands after training."""
    return [command("evaluate", model_dir=model_dir), *of_evaluation(model_dir)]


def of_evaluation(model_dir: str) -> list[str]:
    """The next commands after an evaluation."""
    name = pathlib.Path(model_dir).resolve().name
    return [
        predict(model_dir),
        command("export", model_dir=model_dir, export_dir=os.path.join("exports", name)),
    ]


def of_export(version: pathlib.Path) -> list[str]:
    """The next commands after an export: the uses of its files.

    Args:
        version: The folder of the exported version.
    """
    tflite = sorted(version.glob("classifier*.tflite"), key=lambda path: len(path.name))
    commands = [predict(str(tflite[0] if tflite else version.parent))]
    if (version / "saved_model.pb").exists():
        commands.append(command("serve", model_base_path=version.parent))
    return commands


def predict(model: str) -> str:
    """The command that uses a model."""
    return command("predict", model=model, data=YOUR_DATA, output="predictions.csv")


def of_data(source: str | None, info: DatasetInfo) -> list[str]:
    """The commands that train on the data of the command line, with its flags.

    Args:
        source: The name of the data source; None if --gin_file names it.
        info: The description of the data.
    """
    given = {name: flags.FLAGS[name].value for name in _OF_DATA if name in flags.FLAGS}
    return [_training(flags.FLAGS.gin_file, source, info, given)]


def of_shards(folder: str, info: DatasetInfo) -> list[str]:
    """The commands that train on shards that were written.

    Args:
        folder: The folder of the shards.
        info: The description of the data.
    """
    return [_training([], "shards", info, {"data_dir": folder})]


def _training(
    gin_files: Sequence[str], source: str | None, info: DatasetInfo, given: dict[str, object]
) -> str:
    # Imported here because most commands do not need gin.
    from t2aux import config

    start, its_source = _STARTS.get(info.kind, _OTHER_START)
    configured = list(gin_files) or [start]
    settings = []
    if f"datasets/{source}" in config.list_bundled():
        if gin_files or source != its_source:
            configured.append(f"datasets/{source}")
    elif source is not None:
        settings = naming(source)
    given_settings = given.pop("gin_param", None) or []
    return command(
        "train",
        model_dir=_free(os.path.join("runs", re.sub(r"[^\w.-]+", "_", info.name))),
        gin_file=configured,
        gin_param=[*settings, *given_settings],
        **given,
    )


def naming(source: str) -> list[str]:
    """The settings that select a data source, including one without a gin file."""
    from t2aux.data.source import sources

    if source in sources():
        return [f"train.data = @{source}()"]
    return ["train.data = @tfds()", f"tfds.name = {source!r}"]


def _free(folder: str) -> str:
    """The folder or, if it already exists, a new one beside it."""
    numbered = (f"{folder}-{number}" for number in itertools.count(2))
    return next(path for path in itertools.chain([folder], numbered) if not os.path.lexists(path))


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    # Control characters and bytes that are not UTF-8, in the notation of bash and zsh.
    escaped = (
        chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in os.fsencode(word)
    )
    return f"$'{''.join(escaped)}'"
