"""Compiles the kernel for this machine with the system's compiler, and caches the result.

The compiled file is in the user's cache directory (T2AUX_CACHE_DIR, else XDG_CACHE_HOME/t2aux, else
~/.cache/t2aux). Its name has a hash of everything it was compiled from (sources, flags, compiler,
TensorFlow, processor) and a hash of its content, so that a file that was compiled for another
machine or is damaged is not loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import tempfile
import time

import tensorflow as tf
from absl import logging

from t2aux import files

_HERE = pathlib.Path(__file__).parent
# TensorFlow's copy of Eigen does not compile for AVX-512 FP16, which Intel's processors have since
# Sapphire Rapids. The kernel does not use these instructions.
_FLAGS = (
    "-O3",
    "-march=native",
    "-U__AVX512FP16__",
    "-ffp-contract=fast",
    "-w",
    "-fPIC",
    "-shared",
)
_TIMEOUT_SECONDS = 600


class BuildError(Exception):
    """The kernel can't be compiled or loaded; the message says why in one sentence."""


def library() -> pathlib.Path:
    """Returns the path of the compiled kernel, which is compiled if it is not in the cache.

    Returns:
        The path. If the cache directory can't be written, it is in a temporary folder.

    Raises:
        BuildError: There is no compiler, or it fails.
    """
    compiler = _compiler()
    key = _key(compiler)
    folder = files.cache_directory()
    found = _find(folder, key) if folder is not None else None
    if found is not None:
        return found
    begin = time.monotonic()
    logging.info("Compiling the LSTM kernel with %s; this is done once.", compiler[0])
    try:
        if folder is None:
            raise OSError(None, "HOME is not set, and this user has no home folder")
        folder.mkdir(parents=True, exist_ok=True)
        path = _compile(compiler, folder, key)
    except OSError as error:
        logging.warning(
            "The kernel's cache directory%s can't be written (%s): the kernel is compiled again "
            "in every run; set T2AUX_CACHE_DIR to a writable folder.",
            f" {folder}" if folder is not None else "",
            error.strerror or error,
        )
        path = _compile_aside(compiler, key)
    logging.info("Compiled the LSTM kernel in %.0f s: %s.", time.monotonic() - begin, path)
    return path


def forget(path: pathlib.Path) -> None:
    """Removes a compiled file that can't be loaded, so that it is compiled again."""
    with contextlib.suppress(OSError):
        path.unlink()


def _compile_aside(compiler: list[str], key: str) -> pathlib.Path:
    # The file could be removed once it is loaded, but the folder is left to the system, because the
    # loader may still be reading it.
    try:
        return _compile(compiler, pathlib.Path(tempfile.mkdtemp(prefix="t2aux-kernel-")), key)
    except OSError as error:
        raise BuildError(f"no folder for the compiled kernel can be written ({error})") from error


def _sources() -> list[pathlib.Path]:
    return sorted([*_HERE.glob("*.cc"), *_HERE.glob("*.h")])


def _compiler() -> list[str]:
    chosen = os.environ.get("CXX")
    if chosen:
        words = shlex.split(chosen)
        if not words or shutil.which(words[0]) is None:
            raise BuildError(f"the C++ compiler that CXX names, {chosen!r}, is not installed")
        return words
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name) is not None:
            return [name]
    raise BuildError("no C++ compiler was found (g++, clang++ or c++)")


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    names = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.split(":")[0].strip() in names}))


def _key(compiler: list[str]) -> str:
    parts = [
        *(path.name for path in _sources()),
        *(path.read_bytes() for path in _sources()),
        " ".join(compiler),
        _version(compiler),
        *_FLAGS,
        tf.version.GIT_VERSION + tf.version.VERSION,
        # Without flags that name folders: a moved environment needs no new kernel.
        *(flag for flag in tf.sysconfig.get_compile_flags() if not flag.startswith("-I")),
        _processor(),
    ]
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def _version(compiler: list[str]) -> str:
    done = _run([*compiler, "--version"])
    if done.returncode != 0:
        raise BuildError(f"the C++ compiler does not work: {_first_line(done.stderr)}")
    return done.stdout


def _find(folder: pathlib.Path, key: str) -> pathlib.Path | None:
    try:
        candidates = sorted(folder.glob(f"lstm-{key}-*.so"))
    except OSError:
        return None
    for path in candidates:
        try:
            if path.name == _name(key, path):
                return path
        except OSError:
            continue
        logging.warning("The compiled kernel %s is damaged: it is compiled again.", path)
        forget(path)
    return None


def _name(key: str, path: pathlib.Path) -> str:
    return f"lstm-{key}-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.so"


def _compile(compiler: list[str], folder: pathlib.Path, key: str) -> pathlib.Path:
    with files.temporary_folder(folder, ".lstm-") as place:
        temporary = place / "lstm.so"
        command = [
            *compiler,
            *_FLAGS,
            *tf.sysconfig.get_compile_flags(),
            str(_HERE / "lstm.cc"),
            "-o",
            str(temporary),
            *tf.sysconfig.get_link_flags(),
        ]
        done = _run(command)
        if done.returncode != 0:
            if _is_full(folder):
                raise OSError(None, "No space left on device")
            raise BuildError(
                f"{compiler[0]} failed with status {done.returncode}: {_first_line(done.stderr)}"
            )
        path = folder / _name(key, temporary)
        os.replace(temporary, path)
    return path


def _is_full(folder: pathlib.Path) -> bool:
    # The compiler's message depends on the stage at which the disk was full.
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))
            file.flush()
    except OSError:
        return True
    return False


def _run(command: list[str]) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_SECONDS
        )
    except OSError as error:
        raise BuildError(f"{command[0]} can't be run ({error.strerror or error})") from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} took more than {_TIMEOUT_SECONDS} s") from error


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["it says nothing"])[0]
