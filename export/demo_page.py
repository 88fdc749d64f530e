"""Builds a page that classifies drawings or texts in the browser with an export.

The page is a folder of static files for any web server: those of `ondevice/web/`, the streaming
form of the network, its metadata.json, and LiteRT.js. It loads nothing from elsewhere.

LiteRT.js 2.5.3 runs the loop of the streaming form, but in WebAssembly it can neither set the size
of a segment ("TensorBuffer ranked tensor type Float32[1, 1, 1] does not match expected ranked
tensor type Float32[1, -1, 1]") nor load the fused LSTM of the stateful form ("Variable tensors not
yet supported"). Therefore, the page uses the streaming form with segments of one step.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from t2aux import files
from t2aux.errors import FileError, ModelError, UserError
from t2aux.export import flatbuffer, litert_js, staging
from t2aux_ondevice import litert
from t2aux_ondevice.preprocessing import DatasetInfo

MODEL = "classifier.tflite"
DESCRIPTION = "page.json"
_FORMAT = "t2aux-demo-page"
# A data set that is part of scikit-learn, and therefore always available.
_WITH_EXAMPLES = "digits"
_SUFFIXES = frozenset({".html", ".css", ".js"})


def build(
    export_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    version: int | None = None,
) -> pathlib.Path:
    """Builds the page of an export.

    Args:
        export_dir: The base directory of an export, or that of a version.
        output_dir: The page's folder. It is written completely or not at all; an existing page is
            replaced.
        version: The version; defaults to the newest.

    Returns:
        The page's folder.

    Raises:
        UserError: The export does not exist, is damaged, has no streaming form or reads neither
            images nor texts; LiteRT.js can't be fetched; or the folder can't be written or holds
            something else.
    """
    source = find_version(export_dir, version)
    metadata = litert.read_metadata(source)
    info = DatasetInfo.from_json(metadata["preprocessing"])
    if info.kind not in ("image", "text"):
        raise ModelError(f"{source} classifies {info.kind}: the page is only for images and texts.")
    model = _one_step_model(source, metadata)
    runtime = litert_js.folder()
    with _replaced(pathlib.Path(output_dir)) as folder:
        for file in sorted(litert_js.PROJECT.iterdir()):
            if file.suffix in _SUFFIXES:
                shutil.copyfile(file, folder / file.name)
        for name in litert_js.FILES:
            target = folder / "litert" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(runtime / name, target)
        shutil.copyfile(source / litert.METADATA, folder / litert.METADATA)
        (folder / MODEL).write_bytes(model)
        files.write_json(folder / DESCRIPTION, _description(info))
    return pathlib.Path(output_dir)


def find_version(export_dir: str | os.PathLike[str], version: int | None) -> pathlib.Path:
    """The directory of a version, by default the newest.

    Args:
        export_dir: The base directory, or that of a version.
        version: The number of the version.

    Raises:
        UserError: The version does not exist.
    """
    base = pathlib.Path(export_dir)
    if version is None and (base / litert.METADATA).is_file():
        return base
    versions = staging.versions(base)
    if not versions:
        raise FileError(f"{base} has no export: give the --export_dir of `t2aux export`.")
    if version is not None and version not in versions:
        raise FileError(f"{base} has no version {version}, but {', '.join(map(str, versions))}.")
    return base / str(versions[-1] if version is None else version)


def has_examples(export_dir: str | os.PathLike[str], version: int | None) -> bool:
    """Whether `build` reads examples of the data, which imports TensorFlow. Raises like `build`."""
    metadata = litert.read_metadata(find_version(export_dir, version))
    return metadata["preprocessing"]["name"] == _WITH_EXAMPLES


def _one_step_model(source: pathlib.Path, metadata: dict[str, Any]) -> bytes:
    """The streaming form with segments of one step; float32 if there is a choice."""
    streaming = [
        name
        for name, entry in metadata["artefacts"].items()
        if entry.get("form") == litert.STREAM_FORM
    ]
    if not streaming:
        raise ModelError(f"{source} has no streaming form: export with --formats=tflite.")
    name = litert.STREAM if litert.STREAM in streaming else streaming[0]
    content = litert.read_tflite(source / name)
    litert.check_content(source / name, content, metadata["files"].get(name, {}))
    return flatbuffer.with_steps(content, 1)


def _description(info: DatasetInfo) -> dict[str, Any]:
    """The description that the page needs in addition to metadata.json."""
    # numpy's random numbers can't be generated in JavaScript.
    order = None if info.permutation is None else info.permutation.tolist()
    examples = _examples(info)
    return {"format": _FORMAT, "model": MODEL, "permutation": order, "examples": examples}


def _examples(info: DatasetInfo) -> list[dict[str, Any]]:
    """A test image of each class, if the data is available."""
    if info.name != _WITH_EXAMPLES:
        return []
    from t2aux.data import digits

    found: dict[str, dict[str, Any]] = {}
    for index in itertools.count():
        pixels, label = digits.test_image(index)
        encoded = base64.b64encode(pixels.tobytes()).decode()
        size = {"width": pixels.shape[1], "height": pixels.shape[0]}
        found.setdefault(label, {"label": label, **size, "pixels": encoded})
        if len(found) == len(digits.CLASSES):
            break
    return [found[label] for label in digits.CLASSES]


@contextlib.contextmanager
def _replaced(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Makes a folder that replaces the target when the block succeeds."""
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
        raise FileError(
            f"Can't write the page to {target} ({error.strerror or error}): free some space, or "
            "choose another folder."
        ) from error


def _check_replaceable(target: pathlib.Path) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    with contextlib.suppress(UserError, AttributeError):
        if files.read_json(target / DESCRIPTION).get("format") == _FORMAT:
            return
    raise FileError(f"{target} exists, and is not an earlier page: choose another --output_dir.")
