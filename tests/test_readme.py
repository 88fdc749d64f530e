"""Every command of the README and of docs/ is run as it stands there, in the order of its reader.

It may be cut short by flags that are added at its end, and data that would be downloaded has
stand-ins. A command that is in no list below fails the test.
"""

import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

# Imported for the configurables that gin files name.
import t2aux.training.train  # noqa: F401
from t2aux import config
from t2aux.cli import demo
from t2aux.cli.main import COMMANDS
from tests import readme_commands
from tests.cli_helpers import ROOT, environment
from tests.fork_server import Server
from tests.ondevice.test_demo_page import NPM, write_npm

DOCUMENTS = readme_commands.documents()


def settings(*given):
    return [f"--gin_param={setting}" for setting in given]


# Nothing is learned, but all is set up: the data read, the networks made.
NOTHING = settings("PRETRAIN_EPOCHS = 0", "JOINT_EPOCHS = 0")
SMALL = settings(
    *(f"Classifier.{size} = 32" for size in ("hidden_size", "projection_size", "head_size")),
    "Reconstruction.head_size = 32",
)
LITTLE = settings("PRETRAIN_EPOCHS = 1", "JOINT_EPOCHS = 1", "dataset.max_examples = 160")
MNIST = ["--data_dir=DATA/mnist", *settings("train.data = @idx()")]
QUICK = ["--model_dir=runs/quick"]
TRAIN = "t2aux train --model_dir=D --gin_file=paper/mnist --gin_file=models/r_lstm"

