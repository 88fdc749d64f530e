"""Checks the scopes of gin settings: gin silently ignores a misspelled one."""

from __future__ import annotations

from t2aux.errors import SettingError, did_you_mean

PARAM = "--gin_param="


class Scopes:
    """Records which scopes are used by references, and which have settings."""

    def __init__(self) -> None:
        """Begins without scopes."""
        self._named: set[str] = set()
        self._set: dict[str, str] = {}

    def name(self, scoped_selector: str) -> None:
        """Records a reference, such as "joint/Phase"."""
        parts = scoped_selector.split("/")[:-1]
        # The settings of a scope also apply to nested scopes.
        self._named.update("/".join(parts[:end]) for end in range(1, len(parts) + 1))

    def set(self, scope: str, place: str) -> None:
        """Records a setting for a scope, and its place."""
        if scope:
            self._set.setdefault(scope, place)

    def check(self) -> None:
        """Checks that the scopes of settings are used by references.

        Files may have settings for unused scopes, such as phases that a run omits.

        Raises:
            UserError: The scope of a --gin_param is not used, or an unused scope resembles a used
                one.
        """
        for scope, place in self._set.items():
            hint = did_you_mean(scope, self._named, "")
            if scope in self._named or not (hint or place.startswith(PARAM)):
                continue
            hint = hint or "remove the setting."
            raise SettingError(f"Nothing uses the scope {scope!r} ({place}): {hint}")
