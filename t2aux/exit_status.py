"""Exit statuses of the commands, in addition to 0, 1 (a mistake) and 2 (a wrong flag)."""

import signal

# EX_TEMPFAIL of sysexits.h: stopped by SIGTERM with everything saved, or another worker was lost.
# The same command continues the run.
STOPPED = 75
# By convention 128 + SIGINT.
INTERRUPTED = 130


def of_signal(number: int) -> int:
    """The exit status of a command that was stopped by a signal."""
    return INTERRUPTED if number == signal.SIGINT else STOPPED
