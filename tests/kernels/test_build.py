"""Compiling, caching and doing without: what can go wrong with a compiler and a cache directory.

Most tests use a stand-in for the compiler that gives out a kernel compiled before.
"""

import concurrent.futures
import logging
import os
import pathlib
import platform
import shlex
import subprocess
import sys

import pytest
import tensorflow as tf

from t2aux.kernels import build, ops
from tests.cli_helpers import assert_one_sentence, python, t2aux

ROOT = pathlib.Path(__file__).parents[2]

STAND_IN = """
import os, pathlib, shutil, sys, time
with open(os.environ["STAND_IN_LOG"], "a") as log:
    log.write("version\\n" if "--version" in sys.argv else "compile\\n")
if "--version" in sys.argv:
    print("stand-in 1.0")
elif os.environ.get("STAND_IN") == "fails":
    pathlib.Path(sys.argv[sys.argv.index("-o") + 1]).write_bytes(b"half a file")
    print("In file included from x\\nlstm.cc:3:1: error: no such luck\\nmore", file=sys.stderr)
    sys.exit(4)
else:
    shutil.copyfile(os.environ["STAND_IN_KERNEL"], sys.argv[sys.argv.index("-o") + 1])
"""

# Says whether the kernel is used and computes right.
USE = """
import numpy as np, tensorflow as tf
from t2aux.kernels import ops
from tests.kernels import reference
print("enabled", ops.enabled())
if ops.enabled():
    p = reference.random_problem(0, steps=5, batch=3, hidden=4, inputs=2)
    got = ops.lstm(
        p.x, ops.Weights(p.kernel, p.bias, p.recurrent), ops.Scan((p.h0, p.c0), p.positions)
    )
    want, _ = reference.expected(p)
    print("right", bool(np.abs(got.h - want[0]).max() < 1e-5))
"""


@pytest.fixture(scope="module")
def kernel():
    return build.library()


@pytest.fixture
def machine(tmp_path, kernel, monkeypatch):
    """A machine with the stand-in compiler and an empty cache; gives its log of compilations."""
    script = tmp_path / "compiler.py"
    script.write_text(STAND_IN)
    log = tmp_path / "log"
    for name, value in {
        "CXX": f"{shlex.quote(sys.executable)} {shlex.quote(str(script))}",
        "STAND_IN_LOG": log,
        "STAND_IN_KERNEL": kernel,
        "T2AUX_CACHE_DIR": tmp_path / "cache",
    }.items():
        monkeypatch.setenv(name, str(value))
    return lambda: log.read_text().split().count("compile")


def use(**variables):
    return python(USE, **variables)


def said(done):
    """The lines that this program logged."""
    return [line for line in done.stderr.splitlines() if "kernel" in line.lower()]


def test_it_is_compiled_once(machine, tmp_path):
    first = build.library()
    assert build.library() == first
    assert machine() == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.name]


def test_another_processor_compiler_or_source_gets_its_own(machine, monkeypatch):
    paths = {build.library()}
    monkeypatch.setattr(build, "_processor", lambda: "an older one")
    paths.add(build.library())
    monkeypatch.setattr(build, "_version", lambda compiler: "stand-in 2.0")
    paths.add(build.library())
    monkeypatch.setattr(build, "_FLAGS", ("-O0", *build._FLAGS))
    paths.add(build.library())
    assert len(paths) == machine() == 4


