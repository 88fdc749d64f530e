"""SIGTERM, SIGHUP and Ctrl-C: a run is saved within a step; before a run, the process ends."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from absl import logging

if TYPE_CHECKING:
    import tensorflow as tf

_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP", signal.SIGINT: "Ctrl-C"}


class Stopped(BaseException):
    """The process was asked to end while there was nothing to save.

    Not an Exception, so that error handlers do not catch it.

    Attributes:
        signal: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(name(number))
        self.signal = number


class Raise:
    """A signal handler that raises `Stopped`, used when there is nothing to save.

    Attributes:
        received: The first signal, or None.
        saved: Whether a run has saved itself after a signal; further signals then have no effect.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.saved = False

    def __call__(self, number: int, *_: object) -> None:
        """Handles a signal."""
        if self.saved:
            return
        # Python ignores an exception that is raised in a destructor or a callback.
        self.received = self.received or number
        raise Stopped(self.received)


def name(number: int) -> str:
    """A signal's name for users: "SIGTERM", "SIGHUP" or "Ctrl-C"."""
    return _NAMES.get(number, f"signal {number}")


@contextlib.contextmanager
def handled(handler: Callable[..., object]) -> Iterator[list[object]]:
    """Handles SIGTERM, SIGHUP and SIGINT inside the block.

    SIGHUP and SIGINT remain ignored if they were, as after `nohup` and for background processes of
    a script.

    Args:
        handler: Called with the signal's number and the frame.

    Yields:
        The previous handlers.
    """
    before = {
        number: signal.getsignal(number)
        for number in _NAMES
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        for number in before:
            signal.signal(number, handler)
        yield list(before.values())
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Makes signals raise `Stopped` inside the block; a nested `Stop` takes precedence."""
    handler = Raise()
    with handled(handler):
        try:
            yield
        except Exception as error:
            # Interrupted code, such as an import, may fail with another error.
            if handler.received:
                raise Stopped(handler.received) from error
            raise
    if handler.received:
        raise Stopped(handler.received)


class Stop:
    """Records whether a signal was received, for the host and for a running compiled loop.

    Python calls its handlers only when TensorFlow returns, which may take many steps. But it writes
    to the wake-up file descriptor at once, and a thread reads that.

    Attributes:
        flag: A bool variable that the compiled loop reads between steps.
        signal: The first signal that was received, or None. Set before `flag`.
    """

    def __init__(self) -> None:
        import tensorflow as tf

        with tf.device("/CPU:0"):
            self.flag: tf.Variable = tf.Variable(False, trainable=False, name="stop")
        self.signal: int | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal was received. Becomes true before `flag` does."""
        return self.signal is not None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Records signals inside the block, however many are received."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        descriptor = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._read, args=(reader,), daemon=True)
        thread.start()
        try:
            with handled(self._keep) as before:
                outer = [handler for handler in before if isinstance(handler, Raise)]
                for handler in outer:
                    if handler.received:
                        self._keep(handler.received)
                yield
                for handler in outer:
                    handler.saved = self.requested
        finally:
            signal.set_wakeup_fd(descriptor)
            os.close(writer)
            thread.join()
            os.close(reader)

    def _keep(self, number: int, *_: object) -> None:
        self.signal = self.signal or number

    def _read(self, reader: int) -> None:
        """Sets the flag when a signal's number is read from the pipe, until it is closed."""
        while numbers := os.read(reader, 64):
            for number in numbers:
                if number not in _NAMES:
                    continue
                if number == signal.SIGINT and self.signal is None:
                    # A user is waiting at a terminal, and a step may take a while.
                    logging.info("Ctrl-C: the run stops after this step and is saved.")
                self._keep(number)
                # Only in this thread, because a handler may run while a graph is being built.
                self.flag.assign(True)
