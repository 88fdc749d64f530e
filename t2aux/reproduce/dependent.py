"""Becomes `t2aux ARGUMENTS...`, which gets SIGTERM when the process that started it ends.

However that one ends: a run whose `t2aux reproduce` was killed would else train on, and keep its
directory from the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

from t2aux import exit_status

# From <sys/prctl.h>; what it sets outlives the exec.
_PR_SET_PDEATHSIG = 1


def command(*arguments: str) -> list[str]:
    """The command line of such a process, to be started by this one."""
    return [sys.executable, "-m", "t2aux.reproduce.dependent", str(os.getpid()), *arguments]


def main() -> None:
    """Runs it."""
    parent, *arguments = sys.argv[1:]
    # Linux alone has it; elsewhere the process is an ordinary one.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(exit_status.STOPPED)  # It has ended before.
    os.execv(sys.executable, [sys.executable, "-m", "t2aux", *arguments])


if __name__ == "__main__":
    main()
