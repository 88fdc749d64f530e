"""Trains one row after the other in one process: a line of JSON in, a line of JSON out."""

from __future__ import annotations

import json
import os
import sys

from t2aux import logs
from t2aux.errors import UserError


def main() -> None:
    """Reads configurations from stdin until it ends."""
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logs.quiet_tensorflow()
    from t2aux import config
    from t2aux.training import train

    for line in sys.stdin:
        wanted = json.loads(line)
        settings = list(wanted["gin_params"])
        if wanted["data_dir"]:
            settings.append(f"dataset.data_dir = {wanted['data_dir']!r}")
        error = None
        try:
            text = config.parse(wanted["gin_files"], settings)
            with config.user_errors():
                train.train(wanted["model_dir"], text)
        except UserError as mistake:
            error = str(mistake)
        print(json.dumps({"error": error}), file=answers, flush=True)


if __name__ == "__main__":
    main()
