"""The one exception for mistakes that a user can mend, and how it is shown."""

from __future__ import annotations

_LONGEST = 2000


class UserError(Exception):
    """A mistake of the user's: a bad flag, configuration, file or model directory.

    The message is one clear sentence that says what was wrong, where, and what to do. The command
    line prints it without a traceback and exits with a non-zero status.
    """


def printable(text: str) -> str:
    """A text for a terminal, on one line: names in files may hold what would control it."""
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
