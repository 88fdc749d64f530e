"""The exception for a user's mistakes, which the on-device client has too, and what they meant."""

import difflib
from collections.abc import Iterable

from t2aux_ondevice.errors import UserError

__all__ = ["StartAgainError", "UserError", "nearest"]

_NEAR = 0.6  # As in difflib.
_LONGEST_NAME = 200


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that a misspelled one is for, whatever its capitals; None where none is near."""
    name = name[:_LONGEST_NAME]

    def likeness(known: str) -> tuple[float, float]:
        lower = difflib.SequenceMatcher(None, known.lower(), name.lower()).ratio()
        return lower, difflib.SequenceMatcher(None, known, name).ratio()

    best = max(names, key=likeness, default=None)
    return best if best is not None and likeness(best)[0] >= _NEAR else None


class StartAgainError(UserError):
    """Nothing is wrong with the command: given again, it goes on. The exit status says so."""
