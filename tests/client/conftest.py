"""Small exports on servers of our own, one of each kind of data."""

import functools
import types

import pytest

from t2aux.client import transport
from t2aux.client.remote import RemoteClassifier
from t2aux.client.retries import Retries
from t2aux.export.runtimes import SavedModelClassifier
from tests import small_exports
from tests.client import servers

KINDS = {
    "images": small_exports.IMAGES,
    "texts": small_exports.TEXT,
    "vectors": small_exports.VECTORS,
}
QUICK = Retries(timeout=120, max_retries=3, first_pause=0.01)


@pytest.fixture(scope="session")
def started(tmp_path_factory):
    """Gives the servers of a kind of data, and what they serve."""
    import contextlib

    with contextlib.ExitStack() as stack:

        @functools.cache
        def start(kind):
            directory = tmp_path_factory.mktemp(kind) / "export" / "1"
            directory.parent.mkdir()
            small_exports.write(directory, KINDS[kind], ("saved_model",))
            local = SavedModelClassifier(directory)
            model = servers.Model(directory, local._signatures)
            return types.SimpleNamespace(
                model=model,
                directory=directory,
                info=KINDS[kind].without_normalization(),
                local=local,
                addresses=stack.enter_context(servers.serving(model)),
            )

        yield start


@pytest.fixture
def served(started):
    """As `started`, as new."""

    def start(kind):
        found = started(kind)
        found.model.reset()
        return found

    return start


@pytest.fixture(params=["grpc", "http"])
def scheme(request):
    return request.param


@pytest.fixture
def connect():
    """Connects a classifier to a server; closes it in the end."""
    ways = []

    def connected(address, **arguments):
        ways.append(transport.connect(address))
        arguments = {"attempts": QUICK, **arguments}
        return RemoteClassifier(ways[-1], arguments.pop("model", servers.Model.name), **arguments)

    yield connected
    for way in ways:
        way.close()
