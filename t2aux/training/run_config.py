"""How a run is executed and saved. None of these settings affects the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import gin

from t2aux.errors import SettingError


@gin.configurable
@dataclasses.dataclass(frozen=True)
class RunConfig:
    """How a run is executed and saved; may be changed whenever the run is resumed.

    Attributes:
        checkpoint_minutes: Minutes between checkpoints; 0: after every call of the compiled loop.
        checkpoints_kept: How many of the newest checkpoints are kept, at least 2.
        steps_per_call: Steps per call of the compiled loop; the host waits for the device after
            each call only.
        deterministic: Whether to use TensorFlow's deterministic kernels, so that the same seed
            gives the same weights on the same machine.
        log_every: Steps between lines of metrics.
        strategy: @MirroredStrategy or @MultiWorkerMirroredStrategy, whose replicas share every
            batch; None: a single replica in this process.
    """

    checkpoint_minutes: float = 5.0
    checkpoints_kept: int = 3
    steps_per_call: int = 4
    deterministic: bool = True
    log_every: int = 50
    strategy: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        """Raises UserError if a value is out of range."""
        for name, least in (
            ("checkpoint_minutes", 0),
            ("checkpoints_kept", 2),
            ("steps_per_call", 1),
            ("log_every", 1),
        ):
            value = getattr(self, name)
            # Rejects NaN, too.
            if not value >= least:
                raise SettingError(f"RunConfig.{name} must be at least {least}, but is {value}.")
