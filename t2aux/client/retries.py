"""What can go wrong between a client and a server, and when to try again."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from typing import TypeVar

from absl import logging

T = TypeVar("T")

# Codes as gRPC names them; BAD_ANSWER is ours, for what no server of this protocol says, and so is
# TOO_LARGE, for a request that can't pass by trying later.
UNAVAILABLE = "UNAVAILABLE"
RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
NOT_FOUND = "NOT_FOUND"
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
UNIMPLEMENTED = "UNIMPLEMENTED"
BAD_ANSWER = "BAD_ANSWER"
TOO_LARGE = "TOO_LARGE"
_LONGEST_REASON = 300


class Failure(Exception):
    """A request failed.

    Attributes:
        code: A name of the above, or another of gRPC's.
        reason: What happened, without a full stop.
        may_pass: Whether the same request may succeed later.
        retry_after: How many seconds the server asks to wait, or None.
    """

    def __init__(
        self,
        code: str,
        reason: str,
        *,
        may_pass: bool = False,
        retry_after: float | None = None,
    ) -> None:
        """Describes it; the reason is put on one line and shortened."""
        reason = " ".join(reason.split()).rstrip(".")
        if len(reason) > _LONGEST_REASON:
            reason = reason[: _LONGEST_REASON - 3] + "..."
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.may_pass = may_pass
        self.retry_after = retry_after


@dataclasses.dataclass(frozen=True)
class Retries:
    """Tries again, with pauses that double, each shortened at random so that clients spread out.

    Attributes:
        timeout: Seconds that a request may take, all attempts and pauses together.
        most: How often to try again.
        first: The first pause, in seconds.
        longest: The longest pause, in seconds, unless the server asks for a longer one.
    """

    timeout: float = 60.0
    most: int = 5
    first: float = 0.1
    longest: float = 5.0

    def run(
        self,
        attempt: Callable[[float], T],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> T:
        """Runs an attempt until it succeeds, fails for good, or time or attempts run out.

        Args:
            attempt: Takes the seconds that are left; raises `Failure`.
            sleep: Waits that many seconds.
            clock: Tells the time in seconds.

        Returns:
            What the attempt returns.

        Raises:
            Failure: The last one.
        """
        started = clock()
        for number in range(self.most + 1):
            left = self.timeout - (clock() - started)
            try:
                return attempt(max(left, 0.001))
            except Failure as failure:
                pause = min(self.first * 2**number, self.longest) * random.uniform(0.5, 1)
                pause = max(pause, failure.retry_after or 0)
                past = clock() - started
                if not failure.may_pass:
                    raise
                if number == self.most or past + pause >= self.timeout:
                    if not number:
                        raise
                    reason = f"{failure.reason}; tried {number + 1} times in {past:.1f} s"
                    raise Failure(failure.code, reason) from failure
                logging.info("%s; trying again in %.1f s", failure.reason, pause)
                sleep(pause)
        raise AssertionError("The last attempt returns or raises.")
