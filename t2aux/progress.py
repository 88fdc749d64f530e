"""How fast long work goes, and how much time it will take. Without TensorFlow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from absl import logging


def duration(seconds: float) -> str:
    """Seconds as 1:02:03."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


class Rate:
    """Steps a second, over the time since the last reading, and the time that is left."""

    def __init__(self) -> None:
        """Begins to measure at the first `update`."""
        self._step: int | None = None
        self._time = 0.0
        self._smooth: float | None = None

    def update(self, step: int) -> float | None:
        """The rate since the last one given; None at the first call."""
        now, rate = time.monotonic(), None
        if self._step is not None and step > self._step:
            rate = (step - self._step) / max(now - self._time, 1e-9)
            self._smooth = rate if self._smooth is None else 0.7 * self._smooth + 0.3 * rate
        self._step, self._time = step, now
        return rate

    def left(self, steps: int) -> str:
        """The time that so many steps will take; "?" while the rate is unknown."""
        return "?" if not self._smooth else duration(steps / self._smooth)


class Progress:
    """Logs every few seconds how much of long work is done, how fast, and how long the rest takes.

    `absl.logging.log_every_n_seconds` does not fit: it logs the first call of every place in the
    code, so also where the work takes a moment, and all objects there would share its clock.
    """

    def __init__(
        self,
        what: str,
        total: int | Callable[[int], int | None] | None = None,
        *,
        every_seconds: float = 5.0,
    ) -> None:
        """Begins with nothing done.

        Args:
            what: What is counted, such as "Reading a.csv: rows".
            total: How many there are; or about how many, from how many are done; None: unknown.
            every_seconds: How often it logs; 0: at every call.
        """
        self._what = what
        self._total = total
        self._rate = Rate()
        self._rate.update(0)
        self._every = every_seconds
        self._next = time.monotonic() + every_seconds
        self._done = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Takes note of more that is done. By any thread."""
        with self._lock:
            self.update(self._done + count)

    def update(self, done: int) -> None:
        """Takes note of how much is done, and logs it if the last line is long enough ago."""
        self._done = done
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every
        speed = self._rate.update(done) or 0.0
        total = self._total(done) if callable(self._total) else self._total
        of = left = ""
        if total is not None:
            about = "about " if callable(self._total) else ""
            of = f" of {about}{max(total, done):,}"
            left = f", {self._rate.left(max(total - done, 0))} left"
        shown = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
        logging.info("%s: %s%s, %s a second%s", self._what, f"{done:,}", of, shown, left)
