"""The exceptions for a user's mistakes, shared with the on-device client, and message helpers."""

import difflib
from collections.abc import Iterable

from t2aux_ondevice.errors import (  # noqa: F401 (they are imported from here)
    KINDS,
    DataError,
    DependencyError,
    DivergenceError,
    FileError,
    ModelError,
    ServerError,
    SettingError,
    UserError,
)

_NEAR = 0.6  # As in difflib.
_LONGEST_NAME = 200


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name nearest to a misspelled one, ignoring case, or None if none is near."""
    name = name[:_LONGEST_NAME]

    def likeness(known: str) -> tuple[float, float]:
        lower = difflib.SequenceMatcher(None, known.lower(), name.lower()).ratio()
        return lower, difflib.SequenceMatcher(None, known, name).ratio()

    best = max(names, key=likeness, default=None)
    return best if best is not None and likeness(best)[0] >= _NEAR else None


def did_you_mean(name: str, names: Iterable[str], otherwise: str) -> str:
    """The hint in a message on an unknown name: the nearest known name, or `otherwise`."""
    near = nearest(name, names)
    return f"did you mean {near}?" if near else otherwise


def listing(items: Iterable[str], shown: int = 5, between: str = ", ") -> str:
    """The first few items for a message, and the number of the others."""
    items = list(items)
    more = len(items) - shown
    return between.join(items[:shown]) + (f" and {more:,} more" if more > 0 else "")


def shorten(text: str, longest: int = 60) -> str:
    """A text for a message, truncated to `longest` characters."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


class StartAgainError(UserError):
    """The command is correct and resumes if it is started again; it has its own exit status."""
