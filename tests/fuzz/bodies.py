"""REST bodies for a signature whose values have other types, sizes or shapes than it wants."""

import base64
import json

import tensorflow as tf
from hypothesis import strategies as st

_RIGHT = {
    "float": [0, 1, 0.5, -1.5, 1e-30],
    "int": [0, 1, 2, 3],
    "string": ["a", "abc", "é", {"b64": "YWJj"}, {"b64": "YW\nJj "}, {"b64": "YQ"}],
}
_WRONG = [
    *(True, False, None, "1", "", "\ud800", "\0", 0.5, -1, 16_777_217, 2**31, 2**63, 10**400),
    *(float("nan"), float("inf"), float("-inf"), 1e39, -1e308, [], [1], [[]], {}, {"a": 1}),
    *({"b64": 1}, {"b64": "-_"}, {"b64": "====="}, {"b64": ""}, {"b64": "YQ==", "more": 1}),
]
_SIZES = [1, 2, 16, 17]
_METHODS = {"tensorflow/serving/classify": "classify"}


@st.composite
def bodies(draw, signatures):
    """A path behind the model's name, and a body.

    Args:
        draw: Hypothesis's.
        signatures: A model's, by name.
    """
    signature = draw(st.sampled_from([signatures[name] for name in sorted(signatures)]))
    body = {"signature_name": signature.name}
    method = _METHODS.get(signature.method_name)
    if method is not None and draw(st.booleans()):
        body["examples"] = draw(st.lists(_example(), min_size=1, max_size=2))
        if draw(st.integers(0, 3)) == 0:
            body["context"] = draw(st.one_of(_example(), st.sampled_from(_WRONG)))
    else:
        batch = draw(st.sampled_from([1, 1, 2, 3]))
        inputs = {n: _tensor(draw, spec, batch) for n, spec in signature.inputs.items()}
        if draw(st.integers(0, 9)) == 0:
            inputs[draw(st.sampled_from([*inputs, "other"]))] = draw(st.sampled_from(_WRONG))
        body.update(_form(draw, inputs))
        method = "predict"
    return f":{method}", json.dumps(body).encode()


@st.composite
def _example(draw):
    kinds = {"inputs": draw(st.sampled_from(["float", "int", "string"]))}
    if draw(st.booleans()):
        kinds["text"] = "string"
    example = {}
    for name, kind in kinds.items():
        values = [draw(st.sampled_from(_RIGHT[kind]))] * draw(st.sampled_from(_SIZES))
        if draw(st.integers(0, 2)) == 0:
            values[draw(st.integers(0, len(values) - 1))] = draw(st.sampled_from(_WRONG))
        example[name] = values if draw(st.integers(0, 4)) else values[0]
    return example


def _tensor(draw, spec, batch):
    """Nested lists of the signature's shape and type, or nearly."""
    sizes = [
        batch if not i else n or draw(st.sampled_from(_SIZES)) for i, n in enumerate(spec.shape)
    ]
    if draw(st.integers(0, 7)) == 0:
        place = draw(st.integers(0, len(sizes)))
        sizes[place : place + draw(st.integers(0, 1))] = draw(st.sampled_from([[], [1], [0], [3]]))
    if spec.dtype == tf.string:
        value = draw(st.one_of(st.sampled_from(_RIGHT["string"]), _serialized()))
    else:
        value = draw(st.sampled_from(_RIGHT["float" if spec.dtype.is_floating else "int"]))
    kind = draw(st.integers(0, 5))
    if kind == 0:
        value = draw(st.sampled_from(_WRONG))
    for size in reversed(sizes):
        value = [value] * size
    return _with_one_wrong(draw, value) if kind == 1 else value


@st.composite
def _serialized(draw):
    """A tf.Example in base64."""
    feature = tf.train.Feature()
    kind = draw(st.sampled_from(["float_list", "int64_list"]))
    values = [1.0, 0.5, float("nan")] if kind == "float_list" else [1, 2, -1]
    value = draw(st.sampled_from(values))
    getattr(feature, kind).value.extend([value] * draw(st.sampled_from(_SIZES)))
    example = tf.train.Example(features=tf.train.Features(feature={"inputs": feature}))
    return {"b64": base64.b64encode(example.SerializeToString()).decode()}


def _with_one_wrong(draw, value):
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], _with_one_wrong(draw, value[place]), *value[place + 1 :]]
    return draw(st.sampled_from(_WRONG))


def _form(draw, inputs):
    kind = draw(st.integers(0, 4))
    if kind == 0 and len(inputs) == 1:
        return {draw(st.sampled_from(["instances", "inputs"])): next(iter(inputs.values()))}
    if kind <= 2 and all(isinstance(value, list) for value in inputs.values()):
        rows = zip(*inputs.values(), strict=False)
        return {"instances": [dict(zip(inputs, row, strict=True)) for row in rows]}
    return {"inputs": inputs}
