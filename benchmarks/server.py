"""Runs `t2aux serve` in a separate process, for the benchmarks of the server."""

from __future__ import annotations

import contextlib
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

NAME = "model"


@contextlib.contextmanager
def serving(base: pathlib.Path, *options: str) -> Iterator[tuple[subprocess.Popen, str, str]]:
    """Runs `t2aux serve`. Yields the process, the gRPC address and the REST address."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "t2aux", "serve", f"--model_base_path={base}"),
                *(f"--model_name={NAME}", "--port=0", "--rest_api_port=0", *options),
            ],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            process.stdout.readline()
            found = re.search(r"gRPC at (\S+), REST at (http://[^/]+)", process.stdout.readline())
            if not found:
                process.wait(30)
                log.seek(0)
                raise RuntimeError(f"the server did not start: {log.read()}")
            yield process, found[1], found[2]
            process.send_signal(signal.SIGTERM)
            if process.wait(60) != 0:
                log.seek(0)
                raise RuntimeError(f"the server ended with {process.returncode}: {log.read()}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
