"""The results of `parity`: the comparison of each artefact with the checkpoint."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from t2aux import text_tables

# Larger differences in a probability are reported, whatever the tolerance is.
DRIFT = 0.1


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far an artefact may differ from the checkpoint.

    Attributes:
        accuracy: The tolerance of the accuracy of float32 artefacts, in percentage points.
        probability: The tolerance of any probability of float32 artefacts.
        quantised_accuracy: The tolerance of the accuracy of other variants, in percentage points.
        quantised_probability: The tolerance of any probability of other variants; None for no
            limit. Differences of more than `DRIFT` are reported.
    """

    accuracy: float = 0.2
    probability: float = 1e-3
    quantised_accuracy: float = 1.0
    quantised_probability: float | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The comparison of an artefact with the checkpoint.

    Attributes:
        accuracy: The accuracy on the test data, in [0, 1].
        agreement: The share of examples with the same top class as the checkpoint, in [0, 1].
        largest_difference: The largest difference of any probability from the checkpoint's.
        mean_difference: The largest difference per example, averaged over the examples.
        bytes: The size of the artefact's files.
        milliseconds: For a TensorFlow Lite file, the median time of one sequence in one thread; for
            a streaming form, this is the time of all segments. None for other artefacts.
    """

    accuracy: float
    agreement: float
    largest_difference: float
    mean_difference: float
    bytes: int
    milliseconds: float | None = None

    @property
    def drifts(self) -> bool:
        """Whether a probability differs much from the checkpoint's, or is NaN."""
        return not self.largest_difference <= DRIFT

    def to_json(self) -> dict[str, Any]:
        """The entry in parity.json, with null for NaN."""
        values = {**dataclasses.asdict(self), "drifts": self.drifts}
        return {n: None if v is not None and math.isnan(v) else v for n, v in values.items()}

    def fault(
        self,
        name: str,
        checkpoint: float,
        tolerance: Tolerance,
        exact: bool,
        reference: str = "checkpoint",
    ) -> str | None:
        """Describes an artefact's fault, if any.

        Args:
            name: The artefact's name.
            checkpoint: The checkpoint's accuracy, in [0, 1].
            tolerance: The tolerance.
            exact: Whether it should equal the checkpoint except for rounding.
            reference: The name of the checkpoint in the text.

        Returns:
            A sentence without its period, with the numbers and the options that set the limits;
            None if the artefact is within the tolerance.
        """
        prefix = "" if exact else "quantised_"
        points, limit = (
            getattr(tolerance, f"{prefix}{kind}") for kind in ("accuracy", "probability")
        )
        found = []
        # Written so that NaN fails.
        if not abs(self.accuracy - checkpoint) * 100 <= points:
            found.append(
                f"its accuracy is {self.accuracy:.2%}, the {reference}'s {checkpoint:.2%} "
                f"(--{prefix}accuracy_tolerance={points:g} points)"
            )
        if not self.largest_difference <= (math.inf if limit is None else limit):
            option = "" if limit is None else f" (--{prefix}probability_tolerance={limit:g})"
            difference = f"{self.largest_difference:.2g}{option}"
            found.append(f"a probability differs from the {reference}'s by {difference}")
        return f"{name} is too far off: {', and '.join(found)}" if found else None


@dataclasses.dataclass(frozen=True)
class Failure:
    """A requested variant of the TensorFlow Lite files that is not in the export.

    Attributes:
        reason: A sentence without its period, with numbers.
        artefacts: The measurements of its files so far, by name.
    """

    reason: str
    artefacts: dict[str, Comparison] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Parity:
    """The measurement of all artefacts.

    Attributes:
        dataset: The name of the data set whose test split was measured; empty if unknown.
        examples: The number of sequences; 0 if nothing was measured.
        segment: Steps per segment in the streaming forms.
        tolerance: The tolerance that was applied.
        checkpoint_accuracy: The checkpoint's accuracy, in [0, 1]; None if nothing was measured.
        artefacts: The comparisons by artefact: a signature of the SavedModel, or a file.
        failed: The variants that are not in the export, by name.
        reference: The name of the reference in texts: "checkpoint" or "model".
    """

    dataset: str
    examples: int
    segment: int
    tolerance: Tolerance
    checkpoint_accuracy: float | None = None
    artefacts: dict[str, Comparison] = dataclasses.field(default_factory=dict)
    failed: dict[str, Failure] = dataclasses.field(default_factory=dict)
    reference: str = "checkpoint"

    @property
    def passed(self) -> bool | None:
        """Whether all requested artefacts are within the tolerances; None if not measured."""
        return not self.failed if self.examples else None

    @property
    def data(self) -> str:
        """A description of the data, such as "test examples of digits"."""
        return f"test examples of {self.dataset}" if self.dataset else "test examples"

    def to_json(self) -> dict[str, Any]:
        """The content of parity.json."""
        return {
            "split": "test",
            "dataset": self.dataset,
            "measured": self.examples > 0,
            "passed": self.passed,
            "examples": self.examples,
            "segment": self.segment,
            "tolerance": dataclasses.asdict(self.tolerance),
            "checkpoint_accuracy": self.checkpoint_accuracy,
            "artefacts": {name: c.to_json() for name, c in self.artefacts.items()},
            "failed": {
                variant: {
                    "reason": failure.reason,
                    "artefacts": {name: c.to_json() for name, c in failure.artefacts.items()},
                }
                for variant, failure in self.failed.items()
            },
        }

    def rows(self) -> list[tuple[str, ...]]:
        """The table as texts, with the header first; only the header if nothing was measured."""
        rows = [("", "accuracy", "same class", "largest difference", "one sequence", "size")]
        if not self.examples:
            return rows
        rows.append((self.reference, f"{self.checkpoint_accuracy:.2%}", "", "", "", ""))
        for name, c in self.artefacts.items():
            row = (f"{c.accuracy:.2%}", f"{c.agreement:.2%}", f"{c.largest_difference:.1e}")
            time_taken = "" if c.milliseconds is None else f"{c.milliseconds:.3g} ms"
            rows.append((name, *row, time_taken, f"{c.bytes / 1000:,.0f} kB"))
        return rows

    def remarks(self) -> list[str]:
        """Sentences on the artefacts whose probabilities are far from the checkpoint's."""
        return [
            f"{name} drifts: its probabilities differ from the {self.reference}'s by up to "
            f"{c.largest_difference:.2f} ({c.mean_difference:.2g} on average), and "
            f"{1 - c.agreement:.2%} of the examples get another class."
            for name, c in self.artefacts.items()
            if c.drifts
        ]

    def failures(self) -> list[str]:
        """Sentences on the variants that are not in the export, without their periods."""
        return [f"{variant} was not exported: {f.reason}" for variant, f in self.failed.items()]

    def table(self) -> str:
        """The table for a terminal."""
        if not self.examples:
            return f"Nothing was measured. {self.not_measured}"
        header, *rows = self.rows()
        return "\n".join(
            [
                f"The artefacts on {self.examples:,} {self.data}:",
                text_tables.table(rows, header, indent="  "),
                *self.remarks(),
            ]
        )

    @property
    def not_measured(self) -> str:
        """A sentence on the consequence of not measuring."""
        return (
            "No test data was used: the accuracy of these artefacts, and their difference from the "
            f"{self.reference}, are not known."
        )
