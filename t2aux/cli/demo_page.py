r"""Builds and serves a page that classifies drawings or texts in the browser.

The page runs the exported network with LiteRT.js on the visitor's machine, step by step, and shows
how the classes' probabilities change along the sequence. It is a folder of static files that any
web server can serve, and loads nothing from elsewhere. LiteRT.js is downloaded from npm once and
kept in ~/.cache/t2aux (or T2AUX_CACHE_DIR).

Examples:
  t2aux demo-page --export_dir=exports/digits
  t2aux demo-page --export_dir=exports/digits --version=2 --port=8080
  t2aux demo-page --export_dir=exports/digits --output_dir=site/digits --build_only
"""

from __future__ import annotations

import contextlib
import pathlib
import signal
import sys
import tempfile
from collections.abc import Sequence

from absl import flags

from t2aux import logs
from t2aux.cli import common
from t2aux.errors import SettingError

_EXPORT_DIR = common.define_path(
    "export_dir", None, "An export with TensorFlow Lite files.", required=True
)
_VERSION = flags.DEFINE_integer("version", None, "The version; the newest by default.")
_OUTPUT_DIR = common.define_path(
    "output_dir", None, "Folder for the page; by default a temporary one."
)
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "The address to listen on; by default reachable only from this machine."
)
_PORT = flags.DEFINE_integer(
    "port", 8000, "The port to listen on; 0 for any free one.", lower_bound=0, upper_bound=65535
)
_BUILD_ONLY = flags.DEFINE_bool("build_only", False, "Write --output_dir and exit.")


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    common.no_arguments(argv)
    if _BUILD_ONLY.value and _OUTPUT_DIR.value is None:
        raise SettingError("--build_only needs an --output_dir for the page.")
    from t2aux.export import demo_page

    if demo_page.has_examples(_EXPORT_DIR.value, _VERSION.value):
        logs.quiet_tensorflow()
    common.exit_on_sigterm()
    with contextlib.ExitStack() as stack:
        place = _OUTPUT_DIR.value
        if place is None:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="t2aux-page-")) + "/page"
        page = demo_page.build(_EXPORT_DIR.value, place, _VERSION.value)
        if _BUILD_ONLY.value:
            print(f"Built the page in {page}: any web server can serve it.")
        else:
            _serve(page)


def _serve(page: pathlib.Path) -> None:
    from t2aux.export.static_server import Server

    with Server(page, _HOST.value, _PORT.value) as server:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print(f"The page is at {server.url} (Ctrl-C ends it).", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
