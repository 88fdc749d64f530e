"""What the tests of training share."""

import signal

import pytest


@pytest.fixture(autouse=True)
def _signals_are_not_ignored():
    """In the background of a script, or under nohup, the tests would inherit that they are."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
