"""SIGTERM: a run is saved within a step, and what comes before it ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf


class Stopped(BaseException):
    """The process was asked to end while there was nothing to save.

    No Exception, so that nobody who handles errors takes it for one.
    """


class Raise:
    """A handler of SIGTERM for when there is nothing to save: raises `Stopped`."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, *_: object) -> None:
        """Handles the signal."""
        # An exception that is raised inside of a destructor or a callback goes no further.
        self.came = True
        raise Stopped


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Inside of the block SIGTERM raises `Stopped`; a `Stop` inside of it has precedence."""
    handler = Raise()
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
    if handler.came:
        raise Stopped


class Stop:
    """Whether SIGTERM has come, for the host and for a compiled loop that is at work.

    Python's handlers wait until TensorFlow returns, which may take many steps; but what Python
    calls the wake-up descriptor is written to at once, and a thread reads it.

    Attributes:
        flag: A bool variable, read by the compiled loop between two steps.
    """

    def __init__(self) -> None:
        import tensorflow as tf

        with tf.device("/CPU:0"):
            self.flag: tf.Variable = tf.Variable(False, trainable=False, name="stop")
        self._event = threading.Event()

    @property
    def requested(self) -> bool:
        """Whether SIGTERM has come. True before `flag` is."""
        return self._event.is_set()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Inside of the block SIGTERM is kept here, however often it comes."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = signal.signal(signal.SIGTERM, lambda *_: self._event.set())
        if isinstance(before, Raise) and before.came:
            self._event.set()
        descriptor = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._read, args=(reader,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            signal.signal(signal.SIGTERM, before)
            os.close(writer)
            thread.join()
            os.close(reader)

    def _read(self, reader: int) -> None:
        """Sets the flag when the signal's number comes through the pipe, until that is closed."""
        while numbers := os.read(reader, 64):
            if signal.SIGTERM in numbers:
                self._event.set()
                # In this thread alone: a handler may run while a graph is being made.
                self.flag.assign(True)
