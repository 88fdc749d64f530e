"""The paper's claims, each beside what was measured: seen, not seen, within noise, or not run."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

from t2aux.reproduce import tables, wording
from t2aux.reproduce.document import Block, Heading, Items, Paragraph, Table
from t2aux.reproduce.experiments import EXPERIMENTS, Cell, Experiment
from t2aux.reproduce.results import Summary
from t2aux.reproduce.rows import Row
from t2aux.reproduce.wording import DATA_SETS, MISSING, Rows

SEEN, NOT_SEEN, NOISE, NOT_RUN = "seen", "not seen", "within noise", "not run"
# Points of accuracy by which two runs of one row and seed, on two versions of the code, differed
# (`CHECKED`): with one seed, less tells nothing.
NOISE_POINTS = 1.2
# A row that was trained twice, and the accuracy in % of the run that is not among the results; it
# is that of results/mnist_variants.json.
CHECKED = ("mnist/lstm_lstm_chrono_truncated", 92.88)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim on one data set.

    Attributes:
        family: What it is an instance of; a key of _FAMILIES.
        claim: In words.
        paper: The published numbers, in words.
        here: The measured ones.
        verdict: One of four.
    """

    family: str
    claim: str
    paper: str
    here: str
    verdict: str


# What the findings are instances of, in order.
_FAMILIES = {
    "truncated": "The auxiliary losses help the truncated LSTM on images (Table 2)",
    "full": "They help under full BPTT, too (Table 3)",
    "documents": "On documents they beat the LSTM, and pretraining alone (Table 4)",
    "cores": "They help other cores and initialisations (rows of ours)",
    "transformer": "A Transformer of comparable size beats the LSTM under full BPTT (Table 3)",
    "length": "On the longest sequences r-LSTM beats the LSTM and the Transformer (Figure 3)",
    "bptt": "Accuracy falls as the supervised BPTT shortens (Figure 4)",
    "anchors": "20x30 is the best n x l (Table 6)",
    "parts": "Every part of r-LSTM contributes (Figure 6)",
}


def blocks(rows: Rows) -> list[Block]:
    """What the rows can say of the paper's claims, in a table; and what they can't."""
    found = list(findings(rows))
    told = [finding for finding in found if finding.verdict != NOT_RUN]
    if not told:
        return []
    lines = [[f.claim, f.paper, f.here, f.verdict] for f in told]
    made: list[Block] = [
        Heading("Findings"),
        Paragraph(
            "What the paper claims, and in how many of our comparisons it is seen. A row that is "
            "not finished counts as not run."
        ),
        Items([_count(family, found) for family in _FAMILIES]),
        Table(["claim", "paper, %", "here, %", "verdict"], lines, _meaning(told)),
    ]
    if any(f.claim.startswith("MNIST") and f.family == "truncated" for f in told):
        made.append(
            Paragraph(
                "The truncated LSTM's 11.3 % on MNIST is a plateau, where a network answers “1” "
                "whatever it is shown; `docs/mnist.md` says what leaves it and when."
            )
        )
    return made


def _count(family: str, found: list[Finding]) -> str:
    """A family's verdicts, counted."""
    verdicts = [finding.verdict for finding in found if finding.family == family]
    missing = verdicts.count(NOT_RUN)
    run = len(verdicts) - missing
    if not run:
        return f"{_FAMILIES[family]}: {NOT_RUN}."
    counts = [f"{SEEN} in {verdicts.count(SEEN)} of {run}"]
    counts += [f"{verdicts.count(NOISE)} {NOISE}"] * (NOISE in verdicts)
    counts += [f"{missing} more {NOT_RUN}"] * bool(missing)
    return f"{_FAMILIES[family]}: {', '.join(counts)}."


def _meaning(told: list[Finding]) -> str:
    text = (
        "Seen: what the paper has ahead is ahead here by more than the noise; within noise: by "
        "less; not seen: it is not ahead. The noise is two standard errors of the difference, over "
        f"seeds ({NOISE_POINTS} points where a row has one) or over test examples, whichever are "
        "more."
    )
    if any(f.family == "bptt" for f in told):
        text += (
            " A fall is seen where the whole fall is larger than the noise and no step rises by "
            "more."
        )
    return text


