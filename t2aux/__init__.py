"""t2aux: recurrent networks that classify very long sequences, with auxiliary losses.

A TensorFlow 2 reproduction of "Learning Longer-term Dependencies in RNNs with Auxiliary Losses"
(Trinh, Dai, Luong, Le, ICML 2018). Importing this package is fast: TensorFlow is imported by the
modules that need it, so that a device can classify with only LiteRT.
"""

import importlib as _importlib
import importlib.util as _util
import pathlib as _pathlib
import sys as _sys
from typing import Any as _Any

__version__ = "0.1.0"

# Public names, which are imported on first use: modules, and members of modules.
_MODULES = {"callbacks": "training.callbacks", "layers": "layers", "losses": "losses"}
_NAMES = {
    "SequenceClassifier": "training.model",
    "export_model": "export.keras_export",
    "load": "evaluation.loaded",
    "predict": "prediction.api",
}

# In a checkout, `export/` and `gin/` are beside this package, in a wheel inside it. The
# installation determines where `t2aux.export` is; that of another copy would be different code.
_folder = _pathlib.Path(__file__).resolve().parent
_export = _util.find_spec("t2aux.export")
if _export is None or _pathlib.Path(_export.origin).resolve().parents[1] not in (
    _folder,
    _folder.parent,
):
    raise ImportError(
        f"t2aux in {_folder.parent} is a checkout, and what is installed is not this checkout: run "
        "`pip install -e ./export/ondevice/python -e .` there, or start Python in another folder "
        "and without this one in PYTHONPATH."
    )


def __getattr__(name: str) -> _Any:
    if name in _MODULES:
        return _importlib.import_module(f"t2aux.{_MODULES[name]}")
    if name in _NAMES:
        return getattr(_importlib.import_module(f"t2aux.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_NAMES})


# Keras can load a saved model only if its classes are registered. If Keras is already imported,
# `import t2aux` registers them, as it adds little time; otherwise the first use of a name does.
_keras = _sys.modules.get("keras")
if _keras is not None and _keras.config.backend() == "tensorflow":
    _importlib.import_module("t2aux.training.model")
