"""The scopes of gin settings: a misspelled one would have no effect, and no message."""

from __future__ import annotations

from t2aux.errors import SettingError, did_you_mean

PARAM = "--gin_param="


class Scopes:
    """Knows which scopes references name, and which ones something is set for."""

    def __init__(self) -> None:
        """Nothing has been read yet."""
        self._named: set[str] = set()
        self._set: dict[str, str] = {}

    def name(self, scoped_selector: str) -> None:
        """Takes note of a reference, such as "joint/Phase"."""
        parts = scoped_selector.split("/")[:-1]
        # What is set for a scope holds in those inside of it, too.
        self._named.update("/".join(parts[:end]) for end in range(1, len(parts) + 1))

    def set(self, scope: str, place: str) -> None:
        """Takes note of a setting for a scope, and of its place."""
        if scope:
            self._set.setdefault(scope, place)

    def check(self) -> None:
        """Checks that references name the scopes that settings are for.

        Files may have more of them, as a run's own configuration has for phases that it leaves out.

        Raises:
            UserError: Nothing names the scope of a --gin_param; or one like it is named.
        """
        for scope, place in self._set.items():
            hint = did_you_mean(scope, self._named, "")
            if scope in self._named or not (hint or place.startswith(PARAM)):
                continue
            hint = hint or "remove the setting."
            raise SettingError(f"Nothing uses the scope {scope!r} ({place}): {hint}")