def findings(rows: Rows) -> Iterator[Finding]:
    """Every claim on every data set, in the order of the paper's tables."""
    images = [dataset for dataset in DATA_SETS if dataset in ("mnist", "pmnist", "cifar10")]
    for family, full, how in (
        ("truncated", False, "both truncated 300"),
        ("full", True, "both under full BPTT"),
    ):
        for dataset in images:
            plain = Row(dataset, "lstm", full=full)
            for model, name in (("r_lstm", "r-LSTM"), ("p_lstm", "p-LSTM")):
                claim = f"{wording.title_of(dataset, rows)}: {name} beats the LSTM, {how}"
                yield _better(family, claim, Row(dataset, model, full=full), plain, rows)
    title = wording.title_of("dbpedia", rows)
    for model, name in (("r_lstm", "r-LSTM"), ("p_lstm", "p-LSTM")):
        for other, beaten in (("lstm", "LSTM"), ("lm_lstm", "LM-LSTM"), ("sa_lstm", "SA-LSTM")):
            claim = f"{title}: {name} errs less than the {beaten}"
            yield _better("documents", claim, Row("dbpedia", model), Row("dbpedia", other), rows)
    yield from _cores(images, rows)
    for dataset in images:
        claim = f"{wording.title_of(dataset, rows)}: the Transformer beats the LSTM under full BPTT"
        transformer, lstm = Row(dataset, "transformer"), Row(dataset, "lstm", full=True)
        yield _better("transformer", claim, transformer, lstm, rows)
    yield from _lengths(rows)
    for cells in _lines(EXPERIMENTS["figure4"]).values():
        yield _falls(cells, rows)
    for cells in _lines(EXPERIMENTS["table6"]).values():
        yield _best(cells, "20x30", rows)
    yield from _parts(rows)


def _lines(experiment: Experiment) -> dict[str, list[Cell]]:
    lines: dict[str, list[Cell]] = {}
    for cell in experiment.cells:
        lines.setdefault(cell.line, []).append(cell)
    return lines


def _cores(images: list[str], rows: Rows) -> Iterator[Finding]:
    names = {"lstm_chrono": "LSTM with chrono initialisation", "gru": "GRU", "mingru": "minGRU"}
    for core, name in names.items():
        for dataset in images:
            plain = Row(dataset, "lstm", core=core)
            for model, prefix in (("r_lstm", "r-"), ("p_lstm", "p-")):
                claim = (
                    f"{wording.title_of(dataset, rows)}: {prefix}{name} beats that without the loss"
                )
                yield _better("cores", claim, Row(dataset, model, core=core), plain, rows)


def _published() -> dict[str, tuple[float, str]]:
    """The paper's number of each row, by id, and the measure that it is in."""
    found: dict[str, tuple[float, str]] = {}
    for experiment in EXPERIMENTS.values():
        for cell in experiment.cells:
            if cell.row and cell.published is not None and experiment.measure != "lost":
                found.setdefault(cell.row.id, (cell.published, experiment.measure))
    return found


def _better(family: str, claim: str, row: Row, other: Row, rows: Rows) -> Finding:
    """The claim that a row has a higher accuracy, or a lower error, than another."""
    published = _published()
    is_error = row.dataset == "dbpedia"
    many = 2 if is_error or row.side else 1
    pair = [published.get(one.id, (None,))[0] for one in (row, other)]
    there = [number is not None for number in pair]
    paper = _against(*pair, many) if all(there) else MISSING
    if any(there) and not all(there):
        # The document task's LSTM has no published number.
        paper = " against ".join(
            MISSING if number is None else wording.number(number, many) for number in pair
        )
    summaries = [_done(one, rows) for one in (row, other)]
    if None in summaries:
        return Finding(family, claim, paper, MISSING, NOT_RUN)
    numbers = [100 - s.mean if is_error else s.mean for s in summaries]
    text = _against(*numbers, many) + _of_sequences(*summaries)
    return Finding(family, claim, paper, text, _verdict(*summaries))


def _of_sequences(first: Summary, second: Summary) -> str:
    """How many training sequences each saw, where they differ."""
    seen = [wording.sequences(summary.runs[0]) for summary in (first, second)]
    return f" (trained on {seen[0]:,} against {seen[1]:,})" if seen[0] != seen[1] else ""


def _against(first: float, second: float, many: int) -> str:
    return f"{wording.number(first, many)} against {wording.number(second, many)}"


def _done(row: Row, rows: Rows) -> Summary | None:
    summary = rows.get(row.id)
    return summary if summary and summary.finished else None


