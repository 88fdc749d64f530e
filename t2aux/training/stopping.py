"""SIGTERM, SIGHUP and Ctrl-C: a run is saved within a step; what comes before it ends at once."""

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

    Not an Exception, so that handlers of errors don't catch it.

    Attributes:
        signal: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(name(number))
        self.signal = number


class Raise:
    """A handler of signals for when there is nothing to save: raises `Stopped`.

    Attributes:
        received: The first signal, or None.
        saved: Whether a run has saved itself for a signal, so that others change nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.saved = False

    def __call__(self, number: int, *_: object) -> None:
        """Handles a signal."""
        if self.saved:
            return
        # An exception that is raised inside of a destructor or a callback goes no further.
        self.received = self.received or number
        raise Stopped(self.received)


def name(number: int) -> str:
    """A signal's name for users: "SIGTERM", "SIGHUP" or "Ctrl-C"."""
    return _NAMES.get(number, f"signal {number}")


@contextlib.contextmanager
def handled(handler: Callable[..., object]) -> Iterator[list[object]]:
    """Inside of the block SIGTERM, SIGHUP and SIGINT are handled.

    SIGHUP and SIGINT not where they are ignored, as after `nohup` and in the background of a
    script.

    Args:
        handler: Called with the signal's number and the frame.

    Yields:
        The handlers that there were.
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
    """Inside of the block a signal raises `Stopped`; a `Stop` inside of it has precedence."""
    handler = Raise()
    with handled(handler):
        try:
            yield
        except Exception as error:
            # What was interrupted may fail in another way, an import for example.
            if handler.received:
                raise Stopped(handler.received) from error
            raise
    if handler.received:
        raise Stopped(handler.received)


class Stop:
    """Whether a signal has come, for the host and for a compiled loop that is at work.

    Python's handlers wait until TensorFlow returns, which may take many steps; but what Python
    calls the wake-up descriptor is written to at once, and a thread reads it.

    Attributes:
        flag: A bool variable, read by the compiled loop between two steps.
        signal: The signal that came first, or None. Known before `flag` is set.
    """

    def __init__(self) -> None:
        import tensorflow as tf

        with tf.device("/CPU:0"):
            self.flag: tf.Variable = tf.Variable(False, trainable=False, name="stop")
        self.signal: int | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal has come. True before `flag` is."""
        return self.signal is not None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Inside of the block signals are kept here, however often they come."""
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
        """Sets the flag when a signal's number comes through the pipe, until that is closed."""
        while numbers := os.read(reader, 64):
            for number in numbers:
                if number not in _NAMES:
                    continue
                if number == signal.SIGINT and self.signal is None:
                    # At a terminal a user waits, and a step may take a while.
                    logging.info("Ctrl-C: the run is saved after this step, and stops.")
                self._keep(number)
                # In this thread alone: a handler may run while a graph is being made.
                self.flag.assign(True)
