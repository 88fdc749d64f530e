"""Shows what an r-LSTM remembers: it decodes segments of test sequences from its state.

The decoder starts from the state at an anchor and reads its own predictions. Its loss per token is
compared with that of guesses without memory (the mean of the training data, a repetition of the
first token or of the previous true token; for text, unigrams and bigrams), and with that of the
same decoder started from another sequence's state. Writes reconstructions.json, by_step.png and
reconstructions.png (for text, reconstructions.md) into the run's reconstructions/SPLIT folder or,
if --data_dir or --gin_param name other data, into reconstructions/SPLIT-NAME.

Examples:
  t2aux reconstructions --model_dir=runs/quick
  t2aux reconstructions --model_dir=runs/mnist --samples=12 --seed=1
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from t2aux import files
from t2aux.cli import common, evaluating

_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 32, "Sequences per batch; they share their anchors.", lower_bound=1
)
_SAMPLES = flags.DEFINE_integer("samples", 8, "Sequences to draw.", lower_bound=1)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of anchors, segments and sampled tokens.", lower_bound=0
)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    common.no_arguments(argv)
    opened = evaluating.open_run("reconstructions", auxiliary=True)
    from t2aux import data
    from t2aux.evaluation import decoding, decoding_report
    from t2aux.progress import Progress

    run, split = opened.run, opened.split
    loss = decoding.reconstruction_of(run)
    is_read = opened.name == "train"
    train = opened.whole if is_read else data.load(run.source, "train", run.info)
    known = decoding.statistics(opened.training_part(train), reverse=loss.reverse)
    decode = decoding.decoder(run, loss, known, _SEED.value)
    progress = Progress("Sequences", len(split)).update
    measured = decoding.measure(
        decode, loss, split, batch_size=_BATCH_SIZE.value, progress=progress
    )
    samples = decoding.samples(decode, loss, split, _SAMPLES.value)

    about = {
        **opened.about(),
        "seed": _SEED.value,
        "anchors": loss.anchors,
        "length": loss.length,
    }
    title = f"{opened.title}: segments of {loss.length}"
    suffix = "md" if run.info.is_text else "png"
    paths = [
        opened.output / name
        for name in ("reconstructions.json", "by_step.png", f"reconstructions.{suffix}")
    ]
    files.write_json(paths[0], {**about, **measured.to_json()})
    decoding_report.draw_by_step(measured, paths[1], title)
    if run.info.is_text:
        decoding_report.write_texts(measured, samples, paths[2], title)
    else:
        decoding_report.draw_samples(run.info, samples, paths[2], title)
    print(f"{decoding_report.table(measured)}\n\n{measured.verdict()}\n")
    print(*paths, sep="\n")
