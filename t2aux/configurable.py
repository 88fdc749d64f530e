"""Makes Keras's classes compatible with gin."""

from __future__ import annotations

import inspect
from typing import Any


class Configurable:
    """A base class of Keras layers and models that are decorated with `gin.configurable`.

    gin replaces the constructor by a function with variable arguments, in which Keras does not find
    the first argument when it creates an object.
    """

    def __new__(cls, *arguments: Any, **parameters: Any) -> Any:
        """Creates the object such that Keras sees the constructor's own signature."""
        if not hasattr(cls.__init__, "__signature__"):
            cls.__init__.__signature__ = inspect.signature(cls.__init__)
        return super().__new__(cls, *arguments, **parameters)
