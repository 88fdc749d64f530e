"""The model card: the README.md of an export."""

from __future__ import annotations

import pathlib
import re
from typing import Any

from t2aux import tf_serving
from t2aux.export import lstm, saved_model, tflite
from t2aux.export.comparison import Parity
from t2aux.export.model import Model
from t2aux.templates import render
from t2aux.text_tables import escaped, table
from t2aux_ondevice import litert
from t2aux_ondevice.preprocessing import DatasetInfo


def text(exported: Model, metadata: dict[str, Any], parity: Parity) -> str:
    """Writes the card. Unknown facts about the model, such as its data set, are left out.

    Args:
        exported: The exported model.
        metadata: The content of metadata.json.
        parity: The measurement, as in parity.json.

    Returns:
        The card in Markdown.
    """
    forms = {n: e for n, e in metadata["artefacts"].items() if "form" in e}
    first = {entry["form"]: name for name, entry in reversed(forms.items())}
    header, *rows = parity.rows()
    return render(
        pathlib.Path(__file__).with_name("card.md.jinja"),
        metadata=metadata,
        info=exported.info,
        parity=parity,
        source=exported.source,
        trained=exported.trained,
        # A name that is valid in a shell, a path in a container and a URL.
        name=re.sub(r"[^A-Za-z0-9_.-]+", "_", metadata["name"]).strip("_.-") or "classifier",
        cell=escaped,
        state=lambda batch: _state(metadata, batch),
        parity_table=table(rows, header, markdown=True) if rows else "",
        remarks=[*parity.remarks(), *(f"{failure}." for failure in parity.failures())],
        signatures=_signatures(exported.info, metadata),
        files_of=forms,
        whole=first.get(litert.WHOLE_FORM),
        stream=first.get(litert.STREAM_FORM),
        stateful=first.get(litert.STATEFUL_FORM),
        no_stateful=None if lstm.is_lstm(exported.core) else tflite.NO_STATEFUL_FORM,
        warm_up=tf_serving.WARM_UP,
    )


def _state(metadata: dict[str, Any], batch: str) -> str:
    """The state's tensors with their shapes, such as "h, c [B, 128]"."""
    shapes: dict[str, list[str]] = {}
    for name, shape in metadata["state"].items():
        shapes.setdefault(f"[{', '.join([batch, *map(str, shape)])}]", []).append(name)
    return ", ".join(f"{', '.join(names)} {shape}" for shape, names in shapes.items())


def _signatures(info: DatasetInfo, metadata: dict[str, Any]) -> str:
    """The table of signatures in the docstring of `saved_model`, adapted to this data."""
    text = (saved_model.__doc__ or "").split("\n\n", 2)[2].rstrip()
    text = re.sub(
        r"State: .*?\.\s", f"State: {_state(metadata, 'B')} float32. ", text, flags=re.DOTALL
    )
    for signature, kind in ((saved_model.IMAGE, "image"), ("serving_text", "text")):
        if info.kind == kind:
            text = re.sub(r"(\| `serving_\w+`) \((text|images) only\)", r"\1", text)
        else:
            text = re.sub(rf"\| `{signature}`.*\n", "", text)
    if info.kind != "image":
        text = re.sub(r" `serving_image` takes.*? as its result\.", "", text, flags=re.DOTALL)
    return text