# Through TensorFlow: the command, and what is added to it.
RESEARCH = {
    "t2aux train --model_dir=runs/quick --gin_file=quickstart": [*SMALL, *LITTLE],
    TRAIN: [*MNIST, *NOTHING],
    "... --gin_file=models/transformer": [*MNIST, *NOTHING],
    "--gin_file=training/mirrored": [*MNIST, *NOTHING],
    "t2aux evaluate --model_dir=runs/quick": [],
    "t2aux reconstructions --model_dir=runs/quick": ["--samples=2"],
    "t2aux data NAME --picture=P.png": [],
    "t2aux data convert image_folder --data_dir=photos --gin_param='image_folder.side = 64' "
    "--output_dir=shards": [],
    "t2aux data shards --data_dir=shards --verify": [],
    "t2aux train --model_dir=runs/mine --gin_file=quickstart --gin_file=datasets/image_folder "
    "--data_dir=photos --gin_param='image_folder.side = 32'": [*SMALL, *NOTHING],
    "t2aux train --model_dir=runs/photos --gin_file=images --data_dir=photos": [*SMALL, *NOTHING],
    "t2aux train --model_dir=runs/reviews --gin_file=texts --data_dir=reviews.csv "
    "--label_column=stars --text_column=review": [*SMALL, *NOTHING],
    "t2aux train --model_dir=runs/series --gin_file=sequences --data_dir=FOLDER": [
        "--data_dir=series",
        *SMALL,
        *NOTHING,
    ],
    "t2aux data ts --data_dir=FOLDER --picture=P.png": ["--data_dir=series"],
    "t2aux train --model_dir=D --gin_file=paper/images --gin_file=models/r_lstm "
    "--gin_file=datasets/shards --data_dir=shards": NOTHING,
    # tests/reproduce/test_runner.py trains some of these rows; the report is on those of results/.
    "t2aux reproduce all --budget=smoke --jobs=2 --output_dir=runs/paper": ["--list"],
    "t2aux reproduce table2 --budget=short --data_dir=DATA --output_dir=runs/paper "
    "--rows='^mnist/'": ["--list"],
    "t2aux report runs/paper/short": [],
    "t2aux export --model_dir=runs/quick --export_dir=exports/digits": ["--parity_examples=20"],
    "t2aux export --model_dir=runs/quick --export_dir=exports/unmeasured --parity_examples=0": [
        "--formats=tflite"
    ],
    "t2aux export --variants=float32,float16,dynamic_int8,dynamic_int8_int4_head,int8": [
        *QUICK,
        "--export_dir=exports/variants",
        "--parity_examples=0",
        "--formats=tflite",
    ],
}
# As TRAIN, with other settings: these are read here, and run in the long tier.
ALIKE = {
    f"... {flags}": [*MNIST, *NOTHING]
    for flags in (
        "--gin_file=models/p_lstm",
        "--gin_file=budgets/short",
        "--gin_file=training/full",
        "--gin_file=training/bfloat16",
        "--gin_file=training/validation",
        "--gin_file=cores/gru",
        "--gin_file=cores/lstm_chrono",
        "--gin_param='ANCHORS = 20' --gin_param='SEGMENT_LENGTH = 30'",
        "--gin_param='Reconstruction.rows = 0.25'",
        "--gin_param='SUPERVISED_BPTT = 0'",
    )
}
# Without TensorFlow, by a shell.
SERVE = "t2aux serve --model_base_path=exports/digits"
SHELL = [
    "t2aux data",
    "t2aux client --server=grpc://localhost:8500 --model=digits runs/demo/digit.png",
    "t2aux client --server=http://localhost:8501 --model=digits --stream --segment=16 "
    "runs/demo/digit.png",
    "t2aux classify --model=exports/digits/1/classifier.tflite runs/demo/digit.png",
    "t2aux classify --model=exports/digits/1/classifier.tflite --stream --segment=16 --top=2 "
    "runs/demo/digit.png",
]
INSTALL = "pip install export/ondevice/python"
ONDEVICE = "t2aux-ondevice classifier_stream.tflite --stream --segment=28 sequences.npz"
PAGE = "t2aux demo-page --export_dir=exports/digits"
PAGE_FLAGS = "--output_dir=site --build_only"
WORKERS = [
    """export TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222"]}, """
    """"task": {"type": "worker", "index": 0}}'""",
    f"{TRAIN} --gin_file=training/multi_worker",
]
BENCHMARKS = (
    "beam",
    "gradient_norms",
    "predict",
    "distributed",
    "input_pipeline",
    "train_step",
    "memory",
    "rows",
    "serving",
    "inference",
)
# What is run by other tests, and by which; or by the continuous integration itself.
ELSEWHERE = {
    "make demo": "tests/cli/test_demo.py",
    "make test": "Makefile",
    "make docs": "Makefile",
    "python examples/own_loss.py train --model_dir=runs/own_loss --gin_file=quickstart "
    "--gin_param='train.auxiliary_losses = [@MeanToken]'": "tests/losses/test_own_loss.py",
    "python examples/own_loss.py evaluate --model_dir=runs/own_loss": (
        "tests/losses/test_own_loss.py"
    ),
    "pip install ./export/ondevice/python .": "tests/test_packaging.py",
    "pip install ./export/ondevice/python '.[serving]'": "tests/test_packaging.py",
    "pip wheel --no-deps --wheel-dir=dist ./export/ondevice/python .": "tests/test_packaging.py",
    "pip install dist/*.whl": "tests/test_packaging.py",
    "t2aux COMMAND --help": "tests/cli/test_main.py",
    "t2aux completion bash": "tests/cli/test_completion.py",
    "source .venv/bin/activate": "Makefile",
    "t2aux data mnist --prepare": "tests/data/test_data_tfds.py",
    "python -m pytest -m long tests/test_faults.py": "tests/test_faults.py",
    "t2aux predict --model=D --data=FILE_OR_FOLDER --output=predictions.csv": (
        "tests/prediction/test_predict_cli.py"
    ),
    "--on_error=skip": "tests/prediction/test_predict.py",
    "--report=FOLDER": "tests/prediction/test_predict_cli.py",
    "--data_dir=FOLDER": "tests/test_gin_files.py",
    "--gin_file=sequences": "tests/test_gin_files.py",
    "--gin_file=texts": "tests/training/test_divided_data.py",
    "--gin_file=images": "tests/training/test_divided_data.py",
    "--encoding=cp1252": "tests/data/test_data_csv_layout.py",
    "--gin_file=datasets/image_folder": "tests/test_gin_files.py",
    "--checkpoint=latest": "tests/training/test_validation.py",
    "--seeds=0,1,2": "tests/reproduce/test_runner.py",
    "t2aux report results/reproduce --output_dir=docs": "tests/reproduce/test_report.py",
    "t2aux train --model_dir=D --gin_file=quickstart --gin_param='Reconstruction.rows = 0.25'": (
        "tests/training/test_rows.py"
    ),
    "--tasks=mnist": "benchmarks/rows.py",
    "--tasks=documents": "benchmarks/rows.py",
    """curl -d '{"signature_name": "serving_text", "instances": ["a text"]}' """
    "localhost:8501/v1/models/reviews:predict": "tests/serving/test_serving_protocols.py",
    "--server=grpcs://HOST:8500": "tests/serving/test_serving_tls.py",
    "--figure3 --plot=FILE.png": "tests/test_benchmarks.py",
}


# tests/pipelines/test_documents.py has those of docs/beam.md.
BEAM = readme_commands.of((ROOT / "docs" / "beam.md").read_text(encoding="utf-8"))
BEAM = {re.sub(r"^(python -m benchmarks\.\w+) .*", r"\1", command) for command in BEAM}


def plain(command):
    """Without its comment."""
    return re.sub(r"\s+# .*", "", command)


