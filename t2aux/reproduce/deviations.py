"""The settings in which the runs differ from the paper."""

from __future__ import annotations

import re

from t2aux.reproduce import wording
from t2aux.reproduce.results import Summary
from t2aux.reproduce.wording import DATA_SETS, PAPER_BATCH, Rows

# Rows that vary a setting that others share, and settings that are not part of a recipe.
_VARIED = r"_without_|_\d+x\d+|_bptt\d+"
_NOT_THE_RECIPE = (
    r"SEED|SIDE|BATCH_SIZE|(PRETRAIN|JOINT)_EPOCHS|CHRONO_STEPS|SUPERVISED_BPTT|"
    r"dataset\.(?!max_examples)|(dbpedia|digits|idx|image_folder)\.(?!max_length)|"
    r"RunConfig\.|train\.(?!optimizer)|joint/Phase\.(auxiliary|decay_)"
)
# Settings as phrases; other settings are shown unchanged.
_WORDS = {
    "train.optimizer": "{value} instead of RMSProp",
    "SEGMENT_LENGTH": "segments of {value} tokens instead of 600",
    "ANCHORS": "{value} anchors",
    "dataset.max_examples": "a fixed choice of {value} training examples",
    "dbpedia.max_length": "texts are cut at {value} characters",
    "Reconstruction.final_sampling": "scheduled sampling grows to {value} instead of 1",
    "Reconstruction.distant_past = False": "the reconstructed segment ends at the anchor instead "
    "of lying anywhere before it",
}

# Anchors within AUXILIARY_BPTT steps of a later one share its window
# (`t2aux.training.truncation.group_anchors`). By n and l: the mean number of the 300 steps that the
# gradient of an anchor goes back, for CIFAR10's 1,024 steps.
REACH = {(10, 60): 184, (20, 30): 169, (50, 12): 153, (100, 6): 146, (200, 3): 143}


def recipes(rows: Rows) -> list[str]:
    """The settings of the runs by data set, from their flags: epochs, and what the rows share."""
    found = []
    for dataset, paper in DATA_SETS.items():
        some = wording.rows_of(dataset, rows)
        if not some:
            continue
        # Without rows that vary a setting or turn a part off.
        plain = {row: s for row, s in some.items() if not re.search(_VARIED, row)} or some
        size, others = wording.batches(dataset, rows)
        parts = [f"batches of {size}{others} instead of {PAPER_BATCH}"]
        parts += [*_epochs(plain), *_drops(plain), *_shared(plain)]
        if dataset == "dbpedia" and not any(
            "dbpedia.max_length" in _first(s) for s in some.values()
        ):
            parts.append("texts are cut at 1,024 characters (`dbpedia.max_length`)")
        found.append((paper.title, "; ".join(parts)))
    return [f"{titles}: {text}." for text, titles in wording.merged(found)]


def _first(summary: Summary) -> dict[str, str]:
    return summary.runs[0].parameters


def _epochs(plain: Rows) -> list[str]:
    """The schedules of rows with and without pretraining."""

    def epochs(summary: Summary) -> tuple[str | None, str, str]:
        some = _first(summary)
        joint, drop = some.get("JOINT_EPOCHS", "?"), some.get("joint/Phase.decay_epochs", "")
        after = ""
        if joint.isdigit() and drop.isdigit() and int(drop) < int(joint):
            after = f", {int(joint) - int(drop)} of them after the rate's drop"
        return some.get("PRETRAIN_EPOCHS"), joint, after

    found = []
    for (before, joint, after), some in wording.grouped(plain, epochs).items():
        text = f"{before} + {joint} epochs (pretraining + joint)" if before else ""
        if not before:
            alone = all("/transformer" in row for row in some)
            where = wording.whose(some) if alone else "rows without pretraining"
            text = f"{joint} epochs in {where}"
        found.append(text + after)
    return sorted(found)


def _drops(plain: Rows) -> list[str]:
    """The decay of the learning rate, which the paper halves every 300 joint epochs."""
    names = ("joint/Phase.decay_factor", "joint/Phase.decay_epochs")
    dropping = {row: s for row, s in plain.items() if set(names) <= _first(s).keys()}
    groups = wording.grouped(dropping, lambda summary: tuple(_first(summary)[n] for n in names))
    if not groups:
        return []
    (factor, epochs), *others = groups
    found = "".join(f" (by {f} after {e} in {wording.whose(groups[f, e])})" for f, e in others)
    return [
        f"the rate is multiplied by {factor} after {epochs} joint epochs{found} instead of halved "
        "after every 300 (`joint/Phase.decay_factor`, `joint/Phase.decay_epochs`)"
    ]


def _shared(plain: Rows) -> list[str]:
    """The settings with the same value in all rows that have them."""
    values: dict[str, dict[str, str]] = {}
    for row, summary in plain.items():
        for name, setting in _first(summary).items():
            values.setdefault(name, {})[row] = setting
    shared = []
    for name, by_row in values.items():
        # The anchors of the document task are those of the paper.
        by_row = {
            row: setting
            for row, setting in by_row.items()
            if not (row.startswith("dbpedia/") and name in ("ANCHORS", "SEGMENT_LENGTH"))
        }
        if not by_row or len(set(by_row.values())) > 1 or re.match(_NOT_THE_RECIPE, name):
            continue
        whose = wording.whose(by_row)
        where = f" in {whose}" if whose != wording.whose(plain) else ""
        shared.append(_in_words(name, next(iter(by_row.values()))) + where)
    return shared


def _in_words(name: str, setting: str) -> str:
    written = f"{name} = {setting}"
    if name not in _WORDS:
        return f"{_WORDS[written]} (`{written}`)" if written in _WORDS else f"`{written}`"
    value = f"{int(setting):,}" if setting.isdigit() else setting.lstrip("@")
    return f"{_WORDS[name].format(value=value)} (`{name}`)"


def some_pretrain(rows: Rows) -> bool:
    """Whether only some of the rows with a drop of the learning rate have pretraining."""
    pretrains = {
        "PRETRAIN_EPOCHS" in _first(summary)
        for summary in rows.values()
        if "joint/Phase.decay_epochs" in _first(summary)
    }
    return len(pretrains) > 1


def reaches(rows: Rows) -> str:
    """The mean reach of the gradient of several anchors, in brackets; "" if none was run."""
    found = [
        f"{n}x{length} {steps}"
        for (n, length), steps in REACH.items()
        if any(re.match(rf"cifar10/.*_{n}x{length}(_|$)", row) for row in rows)
    ]
    return f" (CIFAR10, in steps: {', '.join(found)})" if found else ""
