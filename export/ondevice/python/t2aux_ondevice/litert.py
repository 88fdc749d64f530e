"""Classifies sequences with an exported `.tflite` file in LiteRT.

Needs only numpy and ai-edge-litert. The classes and the preprocessing are in the `metadata.json`
beside the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from t2aux_ondevice import files
from t2aux_ondevice.errors import DependencyError, FileError, ModelError, UserError, reason
from t2aux_ondevice.preprocessing import DatasetInfo
from t2aux_ondevice.sequences import check_probabilities, check_sequence, segments
from t2aux_ondevice.stream import Stream

FORMAT = "t2aux-export"
FORMAT_VERSION = 1
METADATA = "metadata.json"
# The forms of a `.tflite` file: whole sequences; segments with the state as input and output; and
# segments with the state kept inside the interpreter.
WHOLE_FORM, STREAM_FORM, STATEFUL_FORM = FORMS = ("whole", "stream", "stateful")


def file_name(form: str, variant: str = "float32") -> str:
    """The name of an export's `.tflite` file for a form and a variant."""
    parts = ["classifier", *([form] if form != WHOLE_FORM else [])]
    return "_".join([*parts, *([variant] if variant != "float32" else [])]) + ".tflite"


WHOLE = file_name(WHOLE_FORM)
STREAM = file_name(STREAM_FORM)

# "TFL3" is the identifier of TensorFlow Lite's flatbuffers, at byte 4.
_IDENTIFIER = b"TFL3"
_VARIANT = re.compile(r"[a-z0-9_]{1,40}")
_REPAIR = "copy it again from the export, or export again."
# The input for a sequence or a segment. The other inputs of the streaming form are the state.
INPUTS = {WHOLE_FORM: "inputs", STREAM_FORM: "segment", STATEFUL_FORM: "segment"}
# Exports that do not name the tensors of the state are LSTMs.
_STATE = ("h", "c")


