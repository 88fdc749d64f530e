"""What a run is: its data and its settings. Kept in run.json, and compared before it is resumed.

run.json holds:

  format, version  "t2aux-run", 1
  data             for "train" and "test" a `Fingerprint`; also for "validation", where that is a
                   split of its own
  settings         the parameters of all that the run is made of, by name, as texts
  changes          for each time that settings were changed on resuming (`--allow_changes`) the step
                   and, by name, the old and the new value

Runs of versions without run.json are compared by their config.gin and dataset.json.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from t2aux import config_older, data, files
from t2aux.data.loading import SPLITS
from t2aux.data.source import sources
from t2aux.errors import ModelError, SettingError, shorten
from t2aux.training import checkpoints, settings
from t2aux.training.fingerprint import Fingerprint
from t2aux.training.schedule import Phase
from t2aux_ondevice.preprocessing import DatasetInfo

FILE = "run.json"
_FORMAT, _VERSION = "t2aux-run", 1
# What does not change what is learned: how a run is logged, saved and spread over devices.
_FREE = {"train.run_config"}
_FREE_CONFIGURABLES = {"MirroredStrategy", "MultiWorkerMirroredStrategy", "RunConfig"}
# With a validation set it decides which checkpoint is the best.
_FREE_WITHOUT_VALIDATION = "train.evaluate_every"
_NORMALIZE = "train.normalize"
# What --allow_changes lets change: the schedule, the optimizer's parameters, the losses' weights.
_CHANGEABLE = {
    *("Phase.epochs", "Phase.min_updates", "Phase.learning_rate"),
    *("Phase.decay_factor", "Phase.decay_epochs", "Phase.decay_schedule"),
    *("train.clip_norm", "train.patience", _FREE_WITHOUT_VALIDATION),
}
_CHANGEABLE_CONFIGURABLES = {"RMSprop", "Adam", "AdamW", "SGD"}
# The data itself is compared; these say where and in which form it lies.
_DATA = "train.data"
_PLACE = {"dataset.data_dir", _DATA}
# Of the data's settings, this alone decides more than the data: the order of the batches.
_ORDER = "dataset.bucket_batches"
_MAX_SHOWN = 60


@dataclasses.dataclass(frozen=True)
class Difference:
    """What a run was trained with, and what a command gives instead.

    Attributes:
        name: The setting's name, or what it is of the data.
        old: A text; "" where it can't be shown.
        new: A text; likewise.
        changeable: Whether a run can be resumed with it.
    """

    name: str
    old: str
    new: str
    changeable: bool = False

    def __str__(self) -> str:
        if not (self.old or self.new):
            return f"{self.name} differ"
        return f"{self.name}: {shorten(self.old)} -> {shorten(self.new)}"


class Identity:
    """The data and the settings that a command gives, beside those of the run in a directory."""

    def __init__(
        self,
        directory: pathlib.Path,
        splits: Mapping[str, data.Split],
        examples: int,
        folder: pathlib.Path | None,
    ) -> None:
        """Reads what the directory has.

        Args:
            directory: The run directory.
            splits: What was read, by name: "train" and "test", and "validation" where that is a
                split of its own.
            examples: How many examples are trained on.
            folder: Where the data lies, if it lies in a folder.

        Raises:
            UserError: run.json is damaged.
        """
        self._directory = directory
        self._info = splits["train"].info
        self._data = {name: Fingerprint(split, name, folder) for name, split in splits.items()}
        self._examples = examples
        self._configurables = settings.called()
        self._settings = settings.in_effect(self._configurables)
        self._checkpoint = checkpoints.newest(directory / "checkpoints").path
        self._stored = _read(directory / FILE) if self._checkpoint else None
        self._changes: list[dict[str, Any]] = []

    @property
    def begins(self) -> bool:
        """Whether the run has no checkpoint yet, so that nothing was learned with other data."""
        return self._checkpoint is None

    def check(
        self, phases: Sequence[Phase], steps_per_epoch: int, *, allow_changes: bool
    ) -> list[str]:
        """Compares what the command gives with what the run was trained with. Writes nothing.

        Args:
            phases: The command's.
            steps_per_epoch: The command's.
            allow_changes: Whether changes of the schedule, of the optimizer's parameters and of the
                losses' weights are accepted.

        Returns:
            The changes that are accepted, for the log.

        Raises:
            UserError: There are other differences, and all are in the message; or a phase that is
                over, or further, would get another number of epochs.
        """
        if self._checkpoint is None:
            return []
        found = [*self._of_data(), *self._of_settings()]
        if not found:
            return []
        if not allow_changes or not all(difference.changeable for difference in found):
            raise ModelError(self._refusal(found, allow_changes=allow_changes))
        position = _position(self._checkpoint)
        _check_epochs(phases, position, steps_per_epoch)
        changed = {d.name: {"old": d.old, "new": d.new} for d in found}
        self._changes = [{"step": position["step"], "settings": changed}]
        return [str(difference) for difference in found]

    def write(self, config_text: str) -> None:
        """Writes config.gin, dataset.json and run.json.

        Raises:
            UserError: A file can't be written.
        """
        if config_text:
            with files.atomic_write(self._directory / "config.gin") as file:
                file.write(config_text)
        if self.begins or not (self._directory / "dataset.json").exists():
            files.write_json(self._directory / "dataset.json", self._info.to_json())
        stored = self._stored or {"data": {}, "changes": []}
        known = {name: stored["data"].get(name) for name in self._data}
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "data": {name: found.to_json(known[name]) for name, found in self._data.items()},
            "settings": self._settings,
            "changes": [*stored["changes"], *self._changes],
        }
        files.write_json(self._directory / FILE, content)

    def _of_data(self) -> list[Difference]:
        found = []
        path = self._directory / "dataset.json"
        if path.is_file():
            old = DatasetInfo.from_json(files.read_json(path, ModelError))
            for field in dataclasses.fields(old):
                was, now = getattr(old, field.name), getattr(self._info, field.name)
                # The same data may have come in another form, which gives it another name.
                if was != now and (field.name != "name" or self._stored is None):
                    found.append(_of_values(f"the data's {field.name}", was, now))
        stored = self._stored["data"] if self._stored else self._of_checkpoint()
        for name, fingerprint in self._data.items():
            what = "training" if name == "train" else name
            for part in fingerprint.differences(stored[name]) if name in stored else ():
                if part == "examples":
                    was, now = str(stored[name]["examples"]), str(fingerprint.examples)
                    found.append(Difference(f"the number of {what} examples", was, now))
                else:
                    found.append(Difference(f"the {part} of the {what} examples", "", ""))
        return found

    def _of_checkpoint(self) -> dict[str, Any]:
        """What the checkpoint of an older version holds about the data."""
        examples = _position(self._checkpoint)["examples"]
        if examples == self._examples:
            return {}  # Where some are held out, those that were read are more.
        unknown = dict.fromkeys(("labels", "lengths", "values", "files"))
        return {"train": {"examples": examples, **unknown}}

    def _of_settings(self) -> list[Difference]:
        default = settings.defaults(self._configurables)
        config = self._directory / "config.gin"
        if self._stored is not None:
            old = config_older.stored_settings(self._stored["settings"])
        elif config.is_file():
            old = settings.in_effect_in_file(config, self._configurables)
        else:
            return []
        macros = settings.macros(self._configurables)
        shared = {_configurable(name) for name in old} & {_configurable(n) for n in self._settings}
        found = []
        for name in dict.fromkeys([*self._settings, *old]):
            if _configurable(name) not in shared or not self._counts(name, old):
                continue
            # What one of two versions does not have is as it was before there was a choice.
            was = old.get(name, default.get(name, self._settings.get(name)))
            now = self._settings.get(name, was)
            if was != now:
                shown = f"{name} ({macros[name]})" if name in macros else name
                found.append(Difference(shown, was, now, _is_changeable(name)))
        return found

    def _counts(self, name: str, old: Mapping[str, str]) -> bool:
        """Whether a difference in a setting is one of the run."""
        plain = name.rpartition("/")[2]
        configurable = plain.partition(".")[0]
        if plain == _FREE_WITHOUT_VALIDATION:
            return self._settings.get("train.validation", "None") != "None"
        if plain in settings.without_effect(self._settings):
            return False
        if plain == _NORMALIZE and self._stored is not None and plain not in old:
            return False  # A run of a version that never normalised, and is resumed so.
        if plain in _FREE or plain in _PLACE or configurable in _FREE_CONFIGURABLES:
            return False
        if plain == _ORDER or not (configurable == "dataset" or configurable in sources()):
            return True
        # The data was compared by its content, but for the runs of older versions.
        return self._stored is None and old.get(_DATA) == self._settings.get(_DATA)

    def _refusal(self, found: Sequence[Difference], *, allow_changes: bool) -> str:
        ordered = sorted(found, key=lambda difference: difference.changeable)
        changeable = sum(difference.changeable for difference in found)
        hint = ""
        if changeable and not allow_changes:
            hint = f" (--allow_changes accepts the last {changeable} of them from here on)"
        return (
            f"The run in {self._directory} was trained with other data or settings than this "
            f"command gives; set them back, or give another --model_dir{hint}: "
            f"{'; '.join(map(str, ordered))}."
        )


def differs_from_trained(
    directory: pathlib.Path, name: str, split: data.Split, folder: pathlib.Path | None
) -> bool | None:
    """Whether a split has other content than the one that a run was trained with.

    Args:
        directory: The run directory.
        name: "train", "test" or, where it is a separate split, "validation".
        split: The split, read as the run reads it.
        folder: Where the data lies, if it lies in a folder.

    Returns:
        None where it is not known: a run of an older version has no run.json.

    Raises:
        UserError: run.json is damaged.
    """
    stored = _read(directory / FILE)
    if stored is None or name not in stored["data"]:
        return None
    return bool(Fingerprint(split, name, folder).differences(stored["data"][name]))


def splits_of(directory: pathlib.Path) -> tuple[str, ...] | None:
    """The splits that a run has read, "validation" where that is a separate split.

    Args:
        directory: The run directory.

    Returns:
        None where it is not known: there is no run.json.

    Raises:
        UserError: run.json is damaged.
    """
    stored = _read(directory / FILE)
    return None if stored is None else tuple(stored["data"])


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    """Reads run.json; None: there is none. Raises UserError if it is damaged."""
    if not path.exists():
        return None
    found = files.read_json(path, ModelError)
    try:
        if (found["format"], found["version"]) != (_FORMAT, _VERSION):
            raise ValueError("it is of another version")
        texts = [*found["settings"], *found["settings"].values()]
        parts = [found["data"][name] for name in {*SPLITS, *found["data"]}]
        known = all(
            type(part["examples"]) is int
            and all(
                isinstance(part[name], (str, type(None)))
                for name in ("labels", "lengths", "values", "files")
            )
            for part in parts
        )
        if not known or not all(isinstance(t, str) for t in texts):
            raise ValueError("an entry is of the wrong type")
        if not isinstance(found["changes"], list):
            raise ValueError("its changes are not a list")
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{path} is damaged ({error}): put back a copy of it, or remove it; config.gin and "
            "dataset.json are then compared alone."
        ) from error
    return found


def _position(checkpoint: str) -> dict[str, int]:
    """What a checkpoint says of where the run is."""
    with checkpoints.for_tensorflow(checkpoint) as path:
        reader = tf.train.load_checkpoint(path)
        return {
            name: int(reader.get_tensor(f"position/{name}/.ATTRIBUTES/VARIABLE_VALUE"))
            for name in ("step", "phase", "epoch", "batch", "examples")
        }


def _check_epochs(
    phases: Sequence[Phase], position: Mapping[str, int], steps_per_epoch: int
) -> None:
    """Raises UserError where the epochs that were trained would no longer be those of the phases.

    A step's number says which epoch it belongs to.
    """
    index, epoch, batch = position["phase"], position["epoch"], position["batch"]
    over = (position["step"] - batch) // steps_per_epoch - epoch
    now = sum(phase.epochs for phase in phases[:index])
    if now != over:
        names = ", ".join(phase.name for phase in phases[:index])
        raise SettingError(
            f"Phase.epochs of phases that are over can't change: {names} had {over} epochs and "
            f"would have {now}. Set them back."
        )
    begun = epoch + (batch > 0)
    if phases[index].epochs < begun:
        raise SettingError(
            f"Phase.epochs of {phases[index].name} is {phases[index].epochs}, but {begun} of them "
            f"have begun: set it to at least {begun}."
        )


def _configurable(name: str) -> str:
    return name.rpartition(".")[0]


def _is_changeable(name: str) -> bool:
    plain = name.rpartition("/")[2]
    configurable, _, parameter = plain.partition(".")
    return (
        plain in _CHANGEABLE or configurable in _CHANGEABLE_CONFIGURABLES or parameter == "weight"
    )


def _of_values(name: str, old: Any, new: Any) -> Difference:
    """The difference of two values; of long tuples, from where they differ."""
    if isinstance(old, tuple) and isinstance(new, tuple):
        if len(old) != len(new):
            name = f"{name} ({len(old)} -> {len(new)})"
        if len(repr(old)) > _MAX_SHOWN or len(repr(new)) > _MAX_SHOWN:
            both = enumerate(zip(old, new, strict=False))
            first = next((i for i, (a, b) in both if a != b), min(len(old), len(new)))
            name = f"{name} from number {first} on"
            old, new = old[first:], new[first:]
        return Difference(name, ", ".join(map(repr, old)), ", ".join(map(repr, new)))
    return Difference(name, repr(old), repr(new))
