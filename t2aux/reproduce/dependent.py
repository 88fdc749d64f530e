"""Executes `t2aux ARGUMENTS...`, which receives SIGTERM when the process that started it ends.

Otherwise, if `t2aux reproduce` was killed, its run would continue to train and lock its directory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

from t2aux import exit_status

# From <sys/prctl.h>; the setting is kept after exec.
_PR_SET_PDEATHSIG = 1


def command(*arguments: str) -> list[str]:
    """The command line of such a process, which this process must start."""
    return [sys.executable, "-m", "t2aux.reproduce.dependent", str(os.getpid()), *arguments]


def main() -> None:
    """Executes the command."""
    parent, *arguments = sys.argv[1:]
    # Only Linux has prctl; on other systems, this is an ordinary process.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(exit_status.STOPPED)  # The parent has already ended.
    os.execv(sys.executable, [sys.executable, "-m", "t2aux", *arguments])


if __name__ == "__main__":
    main()
