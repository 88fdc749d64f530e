"""The exceptions for mistakes that a user can fix, and the formatting of messages."""

from __future__ import annotations

_MAX_LENGTH = 2000


class UserError(Exception):
    """A mistake that a user can fix. The subclasses are kinds of mistakes.

    The message is one clear sentence that says what was wrong, where, and what to do. The command
    line prints it without a traceback and exits with a non-zero status.
    """

    def with_message(self, message: str) -> UserError:
        """An error of the same kind, whose own class may be gin's, which accepts no message."""
        return KINDS.get(type(self).__name__, UserError)(message)


class SettingError(UserError):
    """A flag, argument, setting or environment variable has a value that can't be used."""


class DataError(UserError):
    """Data can't be used: the content of a file, a row, an array or a label."""


class FileError(UserError):
    """A file or folder is missing, can't be read or written, or is in use."""


class ModelError(UserError):
    """A model, checkpoint, run or export is damaged, or does not support the request."""


class DivergenceError(UserError):
    """Training or a trained model produced NaN or infinite values."""


class ServerError(UserError):
    """A server or another process can't be reached, or its answer can't be used."""


class DependencyError(UserError):
    """A package or program is missing, or has an unsupported version."""


# The classes by name, as they appear in messages of other processes or TensorFlow.
KINDS = {kind.__name__: kind for kind in (UserError, *UserError.__subclasses__())}


def reason(error: BaseException) -> str:
    """The first line of an exception's message, without its period; its type if it has none."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def printable(text: str) -> str:
    """A text on one line, with control characters escaped, since names may contain any."""
    if len(text) > _MAX_LENGTH:
        text = f"{text[:_MAX_LENGTH]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
