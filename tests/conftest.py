"""What all tests share."""

import pathlib

import gin
import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing about the code. The
# examples are the same in every run; tests.fuzz draws new ones.
settings.register_profile(
    "t2aux", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("t2aux")

# Their fixtures are shared by all files of the folder.
_SHARING = {"cli", "client", "export", "ondevice", "serving"}


def pytest_collection_modifyitems(items):
    """Tests that share fixtures run in one process, so that these are made once."""
    for item in items:
        path = item.path.relative_to(pathlib.Path(__file__).parent)
        group = path.parts[0] if path.parts[0] in _SHARING else str(path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True)
def _no_configuration_from_other_tests():
    gin.clear_config()
    yield
    gin.clear_config()
