"""The speed of long work and the remaining time. Without TensorFlow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from absl import logging


def duration(seconds: float) -> str:
    """Formats seconds as 1:02:03."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


class Rate:
    """Steps per second since the previous update, and the remaining time."""

    def __init__(self) -> None:
        """Measures from the first `update` on."""
        self._step: int | None = None
        self._time = 0.0
        self._smooth: float | None = None

    def update(self, step: int) -> float | None:
        """Returns the rate since the previous update; None at the first call."""
        now, rate = time.monotonic(), None
        if self._step is not None and step > self._step:
            rate = (step - self._step) / max(now - self._time, 1e-9)
            self._smooth = rate if self._smooth is None else 0.7 * self._smooth + 0.3 * rate
        self._step, self._time = step, now
        return rate

    def left(self, steps: int) -> str:
        """The time that the given number of steps will take; "?" while the rate is unknown."""
        return "?" if not self._smooth else duration(steps / self._smooth)


class Progress:
    """Logs every few seconds how much work is done, its speed, and the remaining time.

    `absl.logging.log_every_n_seconds` is not suitable: it logs the first call at every place in the
    code, even for short work, and all objects would share its clock.
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
            total: The total number; or a function that estimates it from the number done; None if
                unknown.
            every_seconds: Seconds between log lines; 0: a line at every call.
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
        """Adds to the amount of work done. May be called by any thread."""
        with self._lock:
            self.update(self._done + count)

    def update(self, done: int) -> None:
        """Sets the amount of work done, and logs it if the last line is old enough."""
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
