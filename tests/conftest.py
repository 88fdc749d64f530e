"""What all tests share."""

import gc
import pathlib

import gin
import keras
import pytest
from hypothesis import HealthCheck, settings

from tests.shared import _shared_folder  # noqa: F401

# How long an example takes says how busy the machine is, and nothing about the code. The
# examples are the same in every run; tests.fuzz draws new ones.
settings.register_profile(
    "t2aux", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("t2aux")

# Folders with fixtures that all of their files share.
_SHARING = {"cli", "client", "ondevice", "pipelines", "prediction", "serving"}


# They take longest: were one of them begun last, the other process would wait.
_FIRST = ("cli", "serving", "pipelines", "client", "prediction", "ondevice", "test_readme")
_FIRST += ("test_runner", "test_gin_files", "export", "training", "tests", "reproduce")
# Many short files.
_LAST = "data"


def pytest_collection_modifyitems(items):
    def order(item):
        found = [i for i, n in enumerate(_FIRST) if n in (item.path.stem, item.path.parent.name)]
        return min(found, default=len(_FIRST) + (item.path.parent.name == _LAST))

    items.sort(key=order)
    # Little of a graph is garbage while it is built, so all tests take a tenth less if garbage is
    # looked for seldom.
    gc.set_threshold(500_000)


@pytest.fixture(scope="module", autouse=True)
def _the_same_random_numbers_in_every_run():
    # Keras's initializers draw others in each process, by which, once in many runs, all units of a
    # small layer give 0.
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module", autouse=True)
def _garbage_is_looked_for_in_what_a_module_makes():
    # What is imported and what earlier modules have left: to look at it again takes minutes.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests that share fixtures run in one process, so that these are made once.

    pytest-xdist's marks for groups do the same, but have no effect in its 3.8.0 under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            folder = pathlib.PurePosixPath(file).parent
            return str(folder) if folder.name in _SHARING else file

    # In the order above, not the files with the most tests first.
    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def _no_configuration_from_other_tests():
    gin.clear_config()
    yield
    gin.clear_config()
