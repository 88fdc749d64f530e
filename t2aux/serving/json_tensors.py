"""Converts between JSON and tensors, as in TensorFlow Serving's REST API."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import tensorflow as tf

from t2aux.serving.signature import Signature
from t2aux.serving.status import invalid

ROW, COLUMN = "row", "column"
# Every version of numpy supports at least this many dimensions.
_MAX_DEPTH = 32
_JSON_TYPES = {
    bool: "true or false",
    bytes: "strings",
    dict: "objects",
    float: "numbers with a decimal point",
    int: "whole numbers",
    list: "lists",
    str: "strings",
    type(None): "null",
}
_NO_SPACE = str.maketrans("", "", " \t\n\v\f\r")


def parse(body: bytes) -> dict[str, Any]:
    """A request's JSON object. Raises ServingError."""
    try:
        value = json.loads(body, object_pairs_hook=_object)
    except RecursionError as error:
        raise invalid("JSON Parse error: lists or objects are nested too deeply.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    except ValueError as error:  # Python rejects such numbers, because parsing them is slow.
        raise invalid("JSON Parse error: a whole number has thousands of digits.") from error
    if not isinstance(value, dict):
        raise invalid("Request body is not a JSON object.")
    name = value.get("signature_name", "")
    if not isinstance(name, str) or not _is_unicode(name):
        raise invalid("'signature_name' key must be a string value.")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Duplicate names are errors, since parsers differ in which one they use."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise invalid(f"JSON Parse error: an object has the name {twice!r} twice.")
    return found


def predict_inputs(
    request: dict[str, Any], signature: Signature
) -> tuple[dict[str, np.ndarray], str]:
    """The tensors of a predict request.

    Args:
        request: The result of `parse`.
        signature: The signature that the request names.

    Returns:
        The inputs by name, and the format of the response.

    Raises:
        ServingError: The request is invalid.
    """
    if "instances" in request and "inputs" in request:
        raise invalid("Not formatted correctly: expecting only one of 'instances' and 'inputs'.")
    try:
        if "instances" in request:
            return _rows(request["instances"], signature), ROW
        if "inputs" in request:
            return _columns(request["inputs"], signature), COLUMN
    except RecursionError as error:
        raise invalid("The lists of the request are nested too deeply.") from error
    raise invalid("Missing 'inputs' or 'instances' key")


def predict_answer(outputs: dict[str, np.ndarray], form: str) -> dict[str, Any]:
    """The JSON of outputs. Raises ServingError if their batch sizes differ."""
    values = {name: _json_of(name, value) for name, value in outputs.items()}
    alone = len(values) == 1
    if form == COLUMN:
        return {"outputs": next(iter(values.values())) if alone else values}
    sizes = {np.shape(value)[0] if np.ndim(value) else None for value in outputs.values()}
    if len(sizes) != 1 or None in sizes:
        raise invalid("Outputs have no common batch size: ask in the columnar format (inputs).")
    if alone:
        return {"predictions": next(iter(values.values()))}
    rows = zip(*values.values(), strict=True)
    return {"predictions": [dict(zip(values, row, strict=True)) for row in rows]}


def examples(request: dict[str, Any]) -> list[bytes]:
    """The serialized tf.Examples of a classify request. Raises ServingError."""
    if "examples" not in request:
        raise invalid("When method is classify, key 'examples' is expected and was not found.")
    given = request["examples"]
    if not isinstance(given, list) or not given:
        raise invalid("Expecting 'examples' value to be a list with at least one entry.")
    context = request.get("context", {})
    if not isinstance(context, dict):
        raise invalid("'context' is not a JSON object.")
    return [_example(item, context).SerializeToString() for item in given]


def classify_answer(classes: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """The JSON of a classification, [B, K] each."""
    return {
        "results": [
            [[n.decode("utf-8", "replace"), float(v)] for n, v in zip(names, row, strict=True)]
            for names, row in zip(classes, scores, strict=True)
        ]
    }


def _example(item: Any, context: dict[str, Any]) -> tf.train.Example:
    if not isinstance(item, dict):
        raise invalid("An entry of 'examples' is not a JSON object.")
    twice = sorted(set(item) & set(context))
    if twice:
        raise invalid(f"The feature {twice[0]!r} is in 'context' and in an example.")
    example = tf.train.Example()
    for name, value in {**context, **item}.items():
        values = value if isinstance(value, list) else [value]
        if not _is_unicode(name):
            raise invalid("The name of a feature is not valid Unicode.")
        values = [_feature_value(name, v) for v in values]
        feature = example.features.feature[name]
        kinds = {type(v) for v in values}
        if kinds == {bytes}:
            feature.bytes_list.value.extend(values)
        elif kinds == {int}:
            try:
                feature.int64_list.value.extend(values)
            except ValueError as error:
                raise invalid(f"A value of the feature {name!r} is out of range.") from error
        elif kinds == {float}:
            feature.float_list.value.extend(values)
        elif kinds <= {bytes, int, float} and kinds:
            raise invalid(f"The feature {name!r} mixes types: give values of one type.")
        elif kinds:
            wrong = _in_words(kinds - {bytes, int, float})
            raise invalid(f"The feature {name!r} holds {wrong} and must hold numbers or strings.")
    return example


def _feature_value(name: str, value: Any) -> Any:
    """A value for the list of a feature, in which true and false are whole numbers."""
    if isinstance(value, bool):
        return int(value)
    return _bytes_of(f"feature {name!r}", value) if isinstance(value, (dict, str)) else value


def _is_unicode(text: str) -> bool:
    """Whether a message can hold a text, since JSON may contain halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _rows(instances: Any, signature: Signature) -> dict[str, np.ndarray]:
    if not isinstance(instances, list) or not instances:
        raise invalid("Expecting 'instances' value to be a list with at least one entry.")
    if all(isinstance(i, dict) and not _is_b64(i) for i in instances):
        names = set(instances[0])
        if any(set(i) != names for i in instances):
            raise invalid("Failed to process element: the instances have different names.")
        if unknown := sorted(names - set(signature.inputs)):
            raise invalid(f"JSON object: does not have named input: {unknown[0]}")
        return {n: _tensor(n, [i[n] for i in instances], signature.inputs[n]) for n in names}
    return _only(signature, instances)


def _columns(inputs: Any, signature: Signature) -> dict[str, np.ndarray]:
    if isinstance(inputs, dict) and not _is_b64(inputs):
        # Unlike in rows, others are ignored, as in TensorFlow Serving.
        missing = sorted(set(signature.inputs) - set(inputs))
        if missing:
            raise invalid(f"Missing named input: {missing[0]} in 'inputs' object.")
        return {n: _tensor(n, inputs[n], spec) for n, spec in signature.inputs.items()}
    return _only(signature, inputs)


def _only(signature: Signature, value: Any) -> dict[str, np.ndarray]:
    """The value of a signature's only input, which a request need not name."""
    if len(signature.inputs) != 1:
        names = ", ".join(sorted(signature.inputs))
        raise invalid(f"The signature {signature.name!r} has the inputs {names}: name them.")
    ((name, spec),) = signature.inputs.items()
    return {name: _tensor(name, value, spec)}


def _tensor(name: str, value: Any, spec: tf.TensorSpec) -> np.ndarray:
    """A (nested) list as an array of the signature's type."""
    if spec.dtype == tf.string:
        return _string_array(name, _mapped(value, lambda v: _bytes_of(f"input {name!r}", v)))
    wanted = np.dtype(spec.dtype.as_numpy_dtype)
    _check_kinds(name, _kinds(value), spec)
    if _depth(value) > _MAX_DEPTH:
        raise invalid(f"The lists of the input {name!r} are nested too deeply.")
    try:
        # Whole numbers of any size become floats, as in JSON.
        array = np.array(value, np.float64 if wanted.kind == "f" else None)
    except ValueError as error:
        raise invalid(
            f"The input {name!r} has rows of different lengths: pad them to one length."
        ) from error
    except OverflowError as error:
        raise invalid(f"A number in the input {name!r} is out of range.") from error
    if not array.size:
        raise invalid(f"The input {name!r} is empty.")
    if array.dtype.kind == "O":
        raise invalid(f"A number in the input {name!r} is out of range.")
    if wanted.kind in "iu":
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise invalid(f"A number in the input {name!r} is out of {spec.dtype.name}'s range.")
    elif wanted.kind == "f":
        most = 2 ** (np.finfo(wanted).nmant + 1) - 1
        if np.abs(array).max() > most and (lost := _too_precise(value, most)) is not None:
            raise invalid(
                f"Cannot convert JSON value: {lost} to {spec.dtype.name} without loss of precision "
                f"(input {name!r})."
            )
    with np.errstate(over="ignore", invalid="ignore"):  # Infinite values are rejected later.
        return array.astype(wanted)


def _kinds(value: Any) -> set[type]:
    """The types of all values in nested lists."""
    if not isinstance(value, list):
        return {type(value)}
    found = set(map(type, value))
    if list in found:
        found.remove(list)
        for part in value:
            if isinstance(part, list):
                found |= _kinds(part)
    return found


def _check_kinds(name: str, kinds: set[type], spec: tf.TensorSpec) -> None:
    """Checks types. As in TensorFlow Serving, only whole numbers are converted to other types."""
    if spec.dtype.is_floating:
        right, wanted = {int, float}, "numbers"
    elif spec.dtype.is_bool:
        right, wanted = {bool}, "true or false"
    else:
        right, wanted = {int}, "whole numbers"
    if kinds - right:
        raise invalid(
            f"The input {name!r} holds {_in_words(kinds - right)} and must hold {wanted} "
            f"({spec.dtype.name})."
        )


def _in_words(kinds: set[type]) -> str:
    return " and ".join(sorted(_JSON_TYPES.get(kind, kind.__name__) for kind in kinds))


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list) and value:
        value, depth = value[0], depth + 1
    return depth


def _too_precise(value: Any, most: int) -> int | None:
    """A whole number of 64 bits that a float may not represent exactly, or None."""
    if isinstance(value, list):
        found = (_too_precise(part, most) for part in value)
        return next((number for number in found if number is not None), None)
    return value if type(value) is int and most < abs(value) < 2**64 else None


def _string_array(name: str, strings: Any) -> np.ndarray:
    if _depth(strings) > _MAX_DEPTH:
        raise invalid(f"The lists of the input {name!r} are nested too deeply.")
    try:
        array = np.array(strings, object)
    except ValueError:
        array = np.empty([1], object)
    if not all(isinstance(string, bytes) for string in array.flat):
        raise invalid(f"The input {name!r} has rows of different lengths: pad them to one length.")
    return array


def _bytes_of(what: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if _is_b64(value) and isinstance(value["b64"], str):
        return _decoded(what, value["b64"])
    raise invalid(
        f"The {what} holds {_in_words({type(value)})} and must hold strings, or objects "
        "{'b64': ...} with a string of base64."
    )


def _decoded(what: str, text: str) -> bytes:
    """Decodes base64 like Abseil, with any white space and optional padding."""
    text = text.translate(_NO_SPACE)
    content = text.rstrip("=")
    missing = -len(content) % 4
    try:
        if missing == 3 or len(text) - len(content) not in (0, missing):
            raise ValueError
        return base64.b64decode(content + "=" * missing, validate=True)
    except ValueError as error:
        raise invalid(f"Unable to base64 decode: the {what} is not valid base64.") from error


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"}


def _json_of(name: str, value: np.ndarray) -> Any:
    if value.dtype != object:
        return value.tolist()
    if name.endswith("_bytes"):
        return _mapped(value.tolist(), lambda v: {"b64": base64.b64encode(v).decode("ascii")})
    return _mapped(value.tolist(), lambda v: v.decode("utf-8", "replace"))


def _mapped(value: Any, change: Any) -> Any:
    return [_mapped(v, change) for v in value] if isinstance(value, list) else change(value)
