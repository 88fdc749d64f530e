"""The identity of a run, its data and settings: stored in run.json and checked before resuming.

run.json holds:

  format, version  "t2aux-run", 1
  data             a `Fingerprint` each for "train" and "test", and for "validation" if that is a
                   separate split
  settings         the parameters of everything that the run uses, by name, as strings
  changes          for each change of settings on resuming (`--allow_changes`), the step and, by
                   name, the old and the new value

Runs of older versions without run.json are compared by their config.gin and dataset.json.
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
# Settings that do not affect the result: how a run is logged, saved and distributed over devices.
_FREE = {"train.run_config"}
_FREE_CONFIGURABLES = {"MirroredStrategy", "MultiWorkerMirroredStrategy", "RunConfig"}
# With a validation set, it affects which checkpoint is the best.
_FREE_WITHOUT_VALIDATION = "train.evaluate_every"
_NORMALIZE = "train.normalize"
# Settings that --allow_changes permits to change: schedule, optimizer parameters, loss weights.
_CHANGEABLE = {
    *("Phase.epochs", "Phase.min_updates", "Phase.learning_rate"),
    *("Phase.decay_factor", "Phase.decay_epochs", "Phase.decay_schedule"),
    *("train.clip_norm", "train.patience", _FREE_WITHOUT_VALIDATION),
}
_CHANGEABLE_CONFIGURABLES = {"RMSprop", "Adam", "AdamW", "SGD"}
# The data itself is compared; these settings give its place and form.
_DATA = "train.data"
_PLACE = {"dataset.data_dir", _DATA}
# The only setting of the data that affects more than the data itself: the order of the batches.
_ORDER = "dataset.bucket_batches"
_MAX_SHOWN = 60


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference between what a run was trained with and what a command sets.

    Attributes:
        name: The name of the setting, or of the property of the data.
        old: The old value as a string; "" if it can't be shown.
        new: The new value as a string; "" if it can't be shown.
        changeable: Whether a run can be resumed with the new value.
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
    """Compares the data and settings of a command with those of the run in a directory."""

    def __init__(
        self,
        directory: pathlib.Path,
        splits: Mapping[str, data.Split],
        examples: int,
        folder: pathlib.Path | None,
    ) -> None:
        """Reads the identity of the run in the directory.

        Args:
            directory: The run directory.
            splits: The splits that were read: "train" and "test", and "validation" if that is a
                separate split.
            examples: The number of training examples.
            folder: The folder of the data, if it has one.

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
        """Whether the run has no checkpoint yet, so that data and settings may still change."""
        return self._checkpoint is None

    def check(
        self, phases: Sequence[Phase], steps_per_epoch: int, *, allow_changes: bool
    ) -> list[str]:
        """Compares the command's data and settings with the run's. Writes nothing.

        Args:
            phases: The phases of the command.
            steps_per_epoch: The number of steps per epoch of the command.
            allow_changes: Whether to accept changes of the schedule, the optimizer's parameters
                and the weights of losses.

        Returns:
            The accepted changes, for the log.

        Raises:
            UserError: There are other differences, which are all in the message; or the number of
                epochs would change for a phase that is over or has already begun more epochs.
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
                # The same data may have another name in another form.
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
        """The properties of the data in a checkpoint of an older version."""
        examples = _position(self._checkpoint)["examples"]
        if examples == self._examples:
            return {}  # More were read than are trained on if some are held out.
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
            # A setting that one of the versions does not have is assumed to be its default.
            was = old.get(name, default.get(name, self._settings.get(name)))
            now = self._settings.get(name, was)
            if was != now:
                shown = f"{name} ({macros[name]})" if name in macros else name
                found.append(Difference(shown, was, now, _is_changeable(name)))
        return found

    def _counts(self, name: str, old: Mapping[str, str]) -> bool:
        """Whether a difference in a setting affects the run."""
        plain = name.rpartition("/")[2]
        configurable = plain.partition(".")[0]
        if plain == _FREE_WITHOUT_VALIDATION:
            return self._settings.get("train.validation", "None") != "None"
        if plain in settings.without_effect(self._settings):
            return False
        if plain == _NORMALIZE and self._stored is not None and plain not in old:
            return False  # A run of an older version is resumed without normalisation.
        if plain in _FREE or plain in _PLACE or configurable in _FREE_CONFIGURABLES:
            return False
        if plain == _ORDER or not (configurable == "dataset" or configurable in sources()):
            return True
        # The data was compared by its content, except for runs of older versions.
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
    """Whether the content of a split differs from that of the split that a run used.

    Args:
        directory: The run directory.
        name: "train", "test" or, if it is a separate split, "validation".
        split: The split, read as the run reads it.
        folder: The folder of the data, if it has one.

    Returns:
        None if unknown, because the run is of an older version without run.json.

    Raises:
        UserError: run.json is damaged.
    """
    stored = _read(directory / FILE)
    if stored is None or name not in stored["data"]:
        return None
    return bool(Fingerprint(split, name, folder).differences(stored["data"][name]))


def splits_of(directory: pathlib.Path) -> tuple[str, ...] | None:
    """The splits that a run has read, including "validation" if that is a separate split.

    Args:
        directory: The run directory.

    Returns:
        The names of the splits; None if unknown, because run.json is missing.

    Raises:
        UserError: run.json is damaged.
    """
    stored = _read(directory / FILE)
    return None if stored is None else tuple(stored["data"])


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    """Reads run.json, or returns None if it does not exist. Raises UserError if it is damaged."""
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
    """The position of the run in a checkpoint."""
    with checkpoints.for_tensorflow(checkpoint) as path:
        reader = tf.train.load_checkpoint(path)
        return {
            name: int(reader.get_tensor(f"position/{name}/.ATTRIBUTES/VARIABLE_VALUE"))
            for name in ("step", "phase", "epoch", "batch", "examples")
        }


def _check_epochs(
    phases: Sequence[Phase], position: Mapping[str, int], steps_per_epoch: int
) -> None:
    """Raises UserError if changed phases would assign completed epochs to other phases.

    The epoch of a step follows from its number.
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
    """The difference of two values; long tuples are shown from the first difference on."""
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
