"""The model card: the README.md of an export."""

from __future__ import annotations

import re
import string
from typing import Any

from t2aux import tf_serving
from t2aux.export import lstm, saved_model, tflite
from t2aux.export.comparison import Parity
from t2aux.export.model import Model
from t2aux_ondevice import litert
from t2aux_ondevice.preprocessing import DatasetInfo

_CARD = string.Template("""# $name

$about

| | |
|---|---|
$facts

## How good it is

$measured
## How to use it

From the command line, with LiteRT alone or with TensorFlow:

    $command
$usage
## What is here

$files
""")

_MEASURED = string.Template("""\
Measured after export, each artefact in its own runtime, on $examples $data.
"same class" is how often the most probable class is the $reference's; "largest difference" that of
any probability from the $reference's.

$table
""")

_SAVED_MODEL = string.Template("""
### TensorFlow Serving

From this directory; the official image runs as root unless it is told otherwise:

    docker run --rm --user "$$(id -u)" -p 127.0.0.1:8501:8501 -e MODEL_NAME=$name \\
        -v "$$(cd .. && pwd):/models/$name:ro" tensorflow/serving
$request

$signatures

Lengths run from 1 to T (in `step_segment` from 0 to S: a sequence with 0 keeps its state); what
pads a sequence behind its length does not matter. Streaming: `initial_state` once, then
`step_segment` with each segment and the state that the last one gave. Without TensorFlow Serving:
`tf.saved_model.load(".").signatures["serving_default"](inputs=..., lengths=...)`$text_import.
""")

_REQUESTS = {
    "text": string.Template("""\
    curl $url -d '{"signature_name": "serving_text", "inputs": {"text": ["Some text."]}}'"""),
    "image": string.Template("""\
    (printf '{"signature_name": "serving_image", "instances": [{"b64": "'
     base64 < IMAGE.png | tr -d '\\n'; printf '"}]}') | curl $url -d @-"""),
    **dict.fromkeys(
        ("vectors", "ids"),
        string.Template("""\
    python3 -c 'import json; print(json.dumps({"inputs": {
        "inputs": [[$step] * $steps], "lengths": [$steps]}}))' | curl $url -d @-"""),
    ),
}

_TFLITE = string.Template("""
### LiteRT, on a device

`pip install ai-edge-litert`. What a sequence is:

```python
import json

import numpy as np
from ai_edge_litert.interpreter import Interpreter

metadata = json.load(open("metadata.json", encoding="utf-8"))
$example
```
$parts
Don't feed NaN. `t2aux_ondevice.litert.LiteRTClassifier` does the same with every check.
""")

_WHOLE = string.Template("""
A whole sequence:

```python
classify = Interpreter("$file").get_signature_runner()
probabilities = classify(inputs=inputs)["probabilities"][0]
print(metadata["classes"][probabilities.argmax()], probabilities.max())
```
""")

_STREAM = string.Template("""
Segment by segment, as the input arrives:

```python
step = Interpreter("$file").get_signature_runner()
state = {n: np.zeros([1, *shape], np.float32) for n, shape in metadata["state"].items()}
for begin in range(0, inputs.shape[1], $segment):
    state = step(segment=inputs[:, begin : begin + $segment], **state)
    probabilities = state.pop("probabilities")[0]  # So far.
```
""")

_STATEFUL = string.Template("""
With a file that keeps its state, in segments of $segment steps:

```python
interpreter = Interpreter("$file")
interpreter.allocate_tensors()
step = interpreter.get_signature_runner()
interpreter.reset_all_variables()  # Before each sequence.
for begin in range(0, inputs.shape[1], $segment):
    probabilities = step(segment=inputs[:, begin : begin + $segment])["probabilities"][0]
```
""")

_PARTS = {
    litert.WHOLE_FORM: _WHOLE,
    litert.STREAM_FORM: _STREAM,
    litert.STATEFUL_FORM: _STATEFUL,
}


