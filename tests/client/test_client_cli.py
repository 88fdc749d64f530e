"""`t2aux client` as users run it: in a separate process, where TensorFlow can't be imported."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from t2aux.cli import main
from tests import cli_helpers
from tests.client import servers


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    pixels = np.random.default_rng(5).integers(0, 256, [9, 9], np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def clients(*commands):
    """Runs `t2aux client` with the arguments of each."""
    begin = "sys.modules['tensorflow'] = sys.modules['tensorflow_serving'] = None"
    commands = [("client", f"--model={servers.Model.name}", *arguments) for arguments in commands]

    def run(code, *arguments):
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            env=cli_helpers.environment(),
            timeout=300,
        )

    return cli_helpers.run_all(commands, [main.module_of("client")], begin, run)


def client(*arguments):
    (done,) = clients(arguments)
    return done


def classify(directory, *arguments):
    return cli_helpers.t2aux("classify", f"--model={directory}", *arguments).stdout


def test_the_output_is_that_of_classify(served, scheme, picture):
    it = served("images")
    ways = ((), ("--top=1", "--stream", "--segment=5"))
    server = f"--server={it.addresses[scheme]}"
    found = clients(*((server, picture, picture, *flags) for flags in ways))
    for flags, done in zip(ways, found, strict=True):
        assert (done.returncode, done.stderr) == (0, "")
        if scheme == "grpc":  # Once is enough: classify imports TensorFlow.
            assert done.stdout == classify(it.directory, picture, picture, *flags)


def test_texts_and_json(served, scheme):
    it = served("texts")
    texts = ["--text=abc", "--text=café \U0001f600", "--text=" + "ab " * 200, "--json"]
    given = (f"--server={it.addresses[scheme]}", *texts)
    one, batched = clients(given, (*given, "--batch=2"))
    assert (one.returncode, one.stderr, batched.stderr) == (0, "", "")
    answers = [json.loads(line) for line in one.stdout.splitlines()]
    assert [(a["of"], a["cut"]) for a in answers] == [(3, False), (6, False), (100, True)]
    together = [json.loads(line) for line in batched.stdout.splitlines()]
    for flag, answer, other in zip(texts, answers, together, strict=False):
        assert (answer["input"], answer["class"]) == (other["input"], other["class"])
        assert answer["probability"] == pytest.approx(other["probability"], abs=1e-5)
        wanted = it.local.probabilities(it.info.text_ids(flag.removeprefix("--text=")))
        assert answer["class"] == it.info.classes[wanted.argmax()]
        assert answer["probability"] == pytest.approx(wanted.max(), abs=1e-5)
    assert len(together) == 3
    assert [b for _, s, b in it.model.seen if s == "serving_default"] == [1, 1, 1, 2, 1]


def test_arrays_are_sent_in_batches(served, scheme, tmp_path):
    it = served("vectors")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", inputs=rng.random([7, 9, 2]), lengths=[9, 1, 5, 9, 2, 3, 4])
    done = client(f"--server={it.addresses[scheme]}", tmp_path / "a.npz", "--batch=3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [a["steps"] for a in answers] == [9, 1, 5, 9, 2, 3, 4]
    assert [b for _, s, b in it.model.seen if s == "serving_default"] == [3, 3, 1]


def test_a_busy_server_is_logged_and_tried_again(served, scheme, picture):
    it = served("images")
    it.model.plan.extend(["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
    done = client(f"--server={it.addresses[scheme]}", picture, "--top=1")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert [line.split(";")[0] for line in done.stderr.splitlines()] == ["as it was planned"] * 2
    assert "trying again in 0.1 s" in done.stderr


def test_what_was_classified_before_an_error_is_printed(served, picture, tmp_path):
    it = served("images")
    (tmp_path / "damaged.png").write_bytes(picture.read_bytes()[:50])
    files = [picture, picture, picture, tmp_path / "damaged.png", picture]
    given = (f"--server={it.addresses['grpc']}", "--json", *files)
    for done in clients(given, (*given, "--batch=2")):
        assert len(done.stdout.splitlines()) == 3
        cli_helpers.assert_one_sentence(done, "damaged.png")


def test_mistakes(served, picture, tmp_path):
    it = served("images")
    server = f"--server={it.addresses['http']}"
    cases = (
        ([picture], "--server"),
        ([server], "--text"),
        ([server, "--batch=0", picture], "--batch=0"),
        ([server, "--version=9", picture], "made_up", " 9 ", "--version"),
        ([server, "--text=a"], "--text='a'", "images"),
        (["--server=localhost", picture], "'localhost'", "grpc://HOST:PORT"),
        ([server, f"--metadata={tmp_path}", picture], "metadata.json", str(tmp_path)),
        (["--server=http://127.0.0.1:1", "--retries=0", picture], "http://127.0.0.1:1 "),
        ([it.addresses["http"].join(["--server=", "/x"]), picture], "/x'", "grpc://HOST:PORT"),
    )
    found = clients(*(arguments for arguments, *_ in cases))
    for (_, *parts), done in zip(cases, found, strict=True):
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        cli_helpers.assert_one_sentence(done, *parts)


def test_metadata_from_a_file(served, picture):
    it = served("images")
    it.model.hide = {"describe"}
    server = f"--server={it.addresses['grpc']}"
    cli_helpers.assert_one_sentence(client(server, picture), "made_up", "--metadata")
    done = client(server, picture, f"--metadata={it.directory}")
    assert (done.returncode, done.stderr) == (0, "")
