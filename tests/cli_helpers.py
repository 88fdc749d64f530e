"""Runs the real command line in a subprocess."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def environment(**variables):
    """The process's environment, in which `python -m t2aux` finds this checkout from anywhere."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **variables}


def t2aux(*arguments, check=True, timeout=300, **variables):
    """Runs `t2aux ARGUMENTS`; with `check`, asserts that it ends well."""
    done = subprocess.run(
        [sys.executable, "-m", "t2aux", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(**variables),
        timeout=timeout,
    )
    if check:
        assert done.returncode == 0, done.stderr + done.stdout
    return done


def assert_one_sentence(done, *parts):
    """Asserts that a command failed with one clear line on stderr that holds these parts."""
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("t2aux: error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == errors[0]
    for part in parts:
        assert part in errors[0], errors[0]
