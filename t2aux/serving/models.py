"""The served models: their versions, and which of these accept requests."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import math
import pathlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import Executor
from typing import Any, TypeVar

from absl import logging

from t2aux import files
from t2aux.errors import ModelError
from t2aux.serving import content
from t2aux.serving.metrics import Metrics
from t2aux.serving.servable import Servable
from t2aux.serving.status import ServingError, invalid

_T = TypeVar("_T")

# The states of a version, as in TensorFlow Serving's ModelVersionStatus.
LOADING, AVAILABLE, UNLOADING, END = "LOADING", "AVAILABLE", "UNLOADING", "END"
# TensorFlow Serving's versions have 64 bits.
_MAX_VERSION = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A model to serve.

    Attributes:
        name: The model's name for clients.
        base_path: A folder with a subfolder for each version, named by its number.
        latest: The number of newest versions to serve; ignored if `specific` is given.
        specific: The versions to serve; empty for the latest, None for all.
        labels: Versions by labels that clients may use instead of numbers.
    """

    name: str
    base_path: pathlib.Path
    latest: int = 1
    specific: tuple[int, ...] | None = ()
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def folders(self) -> dict[int, pathlib.Path]:
        """The existing versions, in increasing order. Folder names may begin with zeros.

        Raises:
            OSError: The base path can't be read.
        """
        entries = sorted(self.base_path.iterdir())
        found = {int(p.name): p for p in entries if files.is_version(p.name) and p.is_dir()}
        return {number: found[number] for number in sorted(found) if number <= _MAX_VERSION}

    def aspired(self, folders: Mapping[int, pathlib.Path]) -> dict[int, pathlib.Path]:
        """The versions among `folders` that should be served."""
        if self.specific is None:
            return dict(folders)
        found = [v for v in folders if v in self.specific]
        if not self.specific:
            found = list(folders)[-self.latest :]
        return {version: folders[version] for version in found}


@dataclasses.dataclass(frozen=True)
class LoadRetries:
    """When to retry loading a failed version. If its files change, it is retried immediately.

    Attributes:
        first_pause: The pause after the first failure, in seconds; later pauses double.
        max_pause: The longest pause, in seconds.
        max_retries: The maximum number of retries; None to retry as long as the version exists.
    """

    first_pause: float = 1.0
    max_pause: float = 60.0
    max_retries: int | None = None

    def pause(self, failures: int) -> float:
        """The time in seconds until the next attempt, after `failures` failures."""
        if self.max_retries is not None and failures > self.max_retries:
            return math.inf
        # A larger power would overflow.
        return min(self.first_pause * 2.0 ** min(failures - 1, 60), self.max_pause)


