"""How fast long work goes, and how much time it will take. Without TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Callable

from absl import logging


def duration(seconds: float) -> str:
    """Seconds as 1:02:03."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


class Rate:
    """Steps a second, over the time since the last reading, and the time that is left."""

    def __init__(self, every_seconds: float = 0.0) -> None:
        """Begins to measure at the first `update`.

        Args:
            every_seconds: `update` gives a rate at most so often.
        """
        self._every = every_seconds
        self._step: int | None = None
        self._time = 0.0
        self._smooth: float | None = None

    def update(self, step: int) -> float | None:
        """The rate since the last one given; None at the first call, and when it is too early."""
        now = time.monotonic()
        if self._step is not None and now - self._time < self._every:
            return None
        rate = None
        if self._step is not None and step > self._step:
            rate = (step - self._step) / max(now - self._time, 1e-9)
            self._smooth = rate if self._smooth is None else 0.7 * self._smooth + 0.3 * rate
        self._step, self._time = step, now
        return rate

    def left(self, steps: int) -> str:
        """The time that so many steps will take; "?" while the rate is unknown."""
        return "?" if not self._smooth else duration(steps / self._smooth)


def of_sequences(total: int, every_seconds: float = 5.0) -> Callable[[int], None]:
    """What shows, every so many seconds, how many of `total` sequences are done."""
    rate = Rate(every_seconds)
    rate.update(0)

    def show(done: int) -> None:
        speed = rate.update(done)
        if speed:
            left = rate.left(total - done)
            per_second = f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}"
            logging.info("%d/%d sequences  %s a second  %s left", done, total, per_second, left)

    return show
