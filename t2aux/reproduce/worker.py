"""Trains rows in sequence in one process: a line of JSON in, a line of JSON out."""

from __future__ import annotations

import json
import os
import sys

from t2aux import logs
from t2aux.errors import UserError


def main() -> None:
    """Reads configurations from stdin until it ends."""
    # Output of libraries must not be mixed with the replies.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logs.quiet_tensorflow()
    from t2aux import config
    from t2aux.training import train

    for line in sys.stdin:
        request = json.loads(line)
        settings = list(request["gin_params"])
        if request["data_dir"]:
            settings.append(f"dataset.data_dir = {request['data_dir']!r}")
        error = None
        try:
            text = config.parse(request["gin_files"], settings)
            with config.user_errors():
                train.train(request["model_dir"], text)
        except UserError as failure:
            error = str(failure)
        print(json.dumps({"error": error}), file=replies, flush=True)


if __name__ == "__main__":
    main()
