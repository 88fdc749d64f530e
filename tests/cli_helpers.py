"""Runs the real command line in a subprocess."""

import functools
import json
import os
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).parent.parent


def environment(**variables):
    """The process's environment, in which `python -m t2aux` finds this checkout from anywhere."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **variables}


def t2aux(*arguments, check=True, timeout=300, **variables):
    """Runs `t2aux ARGUMENTS` in a process of its own; with `check`, asserts that it ends well.

    It is forked from one that has imported TensorFlow, which takes most of the time of a short
    command. See `fork_server.Server.start` for the variables.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = fork_server().complete(folder, *arguments, timeout=timeout, **variables)
    if check:
        assert done.returncode == 0, done.stderr + done.stdout
    return done


def python(code, *arguments, **more):
    """Runs Python code as `t2aux` runs a command: where TensorFlow and t2aux are imported."""
    return t2aux(*arguments, code=code, **more)


# Runs commands in processes that have the modules already.
_FORKS = """
import importlib, json, os, sys
folder, begin, modules, commands = map(json.loads, sys.argv[1:])
exec(begin)
from t2aux.cli import main
for name in modules:
    importlib.import_module(name)
statuses = []
for number, arguments in enumerate(commands):
    pid = os.fork()
    if not pid:
        for output in (1, 2):
            os.dup2(os.open(f"{folder}/{number}.{output}", os.O_WRONLY | os.O_CREAT), output)
        sys.argv[1:] = arguments
        main.main()
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(json.dumps(statuses))
"""


def run_all(commands, modules, begin="", run=python):
    """Runs `t2aux ARGUMENTS` for each of `commands`, one after the other.

    Their processes are forked from one that has run `begin` and imported `modules`, which takes
    most of the time of a short command; `run` runs the code of that one. Returns what
    `subprocess.run` would.
    """
    commands = [list(map(str, arguments)) for arguments in commands]
    with tempfile.TemporaryDirectory() as folder:
        done = run(_FORKS, *map(json.dumps, (folder, begin, modules, commands)))
        assert done.returncode == 0, done.stderr
        found = []
        for number, status in enumerate(json.loads(done.stdout)):
            texts = (pathlib.Path(folder, f"{number}.{i}").read_text("utf-8") for i in (1, 2))
            arguments = ["t2aux", *commands[number]]
            found.append(subprocess.CompletedProcess(arguments, status, *texts))
    return found


def bare_python(code, *arguments):
    """Runs Python code where TensorFlow and Keras are imported, but nothing of t2aux."""
    return t2aux(*arguments, code=code, bare=True)


@functools.cache
def fork_server():
    """The server of this test process; see `tests.fork_server`."""
    from tests.fork_server import Server

    return Server()


def assert_one_sentence(done, *parts):
    """Asserts that a command failed with one clear line on stderr that holds these parts."""
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("t2aux: error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == errors[0]
    for part in parts:
        assert part in errors[0], errors[0]
