"""Shows what an r-LSTM remembers: it decodes segments of test sequences from its state.

The decoder starts from the state at an anchor and is fed its own tokens only. Its loss per token
stands beside those of guesses that have no memory (the training data's mean, the first token again,
the true token before again; for text, unigrams and bigrams), and of the same decoder started from
another sequence's state. Writes reconstructions.json, by_step.png and reconstructions.png (text:
reconstructions.md) into the run's reconstructions/SPLIT folder; on other data than the run's, which
--data_dir or --gin_param name, into reconstructions/SPLIT-NAME.

Examples:
  t2aux reconstructions --model_dir=runs/quick
  t2aux reconstructions --model_dir=runs/mnist --samples=12 --seed=1
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from absl import flags

from t2aux import files, logs
from t2aux.cli import common

common.define_model_dir("Folder of the run.")
common.define_data_dir()
_GIN_PARAM = flags.DEFINE_multi_string(
    "gin_param", [], "One setting that overrides the run's configuration. Repeatable."
)
_CHECKPOINT = common.define_checkpoint()
_SPLIT = flags.DEFINE_enum(
    "split", "test", ["test", "train", "validation"], "Whose sequences to decode."
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 32, "Sequences a batch, which share their anchors.", lower_bound=1
)
_SAMPLES = flags.DEFINE_integer("samples", 8, "Sequences to draw.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of anchors, segments and sampled tokens.", lower_bound=0)
_OUTPUT_DIR = common.define_path(
    "output_dir",
    None,
    "Where to write; the run's reconstructions/SPLIT folder if not set, or one beside it for other "
    "data.",
)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    common.no_arguments(argv)
    logs.quiet_tensorflow()
    from t2aux import data
    from t2aux.evaluation import decoding, decoding_report, other_data
    from t2aux.progress import Progress
    from t2aux.run import load_run
    from t2aux.training import validation

    run = load_run(flags.FLAGS.model_dir, _CHECKPOINT.value, common.gin_params(), auxiliary=True)
    loss = decoding.reconstruction_of(run)
    name, whole, other = other_data.read(run, common.gin_params(), _SPLIT.value)
    split = validation.part_of(_SPLIT.value, whole, is_own=other is None, directory=run.model_dir)
    # Before the work: a folder that can't be written is refused at once.
    output = other_data.folder(_OUTPUT_DIR.value, run, "reconstructions", _SPLIT.value, other)
    train = whole if name == "train" else data.load(run.source, "train", run.info)
    train = validation.part_of("train", train, is_own=other is None, directory=run.model_dir)
    known = decoding.statistics(train, reverse=loss.reverse)
    decode = decoding.decoder(run, loss, known, _SEED.value)
    progress = Progress("Sequences", len(split)).update
    measured = decoding.measure(
        decode, loss, split, batch_size=_BATCH_SIZE.value, progress=progress
    )
    samples = decoding.samples(decode, loss, split, _SAMPLES.value)

    about = {
        **other_data.about(run, other),
        "split": _SPLIT.value,
        "checkpoint": pathlib.Path(run.checkpoint).name,
        "step": run.step,
        "choice": run.choice,
        "seed": _SEED.value,
        "anchors": loss.anchors,
        "length": loss.length,
    }
    title = f"{other_data.title(run, _SPLIT.value, other)}: segments of {loss.length}"
    shown = output / ("reconstructions.md" if run.info.is_text else "reconstructions.png")
    files.write_json(output / "reconstructions.json", {**about, **measured.to_json()})
    decoding_report.draw_by_step(measured, output / "by_step.png", title)
    if run.info.is_text:
        decoding_report.write_texts(measured, samples, shown, title)
    else:
        decoding_report.draw_samples(run.info, samples, shown, title)
    print(f"{decoding_report.table(measured)}\n\n{measured.verdict()}")
    print(f"\n{output / 'reconstructions.json'}\n{output / 'by_step.png'}\n{shown}")


if __name__ == "__main__":
    common.run(main)