def test_every_command_is_known():
    shown = {plain(command) for command in readme_commands.of(DOCUMENTS)}
    shown = {re.sub(r"^(python -m benchmarks\.\w+) .*", r"\1", command) for command in shown}
    known = {
        *RESEARCH,
        *ALIKE,
        SERVE,
        *SHELL,
        INSTALL,
        ONDEVICE,
        PAGE,
        PAGE_FLAGS,
        *WORKERS,
        *ELSEWHERE,
    }
    known |= {f"python -m benchmarks.{name}" for name in BENCHMARKS} | BEAM
    names = {command for command in shown if re.fullmatch(r"t2aux [a-z-]+", command)}
    assert {name.split()[1] for name in names} <= COMMANDS.keys()
    assert shown - names == known - {"t2aux data"} - names
    for place in ELSEWHERE.values():
        assert (ROOT / place).is_file()
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(targets)


def test_every_gin_file_that_is_named_is_there():
    named = readme_commands.gin_files(DOCUMENTS)
    assert len(named) > 12
    assert set(named) <= set(config.list_bundled())


@pytest.mark.long
@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_have_the_flags_that_are_named(name):
    # They measure for minutes to hours; tests/test_benchmarks.py runs parts of them.
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--help"],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert f"benchmarks/{name}.py" in done.stdout or "flags:" in done.stdout, done.stderr
    flags = {
        "train_step": ("grid", "figure3", "plot"),
        "distributed": ("control",),
        "rows": ("tasks", "seeds", "output"),
    }
    for flag in flags.get(name, ()):
        assert f"--{flag}" in DOCUMENTS
        assert re.search(rf"--(\[no\])?{flag}\b", done.stdout), flag


def write_data(place):
    """What the documents say that the reader has."""
    rng = np.random.default_rng(0)
    mnist = place / "DATA" / "mnist"
    mnist.mkdir(parents=True)
    labels = np.arange(60, dtype=np.uint8) % 10
    for prefix in ("train", "t10k"):
        images = rng.integers(0, 256, (60, 28, 28), np.uint8)
        for kind, magic, array in (("images-idx3", 0x803, images), ("labels-idx1", 0x801, labels)):
            header = np.array([magic, *array.shape], ">u4").tobytes()
            (mnist / f"{prefix}-{kind}-ubyte").write_bytes(header + array.tobytes())
    for split, name, number in np.ndindex(2, 2, 6):
        path = place / "photos" / ("train", "test")[split] / ("cat", "dog")[name] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), np.uint8)).save(path)
    rows = [f"{number},review {number},{number % 2 + 4}\n" for number in range(40)]
    (place / "reviews.csv").write_text(",review,stars\n" + "".join(rows))
    (place / "series").mkdir()
    for split in ("TRAIN", "TEST"):
        rows = "".join(f"{n},2,3,4,5,6,7,{n}:{'ab'[n % 2]}\n" for n in range(8))
        (place / "series" / f"w_{split}.ts").write_text(f"@classLabel true a b\n@data\n{rows}")
    (place / "runs" / "demo").mkdir(parents=True)
    demo._save_example(place / "runs" / "demo")
    shutil.copytree(ROOT / "export/ondevice/python", place / "export/ondevice/python")
    shutil.copytree(ROOT / "results/reproduce", place / "runs/paper/short")


