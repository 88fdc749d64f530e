r"""Lists the data sets, prepares one, shows what is in it.

Usage:
  t2aux data                    lists the names
  t2aux data NAME [flags]       prints a summary, and draws a few sequences into --picture
  t2aux data NAME --prepare     downloads a data set of tensorflow-datasets first

Examples:
  t2aux data digits
  t2aux data digits --gin_param='load.side = 28' --picture=digits.png
  t2aux data mnist --prepare
  t2aux data idx --data_dir=mnist --gin_param='load.permutation_seed = 92916' --picture=pmnist.png
  t2aux data csv --data_dir=dbpedia --gin_param='load.tokens = "bytes"'
  t2aux data --gin_file=quickstart
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from t2aux.cli import common
from t2aux.errors import UserError

common.define_gin_flags()
common.define_data_dir()
_PREPARE = flags.DEFINE_bool(
    "prepare", False, "Download and prepare the data set with tensorflow-datasets first."
)
_PICTURE = flags.DEFINE_string(
    "picture", None, "Draw a few sequences into this file (.png, .pdf or .svg)."
)


def main(argv: Sequence[str]) -> int | None:
    """Runs the command; argv[1], if there, is the name of the data set."""
    # Here, since `t2aux data --help` needs none of it.
    from t2aux.data import catalogue

    if len(argv) > 2:
        raise UserError(f"Give one name of a data set, not {len(argv) - 1}: {' '.join(argv[1:])}.")
    if len(argv) == 1 and not (flags.FLAGS.gin_file or flags.FLAGS.gin_param):
        if _PREPARE.value or _PICTURE.value:
            raise UserError("Name the data set: t2aux data NAME; `t2aux data` lists the names.")
        print(catalogue.listing())
        return None

    import gin

    from t2aux import config
    from t2aux.data import load, prepare
    from t2aux.data.summary import draw_sequences, summarise

    if flags.FLAGS.gin_file or not all(p.lstrip().startswith("load.") for p in common.gin_params()):
        # A configuration of a whole run names the configurables of the training too. They are slow
        # to import.
        common.quiet_tensorflow()
        from t2aux.training import loop  # noqa: F401
    common.parse_gin()
    bindings = gin.get_bindings("load")
    name = argv[1] if len(argv) == 2 else bindings.get("name", "digits")
    if name not in catalogue.OWN:
        common.quiet_tensorflow()
    if _PREPARE.value and not prepare(name, bindings.get("data_dir")):
        print(f"{name} needs no preparation.")
    with config.user_errors():
        train = load("train", name=name)
        test = load("test", name=name, info=train.info)
    print(summarise({"train": train, "test": test}))
    if _PICTURE.value:
        draw_sequences(train, _PICTURE.value)
        print(f"\nA picture of some training sequences: {_PICTURE.value}")
    return None


if __name__ == "__main__":
    common.run(main)
