"""The failures of requests to a server, and when to retry."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from typing import TypeVar

from absl import logging

T = TypeVar("T")

# gRPC's codes, and two of our own: BAD_ANSWER, for a response in a different protocol, and
# TOO_LARGE, for a request that would fail later, too.
UNAVAILABLE = "UNAVAILABLE"
RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
NOT_FOUND = "NOT_FOUND"
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
BAD_ANSWER = "BAD_ANSWER"
TOO_LARGE = "TOO_LARGE"
_MAX_REASON = 300


class Failure(Exception):
    """A request failed.

    Attributes:
        code: One of the codes above, or another one of gRPC.
        reason: What happened, without a final period.
        may_pass: Whether the same request may succeed later.
        retry_after: Seconds that the server asks to wait, or None.
    """

    def __init__(
        self, code: str, reason: str, *, may_pass: bool = False, retry_after: float | None = None
    ) -> None:
        """Makes the failure. The reason is put on one line and shortened."""
        reason = " ".join(reason.split()).rstrip(".")
        if len(reason) > _MAX_REASON:
            reason = reason[: _MAX_REASON - 3] + "..."
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.may_pass = may_pass
        self.retry_after = retry_after


@dataclasses.dataclass(frozen=True)
class Retries:
    """Retries with doubling pauses, which are randomly shortened so that clients spread out.

    Attributes:
        timeout: The maximum time of a request in seconds, including all attempts and pauses.
        max_retries: The maximum number of retries.
        first_pause: The first pause, in seconds.
        max_pause: The longest pause, in seconds, unless the server asks for a longer one.
    """

    timeout: float = 60.0
    max_retries: int = 5
    first_pause: float = 0.1
    max_pause: float = 5.0

    def run(
        self,
        attempt: Callable[[float], T],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> T:
        """Runs an attempt until it succeeds, fails permanently, or time or attempts run out.

        Args:
            attempt: Gets the remaining time in seconds; may raise `Failure`.
            sleep: Waits for the given number of seconds.
            clock: Returns the time in seconds.

        Returns:
            The result of the attempt.

        Raises:
            Failure: The failure of the last attempt.
        """
        started = clock()
        number = 0
        while True:
            left = self.timeout - (clock() - started)
            try:
                return attempt(max(left, 0.001))
            except Failure as failure:
                pause = min(self.first_pause * 2**number, self.max_pause) * random.uniform(0.5, 1)
                pause = max(pause, failure.retry_after or 0)
                past = clock() - started
                is_last = number == self.max_retries or past + pause >= self.timeout
                if not failure.may_pass or (is_last and not number):
                    raise
                if is_last:
                    reason = f"{failure.reason}; tried {number + 1} times in {past:.1f} s"
                    raise Failure(failure.code, reason) from failure
                logging.info("%s; trying again in %.1f s", failure.reason, pause)
                sleep(pause)
            number += 1
