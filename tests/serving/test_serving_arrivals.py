"""Versions that come slowly, are replaced, fail, or go, looked at poll by poll."""

import asyncio
import concurrent.futures
import contextlib
import itertools
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from t2aux.errors import ModelError
from t2aux.serving import models as models_module
from t2aux.serving.metrics import Metrics
from t2aux.serving.models import LoadRetries, ModelConfig, Models
from t2aux.serving.servable import Servable
from t2aux.serving.status import ServingError
from t2aux_ondevice import litert

OLD_TIME = 1_500_000_000


def write_metadata(folder):
    files = {
        path.relative_to(folder).as_posix(): litert.digest(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    described = {"format": litert.FORMAT, "files": files}
    (folder / litert.METADATA).write_text(json.dumps(described))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """SavedModels that answer 1, 2 and 3, with metadata.json; all files are of one old time."""
    root = tmp_path_factory.mktemp("sources")
    for number in (1, 2, 3):
        module = tf.Module()
        module.value = tf.Variable(float(number))
        spec = tf.TensorSpec([None], tf.float32, "x")

        def answer(x, module=module):
            return {"y": tf.zeros_like(x) + module.value}

        function = tf.function(answer, input_signature=[spec], autograph=False)
        folder = root / str(number)
        tf.saved_model.save(module, str(folder), signatures=function)
        write_metadata(folder)
        for path in folder.rglob("*"):
            os.utime(path, (OLD_TIME, OLD_TIME))
    return root


class Watched:
    """Models of one base path, looked at when a test says so."""

    def __init__(self, base, loop, loader, **config):
        retries = config.pop("retries", LoadRetries(first_pause=0.0))
        self.base = base
        self.loop = loop
        self.models = Models([ModelConfig("m", base, **config)], loader, Metrics(), retries)

    def poll(self, times=1):
        for _ in range(times):
            self.run(self.models.poll())

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    @property
    def available(self):
        return self.models.available("m")

    @property
    def states(self):
        return {v.number: v.state for v in self.models.versions("m")}

    def answer(self, version=None):
        """What a version answers."""

        async def ask():
            async with self.models.using("m", version) as servable:
                return answer_of(servable)

        return self.run(ask())


def answer_of(servable):
    signature = servable.signature("")
    return servable.run(signature, {"x": np.zeros([1], np.float32)})["y"][0]


@pytest.fixture
def watch(tmp_path, monkeypatch):
    """Makes a `Watched` of the base path `tmp_path / "m"`."""
    monkeypatch.setattr(models_module.gc, "collect", lambda: None)  # It takes half of the time.
    with contextlib.ExitStack() as stack:
        loop = asyncio.new_event_loop()
        loader = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1))
        made = []

        def make(**config):
            made.append(Watched(tmp_path / "m", loop, loader, **config))
            return made[-1]

        (tmp_path / "m").mkdir()
        yield make
        for one in made:
            one.run(one.models.close())
        loop.close()


def files_of(source):
    return [p.relative_to(source) for p in sorted(source.rglob("*")) if p.is_file()]


def file_by_file(source, target, order):
    for name in order(files_of(source)):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target / name)
        yield


