"""Runs the real command line in processes of their own that start at once.

Most of the time of a short command is the import of TensorFlow. Here one process has imported it,
without a thread being started, and forks: what is killed in a test is a whole process all the same.
The first that it forks, for commands, also imports t2aux, and forks.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from tests.cli_helpers import environment


class Server:
    """Starts commands, in a folder and with variables of the environment. A context manager.

    All servers of a process share the one that forks, which is started with the first.
    """

    def __init__(self, cwd=None, **variables):
        self._cwd, self._variables = cwd, variables
        self._process = _start()
        assert self._ask({}) == {"threads": 1}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def start(self, log, *arguments, limit=None, code=None, bare=False, out=None, **variables):
        """Starts `t2aux ARGUMENTS`, whose stderr and stdout go to a file; returns a Process.

        It has our environment and these variables; `code` is run instead of t2aux, and where
        it is `bare`, in a process that has imported TensorFlow and Keras alone. `out` gets stdout
        alone.

        No file of it may grow beyond `limit` bytes: like a full disk, it comes in the midst of
        writing.
        """
        asked = {"arguments": list(map(str, arguments)), "log": str(log), "limit": limit}
        asked |= {
            "code": code,
            "bare": bare,
            "out": out and str(out),
            "cwd": str(self._cwd or os.getcwd()),
        }
        asked["variables"] = environment(**self._variables, **variables)
        return Process(self._ask(asked)["pid"], self._ask, pathlib.Path(log))

    def complete(self, folder, *arguments, timeout=300, **more):
        """Runs `t2aux ARGUMENTS` as `subprocess.run` would.

        Args:
            folder: Where the files lie that stdout and stderr go to.
            *arguments: Of the command.
            timeout: Seconds.
            **more: See `start`.

        Returns:
            A subprocess.CompletedProcess.
        """
        out, log = (pathlib.Path(folder) / name for name in ("stdout", "stderr"))
        status = self.start(log, *arguments, out=out, **more).wait(timeout)
        texts = (path.read_text("utf-8", "surrogateescape") for path in (out, log))
        return subprocess.CompletedProcess(["t2aux", *arguments], status, *texts)

    def run(self, log, *arguments, **more):
        """Runs `t2aux ARGUMENTS` to its end; returns a Process. See `start`."""
        process = self.start(log, *arguments, **more)
        process.wait()
        return process

    def _ask(self, question):
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


@functools.cache
def _start():
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fork_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(
            TF_CPP_MIN_LOG_LEVEL="3",
            NO_GCE_CHECK="true",
            OPENBLAS_NUM_THREADS="1",  # It would start the others when it is imported.
        ),
        text=True,
    )

    def end():
        process.stdin.close()
        process.wait()

    atexit.register(end)
    return process


class Process:
    """A command that was started; like subprocess.Popen."""

    def __init__(self, pid, ask, log):
        self.pid = pid
        self.returncode = None
        self._ask = ask
        self._log = log

    @property
    def stderr(self):
        return self._log.read_text()

    def poll(self):
        if self.returncode is None:
            self.returncode = self._ask({"poll": self.pid})["status"]
        return self.returncode

    def wait(self, timeout=300):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise AssertionError(f"It did not end: {self.stderr}")
            time.sleep(0.01)
        return self.returncode

    def wait_until(self, condition, timeout=120):
        """Waits until a condition holds; asserts that the process does not end before."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.poll() is None, self.stderr
            assert time.monotonic() < deadline, self.stderr
            time.sleep(0.002)

    def send_signal(self, number):
        # Until it has been waited for, no other process gets its number.
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)
        self.wait()


class _Forks:
    """Forks commands, and says how they ended. `inherited` are files that they close."""

    def __init__(self, main, inherited):
        self.main, self.inherited, self.pids = main, inherited, set()

    def answer(self, question):
        if "poll" in question:
            pid, status = os.waitpid(question["poll"], os.WNOHANG)
            self.pids.discard(pid)
            return {"status": os.waitstatus_to_exitcode(status) if pid else None}
        if "arguments" in question:
            for path in filter(None, (question["log"], question["out"])):
                pathlib.Path(path).write_text("")
            pid = os.fork()
            if not pid:
                for file in self.inherited:
                    file.close()
                _child(self.main, **question)
            self.pids.add(pid)
            return {"pid": pid}
        return {"threads": len(os.listdir("/proc/self/task"))}


def _serve():
    import keras  # noqa: F401

    _keep_what_is_imported()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    bare = _Forks(None, [answers])
    with_t2aux = None
    for line in sys.stdin:
        question = json.loads(line)
        if not question or question.get("bare") or question.get("poll") in bare.pids:
            answer = json.dumps(bare.answer(question)) + "\n"
        else:
            if with_t2aux is None:
                with_t2aux, asked, answered = _serve_with_t2aux(answers)
                bare.inherited += [asked, answered]
            print(line, end="", file=asked, flush=True)
            answer = answered.readline()
        print(answer, end="", file=answers, flush=True)
    if with_t2aux is not None:
        asked.close()
        os.waitpid(with_t2aux, 0)


def _serve_with_t2aux(answers):
    """Starts a process that has imported t2aux, too: its pid, and two files to talk to it."""
    (read_questions, write_questions), (read_answers, write_answers) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid:
        os.close(read_questions)
        os.close(write_answers)
        return pid, os.fdopen(write_questions, "w"), os.fdopen(read_answers)
    try:
        answers.close()
        os.close(write_questions)
        os.close(read_answers)
        # Whatever the commands import.
        import t2aux.cli.main
        import t2aux.export.pipeline
        import t2aux.run
        import t2aux.training.train

        _keep_what_is_imported()
        with os.fdopen(read_questions) as questions, os.fdopen(write_answers, "w") as answers:
            forks = _Forks(t2aux.cli.main.main, [questions, answers])
            assert forks.answer({}) == {"threads": 1}
            for line in questions:
                print(json.dumps(forks.answer(json.loads(line))), file=answers, flush=True)
    finally:
        os._exit(0)


def _keep_what_is_imported():
    # No command needs to look at it again for garbage, or to copy it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(500_000)


def _child(main, arguments, log, limit, code, bare, out, cwd, variables):
    """Becomes the command. Does not return."""
    status = 1
    try:
        os.close(0)
        os.open(os.devnull, os.O_RDONLY)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 2)
        if out is not None:
            descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(variables)
        sys.path[:0] = variables["PYTHONPATH"].split(os.pathsep)
        # In the background of a script, or under nohup, they are ignored, and would be so here.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        if limit is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        sys.argv = ["t2aux", *arguments]
        try:
            if code is None:
                main()
            else:
                exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
                status = 0
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            import traceback

            traceback.print_exc()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve()
