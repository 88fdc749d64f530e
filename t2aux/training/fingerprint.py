"""Fingerprints of a split's content, to check that data is the same as in an earlier training."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from t2aux import data
from t2aux.data import manifest
from t2aux.data.shards import ShardSplit

# Shards up to this size in bytes, as the model reads them, are read once, so that the same data is
# recognised in another form. For larger ones, the manifest is used instead.
_MAX_READ_BYTES = 1 << 30
_HASHED_AT_ONCE = 1 << 22


class Fingerprint:
    """Digests of the content of a split.

    The fingerprint of data in memory equals that of the same data in shards.

    Attributes:
        examples: The number of examples.
        labels: A digest of their labels, in order.
        lengths: A digest of their lengths.
        files: A digest of the shards' manifest; None: the split is in memory.
    """

    def __init__(self, split: data.Split, name: str, folder: pathlib.Path | None) -> None:
        """Reads everything except the sequences.

        Args:
            split: The split.
            name: "train" or "test".
            folder: The folder of the data; required for shards.

        Raises:
            UserError: The shards' manifest can't be read.
        """
        self._split = split
        self.examples = len(split)
        self.labels = _digest(np.asarray(split.labels, "<i4"))
        self.lengths = _digest(np.asarray(split.lengths, "<i4"))
        self.files: str | None = None
        if isinstance(split, ShardSplit) and folder is not None:
            entries = manifest.read(folder).splits[name]
            whole = "".join(entry["sha256"] + entry["index_sha256"] for entry in entries)
            self.files = hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()
        self._values: str | None = None

    def values(self) -> str:
        """A digest of the sequences, which are read once.

        Raises:
            UserError: A shard is damaged.
        """
        if self._values is None:
            digest = hashlib.blake2b(digest_size=16)
            for values, _ in self._split.chunks():
                # The ids of texts are stored with the smallest sufficient type.
                kind = "<u4" if self._split.info.reads_ids else values.dtype
                for start in range(0, len(values), _HASHED_AT_ONCE):
                    part = values[start : start + _HASHED_AT_ONCE].astype(kind, copy=False)
                    digest.update(np.ascontiguousarray(part).data)
            self._values = digest.hexdigest()
        return self._values

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """What differs from a stored fingerprint: "examples", "labels", "lengths", "values".

        Args:
            stored: The result of `to_json`; an entry that is None is unknown.
        """
        if stored["examples"] != self.examples:
            return ["examples"]
        found = [
            name
            for name in ("labels", "lengths")
            if stored[name] is not None and stored[name] != getattr(self, name)
        ]
        if self.files is not None and stored["files"] == self.files:
            return found
        if stored["values"] is not None:
            same = stored["values"] == self.values()
        else:
            # Large shards that were converted again may or may not have the same content.
            same = stored["files"] is None or self.files is None
        return found if same else [*found, "values"]

    def to_json(self, stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The fingerprint in the form in which it is stored.

        Args:
            stored: The stored fingerprint of the same data, in this or another form.
        """
        known = {} if stored is None else stored
        values = known.get("values")
        if values is None and (self.files is None or self._bytes() <= _MAX_READ_BYTES):
            values = self.values()
        return {
            "examples": self.examples,
            "labels": self.labels,
            "lengths": self.lengths,
            "values": values,
            "files": known.get("files") if self.files is None else self.files,
        }

    def _bytes(self) -> int:
        item = self._split.example(0)
        return int(self._split.lengths.sum(dtype=np.int64)) * (item.nbytes // len(item))


def _digest(array: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()
