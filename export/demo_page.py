"""Builds a page on which a browser classifies drawings or texts with an export.

The page is a folder of static files that any web server can serve: ours from `ondevice/web/`, the
streaming form of the network, its metadata.json, and LiteRT.js. Nothing in it is fetched from
elsewhere.

LiteRT.js 2.5.3 runs the loop of the streaming form, but in WebAssembly it can neither set the size
of a segment ("TensorBuffer ranked tensor type Float32[1, 1, 1] does not match expected ranked
tensor type Float32[1, -1, 1]") nor load the fused LSTM of the stateful form ("Variable tensors not
yet supported"). So the page has the streaming form with segments of one step: it reads a sequence
token by token, whatever its length.
"""

from __future__ import annotations

import base64
import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from t2aux import files
from t2aux.errors import UserError
from t2aux.export import flatbuffer, litert_js, staging
from t2aux_ondevice import litert
from t2aux_ondevice.preprocessing import DatasetInfo

MODEL = "classifier.tflite"
DESCRIPTION = "page.json"
_FORMAT = "t2aux-demo-page"
# The data set that is embedded, so that test images are at hand.
_WITH_EXAMPLES = "digits"
_SUFFIXES = frozenset({".html", ".css", ".js"})


def build(
    export_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    version: int | None = None,
) -> pathlib.Path:
    """Builds the page of an export.

    Args:
        export_dir: The base directory of an export, or a version's.
        output_dir: The page's folder. It is there whole or not at all; an earlier page is replaced.
        version: By default the newest.

    Returns:
        The page's folder.

    Raises:
        UserError: There is no such export, it is damaged, has no streaming form or reads neither
            images nor texts; LiteRT.js can't be had; or the folder can't be written or holds
            something else.
    """
    source = find_version(export_dir, version)
    metadata = litert.read_metadata(source)
    info = DatasetInfo.from_json(metadata["preprocessing"])
    if info.kind not in ("image", "text"):
        raise UserError(
            f"{source} classifies {info.kind}, which nobody can draw or type: the page is for "
            "images and texts."
        )
    model = _one_step_model(source, metadata)
    runtime = litert_js.folder()
    with _replaced(pathlib.Path(output_dir)) as place:
        for file in sorted(litert_js.PROJECT.iterdir()):
            if file.suffix in _SUFFIXES:
                shutil.copyfile(file, place / file.name)
        for name in litert_js.FILES:
            target = place / "litert" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(runtime / name, target)
        shutil.copyfile(source / litert.METADATA, place / litert.METADATA)
        (place / MODEL).write_bytes(model)
        files.write_json(place / DESCRIPTION, _description(info))
    return pathlib.Path(output_dir)


def find_version(export_dir: str | os.PathLike[str], version: int | None) -> pathlib.Path:
    """The directory of a version, by default the newest.

    Args:
        export_dir: The base directory, or a version's own.
        version: Its number.

    Raises:
        UserError: There is none.
    """
    base = pathlib.Path(export_dir)
    if version is None and (base / litert.METADATA).is_file():
        return base
    there = staging.versions(base)
    if not there:
        raise UserError(
            f"{base} holds no export: give the --export_dir of a `t2aux export --formats=tflite`."
        )
    if version is not None and version not in there:
        raise UserError(
            f"{base} has no version {version}, only {', '.join(map(str, there))}: give one of them."
        )
    return base / str(there[-1] if version is None else version)


def has_examples(export_dir: str | os.PathLike[str], version: int | None) -> bool:
    """Whether `build` takes examples from the data, which imports TensorFlow. Raises as it does."""
    metadata = litert.read_metadata(find_version(export_dir, version))
    return metadata["preprocessing"]["name"] == _WITH_EXAMPLES


def _one_step_model(source: pathlib.Path, metadata: dict[str, Any]) -> bytes:
    """The streaming form that takes one step at a time; float32 if there is a choice."""
    streaming = [
        name
        for name, entry in metadata["artefacts"].items()
        if entry.get("form") == litert.STREAM_FORM
    ]
    if not streaming:
        raise UserError(
            f"{source} has no streaming form, which the page runs: export with --formats=tflite "
            "and a variant that has one, such as float32."
        )
    name = litert.STREAM if litert.STREAM in streaming else streaming[0]
    content = litert.read_tflite(source / name)
    litert.check_content(source / name, content, metadata["files"].get(name, {}))
    return flatbuffer.with_steps(content, 1)


def _description(info: DatasetInfo) -> dict[str, Any]:
    """What the page has to know beside metadata.json."""
    # The order is numpy's to make: JavaScript has not its random numbers.
    order = None if info.permutation is None else info.permutation.tolist()
    return {
        "format": _FORMAT,
        "model": MODEL,
        "permutation": order,
        "examples": _examples(info),
    }


def _examples(info: DatasetInfo) -> list[dict[str, Any]]:
    """A test image of each class, where the data is at hand."""
    if info.name != _WITH_EXAMPLES:
        return []
    from t2aux.data import digits

    found: dict[str, dict[str, Any]] = {}
    index = 0
    while len(found) < len(digits.CLASSES):
        pixels, label = digits.test_image(index)
        height, width = pixels.shape
        found.setdefault(
            label,
            {
                "label": label,
                "width": width,
                "height": height,
                "pixels": base64.b64encode(pixels.tobytes()).decode(),
            },
        )
        index += 1
    return [found[label] for label in digits.CLASSES]


@contextlib.contextmanager
def _replaced(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder that takes the target's name, and place, when the block ends well."""
    target = target.absolute()
    _check_replaceable(target)
    parent = files.ensure_directory(target.parent)
    try:
        with files.temporary_folder(parent, f".{target.name}-") as folder:
            yield folder
            if target.exists():
                target.rename(folder.with_name("old"))
            folder.rename(target)
    except OSError as error:
        raise UserError(
            f"Can't write the page to {target}: {error.strerror or error}. Free some space there, "
            "or choose a folder that you may write to."
        ) from error


def _check_replaceable(target: pathlib.Path) -> None:
    if not target.exists():
        return
    if target.is_dir():
        if not any(target.iterdir()):
            return
        with contextlib.suppress(UserError, AttributeError):
            if files.read_json(target / DESCRIPTION).get("format") == _FORMAT:
                return
    raise UserError(
        f"{target} is there already, and no page of an earlier build: choose another --output_dir."
    )
