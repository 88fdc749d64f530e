"""The order of gin files: a whole configuration comes first."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from gin import config as gin_config

from t2aux.errors import SettingError

_Bindings = dict[tuple[str, str, str], str]


class Order:
    """Detects a whole configuration that undoes a file named before it.

    A whole configuration includes base.gin, which sets everything that another whole configuration
    or a file of datasets/, models/, cores/ or training/ may have changed.
    """

    def __init__(self, bundled: pathlib.Path) -> None:
        """Begins without files.

        Args:
            bundled: The folder of the gin files that come with t2aux.
        """
        self._bundled = bundled.resolve()
        self._bound: _Bindings = {}
        self._earlier: list[tuple[str, bool, _Bindings]] = []

    def check(self, name: str, files: Sequence[pathlib.Path]) -> None:
        """Records a file that has just been parsed.

        Args:
            name: The file's name as given by the user.
            files: The resolved paths of the file and then of the files that it includes.

        Raises:
            UserError: The file has undone an earlier one.
        """
        before, self._bound = self._bound, _bindings()
        whole = self._bundled / "base.gin" in files
        for earlier, earlier_whole, settings in self._earlier if whole else ():
            if any(self._bound[key] != value for key, value in settings.items()):
                todo = "leave one of them out" if earlier_whole else f"name {name} first"
                raise SettingError(
                    f"{name} is a whole configuration and undoes {earlier}, which is named before "
                    f"it: {todo}."
                )
        self._earlier.append((name, whole, dict(self._bound.items() - before.items())))


def _bindings() -> _Bindings:
    """The bindings so far, as strings by scope, configurable and parameter."""
    return {
        (*key, parameter): repr(value)
        for key, bound in gin_config._CONFIG.items()
        for parameter, value in bound.items()
    }
