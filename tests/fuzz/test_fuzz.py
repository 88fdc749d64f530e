"""A few hundred inputs of each reader; `python -m tests.fuzz` runs as many as one likes."""

import json

import pytest
from absl import logging

from tests.fuzz import run

READERS = ("idx", "npz", "csv", "tables", "image", "archive", "metadata.json", "dataset.json")
READERS += ("shards", "gin", "answer", "paths", "rest", "grpc", "rest-types", "versions")


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    with run.all_readers(tmp_path_factory.mktemp("fuzz")) as found:
        yield found
    logging.set_verbosity(verbosity)


def test_these_are_all(readers):
    assert tuple(readers) == READERS


@pytest.mark.parametrize("name", READERS)
def test_reads_or_refuses(readers, name):
    counts = run.fuzz(readers[name], 100)
    # Inputs that are all refused at once would prove nothing.
    assert counts["read"] >= 5
    assert counts["refused"] >= 5


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_reads_or_refuses_many(readers, name):
    assert run.fuzz(readers[name], 10_000, number=1)["inputs"] >= 10_000


def test_requests_are_right_before_they_are_damaged(readers):
    for name in ("rest", "rest-types"):
        for path, body in readers[name].seeds:
            assert readers[name].read((path, json.dumps(body).encode())), path
    for request in readers["grpc"].seeds:
        assert readers["grpc"].read(request), request
    for name in set(READERS) - {"rest", "grpc", "rest-types"}:
        assert any(readers[name].read(content) for content in readers[name].seeds), name
