"""t2aux: recurrent networks that classify very long sequences, with auxiliary losses.

A TensorFlow 2 reproduction of "Learning Longer-term Dependencies in RNNs with Auxiliary Losses"
(Trinh, Dai, Luong, Le, ICML 2018). Importing this package imports nothing heavy: TensorFlow is
loaded by the modules that need it, so that a device can classify with LiteRT alone.
"""

import importlib as _importlib
import importlib.util as _util
import pathlib as _pathlib
import sys as _sys
from typing import Any as _Any

__version__ = "0.1.0"

# Public names, imported on first use: modules, and what is in modules.
_MODULES = {"callbacks": "training.callbacks", "layers": "layers", "losses": "losses"}
_NAMES = {
    "SequenceClassifier": "training.model",
    "export_model": "export.keras_export",
    "load": "loaded",
}

# In a checkout `export/` and `gin/` stand beside this package; in a wheel they are inside it. With
# the checkout's root on the package's path, `t2aux.export` and the bundled gin files are found the
# same way in both.
_root = _pathlib.Path(__file__).resolve().parent.parent
if (_root / "gin" / "base.gin").is_file() and str(_root) not in __path__:
    __path__.append(str(_root))
    # The same for the client for devices, which is a package of its own.
    if _util.find_spec("t2aux_ondevice") is None:
        _sys.path.append(str(_root / "export" / "ondevice" / "python"))


def __getattr__(name: str) -> _Any:
    if name in _MODULES:
        return _importlib.import_module(f"t2aux.{_MODULES[name]}")
    if name in _NAMES:
        return getattr(_importlib.import_module(f"t2aux.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_NAMES})