def growing(source, target):
    for name in files_of(source):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        content = (source / name).read_bytes()
        for end in (0, len(content) // 2, len(content)):
            (target / name).write_bytes(content[:end])
            yield


def full_of_zeros(source, target):
    """All sizes and times are right before any content is."""
    for name in files_of(source):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(bytes((source / name).stat().st_size))
        os.utime(target / name, (OLD_TIME, OLD_TIME))
    yield
    for name in files_of(source):
        (target / name).write_bytes((source / name).read_bytes())
        os.utime(target / name, (OLD_TIME, OLD_TIME))
        yield


def as_rsync(source, target):
    for name in files_of(source):
        hidden = target / name.parent / f".{name.name}.aB3x9Q"
        hidden.parent.mkdir(parents=True, exist_ok=True)
        content = (source / name).read_bytes()
        hidden.write_bytes(content[: len(content) // 2])
        yield
        shutil.copy2(source / name, hidden)
        yield
        hidden.rename(target / name)
        yield


def under_another_name(source, target):
    hidden = target.with_name("incoming")
    yield from file_by_file(source, hidden, list)
    target.rmdir()
    hidden.rename(target)
    yield


WAYS = {
    "in order": lambda s, t: file_by_file(s, t, list),
    "in reverse": lambda s, t: file_by_file(s, t, lambda files: files[::-1]),
    "growing": growing,
    "zeros first": full_of_zeros,
    "rsync": as_rsync,
    "renamed": under_another_name,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_version_comes_up_when_it_is_whole(watch, sources, way):
    served = watch()
    shutil.copytree(sources / "1", served.base / "1")
    served.poll()
    assert (served.available, served.answer()) == ([1], 1)
    target = served.base / "2"
    target.mkdir()
    for step, _ in enumerate(WAYS[way](sources / "2", target)):
        served.poll(1 + step % 2)  # With a pause in the copying, and without.
        (version,) = served.available
        assert served.answer() == version
    served.poll()
    assert (served.available, served.answer()) == ([2], 2)


@pytest.mark.parametrize("way", WAYS)
def test_a_savedmodel_without_metadata_comes_up_when_it_has_stopped_changing(watch, sources, way):
    served = watch()
    plain = served.base.with_name("plain")
    shutil.copytree(sources / "2", plain, ignore=shutil.ignore_patterns(litert.METADATA))
    shutil.copytree(sources / "1", served.base / "1")
    served.poll()
    target = served.base / "2"
    target.mkdir()
    for _ in WAYS[way](plain, target):
        served.poll()
        assert served.answer() == 1
    served.poll()
    assert (served.available, served.answer()) == ([2], 2)


@pytest.mark.parametrize("way", ["in order", "in reverse", "growing", "zeros first", "rsync"])
def test_a_version_is_replaced_in_place(watch, sources, way):
    served = watch()
    shutil.copytree(sources / "1", served.base / "1")
    served.poll()
    for _ in WAYS[way](sources / "3", served.base / "1"):
        served.poll(2)
        # The graphs are the same, so that the old with the new variables would load.
        assert served.answer() in (1, 3)
        assert served.states == {1: "AVAILABLE"}
    served.poll()
    assert served.answer(1) == 3


def test_a_request_keeps_what_it_began_with(watch, sources):
    served = watch()
    shutil.copytree(sources / "1", served.base / "1")
    served.poll()

    async def replace_meanwhile():
        async with served.models.using("m", 1) as before:
            shutil.rmtree(served.base / "1")
            shutil.copytree(sources / "2", served.base / "1")
            await served.models.poll()
            async with served.models.using("m", 1) as after:
                return answer_of(before), answer_of(after)

    assert served.run(replace_meanwhile()) == (1, 2)


def test_the_same_files_again_are_not_loaded_again(watch, sources, caplog):
    caplog.set_level("INFO", logger="absl")
    served = watch()
    shutil.copytree(sources / "1", served.base / "1")
    served.poll()
    shutil.rmtree(served.base / "1")
    served.poll()
    assert served.answer() == 1  # There is nothing that takes its place.
    shutil.copytree(sources / "1", served.base / "1")
    for path in (served.base / "1").rglob("*"):
        os.utime(path)
    served.poll(3)
    assert served.answer() == 1
    assert [m for m in caplog.messages if "version 1" in m] == [
        "Serving version 1 of m (0 warm-up requests)."
    ]


def damaged(source, target):
    """A copy with the sizes and times of the files, but not all of the content."""
    shutil.copytree(source, target)
    for name in ("variables/variables.data-00000-of-00001", "variables/variables.index"):
        path = target / name
        path.write_bytes(bytes(path.stat().st_size))
        os.utime(path, (OLD_TIME, OLD_TIME))


NEVER = LoadRetries(first_pause=10_000.0, max_pause=10_000.0)


@pytest.mark.parametrize("with_metadata", [True, False])
@pytest.mark.parametrize("removed_first", [True, False])
def test_what_failed_comes_up_at_once_when_it_is_copied_again(
    watch, sources, removed_first, with_metadata
):
    served = watch(retries=NEVER)
    target = served.base / "1"
    damaged(sources / "2", target)
    if not with_metadata:
        (target / litert.METADATA).unlink()
    served.poll(3)
    assert served.states == {1: "END"}
    (version,) = served.models.versions("m")
    assert version.error.code == "FAILED_PRECONDITION"
    if removed_first:
        shutil.rmtree(target)
        served.poll()
        with pytest.raises(ServingError):
            served.answer()
        assert served.states == {}  # It is forgotten.
    names = files_of(sources / "2")
    names = names if with_metadata else [n for n in names if n.name != litert.METADATA]
    for name in names:  # As cp -p and rsync -a do.
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(sources / "2" / name, target / name)
    served.poll(2)
    assert (served.available, served.answer()) == ([1], 2)


class Failing:
    """A servable that can't be loaded until it may."""

    reasons = ()

    def __init__(self, name, number, directory):
        type(self).tries += 1
        if self.tries <= len(self.reasons):
            raise ServingError("FAILED_PRECONDITION", self.reasons[self.tries - 1])

    def warm_up(self):
        return 0


@pytest.fixture
def failing(monkeypatch):
    """Sets what the loads fail with, one after the other; returns the class, and the clock."""
    clock = [1000.0]
    monkeypatch.setattr(models_module.time, "monotonic", lambda: clock[0])

    def fail(*reasons):
        monkeypatch.setattr(Failing, "reasons", reasons)
        monkeypatch.setattr(Failing, "tries", 0, raising=False)
        monkeypatch.setattr(models_module, "Servable", Failing)
        return Failing, clock

    return fail


def test_pauses_grow_and_have_a_limit(watch, sources, failing):
    servable, clock = failing(*["no"] * 9)
    served = watch(retries=LoadRetries(1.0, 60.0))
    shutil.copytree(sources / "1", served.base / "1")
    tried_at = []
    while not served.available:
        before = servable.tries
        served.poll()
        if servable.tries > before:
            tried_at.append(clock[0])
        clock[0] += 0.5
        assert clock[0] < 2000
    assert np.diff(tried_at).tolist() == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_reasons_are_logged_once(watch, sources, failing, caplog):
    caplog.set_level("INFO", logger="absl")
    failing("first", "first", "second", "second", "second")
    served = watch()
    shutil.copytree(sources / "1", served.base / "1")
    served.poll(20)
    messages = [m.partition(". It is")[0] for m in caplog.messages]
    assert messages == [
        "Can't serve version 1 of m: first",
        "Can't serve version 1 of m: second",
        "Serving version 1 of m (0 warm-up requests).",
    ]


def test_retries_may_be_few_and_begin_again_with_other_files(watch, sources, failing):
    servable, clock = failing(*["no"] * 4)
    served = watch(retries=LoadRetries(1.0, 1.0, max_retries=2))
    shutil.copytree(sources / "1", served.base / "1")
    for _ in range(10):
        served.poll()
        clock[0] += 100.0
    assert (servable.tries, served.states) == (3, {1: "END"})
    os.utime(served.base / "1" / "saved_model.pb")
    served.poll()
    assert servable.tries == 4
    clock[0] += 100.0
    served.poll()
    assert served.states == {1: "AVAILABLE"}


def test_what_is_not_wanted_any_more_is_not_tried(watch, sources, failing):
    servable, _ = failing("no", "no")
    served = watch()
    shutil.copytree(sources / "1", served.base / "1")
    served.poll(2)
    assert servable.tries == 2
    shutil.copytree(sources / "2", served.base / "2")
    served.poll(5)
    assert (servable.tries, served.states) == (3, {2: "AVAILABLE"})


def test_a_wrong_replacement_does_not_stop_what_is_served(watch, sources, caplog):
    served = watch()
    shutil.copytree(sources / "1", served.base / "1")
    served.poll()
    (served.base / "1" / "saved_model.pb").write_bytes(b"damaged")
    served.poll(5)
    assert (served.states, served.answer()) == ({1: "AVAILABLE"}, 1)
    (message,) = caplog.messages
    assert "saved_model.pb" in message
    assert "remains in service" in message


def test_the_version_before_serves_where_the_newest_is_not_whole_at_the_start(watch, sources):
    served = watch()
    for number in (1, 2):
        shutil.copytree(sources / str(number), served.base / str(number))
    (served.base / "3").mkdir()
    served.run(served.models.start(0.001))
    served.models.check()
    assert (served.available, served.answer()) == ([2], 2)
    shutil.copytree(sources / "3", served.base / "3", dirs_exist_ok=True)
    served.poll()
    assert (served.available, served.answer()) == ([3], 3)


def test_the_start_waits_for_what_is_being_copied(watch, sources, caplog, monkeypatch):
    caplog.set_level("INFO", logger="absl")
    served = watch()
    (served.base / "1").mkdir()
    steps = growing(sources / "1", served.base / "1")
    poll = served.models.poll

    async def copy_on():
        await poll()
        next(steps, None)

    next(steps)
    monkeypatch.setattr(served.models, "poll", copy_on)
    served.run(served.models.start(0.001))
    served.models.check()
    assert served.answer() == 1
    assert len([m for m in caplog.messages if m.startswith("Waiting for version 1 of m")]) == 1


def test_the_start_does_not_wait_for_what_is_not_being_copied(watch):
    served = watch()
    (served.base / "1").mkdir()
    served.run(served.models.start(0.001))
    with pytest.raises(ModelError, match=r"^The model m .*saved_model\.pb"):
        served.models.check()


def test_a_base_path_that_can_not_be_read_is_logged_once(watch, sources, caplog):
    served = watch()
    shutil.copytree(sources / "1", served.base / "1")
    served.poll()
    for _ in range(2):
        away = served.base.rename(served.base.with_name("away"))
        served.poll(3)
        assert served.answer() == 1
        away.rename(served.base)
        served.poll()
    assert len(caplog.messages) == 2
    assert all("No such file" in message for message in caplog.messages)


@pytest.mark.parametrize("name", ["9" * 25, "1.5", "-3", "1e3", " 2", "²", ".2", "2~", "v2"])
def test_folders_that_are_not_versions(watch, sources, name):
    served = watch(specific=None)
    shutil.copytree(sources / "1", served.base / "1")
    shutil.copytree(sources / "2", served.base / name)
    (served.base / "7").write_text("a file")
    served.poll(2)
    assert served.states == {1: "AVAILABLE"}


def test_a_version_may_be_a_link_that_is_turned(watch, sources):
    served = watch()
    link = served.base / "1"
    for number in (1, 2):
        release = served.base.with_name(f"release-{number}")
        shutil.copytree(sources / str(number), release)
        link.unlink(missing_ok=True)
        link.symlink_to(release)
        served.poll()
        assert served.answer() == number


@pytest.mark.parametrize("content", [b"", b"\x05" + bytes(40)])
def test_damaged_warm_up_requests_are_errors(watch, sources, content):
    served = watch()
    target = served.base / "1"
    shutil.copytree(sources / "1", target)
    path = target / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
    path.write_bytes(content)
    served.poll(2)
    if not content:
        assert served.states == {1: "AVAILABLE"}
        return
    (version,) = served.models.versions("m")
    assert version.state == "END"
    assert "warm-up" in version.error.message
    path.unlink()
    served.poll(2)
    assert served.answer() == 1


def test_every_order_of_the_files_of_an_export(watch, sources):
    """Each order ends served, and no mixture of two exports is served on the way."""
    names = files_of(sources / "1")
    assert {pathlib.Path(litert.METADATA), pathlib.Path("saved_model.pb")} < set(names)
    served = watch()
    shutil.copytree(sources / "1", served.base / "1")
    served.poll()
    orders = list(itertools.islice(itertools.permutations(names), 0, None, 50))
    for index, order in enumerate(orders):
        wanted = 2 + index % 2
        for name in order:
            shutil.copy2(sources / str(wanted) / name, served.base / "1" / name)
            served.poll()
            assert served.answer() in (wanted, 5 - wanted) or index == 0
        assert served.answer() == wanted


def test_loads_are_counted(watch, sources):
    served = watch()
    shutil.copytree(sources / "1", served.base / "1")
    (served.base / "1" / litert.METADATA).unlink()
    (served.base / "1" / "saved_model.pb").write_bytes(b"damaged")
    served.poll(3)
    shutil.copytree(sources / "2", served.base / "1", dirs_exist_ok=True)
    served.poll()
    page = served.models._metrics.text().decode()
    name = ":tensorflow:cc:saved_model:load_attempt_count"
    path = f'model_path="{served.base / "1"}"'
    assert f'{name}{{{path},status="fail"}} 2.0' in page
    assert f'{name}{{{path},status="success"}} 1.0' in page
    assert Servable is models_module.Servable
