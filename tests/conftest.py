"""What all tests share."""

import gin
import pytest


@pytest.fixture(autouse=True)
def _no_configuration_from_other_tests():
    gin.clear_config()
    yield
    gin.clear_config()
