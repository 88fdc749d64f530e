"""What makes Keras's classes go with gin."""

from __future__ import annotations

import inspect
from typing import Any


class Configurable:
    """A base of Keras layers and models that `gin.configurable` may decorate.

    gin replaces the constructor by a function of any arguments, in which Keras, when it makes an
    object, does not find the first one.
    """

    def __new__(cls, *arguments: Any, **parameters: Any) -> Any:
        """Makes the object; Keras then sees the constructor's own signature."""
        if not hasattr(cls.__init__, "__signature__"):
            cls.__init__.__signature__ = inspect.signature(cls.__init__)
        return super().__new__(cls, *arguments, **parameters)
