"""Fuzzes every reader: python -m tests.fuzz --inputs=100000 [--json=results/fuzz.json].

The inputs are the same every time. It ends with status 1 and the smallest input where a reader does
anything but read or refuse.
"""

import argparse
import json
import pathlib
import re
import sys
import tempfile
import time
import traceback

from absl import logging

from tests.fuzz import run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="of all readers together")
    parser.add_argument("--readers", default="", help="a regular expression; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=pathlib.Path, help="where to write the numbers")
    options = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    with tempfile.TemporaryDirectory() as folder, run.all_readers(pathlib.Path(folder)) as readers:
        chosen = {n: r for n, r in readers.items() if re.search(options.readers, n)}
        each = -(-options.inputs // len(chosen))
        results, failed = {}, []
        for name, reader in chosen.items():
            begin = time.perf_counter()
            try:
                counts = run.fuzz(reader, each, options.seed)
            except BaseException:
                print(f"{name:14} FAILED")
                traceback.print_exc()
                failed.append(name)
                continue
            seconds = round(time.perf_counter() - begin, 1)
            results[name] = {**counts, "seconds": seconds}
            print(f"{name:14} {results[name]}", flush=True)
    if failed:
        return f"These neither read nor refused an input: {', '.join(failed)}."
    total = sum(result["inputs"] for result in results.values())
    print(f"{total:,} inputs, none that was neither read nor refused.")
    if options.json:
        command = f"python -m tests.fuzz --inputs={options.inputs} --seed={options.seed}"
        report = {"command": command, "inputs": total, "readers": results}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