@pytest.mark.long
@pytest.mark.skipif(platform.machine() != "x86_64", reason="for x86-64")
def test_it_compiles_for_avx512_fp16():
    flags = [f for f in build._FLAGS if not f.startswith("-march") and f != "-O3"]
    command = [
        *build._compiler(),
        *flags,
        "-march=sapphirerapids",
        "-fsyntax-only",
        *tf.sysconfig.get_compile_flags(),
        str(pathlib.Path(build.__file__).with_name("lstm.cc")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "sapphirerapids" in done.stderr:
        pytest.skip("this compiler does not know the processor")
    assert done.returncode == 0, done.stderr[:2000]


def test_without_a_home_it_is_compiled_aside(machine, monkeypatch, caplog):
    for name in ("T2AUX_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "")
    path = build.library()
    assert path.parent.name.startswith("t2aux-kernel-")
    assert "HOME" in caplog.text
    assert machine() == 1


@pytest.mark.parametrize(
    "name",
    [
        "caf\udce9 %s[b]*?\\",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("a[b]*?\\", "-x:$y")),
    ],
)
def test_the_cache_directory_may_have_any_name(machine, monkeypatch, tmp_path, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("T2AUX_CACHE_DIR", f"~/{name}")
    path = build.library()
    assert path.parent == tmp_path / name
    assert build.library() == path
    assert machine() == 1
    # In a process of its own: what is loaded twice under two names has no ops the second time.
    assert "right True" in use().stdout
    assert machine() == 1


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_file_is_compiled_again(machine, caplog, damage):
    path = build.library()
    content = path.read_bytes()
    if damage is None:
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        path.write_bytes(changed)
    else:
        path.write_bytes(damage)
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert build.library().read_bytes() == content
    assert machine() == 2
    [record] = caplog.records
    assert f" {path} " in record.getMessage()


def test_a_cache_that_cannot_be_written_is_done_without(machine, tmp_path, caplog, monkeypatch):
    (tmp_path / "cache").write_text("a file, not a folder")
    with caplog.at_level(logging.WARNING, logger="absl"):
        path = build.library()
    assert path.is_file()
    [record] = caplog.records
    assert f" {tmp_path / 'cache'} " in record.getMessage()
    assert "T2AUX_CACHE_DIR" in record.getMessage()


@pytest.mark.long
def test_several_processes_at_once(machine, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: use(), range(4)))
    assert [d.stdout.split() for d in done] == [["enabled", "True", "right", "True"]] * 4
    assert 1 <= machine() <= 4
    [path] = (tmp_path / "cache").iterdir()
    assert path.name.endswith(".so")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"STAND_IN": "fails"}, " 4: lstm.cc:3:1: error: no such luck"),
        ({"CXX": "no-such-compiler"}, "'no-such-compiler'"),
        pytest.param({"CXX": "false"}, "C++ compiler does not work", marks=pytest.mark.long),
        ({"CXX": "", "PATH": "/nonexistent"}, "(g++, clang++ or c++)"),
    ],
)
def test_without_a_compiler_it_says_so_once_and_continues(machine, tmp_path, variables, message):
    done = use(**variables)
    assert done.stdout == "enabled False\n"
    [line] = said(done)
    assert message in line
    assert "Plain TensorFlow" in line
    assert list(tmp_path.glob("cache/*")) == []


def test_a_file_that_does_not_load_is_done_without(machine, tmp_path):
    nonsense = tmp_path / "nonsense.so"
    nonsense.write_bytes(b"not a library")
    done = use(STAND_IN_KERNEL=str(nonsense))
    assert done.stdout == "enabled False\n"
    assert "does not load" in said(done)[-1]
    assert list(tmp_path.glob("cache/*")) == []


def test_a_full_disk_is_done_without(machine, tmp_path):
    done = use(limit=20_000)
    assert done.stdout == "enabled False\n"
    assert any("can't be used" in line for line in said(done))
    assert list(tmp_path.glob("cache/*")) == []


def test_it_can_be_turned_off(machine):
    done = use(T2AUX_KERNEL="off")
    assert done.stdout == "enabled False\n"
    assert said(done) == []
    assert not os.path.exists(os.environ["STAND_IN_LOG"])


@pytest.mark.parametrize(
    ("variables", "parts"),
    [
        (
            {"T2AUX_KERNEL": "on", "CXX": "no-such-compiler"},
            ["T2AUX_KERNEL=on", "CXX", "'no-such-compiler'"],
        ),
        ({"T2AUX_KERNEL": "yes"}, ["T2AUX_KERNEL ", "off, on or auto", "'yes'."]),
    ],
)
def test_what_was_asked_for_and_cannot_be_had_is_an_error(machine, tmp_path, variables, parts):
    done = t2aux(
        "train",
        f"--model_dir={tmp_path / 'run'}",
        "--gin_file=quickstart",
        check=False,
        **variables,
    )
    assert_one_sentence(done, *parts)


def test_on_a_gpu_it_is_left_alone(monkeypatch, caplog):
    monkeypatch.setattr(ops.tf.config, "list_logical_devices", lambda kind: ["a GPU"])
    ops._library.cache_clear()
    with caplog.at_level(logging.INFO, logger="absl"):
        assert ops._library("auto") is None
        assert ops._library("auto") is None
    ops._library.cache_clear()
    assert [r.getMessage() for r in caplog.records] == [
        "There is a GPU: the CPU's LSTM kernel is not used."
    ]
