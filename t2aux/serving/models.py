"""The models that are served: which versions there are, and which take requests."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import pathlib
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Executor

from absl import logging

from t2aux.errors import UserError
from t2aux.serving.metrics import Metrics
from t2aux.serving.servable import Servable
from t2aux.serving.status import ServingError, invalid

# The states of a version, as in TensorFlow Serving's ModelVersionStatus.
LOADING, AVAILABLE, UNLOADING, END = "LOADING", "AVAILABLE", "UNLOADING", "END"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A model to serve.

    Attributes:
        name: What clients call it.
        base_path: With a folder for each version, named by its number.
        latest: How many of the newest versions are served; ignored where `specific` is given.
        specific: The versions that are served; empty: the latest. None: all.
        labels: Versions by names that clients may give instead of their numbers.
    """

    name: str
    base_path: pathlib.Path
    latest: int = 1
    specific: tuple[int, ...] | None = ()
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def aspired(self) -> dict[int, pathlib.Path]:
        """The versions that should be served, of those that are there, in rising order.

        Each with its folder, whose name may begin with zeros.
        """
        try:
            entries = list(self.base_path.iterdir())
        except OSError as error:
            reason = error.strerror or error
            logging.warning("Can't read the versions of %s: %s.", self.name, reason)
            return {}
        folders = {int(p.name): p for p in sorted(entries) if p.name.isdecimal() and p.is_dir()}
        found = sorted(folders)
        if self.specific:
            found = [version for version in found if version in self.specific]
        elif self.specific is not None:
            found = found[-self.latest :]
        return {version: folders[version] for version in found}


@dataclasses.dataclass
class Version:
    """A version of a model.

    Attributes:
        number: Its number.
        state: See above.
        error: Why it is not served, where it could not be loaded.
        servable: Where it is AVAILABLE or UNLOADING.
        in_flight: How many requests it answers just now.
        idle: Set while there are none.
    """

    number: int
    state: str = LOADING
    error: ServingError | None = None
    servable: Servable | None = None
    in_flight: int = 0
    idle: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Starts without requests."""
        self.idle.set()


class Models:
    """Loads what should be served, and unloads what should no longer be."""

    def __init__(self, configs: Sequence[ModelConfig], loader: Executor, metrics: Metrics) -> None:
        """Serves nothing yet; see `poll`.

        Args:
            configs: The models.
            loader: Where versions are loaded, beside the threads that answer requests.
            metrics: Told of versions.
        """
        self._configs = {config.name: config for config in configs}
        self._loader = loader
        self._metrics = metrics
        self._versions: dict[str, dict[int, Version]] = {name: {} for name in self._configs}
        # What could not be loaded is tried again when it has changed.
        self._tried: dict[tuple[str, int], float] = {}
        self._unloading: set[asyncio.Task] = set()

    @property
    def names(self) -> list[str]:
        """Of the models."""
        return list(self._configs)

    def versions(self, name: str) -> list[Version]:
        """All versions that there were, the newest first. Raises ServingError: no such model."""
        if name not in self._versions:
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {name}")
        return [v for _, v in sorted(self._versions[name].items(), reverse=True)]

    def available(self, name: str) -> list[int]:
        """The versions of a model that take requests, in rising order."""
        return sorted(n for n, v in self._versions[name].items() if v.state == AVAILABLE)

    def labelled(self, name: str, label: str) -> int:
        """The version that a label of a model stands for. Raises ServingError."""
        config = self._configs.get(name)
        if config is None or label not in config.labels:
            raise invalid(f"Unrecognized servable version label: {label}")
        return config.labels[label]

    @contextlib.asynccontextmanager
    async def using(self, name: str, version: int | None) -> AsyncIterator[Servable]:
        """A servable that stays loaded until the block ends.

        Args:
            name: The model's.
            version: Its number; None: the newest that takes requests.

        Raises:
            ServingError: There is none.
        """
        asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        known = self._versions.get(name, {})
        if version is None:
            version = max((n for n, v in known.items() if v.state == AVAILABLE), default=None)
        found = known.get(version) if version is not None else None
        if found is None or found.state != AVAILABLE or found.servable is None:
            raise ServingError("NOT_FOUND", f"Servable not found for request: {asked}")
        found.in_flight += 1
        found.idle.clear()
        try:
            yield found.servable
        finally:
            found.in_flight -= 1
            if not found.in_flight:
                found.idle.set()

    async def poll(self) -> None:
        """Looks for versions once: loads new ones, then unloads those they replace."""
        for name, config in self._configs.items():
            aspired = config.aspired()
            if not aspired:
                continue  # What is served goes on.
            for number, directory in aspired.items():
                await self._ensure(config, number, directory)
            # An old version goes when there is one that takes its place.
            if aspired.keys() & set(self.available(name)):
                for number in set(self.available(name)) - aspired.keys():
                    self._retire(name, self._versions[name][number])

    async def close(self) -> None:
        """Unloads everything, after the requests in flight."""
        for name in self._configs:
            for number in self.available(name):
                self._retire(name, self._versions[name][number])
        await asyncio.gather(*self._unloading)

    def check(self) -> None:
        """Raises UserError for a model of which nothing could be loaded."""
        for name, config in self._configs.items():
            if self.available(name):
                continue
            errors = [v.error.message for v in self.versions(name) if v.error is not None]
            why = errors[0] if errors else f"{config.base_path} has no version to serve"
            raise UserError(
                f"The model {name} can't be served: {why.rstrip('.')}. Give the directory that "
                "`t2aux export --export_dir` made, with a folder for each version."
            )

    async def _ensure(self, config: ModelConfig, number: int, directory: pathlib.Path) -> None:
        known = self._versions[config.name].get(number)
        if known is not None and known.state in (AVAILABLE, LOADING):
            return
        try:
            changed = (directory / "saved_model.pb").stat().st_mtime
        except OSError:
            changed = 0.0
        if self._tried.get((config.name, number)) == changed and known is not None and known.error:
            return
        self._tried[config.name, number] = changed
        version = self._versions[config.name][number] = Version(number)
        loop = asyncio.get_running_loop()
        try:
            version.servable, warmed = await loop.run_in_executor(
                self._loader, _loaded, config.name, number, directory
            )
        except ServingError as error:
            version.state, version.error = END, error
            logging.error("Can't serve version %d of %s: %s", number, config.name, error.message)
            return
        version.state = AVAILABLE
        self._metrics.loaded(config.name, number, True)
        logging.info("Serving version %d of %s (%d warm-up requests).", number, config.name, warmed)

    def _retire(self, name: str, version: Version) -> None:
        """New requests no longer get the version; it is unloaded after those in flight."""
        version.state = UNLOADING
        self._metrics.loaded(name, version.number, False)

        async def unload() -> None:
            await version.idle.wait()
            version.servable, version.state = None, END
            gc.collect()
            logging.info("Unloaded version %d of %s.", version.number, name)

        task = asyncio.ensure_future(unload())
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)


def _loaded(name: str, number: int, directory: pathlib.Path) -> tuple[Servable, int]:
    servable = Servable(name, number, directory)
    return servable, servable.warm_up()
