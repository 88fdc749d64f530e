"""The names of the data sets, each with a line about it."""

from __future__ import annotations

# Imports the package, so that all of its sources are registered.
import t2aux.data  # noqa: F401
from t2aux import text_tables
from t2aux.data.source import about, sources
from t2aux.data.tfds_sets import TfdsSource


def listing() -> str:
    """Returns the names, one per line, as text for a terminal."""
    own, tfds = [], []
    found = sources()
    for name, source in sorted(found.items()):
        (tfds if issubclass(source, TfdsSource) else own).append([name, about(source)])
    return "\n".join(
        [
            "Data sources (train.data = @NAME()):",
            text_tables.table(own, left=(0, 1), indent="  "),
            "",
            "From tensorflow-datasets (`t2aux data NAME --prepare` downloads one):",
            text_tables.table(tfds, left=(0, 1), indent="  "),
            "`t2aux data NAME` also accepts the names of its data sets that are not listed.",
        ]
    )