def read_metadata(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads an export's metadata.json.

    Args:
        directory: The directory of an exported version, or the folder of a copy of its files.

    Returns:
        The metadata; see `t2aux.export.metadata`.

    Raises:
        UserError: The file is missing, damaged, or in a format that this program can't read.
    """
    path = pathlib.Path(directory) / METADATA
    if not path.is_file():
        raise ModelError(f"Can't find {METADATA} in {path.parent}: copy it there from the export.")
    metadata = files.read_json(path, ModelError)
    check_description(metadata, path)
    for name in ("artefacts", "files"):
        entries = metadata.get(name)
        if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
            raise _damaged(path, name)
    return metadata


def description(
    info: DatasetInfo, state: Mapping[str, Sequence[int]] | None = None
) -> dict[str, Any]:
    """The part of metadata.json that describes a classifier's inputs and outputs.

    It does not contain the normalisation, which is computed by the exported network itself.

    Args:
        info: The classes and the preprocessing.
        state: The shapes of the state's tensors by name, without the batch; None for an LSTM.
    """
    named = {} if state is None else {"state": {n: list(shape) for n, shape in state.items()}}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": info.kind,
        "classes": list(info.classes),
        "preprocessing": info.without_normalization().to_json(),
        **named,
    }


def state_shapes(described: dict[str, Any]) -> dict[str, list[int] | None]:
    """The state's tensors by name, in a description that was checked by `check_description`.

    Returns:
        Their shapes without the batch; None if the description does not contain them.
    """
    return described.get("state") or dict.fromkeys(_STATE)


def check_description(value: Any, source: str | os.PathLike[str]) -> DatasetInfo:
    """Reads a description made by `description`.

    Args:
        value: The parsed JSON; may contain more.
        source: The name of the JSON in messages.

    Returns:
        The classes and the preprocessing.

    Raises:
        UserError: The description is damaged, or in a format that this program can't read.
    """
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ModelError(f"{source} does not describe an export of t2aux: {_REPAIR}")
    version = value.get("format_version")
    if version != FORMAT_VERSION or type(version) is not int:
        raise ModelError(
            f"{source} has the format version {version!r}, not {FORMAT_VERSION}: install the t2aux "
            "that wrote it, or export again."
        )
    try:
        info = DatasetInfo.from_json(value.get("preprocessing"))
    except UserError as error:
        raise _damaged(source, "preprocessing") from error
    if value.get("classes") != list(info.classes):
        raise _damaged(source, "classes")
    state = value.get("state", {})
    if not isinstance(state, dict) or not all(map(_is_shape, state.values())):
        raise _damaged(source, "state")
    return info


def _damaged(source: str | os.PathLike[str], entry: str) -> UserError:
    return ModelError(f"{source} is damaged in its entry `{entry}`: {_REPAIR}")


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size > 0 for size in value)


def digest(content: bytes) -> dict[str, int | str]:
    """A file's entry in metadata.json: its size in bytes and its SHA-256."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def check_content(path: pathlib.Path, content: bytes, entry: dict[str, Any]) -> None:
    """Checks a file's content against its entry in metadata.json.

    Args:
        path: The file, for the message.
        content: The content of the file.
        entry: The entry with `bytes` and `sha256`, see `digest`.

    Raises:
        UserError: The content does not match the entry.
    """
    found = digest(content)
    for name in ("bytes", "sha256"):
        if entry.get(name) != found[name]:
            raise ModelError(
                f"{path} is damaged, or not the file that {METADATA} describes ({name}: "
                f"{found[name]}, not {entry.get(name)}): {_REPAIR}"
            )


def read_tflite(path: pathlib.Path) -> bytes:
    """Reads a `.tflite` file and checks its identifier.

    Raises:
        UserError: The file is missing, can't be read, or does not have the identifier.
    """
    if not os.path.lexists(path):
        raise FileError(f"Can't find the file {path}: check the path.")
    content = files.read_bytes(path)
    if content[4:8] != _IDENTIFIER:
        what = "empty" if not content else "damaged or not a TensorFlow Lite file"
        raise ModelError(f"{path} is {what}: {_REPAIR}")
    return content


class LiteRTModel:
    """One `.tflite` file in LiteRT's interpreter, with its tensors by name.

    Attributes:
        path: The file.
        inputs: LiteRT's details of the inputs by name.
        outputs: LiteRT's details of the outputs by name.
    """

    def __init__(self, path: str | os.PathLike[str], entry: dict[str, Any] | None = None) -> None:
        """Loads the file.

        Args:
            path: The file.
            entry: Its entry in metadata.json (`bytes`, `sha256`). A file that does not match is
                rejected before LiteRT reads it, since a damaged file can make LiteRT crash, hang or
                compute wrong results.

        Raises:
            UserError: The file is missing or damaged, or this version of LiteRT can't run it.
        """
        self.path = pathlib.Path(path)
        content = read_tflite(self.path)
        if entry is not None:
            check_content(self.path, content, entry)
        # Imported here because it is slow, and checking a file does not need it.
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise DependencyError(
                f"LiteRT can't be imported ({error}): run `pip install ai-edge-litert`."
            ) from error
        with self._failing("load"):
            # A sequence is one long chain of small steps, so more threads would not help.
            self._interpreter = Interpreter(model_content=content, num_threads=1)
            # Done now rather than at the first call, so that errors are raised here.
            self._interpreter.allocate_tensors()
            self._runner = self._interpreter.get_signature_runner()
            self.inputs: dict[str, dict[str, Any]] = self._runner.get_input_details()
            self.outputs: dict[str, dict[str, Any]] = self._runner.get_output_details()

    def reset(self) -> None:
        """Resets the state of a file of the stateful form."""
        with self._failing("reset"):
            self._interpreter.reset_all_variables()

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the model once. Inputs and outputs are arrays by name.

        Raises:
            UserError: LiteRT can't run the model on these inputs.
        """
        with self._failing("run"):
            return self._runner(**inputs)

    @contextlib.contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # LiteRT may raise any exception for damaged files.
            raise ModelError(
                f"LiteRT can't {what} {self.path} ({reason(error)}): {_REPAIR}"
            ) from error


class LiteRTClassifier:
    """A classifier from an export's `.tflite` files, in any form and variant.

    Attributes:
        info: The classes and the preprocessing.
        metadata: The whole metadata.json.
        form: The form of the file, one of `FORMS`.
        variant: The variant of the file, such as "float32" or "dynamic_int8".
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Loads a file and the metadata.json beside it.

        Args:
            path: A `.tflite` file of the export. It may have been renamed.

        Raises:
            UserError: A file is missing or damaged, or the files are from different exports.
        """
        path = pathlib.Path(path)
        content = read_tflite(path)
        self.metadata = read_metadata(path.parent)
        self.info = DatasetInfo.from_json(self.metadata["preprocessing"])
        self._directory = path.parent
        entries = {n: e for n, e in self.metadata["files"].items() if n.endswith(".tflite")}
        # Look it up by content first, since the file may have been renamed.
        found = digest(content)
        same = [name for name, entry in entries.items() if entry == found]
        name = (same or [path.name if path.name in entries else WHOLE])[0]
        self._model = self._load(path, name)
        self.form, self.variant, self._segment = self._described(name)
        self._stream = self._model if self.form == STREAM_FORM else None
        self._started: Stream | None = None

    @property
    def streaming(self) -> LiteRTModel:
        """The model of the streaming file of the same variant, loaded on first use.

        Raises:
            UserError: The file is damaged, or not beside the file for whole sequences.
        """
        if self._stream is None:
            name = file_name(STREAM_FORM, self.variant)
            path = self._directory / name
            if not path.is_file():
                raise ModelError(
                    f"Streaming needs {name} in {self._directory}: copy it from the export."
                )
            self._stream = self._load(path, name)
        return self._stream

    def probabilities(self, sequence: np.ndarray) -> np.ndarray:
        """Classifies a whole sequence.

        Args:
            sequence: Real values [T, C] or ids [T].

        Returns:
            float32 [K]: the classes' probabilities.

        Raises:
            UserError: See `sequences.check_sequence` and `LiteRTModel`.
        """
        sequence = check_sequence(self.info, sequence)
        if self.form != WHOLE_FORM:
            return self.start().read(sequence)
        answer = self._model(inputs=sequence[np.newaxis])["probabilities"]
        return check_probabilities(self.info, self._model.path, answer)

    def stream(self, sequence: np.ndarray, segment: int) -> Iterator[tuple[int, np.ndarray]]:
        """Reads a whole sequence segment by segment, carrying the state.

        Args:
            sequence: Real values [T, C] or ids [T].
            segment: Steps per segment; the last segment may have fewer.

        Yields:
            The number of steps read and the probabilities so far, float32 [K].

        Raises:
            UserError: See `probabilities`; the streaming file is missing; or the file is of the
                stateful form, and `segment` is not a multiple of the steps that it reads at once.
        """
        sequence = check_sequence(self.info, sequence)
        stream = self.start()
        for steps, part in segments(sequence, segment):
            yield steps, stream.read(part)

    def start(self) -> Stream:
        """Starts a sequence that arrives in parts.

        With a file of the stateful form, which has a single state, this ends the previous sequence.

        Raises:
            UserError: The file is for whole sequences, and the streaming file is missing.
        """
        if self.form == STATEFUL_FORM:
            self._model.reset()
            self._started = Stream(self, self._model, self._segment)
            return self._started
        return Stream(self, self.streaming)

    def is_current(self, stream: Stream) -> bool:
        """Whether the state of a file of the stateful form belongs to this stream."""
        return self._started is stream

    def _described(self, name: str) -> tuple[str, str, int]:
        """The form, the variant and (for the stateful form) the steps of a file of the export."""
        entry = self.metadata["artefacts"].get(name, {})
        form, variant, segment = (entry.get(key) for key in ("form", "variant", "segment"))
        if (
            form not in FORMS
            or not isinstance(variant, str)
            # It becomes part of a file's name.
            or not _VARIANT.fullmatch(variant)
            or (form == STATEFUL_FORM and (type(segment) is not int or segment < 1))
        ):
            raise _damaged(self._directory / METADATA, "artefacts")
        return form, variant, segment or 1

    def _load(self, path: pathlib.Path, name: str) -> LiteRTModel:
        """Loads `path`, which should be the export's file `name`."""
        if name not in self.metadata["files"]:
            raise ModelError(f"{METADATA} in {self._directory} does not describe {path}: {_REPAIR}")
        model = LiteRTModel(path, self.metadata["files"][name])
        form, _, _ = self._described(name)
        state = model.inputs.keys() - {INPUTS[form]}
        has_tensors = INPUTS[form] in model.inputs and {"probabilities", *state} <= set(
            model.outputs
        )
        if not has_tensors or bool(state) != (form == STREAM_FORM):
            raise ModelError(f"{path} is not a classifier that t2aux exported: {_REPAIR}")
        return model
