"""The workers of a run, from TF_CONFIG, which Kubernetes operators and Vertex AI set."""

from __future__ import annotations

import json
import os
import re
from typing import Any, NamedTuple

from t2aux.errors import SettingError, UserError

# The task types that train, in the order in which TensorFlow numbers them.
_TRAINING = ("chief", "worker")
_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)


class Cluster(NamedTuple):
    """The workers of a run, and which of them this process is.

    Attributes:
        jobs: The addresses "host:port" of the types "chief" and "worker".
        task: The type of this process.
        index: The number of this process among those of its type.
    """

    jobs: dict[str, list[str]]
    task: str
    index: int

    @property
    def workers(self) -> list[str]:
        """All addresses, the chief's first."""
        return [address for job in _TRAINING for address in self.jobs.get(job, [])]

    @property
    def number(self) -> int:
        """The index of this process in `workers`; 0 is the chief."""
        return self.index + (len(self.jobs.get("chief", [])) if self.task == "worker" else 0)

    def describe(self, job: str, index: int) -> str:
        """The description of a worker for a sentence."""
        place = Cluster(self.jobs, job, index).number
        return f"worker {place} ({self.workers[place]})"


def read() -> Cluster | None:
    """The cluster that the environment variable TF_CONFIG describes, or None.

    Only "cluster" and "task" are read; other entries, such as Vertex AI's "environment", are
    ignored.

    Raises:
        UserError: TF_CONFIG is malformed, or this process has a type that does not train.
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return None
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _wrong(f"is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise _wrong("is not a JSON object")
    jobs, task = config.get("cluster"), config.get("task")
    if not jobs:
        return None
    if not isinstance(jobs, dict):
        raise _wrong('has a "cluster" that is not an object')
    for job, addresses in jobs.items():
        _check_addresses(job, addresses)
    if not isinstance(task, dict) or "type" not in task:
        raise _wrong('has a "cluster" but no "task" with a "type" and an "index"')
    for job in (*jobs, task["type"]):
        if job not in _TRAINING:
            raise SettingError(
                f"TF_CONFIG has a task of the type {job!r}, which t2aux does not need: its workers "
                'train and evaluate. Leave only "chief" (at most one) and "worker" in it.'
            )
    if len(jobs.get("chief", [])) > 1:
        raise _wrong(f"has {len(jobs['chief'])} chiefs; there may be one")
    count = len(jobs.get(task["type"], []))
    index = task.get("index", 0)
    if isinstance(index, str) and index.isdecimal():
        index = int(index)
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
        raise _wrong(
            f"says that this is {task['type']} {index!r}, but its cluster has {count} of them, "
            "numbered from 0"
        )
    every = [address for addresses in jobs.values() for address in addresses]
    if len(set(every)) < len(every):
        raise _wrong("has the same address twice")
    return Cluster(jobs, task["type"], index)


def _check_addresses(job: str, addresses: Any) -> None:
    if not isinstance(addresses, list) or not addresses:
        raise _wrong(f'has no list of addresses under "cluster", {job!r}')
    for address in addresses:
        match = isinstance(address, str) and re.fullmatch(r"[^\s/]+:(\d{1,5})", address)
        if not match or not 0 < int(match[1]) < 2**16:
            raise _wrong(f"has {address!r} under {job!r} where 'host:port' is required")


def _wrong(what: str) -> UserError:
    return SettingError(f"The environment variable TF_CONFIG {what}: set it like {_EXAMPLE}.")
