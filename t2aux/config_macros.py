"""Checks the macros of gin settings: gin silently ignores a misspelled one."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

from gin import config as gin_config

from t2aux.config_scopes import PARAM
from t2aux.errors import SettingError, did_you_mean

MACRO = "gin.macro"


class Macros:
    """Records which macros are set and which are used.

    Attributes:
        places: The place where each macro was last set, by name.
    """

    def __init__(self, bundled: pathlib.Path) -> None:
        """Begins without macros.

        Args:
            bundled: The folder of the gin files that come with t2aux.
        """
        self._bundled = bundled
        self.places: dict[str, str] = {}
        self._used: dict[str, str] = {}
        self._used_by_parameters: set[str] = set()

    def use(self, name: str, place: str, *, by_parameter: bool) -> None:
        """Records a macro that is used by the value of a parameter or another macro."""
        self._used.setdefault(name, place)
        if by_parameter:
            self._used_by_parameters.add(name)

    def check(self) -> None:
        """Checks that every macro that is used is set, and that every macro that is set is used.

        There are two exceptions for macros of files. A macro that is used only by an unused macro
        need not be set, because macros of models/ and base.gin use macros of budgets/. A macro that
        occurs in files of budgets/ may be unused, because other files set it even if no file of
        budgets/ is read.

        Raises:
            UserError: A macro is used but not set, or set but not used.
        """
        drop_unused()
        referenced = _referenced()
        for name, place in self._used.items():
            if name not in self.places and name in self._used_by_parameters | referenced:
                raise SettingError(
                    f"The macro %{name} is used in {place}, but nothing defines it"
                    f"{self._how_to_set(name)}"
                )
        for_budgets = self._named_by_budgets()
        for name, place in self.places.items():
            is_param = place.startswith(PARAM)
            if name not in (referenced if is_param else {*self._used, *for_budgets}):
                raise SettingError(
                    f"The macro {name} is set in {place}, but nothing uses it: {self._why(name)}"
                )

    def _why(self, name: str) -> str:
        if name in self._used:
            return "the setting that would use it has been replaced; remove one of the two."
        return did_you_mean(name, self._used, "remove it, or set a parameter instead.")

    def _how_to_set(self, name: str) -> str:
        folders = {
            file.parent.name
            for file in self._bundled.glob("*/*.gin")
            if re.search(rf"^{re.escape(name)} =", file.read_text("utf-8"), re.MULTILINE)
        }
        if folders:
            listed = " or ".join(f"{folder}/" for folder in sorted(folders))
            return f": the files of {listed} do, so name one of them, or set {name} = ..."
        return ": " + did_you_mean(name, self.places, f"set {name} = ...")

    def _named_by_budgets(self) -> set[str]:
        lines = "\n".join(f.read_text("utf-8") for f in self._bundled.glob("budgets/*.gin"))
        return set(re.findall(r"\b[A-Z_]+\b", re.sub(r"#.*", "", lines)))


def is_macro(reference: gin_config.ConfigurableReference) -> bool:
    """Whether a reference is to a macro, such as %BATCH_SIZE."""
    return reference.selector in (MACRO, "macro")


def name_of(reference: gin_config.ConfigurableReference) -> str:
    """The name of the macro that a reference refers to."""
    return reference.scoped_selector.rpartition("/")[0]


def drop_unused() -> None:
    """Removes unused macros from gin's configuration."""
    # The macro of a setting that was replaced may be unused, which would be an error when the
    # configuration is read again.
    while True:
        used = _referenced()
        unused = [k for k in gin_config._CONFIG if k[1] == MACRO and k[0] not in used]
        if not unused:
            return
        for key in unused:
            del gin_config._CONFIG[key]


def _referenced() -> set[str]:
    references: Iterator = gin_config.iterate_references(gin_config._CONFIG)
    return {name_of(reference) for reference in references if is_macro(reference)}