def text(exported: Model, metadata: dict[str, Any], parity: Parity) -> str:
    """Writes the card. What is not known of the model, such as its data set, is left out.

    Args:
        exported: What was exported.
        metadata: As in metadata.json.
        parity: As in parity.json.

    Returns:
        Markdown.
    """
    info = exported.info
    model = metadata["model"]
    packages = metadata["packages"]
    core = model["core"]
    usage = ""
    if "SavedModel" in metadata["artefacts"]:
        usage += _saved_model_usage(info, metadata)
    usage += _tflite_usage(metadata, info, parity.segment, lstm.is_lstm(exported.core))
    facts = {
        "classes": f"{len(info.classes)}: {', '.join(info.classes)}",
        "data": parity.dataset,
        "input": _input(info),
        "network": (
            f"{model['input_layer']} to {model['input_size']}, {core} of {model['hidden_size']} "
            f"(state: {_state(metadata, '1')}), head of {model['head_size']}; "
            f"{model['weights']:,} weights"
        ),
        "checkpoint": exported.source,
        "made": (
            f"{metadata['created']}, t2aux {packages['t2aux']}, TensorFlow {packages['tensorflow']}"
        ),
    }
    return _CARD.substitute(
        name=_cell(metadata["name"]),
        facts="\n".join(f"| {name} | {_cell(fact)} |" for name, fact in facts.items() if fact),
        about=(
            f"A classifier of {_WHAT[info.kind]}: a recurrent network ({_cell(core)}) that reads a "
            f"sequence token by token and classifies it from the state at its end, "
            f"{exported.trained}."
        ),
        measured=_measured(parity),
        command=_command(info, metadata),
        usage=usage,
        files=_files(metadata),
    )


_FORMS = {
    litert.WHOLE_FORM: "whole sequences",
    litert.STREAM_FORM: "segments, with the state as input and output",
    litert.STATEFUL_FORM: "segments, with a state that the file keeps",
}
_VARIANTS = {
    "float32": "",
    "float16": "; weights in float16",
    "dynamic_int8": "; weights in int8, computed with int8 products",
    "dynamic_int8_int4_head": "; weights in int8, the head's in int4",
    "int8": "; integers alone",
}
_WHAT = {
    "image": "images",
    "text": "texts",
    "vectors": "sequences of vectors",
    "ids": "sequences of ids",
}


def _input(info: DatasetInfo) -> str:
    if info.kind == "image":
        colour = "grey" if info.channels == 1 else "RGB"
        order = (
            "in raster order"
            if info.permutation_seed is None
            else "in the order of np.random.Generator(np.random.PCG64("
            f"{info.permutation_seed})).permutation({info.length})"
        )
        border = f", a border of {info.border} black pixels around it" if info.border else ""
        return (
            f"an image as {colour}, resized to {info.side} x {info.side} (bilinear, antialiased)"
            f"{border}, one pixel a step {order}: {info.length} steps of {_values(info)}, / 255"
        )
    if info.kind == "text":
        limit = "" if info.max_length is None else f", cut at {info.max_length}"
        if info.tokens == "bytes":
            return f"a text as its UTF-8 bytes{limit}"
        return (
            f"a text as its characters{limit}; their ids stand in metadata.json, "
            f"preprocessing.vocabulary ({info.vocabulary_size} of them, 0 for any other)"
        )
    steps = "any number of" if info.length is None else info.length
    if info.kind == "ids":
        return (
            f"{steps} steps of an id from 0 to {info.ids - 1}; the export can't turn text into "
            "ids, and has no signature for text"
        )
    how = "used as they are" if info.mean is None else "as they are: the artefacts normalise them"
    return f"{steps} steps of {_values(info)}, {how}"


def _values(info: DatasetInfo) -> str:
    return "1 real value" if info.channels == 1 else f"{info.channels} real values"


def _measured(parity: Parity) -> str:
    if parity.examples:
        text = _MEASURED.substitute(
            examples=f"{parity.examples:,}",
            data=parity.data,
            reference=parity.reference,
            table=_markdown_table(parity.rows()),
        )
    else:
        text = f"**It was not measured.** {parity.not_measured}\n"
    remarks = [*parity.remarks(), *(f"{failure}." for failure in parity.failures())]
    return text + "".join(f"\n- {remark}" for remark in remarks) + ("\n" if remarks else "")


def _state(metadata: dict[str, Any], batch: str) -> str:
    """The state's tensors with their shapes, such as "h, c [B, 128]"."""
    shapes: dict[str, list[str]] = {}
    for name, shape in metadata["state"].items():
        shapes.setdefault(f"[{', '.join([batch, *map(str, shape)])}]", []).append(name)
    return ", ".join(f"{', '.join(names)} {shape}" for shape, names in shapes.items())


