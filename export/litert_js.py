"""LiteRT.js, the runtime of the demo page: downloaded from npm once and kept in the user's cache.

npm checks the versions and hashes in `ondevice/web/package-lock.json`.
"""

from __future__ import annotations

import hashlib
import pathlib
import shutil
import subprocess

from absl import logging

from t2aux import files
from t2aux.errors import DependencyError, FileError, UserError
from t2aux_ondevice import litert

PROJECT = pathlib.Path(__file__).parent / "ondevice" / "web"
# The files of the packages by their paths on the page. Of the four builds of the runtime, LiteRT.js
# uses the first if the browser has relaxed SIMD, and otherwise the second. The others are for
# threads and for GPUs, which do not speed up a chain of small steps.
_CORE, _UTILITIES = "node_modules/@litertjs/core", "node_modules/@litertjs/wasm-utils"
FILES = {
    "core/index.js": f"{_CORE}/dist/index.js",
    "wasm-utils/index.js": f"{_UTILITIES}/dist/index.js",
    **{
        f"wasm/litert_wasm_{build}{suffix}": f"{_CORE}/wasm/litert_wasm_{build}{suffix}"
        for build in ("internal", "compat_internal")
        for suffix in (".js", ".wasm")
    },
}
_DESCRIPTIONS = ("package.json", "package-lock.json")
_MANIFEST = "files.json"
_TIMEOUT_SECONDS = 600


def folder() -> pathlib.Path:
    """The folder with `FILES`, which are downloaded now if they are not in the cache.

    Raises:
        UserError: npm is not installed or can't download them, or the cache can't be written.
    """
    key = hashlib.sha256(b"\0".join((PROJECT / n).read_bytes() for n in _DESCRIPTIONS))
    place = files.cache_directory() / f"litertjs-{key.hexdigest()[:16]}"
    if place.exists():
        if _is_whole(place):
            return place
        logging.warning("The copy of LiteRT.js in %s is damaged: it is fetched again.", place)
        shutil.rmtree(place, ignore_errors=True)
    npm = shutil.which("npm")
    if npm is None:
        raise DependencyError(
            "The page needs npm, which fetches LiteRT.js once: install Node.js and npm."
        )
    files.ensure_directory(place.parent)
    logging.info("Fetching LiteRT.js with npm; this is done once.")
    with files.temporary_folder(place.parent, ".litertjs-") as root:
        _fetch(npm, root / "project")
        _collect(root / "project", root / "files")
        try:
            (root / "files").rename(place)
        except OSError as error:
            # Another process may have written it at the same time.
            if not _is_whole(place):
                raise FileError(f"Can't write {place}: {error.strerror}.") from error
    return place


def _is_whole(place: pathlib.Path) -> bool:
    try:
        digests = files.read_json(place / _MANIFEST)
        return digests == {name: litert.digest((place / name).read_bytes()) for name in FILES}
    except (OSError, UserError):
        return False


def _fetch(npm: str, project: pathlib.Path) -> None:
    """Runs `npm ci` in a new folder."""
    project.mkdir()
    for name in _DESCRIPTIONS:
        shutil.copyfile(PROJECT / name, project / name)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress"]
    try:
        done = subprocess.run(
            command, cwd=project, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS
        )
    except OSError as error:
        raise DependencyError(
            f"npm can't be run ({error.strerror}): install Node.js again."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DependencyError(
            f"npm took more than {_TIMEOUT_SECONDS} s to fetch LiteRT.js: check the network."
        ) from error
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower() and " code " not in line]
        reason = (errors or lines or [f"status {done.returncode}"])[0]
        reason = reason.removeprefix("npm").strip().removeprefix("error").strip().rstrip(".")
        raise DependencyError(
            f"npm can't fetch LiteRT.js ({reason}): check the network and `npm config list`."
        )


def _collect(project: pathlib.Path, place: pathlib.Path) -> None:
    """Moves the page's files from npm's folder, and writes their hashes."""
    for name, source in FILES.items():
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (project / source).is_file():
            raise DependencyError(
                f"npm fetched a LiteRT.js without {target.name}: install t2aux again."
            )
        shutil.move(project / source, target)
        target.chmod(0o644)
    files.write_json(
        place / _MANIFEST, {name: litert.digest((place / name).read_bytes()) for name in FILES}
    )
