"""Exit statuses of the commands, besides 0, 1 (a mistake) and 2 (a wrong flag)."""

import signal

# sysexits.h's EX_TEMPFAIL: stopped by SIGTERM with everything saved, or another worker is gone. The
# same command continues.
STOPPED = 75
# By convention 128 + SIGINT.
INTERRUPTED = 130


def of_signal(number: int) -> int:
    """The status of a command that a signal stopped."""
    return INTERRUPTED if number == signal.SIGINT else STOPPED
