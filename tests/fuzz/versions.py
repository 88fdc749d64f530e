"""Versions that are copied, replaced, renamed and removed in any order, with looks in between."""

import asyncio
import concurrent.futures
import json
import os
import pathlib
import shutil
from unittest import mock

from hypothesis import strategies as st

from t2aux.serving import models as models_module
from t2aux.serving.metrics import Metrics
from t2aux.serving.models import LoadRetries, ModelConfig, Models
from t2aux.serving.status import ServingError
from t2aux_ondevice import litert
from tests.fuzz.readers import Reader

_FILES = (
    *("assets.extra/tf_serving_warmup_requests", litert.METADATA, "saved_model.pb"),
    *("variables/variables.data-00000-of-00001", "variables/variables.index"),
)
_SOURCES = ("a", "b")
_NUMBERS = ("1", "2", "3")
_NEWEST = "9"
_SIZE = 64
_OLD_TIME = 1_500_000_000

_steps = st.one_of(
    st.just(("poll",)),
    st.tuples(
        st.just("copy"),
        *(st.sampled_from(_NUMBERS), st.sampled_from(_SOURCES), st.sampled_from(_FILES)),
        *(st.sampled_from([0, _SIZE // 2, _SIZE]), st.booleans()),
    ),
    st.tuples(st.just("whole"), st.sampled_from(_NUMBERS), st.sampled_from(_SOURCES)),
    st.tuples(st.just("remove"), st.sampled_from(_NUMBERS)),
    st.tuples(st.just("rename"), st.sampled_from(_NUMBERS), st.sampled_from([*_NUMBERS, "tmp"])),
    st.tuples(st.just("lose"), st.sampled_from(_NUMBERS), st.sampled_from(_FILES)),
)
_inputs = st.tuples(
    st.lists(_steps, max_size=12),
    st.sampled_from(_SOURCES),
    st.permutations(_FILES),
    st.lists(st.booleans(), min_size=len(_FILES), max_size=len(_FILES)),
)


class _Servable:
    """Reads files as TensorFlow does: what is cut it refuses, what is mixed it does not notice."""

    def __init__(self, name, number, directory):
        contents = [self._content(directory / name) for name in _FILES if name != litert.METADATA]
        self.sources = {content[:1] for content in contents}

    def _content(self, path):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ServingError("FAILED_PRECONDITION", "a file is missing") from error
        if len(content) != _SIZE:
            raise ServingError("FAILED_PRECONDITION", "a file is cut")
        return content

    def warm_up(self):
        return 0


class _Inline(concurrent.futures.Executor):
    """Runs what it is given at once."""

    def submit(self, function, *arguments):
        future = concurrent.futures.Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


def make(folder: pathlib.Path, loop: asyncio.AbstractEventLoop) -> Reader:
    """The reader; `folder` is its own."""
    sources = {name: _source(folder / name, name) for name in _SOURCES}
    base = folder / "base"

    def read(steps_and_end):
        steps, last, order, polls = steps_and_end
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir()
        models = Models([ModelConfig("m", base)], _Inline(), Metrics(), LoadRetries(0.0))
        unproven = set()

        def poll():
            loop.run_until_complete(models.poll())
            for version in models.versions("m"):
                if version.state != "AVAILABLE" or len(version.servable.sources) == 1:
                    unproven.discard(version.number)
                    continue
                # Of two copies' files: only where nothing said what they have to be.
                assert version.number in unproven or not _is_described(base / str(version.number))
                unproven.add(version.number)
            assert len(models.available("m")) <= 1

        # Collecting all of TensorFlow's objects takes longer than the rest.
        no_collecting = mock.patch.object(models_module.gc, "collect")
        with mock.patch.object(models_module, "Servable", _Servable), no_collecting:
            for kind, *arguments in steps:
                if kind == "poll":
                    poll()
                else:
                    _STEPS[kind](base, sources, *arguments)
            was_served = bool(models.available("m"))
            # Whatever was before: what is whole at the end is served.
            for name, polled in zip(order, polls, strict=True):
                _copy(base, sources, _NEWEST, last, name, _SIZE, True)
                if polled:
                    poll()
            poll()
            assert models.available("m") == [int(_NEWEST)]
            (version,) = [v for v in models.versions("m") if v.state == "AVAILABLE"]
            assert version.servable.sources == {last.encode()}
            loop.run_until_complete(models.close())
        return was_served

    whole = ([("whole", "1", "a"), ("poll",)], "b", list(_FILES), [True] * len(_FILES))
    return Reader(_inputs, read, [whole])


def _source(folder, name):
    for file in _FILES:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * _SIZE)
    (folder / litert.METADATA).unlink()
    files = {
        file: litert.digest((folder / file).read_bytes())
        for file in _FILES
        if file != litert.METADATA
    }
    described = {"format": litert.FORMAT, "files": files}
    (folder / litert.METADATA).write_text(json.dumps(described))
    for path in folder.rglob("*"):
        os.utime(path, (_OLD_TIME, _OLD_TIME))
    return folder


def _is_described(version):
    """Whether an export's description, which has its files' digests, is there and whole."""
    try:
        json.loads((version / litert.METADATA).read_text())
    except (OSError, ValueError):
        return False
    return True


def _copy(base, sources, number, source, name, size, keeps_time):
    path, target = sources[source] / name, base / number / name
    target.parent.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes()
    target.write_bytes(content if size == _SIZE else content[:size])
    if keeps_time:
        shutil.copystat(path, target)


def _whole(base, sources, number, source):
    shutil.copytree(sources[source], base / number, dirs_exist_ok=True)


def _remove(base, sources, number):
    shutil.rmtree(base / number, ignore_errors=True)


def _rename(base, sources, old, new):
    if (base / old).exists() and not (base / new).exists():
        (base / old).rename(base / new)


def _lose(base, sources, number, name):
    (base / number / name).unlink(missing_ok=True)


_STEPS = {"copy": _copy, "whole": _whole, "remove": _remove, "rename": _rename, "lose": _lose}