@dataclasses.dataclass
class Version:
    """A version of a model.

    Attributes:
        number: The version's number.
        state: One of the states above.
        error: Why it could not be loaded.
        servable: The loaded version, if it is AVAILABLE or UNLOADING.
        in_flight: The number of requests that it is answering.
        idle: An event that is set while there are no requests.
    """

    number: int
    state: str = LOADING
    error: ServingError | None = None
    servable: Servable | None = None
    in_flight: int = 0
    idle: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Marks the version as idle."""
        self.idle.set()


@dataclasses.dataclass
class _Folder:
    """What is known about a version's folder.

    Attributes:
        seen: Its files at the last look.
        served: Its files when the served version was loaded.
        digest: The digest of the served files; "" for none.
        failures: How many times these files could not be loaded.
        next_try: The time of the next attempt, see `time.monotonic`.
        logged: The last reason that was logged.
    """

    seen: content.Look | None = None
    served: content.Look | None = None
    digest: str = ""
    failures: int = 0
    next_try: float = 0.0
    logged: str = ""


@dataclasses.dataclass(frozen=True)
class _Loaded:
    digest: str
    servable: Servable | None = None  # None: the one that is already served.
    warmed: int = 0


class Models:
    """Loads the versions that should be served, and unloads the others."""

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        loader: Executor,
        metrics: Metrics,
        retries: LoadRetries | None = None,
    ) -> None:
        """Serves nothing yet; see `poll`.

        Args:
            configs: The models.
            loader: Loads versions, separately from the threads that answer requests.
            metrics: Counts the loaded versions.
            retries: When to retry loading a version.
        """
        self._configs = {config.name: config for config in configs}
        self._loader = loader
        self._metrics = metrics
        self._versions: dict[str, dict[int, Version]] = {name: {} for name in self._configs}
        self._folders: dict[tuple[str, int], _Folder] = {}
        self._retries = retries or LoadRetries()
        self._unreadable: dict[str, str] = {}
        self._unloading: set[asyncio.Task] = set()

    @property
    def names(self) -> list[str]:
        """The names of the models."""
        return list(self._configs)

    def versions(self, name: str) -> list[Version]:
        """All known versions, newest first. Raises ServingError if the model does not exist."""
        if name not in self._versions:
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {name}")
        return [v for _, v in sorted(self._versions[name].items(), reverse=True)]

    def available(self, name: str) -> list[int]:
        """The versions of a model that accept requests, in increasing order."""
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
            name: The model's name.
            version: The number of the version; None for the newest that accepts requests.

        Raises:
            ServingError: The version does not exist.
        """
        request = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        known = self._versions.get(name, {})
        available = [n for n, v in known.items() if v.state == AVAILABLE]
        number = max(available, default=None) if version is None else version
        if number not in available:
            raise ServingError("NOT_FOUND", f"Servable not found for request: {request}")
        found = known[number]
        found.in_flight += 1
        found.idle.clear()
        try:
            yield found.servable
        finally:
            found.in_flight -= 1
            if not found.in_flight:
                found.idle.set()

    async def start(self, pause: float) -> None:
        """Loads all versions. Waits for one that is being copied if a model has no other.

        Args:
            pause: The time in seconds between checks.
        """
        await self.poll()
        waiting: set[str] = set()
        while arriving := {n for n in self._configs if not self.available(n) and self._arriving(n)}:
            for name in arriving - waiting:
                version = self._arriving(name)[-1]
                logging.info("Waiting for version %d of %s to be complete.", version, name)
            waiting |= arriving
            await asyncio.sleep(pause)
            await self.poll()

    async def poll(self) -> None:
        """Checks for versions once: loads new ones, then unloads those that they replace."""
        for name, config in self._configs.items():
            try:
                folders = await self._in_loader(config.folders)
            except OSError as error:  # Loaded versions stay loaded.
                reason = str(error.strerror or error)
                if self._unreadable.get(name) != reason:
                    logging.warning("Can't read the versions of %s: %s.", name, reason)
                    self._unreadable[name] = reason
                continue
            self._unreadable.pop(name, None)
            wanted = config.aspired(folders)
            for number, directory in wanted.items():
                await self._ensure(config, number, directory)
            tried = set(wanted)
            # If the newest one can't be loaded at the start, an older one is served.
            if config.specific == ():
                for number in sorted(folders.keys() - tried, reverse=True):
                    if self.available(name):
                        break
                    await self._ensure(config, number, folders[number])
                    tried.add(number)
            self._forget(name, tried)
            # An old version is unloaded when another has replaced it.
            if wanted.keys() & set(self.available(name)):
                self._unload(name, set(self.available(name)) - wanted.keys())

    async def close(self) -> None:
        """Unloads everything, after the requests in flight."""
        for name in self._configs:
            self._unload(name, self.available(name))
        await asyncio.gather(*self._unloading)

    def check(self) -> None:
        """Raises UserError if no version of a model could be loaded."""
        for name, config in self._configs.items():
            if self.available(name):
                continue
            errors = [v.error.message for v in self.versions(name) if v.error is not None]
            why = errors[0] if errors else f"{config.base_path} has no version to serve"
            raise ModelError(
                f"The model {name} can't be served: {why.rstrip('.')}. Give an --export_dir of "
                "`t2aux export`, with a folder for each version."
            )

    def _arriving(self, name: str) -> list[int]:
        """The versions that are still being copied."""
        return sorted(n for n, v in self._versions[name].items() if v.state == LOADING)

    async def _in_loader(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Runs a function that reads files."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._loader, function, *arguments)

    async def _ensure(self, config: ModelConfig, number: int, directory: pathlib.Path) -> None:
        """Serves a version's folder, unless it is already served, incomplete, or has failed."""
        name = config.name
        folder = self._folders.setdefault((name, number), _Folder())
        version = self._versions[name].get(number)
        is_served = version is not None and version.state == AVAILABLE
        before, seen = folder.seen, await self._in_loader(content.look, directory)
        folder.seen = seen
        if is_served and seen == folder.served:
            folder.failures, folder.logged = 0, ""
            return
        if not is_served and (version is None or version.error is None or seen != before):
            self._versions[name][number] = Version(number)
        if seen != before:
            folder.failures, folder.next_try = 0, 0.0
        elif folder.failures and time.monotonic() < folder.next_try:
            return
        is_quiet = before is not None and seen.files == before.files
        digest = folder.digest if is_served else ""
        try:
            loaded = await self._in_loader(
                self._load, name, number, directory, seen, is_quiet, digest
            )
        except ServingError as error:
            self._failed(name, number, folder, error)
            return
        if loaded is None:
            return  # It is still being copied.
        folder.served, folder.digest, folder.failures, folder.logged = seen, loaded.digest, 0, ""
        if loaded.servable is None:
            return
        if is_served:
            self._retire(name, self._versions[name][number])
        self._versions[name][number] = Version(number, AVAILABLE, servable=loaded.servable)
        self._metrics.loaded(name, number, True)
        logging.info("Serving version %d of %s (%d warm-up requests).", number, name, loaded.warmed)

    def _load(
        self,
        name: str,
        number: int,
        directory: pathlib.Path,
        seen: content.Look,
        is_quiet: bool,
        served: str,
    ) -> _Loaded | None:
        """Loads a version's folder, if it is complete.

        Args:
            name: The model's name.
            number: The version's number.
            directory: The version's folder.
            seen: The files of the version.
            is_quiet: Whether they have not changed since the last look.
            served: The digest of the files that are already served, or "".

        Returns:
            The loaded version; None if it is still being copied.

        Raises:
            ServingError: The version is incomplete and has stopped changing, or can't be loaded.
        """
        found = content.read(directory, seen)
        if not is_quiet and not found.is_proven:
            return None
        try:
            if found.missing:
                message = f"The version in {directory} is not complete: {found.missing}."
                raise ServingError("FAILED_PRECONDITION", message)
            if found.digest == served:
                return _Loaded(found.digest)
            loaded = self._load_now(name, number, directory, found.digest)
        except ServingError:
            if content.look(directory).files != seen.files:
                return None
            raise
        # Files that changed during loading may be a mixture of two versions.
        return loaded if content.look(directory) == seen else None

    def _load_now(self, name: str, number: int, directory: pathlib.Path, digest: str) -> _Loaded:
        path, begin, is_loaded = str(directory), time.perf_counter(), False
        try:
            servable = Servable(name, number, directory)
            is_loaded = True
        finally:
            self._metrics.load(path, is_loaded, time.perf_counter() - begin)
        begin, status, warmed = time.perf_counter(), "OK", 0
        try:
            warmed = servable.warm_up()
        except ServingError as error:
            status = error.code
            raise
        finally:
            if warmed or status != "OK":
                self._metrics.warmed_up(path, status, time.perf_counter() - begin)
        return _Loaded(digest, servable, warmed)

    def _failed(self, name: str, number: int, folder: _Folder, error: ServingError) -> None:
        """Records that a version's folder could not be loaded, and logs each reason once."""
        folder.failures += 1
        folder.next_try = time.monotonic() + self._retries.pause(folder.failures)
        version = self._versions[name][number]
        if version.state == AVAILABLE:
            more = "The version that was loaded before remains in service."
        else:
            version.state, version.error = END, error
            more = "It is retried as long as its folder exists."
        if error.message != folder.logged:
            reason = error.message.rstrip(".")
            logging.warning("Can't serve version %d of %s: %s. %s", number, name, reason, more)
            folder.logged = error.message

    def _forget(self, name: str, tried: Set[int]) -> None:
        """Forgets versions that could not be loaded and are no longer wanted."""
        known = self._versions[name]
        for number in [n for n in known if n not in tried and known[n].servable is None]:
            self._folders.pop((name, number), None)
            if known[number].state == LOADING or known[number].error is not None:
                del known[number]

    def _unload(self, name: str, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._retire(name, self._versions[name][number])
            self._metrics.loaded(name, number, False)

    def _retire(self, name: str, version: Version) -> None:
        """Stops sending requests to a version, and unloads it after those in flight."""
        version.state = UNLOADING

        async def unload() -> None:
            await version.idle.wait()
            version.servable, version.state = None, END
            gc.collect()
            logging.info("Unloaded version %d of %s.", version.number, name)

        task = asyncio.ensure_future(unload())
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)
