"""The exception for mistakes that a user can repair, and how messages are shown."""

from __future__ import annotations

_MAX_LENGTH = 2000


class UserError(Exception):
    """A mistake of the user's: a bad flag, configuration, file or model directory.

    The message is one clear sentence that says what was wrong, where, and what to do. The command
    line prints it without a traceback and exits with a non-zero status.
    """


def reason(error: BaseException) -> str:
    """The first line of an exception's message, without its period; its type if it has none."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def printable(text: str) -> str:
    """A text on one line, with control characters escaped: names in files may contain any."""
    if len(text) > _MAX_LENGTH:
        text = f"{text[:_MAX_LENGTH]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
