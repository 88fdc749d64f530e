"""What all tests share."""

import gin
import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing about the code. The
# examples are the same in every run; tests.fuzz draws new ones.
settings.register_profile(
    "t2aux", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("t2aux")


@pytest.fixture(autouse=True)
def _no_configuration_from_other_tests():
    gin.clear_config()
    yield
    gin.clear_config()