def _saved_model_usage(info: DatasetInfo, metadata: dict[str, Any]) -> str:
    # What goes into a shell, a path in a container and a URL.
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", metadata["name"]).strip("_.-") or "classifier"
    url = f"localhost:8501/v1/models/{name}:predict"
    table = (saved_model.__doc__ or "").split("\n\n", 2)[2].rstrip()
    table = re.sub(
        r"State: .*?\.\s", f"State: {_state(metadata, 'B')} float32. ", table, flags=re.DOTALL
    )
    for signature, kind in ((saved_model.IMAGE, "image"), ("serving_text", "text")):
        if info.kind == kind:
            table = re.sub(r"(\| `serving_\w+`) \((text|images) only\)", r"\1", table)
        else:
            table = re.sub(rf"\| `{signature}`.*\n", "", table)
    if info.kind != "image":
        table = re.sub(r" `serving_image` takes.*? as its result\.", "", table, flags=re.DOTALL)
    return _SAVED_MODEL.substitute(
        name=name,
        request=_REQUESTS[info.kind].substitute(
            url=url,
            step=0 if info.reads_ids else [0.5] * info.channels,
            steps=info.length or 2,
        ),
        signatures=table,
        text_import=" after `import tensorflow_text`" if info.is_text else "",
    )


def _tflite_usage(
    metadata: dict[str, Any], info: DatasetInfo, segment: int, may_keep_state: bool
) -> str:
    parts = []
    for form, template in _PARTS.items():
        of_form = (n for n, e in metadata["artefacts"].items() if e.get("form") == form)
        name = next(of_form, None)
        if name is not None:
            steps = metadata["artefacts"][name].get("segment", segment)
            parts.append(template.substitute(file=name, segment=steps))
    if parts and not may_keep_state:
        parts.append(f"\nThere is no file that keeps its state: {tflite.NO_STATEFUL_FORM}.\n")
    return _TFLITE.substitute(example=_example(info), parts="".join(parts)) if parts else ""


def _example(info: DatasetInfo) -> str:
    cut = "" if info.max_length is None else f"[:{info.max_length}]"
    if info.is_text and info.tokens == "bytes":
        return f'inputs = np.array([list("Some text.".encode(){cut})], np.int32)'
    if info.is_text:
        return (
            'ids = {c: i for i, c in enumerate(metadata["preprocessing"]["vocabulary"])}\n'
            f'inputs = np.array([[ids.get(c, 0) for c in "Some text."{cut}]], np.int32)'
        )
    if info.kind == "ids":
        return (
            f"inputs = np.random.randint({info.ids}, size=[1, {info.length or 100}])"
            ".astype(np.int32)"
        )
    comment = "  # The pixels / 255, in the order above." if info.kind == "image" else ""
    return (
        f"inputs = np.random.rand(1, {info.length or 100}, {info.channels})"
        f".astype(np.float32){comment}"
    )


def _command(info: DatasetInfo, metadata: dict[str, Any]) -> str:
    model = next((n for n, e in metadata["artefacts"].items() if "form" in e), ".")
    argument = {"image": "IMAGE.png", "text": "--text='Some text.'"}
    return f"t2aux classify --model={model} {argument.get(info.kind, 'SEQUENCES.npz')}"


def _files(metadata: dict[str, Any]) -> str:
    about = {
        "saved_model.pb": "with `variables/`: the SavedModel",
        tf_serving.WARM_UP: "requests that TF Serving replays when it loads the SavedModel",
        **{
            name: f"TensorFlow Lite, {_FORMS[entry['form']]}{_VARIANTS[entry['variant']]}"
            for name, entry in metadata["artefacts"].items()
            if "form" in entry
        },
    }
    lines = [f"- `{name}`: {what}" for name, what in about.items() if name in metadata["files"]]
    known = [name for name in ("configuration", "checkpoint") if name in metadata]
    lines.append(
        f"- `metadata.json`: {', '.join(['classes, preprocessing, tensors', *known, 'versions'])}"
    )
    lines.append("- `parity.json`: the table above in full")
    return "\n".join(lines)


def _markdown_table(rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" + "|---:" * (len(rows[0]) - 1) + "|")
    return "\n".join(lines)


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
