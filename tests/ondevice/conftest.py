"""What tests of the clients for devices share."""

import pytest

from tests.ondevice import cpp


@pytest.fixture(scope="session")
def classify(tmp_path_factory):
    """The C++ example, compiled."""
    return cpp.build(tmp_path_factory.mktemp("classify"))