def run_all(place, commands):
    with Server(cwd=place, TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1") as server:
        for number, (command, more) in enumerate(commands.items()):
            whole = command.replace("...", TRAIN)
            if command.startswith("--"):
                whole = f"{TRAIN} {command}"
            words = shlex.split(whole.replace("NAME", "digits"), comments=True)
            if command != TRAIN and "--model_dir=D" in words and "train" in words:
                more = [f"--model_dir=D_{number}", *more]  # D is done.
            done = server.run(place / "log", *words[1:], *more)
            assert done.returncode == 0, f"{whole} {more}: {done.stderr}"


def run_the_researchers_commands(place):
    run_all(place, RESEARCH)
    for name in (
        *("runs/quick/checkpoints", "runs/quick/metrics.jsonl", "runs/quick/train.log"),
        *("runs/quick/evaluation/test/confusion.png", "P.png", "shards/dataset.json"),
        *("runs/quick/reconstructions/test/reconstructions.png", "runs/paper/short/report"),
        *("exports/digits/1/parity.json", "exports/digits/1/saved_model.pb"),
        "exports/variants/1/classifier_stream_dynamic_int8_int4_head.tflite",
    ):
        assert (place / name).exists(), name


def shell(place, command, programs="", **variables):
    """Runs a command as a reader does; asserts that it ends well."""
    bin_folder = place / "bin"
    bin_folder.mkdir(exist_ok=True)
    shim = bin_folder / "t2aux"
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m t2aux "$@"\n')
    shim.chmod(0o755)
    path = os.pathsep.join(filter(None, [programs, str(bin_folder), os.environ["PATH"]]))
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=place,
        env=environment(PATH=path, **variables),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def served(place):
    """Runs `t2aux serve`; gives a function that replaces the documents' ports by its own."""
    ports = {}
    for port in ("8500", "8501"):
        with socket.socket() as taken:
            taken.bind(("localhost", 0))
            ports[port] = str(taken.getsockname()[1])
    words = shlex.split(SERVE)[1:]
    words += [f"--port={ports['8500']}", f"--rest_api_port={ports['8501']}"]
    process = Server(cwd=place).start(place / "serve.log", *words)
    try:
        address = f"http://localhost:{ports['8501']}/v1/models/digits"
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                if "AVAILABLE" in urllib.request.urlopen(address).read().decode():
                    break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield lambda command: re.sub("8500|8501", lambda match: ports[match[0]], command)
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    assert status == 0


def run_the_engineers_commands(place):
    with served(place) as ported:
        printed = {command: shell(place, ported(command)) for command in SHELL}
    listed, grpc, rest, whole, stream = printed.values()
    assert "image_folder" in listed
    assert grpc == whole
    assert whole.startswith("runs/demo/digit.png: ")
    assert [line.split()[:1] for line in rest.splitlines()[1:]] == [["16"], ["32"], ["48"], ["64"]]
    assert rest.splitlines()[0] == stream.splitlines()[0] == "runs/demo/digit.png, 64 steps"
    assert stream.splitlines()[4].count("(") == 1


def run_the_device_engineers_commands(place):
    pip = f"{shlex.quote(sys.executable)} -m {INSTALL}"
    target = place / "device"
    offline = "--no-deps --no-index --no-build-isolation --quiet --no-warn-conflicts"
    shell(place, f"{pip} {offline} --target={target}")
    for name in ("classifier_stream.tflite", "metadata.json"):
        shutil.copy(place / "exports/variants/1" / name, place / name)
    np.savez(place / "sequences.npz", inputs=np.random.default_rng(0).random([2, 64, 1]))
    printed = shell(place, ONDEVICE, str(target / "bin"), PYTHONPATH=str(target))
    heading, *lines = printed.splitlines()[:4]
    assert heading == "sequences.npz[0], 64 steps"
    assert [line.split()[0] for line in lines] == ["28", "56", "64"]


def build_the_demo_page(place):
    tmp_path = place / "npm"
    tmp_path.mkdir()
    write_npm(tmp_path, NPM)
    variables = {"NPM_RUNS": str(tmp_path / "runs"), "T2AUX_CACHE_DIR": str(tmp_path / "cache")}
    variables["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    words = shlex.split(f"{PAGE} {PAGE_FLAGS}")[1:]
    done = Server(cwd=place, **variables).run(place / "log", *words)
    assert done.returncode == 0, done.stderr
    assert (place / "site" / "index.html").is_file()


def run_two_workers(place):
    """The same command on each; its hosts are this machine's ports."""
    text = WORKERS[0].partition("=")[2]
    (text,) = shlex.split(text)
    ports = []
    for _ in range(2):
        with socket.socket() as taken:
            taken.bind(("localhost", 0))
            ports.append(taken.getsockname()[1])
    processes = []
    for index in range(2):
        given = json.loads(text)
        assert given["task"] == {"type": "worker", "index": 0}
        assert given["cluster"]["worker"] == ["host0:2222", "host1:2222"]
        given["task"]["index"] = index
        given["cluster"]["worker"] = [f"localhost:{port}" for port in ports]
        words = [*shlex.split(WORKERS[1])[1:], "--model_dir=D_workers", *MNIST, *NOTHING]
        server = Server(cwd=place, TF_CONFIG=json.dumps(given), TF_NUM_INTRAOP_THREADS="1")
        processes.append(server.start(place / f"worker{index}.log", *words))
    assert [process.wait(240) for process in processes] == [0, 0]
    assert pathlib.Path(place / "D_workers" / "config.gin").is_file()


def test_settings_that_are_shown_can_be_read():
    texts = set()
    for command in (TRAIN, *ALIKE):
        words = shlex.split(command.replace("...", TRAIN))
        named = [re.fullmatch(r"--(gin_file|gin_param)=(.*)", word) for word in words[3:]]
        assert all(named), command
        files, params = ([m[2] for m in named if m[1] == k] for k in ("gin_file", "gin_param"))
        texts.add(config.parse(files, params))
    assert len(texts) == 1 + len(ALIKE)


@pytest.mark.long
def test_training_with_settings_that_are_shown(tmp_path):
    write_data(tmp_path)
    run_all(tmp_path, ALIKE)


# One test, for each part needs what the others have made.
def test_the_commands_run(tmp_path):
    write_data(tmp_path)
    run_the_researchers_commands(tmp_path)
    run_the_engineers_commands(tmp_path)
    run_the_device_engineers_commands(tmp_path)
    build_the_demo_page(tmp_path)
    run_two_workers(tmp_path)
