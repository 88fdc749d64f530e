"""Names of folders as a user may give them: refused at once, or a run's checkpoints lie there."""

import os
import pathlib
import shutil

import tensorflow as tf
from hypothesis import strategies as st

from t2aux.errors import UserError
from t2aux.training import checkpoints
from t2aux_ondevice import paths
from tests.fuzz.readers import Reader, check_refusal

PIECES = [b"a", b"b", b"ab", b"/", b"/", b" ", b"-", b"~", b"~nobody99", b".", b"..", b"\0", b"\n"]
PIECES += [bytes([c]) for c in b"[]*?{}\\!^$%#&;:'\"()=,|<>@+\t\x7f"]
PIECES += [b"gs://", b"gs:/", b"S3://", b"hdfs://h:1/", b"file:///", b"C:\\", b"%s", b"x" * 256]
PIECES += ["\u00e9\u65e5\U0001f600".encode(), "e\u0301".encode(), b"\xe9", b"\xff", b"\xed\xa0\x80"]


def make(folder: pathlib.Path) -> Reader:
    """The reader; `folder` is its own."""
    value = tf.Variable(0)
    # What a pattern would find instead.
    for name in ("a", "b", "ab"):
        _manager(folder / name, value).save(1)

    def read(name):
        try:
            path = paths.local(os.fsdecode(name), "--model_dir")
        except UserError as error:
            check_refusal(error)
            return False
        parts = pathlib.Path(path).parts
        if path.startswith("/") or {"..", "a", "b", "ab"} & {*parts} or not parts:
            return True
        directory = folder / path
        value.assign_add(1)
        expected = int(value)
        try:
            _manager(directory, value).save(1)
            manager = _manager(directory, value)
            found = manager.recover()
            value.assign(-1)
            checkpoints.read(manager.checkpoint, found)
            assert int(value) == expected
        finally:
            value.assign(expected)
            shutil.rmtree(folder / parts[0], ignore_errors=True)
        return True

    seeds = [b"runs/a", b"caf\xe9", b"a[b]*"]
    pieces = st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join)
    return Reader(st.one_of(pieces, pieces, st.binary(max_size=20)), read, seeds)


def _manager(directory: pathlib.Path, value: tf.Variable) -> checkpoints.Manager:
    return checkpoints.Manager(tf.train.Checkpoint(value=value), directory / "checkpoints", 2)
