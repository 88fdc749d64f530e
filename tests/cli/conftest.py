"""A run, trained in seconds, and the server of commands that made it."""

import pytest

from tests.fork_server import Server

SHORT = ["--gin_file=quickstart", "--gin_param=PRETRAIN_EPOCHS = 0"]
SHORT += ["--gin_param=JOINT_EPOCHS = 1", "--gin_param=dataset.max_examples = 20"]


@pytest.fixture(scope="session")
def server():
    with Server() as started:
        yield started


@pytest.fixture(scope="session")
def trained(server, tmp_path_factory):
    """The directory of a run; tests copy it or leave it as it is."""
    folder = tmp_path_factory.mktemp("trained")
    process = server.run(folder / "log", "train", f"--model_dir={folder / 'run'}", *SHORT)
    assert process.returncode == 0, process.stderr
    return folder / "run"
