"""Writes the report of `t2aux reproduce`: the paper's numbers beside the measured ones.

Examples:
  t2aux report runs/paper/short
  t2aux report results/reproduce --output_dir=docs

If DIR or its parent folder has a reconstructions*.json, the report includes the measurements of
`t2aux reconstructions`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from t2aux.cli import common
from t2aux.errors import SettingError
from t2aux_ondevice import paths

_OUTPUT_DIR = common.define_path(
    "output_dir",
    None,
    "Folder for results.md, results.html and the figures; by default DIR/report.",
)


def main(argv: Sequence[str]) -> int:
    """Runs the command. Returns the exit status."""
    from t2aux.reproduce import decoding_table, report, results

    if len(argv) != 2:
        raise SettingError("Name one folder of results: `t2aux report DIR`.")
    folder = pathlib.Path(paths.local(argv[1], "DIR"))
    output = pathlib.Path(_OUTPUT_DIR.value) if _OUTPUT_DIR.value else folder / "report"
    found = results.read_all(folder)
    for path in report.write(found, output, decoding_table.read_all(folder)):
        print(path)
    return 0
