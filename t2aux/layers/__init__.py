"""Recurrent layers with Keras's interfaces, for your own models."""

from typing import Any

from t2aux.errors import SettingError
from t2aux.layers.gru import GRU
from t2aux.layers.lstm import LSTM
from t2aux.layers.mingru import MinGRU

__all__ = ["GRU", "LSTM", "MinGRU", "get"]

_BY_NAME = {layer.__name__.lower(): layer for layer in (LSTM, GRU, MinGRU)}


def get(given: Any, units: int = 128) -> Any:
    """Creates a recurrent layer from its name or class.

    >>> t2aux.layers.get("gru").units
    128

    Args:
        given: "lstm", "gru" or "mingru", or a class that is called with the number of units.
            Anything else is returned unchanged.
        units: H.

    Returns:
        The layer.

    Raises:
        UserError: The name is unknown.
    """
    if isinstance(given, str):
        if given.lower() not in _BY_NAME:
            names = ", ".join(_BY_NAME)
            raise SettingError(f"The recurrent layer {given!r} is unknown: give one of {names}.")
        given = _BY_NAME[given.lower()]
    return given(units) if isinstance(given, type) else given