def noise(first: Summary, second: Summary) -> float:
    """By how many points two rows must differ to tell anything: for their seeds, and their test."""
    pair = (first, second)
    seeds = NOISE_POINTS
    if first.spread is not None and second.spread is not None:
        seeds = 2 * math.sqrt(sum(s.spread**2 / len(s.runs) for s in pair))
    tested = [wording.test_examples(summary.runs[0]) for summary in pair]
    if None in tested:
        return seeds
    variances = (s.mean * (100 - s.mean) / n for s, n in zip(pair, tested, strict=True))
    return max(seeds, 2 * math.sqrt(sum(variances)))


def _verdict(ahead: Summary, behind: Summary) -> str:
    difference = ahead.mean - behind.mean
    if difference <= 0:
        return NOT_SEEN
    return SEEN if difference > noise(ahead, behind) else NOISE


def _lengths(rows: Rows) -> Iterator[Finding]:
    """Figure 3 at the longest length at which both were run and published."""
    r_lstm, title = (
        {"model": "r_lstm", "anchors": 20, "length": 30},
        wording.title_of("stanford_dogs", rows),
    )
    for other, name in (({"model": "lstm", "full": True}, "LSTM"), ({"model": "transformer"}, "")):
        pairs = [
            (Row("stanford_dogs", side=side, **r_lstm), Row("stanford_dogs", side=side, **other))
            for side in (40, 48, 56, 72, 80, 96, 112)
        ]
        pairs = [pair for pair in pairs if pair[1].id in _published()]
        run = [pair for pair in pairs if all(_done(row, rows) for row in pair)]
        pair = (run or pairs)[-1]
        beaten = f"the {name} under full BPTT" if name else "the Transformer"
        claim = f"{title} of length {pair[0].side ** 2:,}: r-LSTM 20x30 beats {beaten}"
        yield _better("length", claim, *pair, rows)


def _falls(cells: list[Cell], rows: Rows) -> Finding:
    """The claim that a line of Figure 4 falls."""
    claim = f"CIFAR10: {cells[0].line} falls from supervised BPTT "
    claim += f"{wording.listed([str(cell.column) for cell in cells], last='to')}"
    paper = ", ".join(wording.number(cell.published) for cell in cells)
    done = [tables.finished(cell, rows) for cell in cells]
    known = [summary for summary in done if summary]
    if len(known) < 2:
        return Finding("bptt", claim, paper, MISSING, NOT_RUN)
    ours = ", ".join(wording.number(s.mean) if s else MISSING for s in done)
    rises = any(
        after.mean - before.mean > noise(before, after)
        for before, after in itertools.pairwise(known)
    )
    verdict = NOT_SEEN if rises else _verdict(known[0], known[-1])
    return Finding("bptt", claim, paper, ours, verdict)


def _best(cells: list[Cell], column: str, rows: Rows) -> Finding:
    """The claim that one of a line of Table 6 is its best."""
    claim = f"CIFAR10, supervised BPTT {cells[0].line}: {column} beats every other n x l"
    one = next(cell for cell in cells if cell.column == column)
    others = [cell for cell in cells if cell is not one]
    second = max(others, key=lambda cell: cell.published)
    paper = f"{_against(one.published, second.published, 1)} ({second.column})"
    mine = tables.finished(one, rows)
    done = [cell for cell in others if tables.finished(cell, rows)]
    if not (mine and done):
        return Finding("anchors", claim, paper, MISSING, NOT_RUN)
    best = max(done, key=lambda cell: tables.finished(cell, rows).mean)
    rival = tables.finished(best, rows)
    ours = f"{_against(mine.mean, rival.mean, 1)} ({best.column})"
    if len(done) < len(others):
        claim += f" ({len(done)} of {len(others)} run)"
    return Finding("anchors", claim, paper, ours, _verdict(mine, rival))


def _parts(rows: Rows) -> Iterator[Finding]:
    full, *parts = EXPERIMENTS["figure6"].cells
    whole = tables.finished(full, rows)
    for cell in parts:
        claim = f"CIFAR10: r-LSTM loses {cell.line}"
        paper = f"{wording.number(cell.published, 2)} lost"
        part = tables.finished(cell, rows)
        if not (whole and part):
            yield Finding("parts", claim, paper, MISSING, NOT_RUN)
        else:
            ours = f"{wording.number(whole.mean - part.mean, 2)} lost"
            yield Finding("parts", claim, paper, ours, _verdict(whole, part))
