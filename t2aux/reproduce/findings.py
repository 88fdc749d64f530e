"""The paper's claims and their measured verdicts: seen, not seen, within noise, or not run."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from t2aux.reproduce import tables, wording
from t2aux.reproduce.document import Table
from t2aux.reproduce.experiments import EXPERIMENTS, Cell
from t2aux.reproduce.published import FIGURE_3_SIDES
from t2aux.reproduce.results import Summary
from t2aux.reproduce.rows import Row
from t2aux.reproduce.wording import DATA_SETS, MISSING, Rows

SEEN, NOT_SEEN, NOISE, NOT_RUN = "seen", "not seen", "within noise", "not run"
# The difference in points of accuracy between two runs of the same row and seed, on two versions of
# the code (`CHECKED`). With one seed, smaller differences are noise.
NOISE_POINTS = 1.2
# A row that was trained twice, and the accuracy in % of the run that is not in the results but in
# results/mnist_variants.json.
CHECKED = ("mnist/lstm_lstm_chrono_truncated", 92.88)


_IMAGES = ("mnist", "pmnist", "cifar10")
_LOSSES = {"r_lstm": "r-LSTM", "p_lstm": "p-LSTM"}
# A family, a claim, the row that should be better, and the other row.
_Pair = tuple[str, str, Row, Row]


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim on one data set.

    Attributes:
        family: The general claim that it is an instance of, as named in results.md.jinja.
        claim: The claim in words.
        paper: The published numbers, as text.
        here: The measured numbers, as text.
        verdict: One of the four verdicts.
        budget: The budget at which it was measured; "" if it was not run.
    """

    family: str
    claim: str
    paper: str
    here: str
    verdict: str
    budget: str = ""


def table(found: Sequence[Finding]) -> Table:
    """A table of findings, one per line."""
    lines = [[f.claim, f.budget, f.paper, f.here, f.verdict] for f in found]
    return Table(["claim", "budget", "paper, %", "here, %", "verdict"], lines)


def of_budgets(measured: Mapping[str, Rows]) -> list[Finding]:
    """The finding for every claim, at the first budget that has its rows.

    Args:
        measured: The rows of each budget, the largest budget first.
    """
    found = []
    for same in zip(*(findings(rows) for rows in measured.values()), strict=True):
        run = zip(measured, same, strict=True)
        known = [dataclasses.replace(f, budget=b) for b, f in run if f.verdict != NOT_RUN]
        found.append([*known, same[0]][0])
    return found


def findings(rows: Rows) -> Iterator[Finding]:
    """The findings for all claims on all data sets, in the order of the paper's tables."""
    published = {
        cell.row.id: cell.published
        for experiment in reversed(EXPERIMENTS.values())
        for cell in reversed(experiment.cells)
        if cell.row and cell.published is not None and experiment.measure != "lost"
    }
    for family, claim, row, other in [*_pairs(rows), *_lengths(rows, published)]:
        yield _better(family, claim, row, other, published, rows)
    for cells in EXPERIMENTS["figure4"].lines.values():
        yield _falls(cells, rows)
    for cells in EXPERIMENTS["table6"].lines.values():
        yield _best(cells, "20x30", rows)
    yield from _parts(rows)


def _pairs(rows: Rows) -> Iterator[_Pair]:
    titles = {dataset: wording.title_of(dataset, rows) for dataset in DATA_SETS}
    for family, full, how in (
        ("truncated", False, "both truncated 300"),
        ("full", True, "both under full BPTT"),
    ):
        for dataset, (model, name) in itertools.product(_IMAGES, _LOSSES.items()):
            pair = Row(dataset, model, full=full), Row(dataset, "lstm", full=full)
            yield family, f"{titles[dataset]}: {name} beats the LSTM, {how}", *pair
    for (model, name), beaten in itertools.product(_LOSSES.items(), ("LSTM", "LM-LSTM", "SA-LSTM")):
        pair = Row("dbpedia", model), Row("dbpedia", beaten.lower().replace("-", "_"))
        yield "documents", f"{titles['dbpedia']}: {name} errs less than the {beaten}", *pair
    cores = {"lstm_chrono": "LSTM with chrono initialisation", "gru": "GRU", "mingru": "minGRU"}
    for (core, name), dataset, model in itertools.product(cores.items(), _IMAGES, _LOSSES):
        claim = f"{titles[dataset]}: {model[0]}-{name} beats that without the loss"
        yield "cores", claim, Row(dataset, model, core=core), Row(dataset, "lstm", core=core)
    for steps, (model, name) in itertools.product((100, 50, 1, 0), _LOSSES.items()):
        claim = f"{titles['mnist']}: {name} beats the LSTM, supervised BPTT {steps}"
        yield "truncation", claim, Row("mnist", model, bptt=steps), Row("mnist", "lstm", bptt=steps)
    for dataset in _IMAGES:
        claim = f"{titles[dataset]}: the Transformer beats the LSTM under full BPTT"
        yield "transformer", claim, Row(dataset, "transformer"), Row(dataset, "lstm", full=True)


def _lengths(rows: Rows, published: dict[str, float]) -> Iterator[_Pair]:
    """Claims on Figure 3, at the longest length at which both rows were run and published."""
    for beaten, other in (
        ("the LSTM under full BPTT", {"model": "lstm", "full": True}),
        ("the Transformer", {"model": "transformer"}),
    ):
        pairs = [
            (
                Row("stanford_dogs", "r_lstm", side=side, anchors=20, length=30),
                Row("stanford_dogs", side=side, **other),
            )
            for side in FIGURE_3_SIDES
        ]
        pairs = [pair for pair in pairs if pair[1].id in published]
        run = [pair for pair in pairs if all(_done(row, rows) for row in pair)]
        pair = (run or pairs)[-1]
        title = wording.title_of("stanford_dogs", rows)
        claim = f"{title} of length {pair[0].side ** 2:,}: r-LSTM 20x30 beats {beaten}"
        yield "length", claim, *pair


def _better(
    family: str, claim: str, row: Row, other: Row, published: dict[str, float], rows: Rows
) -> Finding:
    """The claim that a row has a higher accuracy, or a lower error, than another."""
    is_error = row.dataset == "dbpedia"
    digits = 2 if is_error or row.side else 1
    paper = _against(published.get(row.id), published.get(other.id), digits)
    summaries = [_done(one, rows) for one in (row, other)]
    if None in summaries:
        return Finding(family, claim, paper, MISSING, NOT_RUN)
    here = _against(*(100 - s.mean if is_error else s.mean for s in summaries), digits)
    seen = [wording.sequences(summary.runs[0]) for summary in summaries]
    if seen[0] != seen[1]:
        here += f" (trained on {seen[0]:,} against {seen[1]:,})"
    return Finding(family, claim, paper, here, _verdict(*summaries))


def _against(first: float | None, second: float | None, digits: int) -> str:
    if first is None and second is None:
        return MISSING
    pair = (MISSING if x is None else wording.number(x, digits) for x in (first, second))
    return " against ".join(pair)


def _done(row: Row, rows: Rows) -> Summary | None:
    summary = rows.get(row.id)
    return summary if summary and summary.finished else None


def noise(first: Summary, second: Summary) -> float:
    """The minimum difference in points of two rows, given their seeds and size of the test set."""
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


def _falls(cells: list[Cell], rows: Rows) -> Finding:
    """The claim that the accuracy of a line of Figure 4 falls."""
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
    """The claim that one column of a line of Table 6 is the best."""
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
