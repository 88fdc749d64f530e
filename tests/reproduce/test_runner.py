"""`t2aux reproduce` as it is used: done once, killed, resumed, changed, failing."""

import json
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from t2aux import files
from t2aux.errors import ModelError
from t2aux.reproduce import documents, experiments, recipes, results, rows, runner
from t2aux.reproduce.rows import Row
from tests.cli_helpers import assert_one_sentence, environment, t2aux

LSTM = "dbpedia/lstm_truncated"


def smoke(output_dir, *more, **options):
    return t2aux(
        "reproduce", "table4", f"--output_dir={output_dir}", "--budget=smoke", *more, **options
    )


@pytest.fixture(scope="module")
def done_once(tmp_path_factory):
    root = tmp_path_factory.mktemp("smoke")
    return root, smoke(root, "--rows=/lstm_trunc", "--seeds=0,1", "--jobs=2")


def result_file(root, row, seed=0, budget="smoke"):
    return root / budget / "rows" / results.file_name(row, seed)


def test_rows_and_seeds_leave_results_and_a_report(done_once):
    root, done = done_once
    assert done.stderr.count("done: test accuracy") == 2
    evaluate, larger = (shlex.split(line)[1:] for line in done.stdout.splitlines()[-2:])
    assert evaluate == ["evaluate", f"--model_dir={root / 'smoke' / LSTM / 'seed0'}"]
    assert larger[:4] == ["reproduce", "table4", "--budget=short", f"--output_dir={root}"]
    assert larger[4:] == [
        "--rows=/lstm_trunc",
        "--seeds=0,1",
        "--data_dir=DATA",
        "--jobs=2",
    ]
    for seed in (0, 1):
        result = results.read(result_file(root, LSTM, seed))
        assert result.versions["commit"] == runner.commit()
        assert (result.row, result.seed, result.updates) == (LSTM, seed, 8)
        assert result.stand_in == "docstrings"
        # A result does not say where the data lies.
        assert str(root) not in result_file(root, LSTM, seed).read_text()
        assert 0 <= result.accuracy <= 1
        assert result.seconds > 0
        model_dir = root / "smoke" / LSTM / f"seed{seed}"
        assert result.of_budget["BATCH_SIZE"] == "16"
        assert f"SEED = {seed}" in (model_dir / "config.gin").read_text()
    report = (root / "smoke" / "report" / "results.md").read_text(encoding="utf-8")
    assert "over 2 seeds" in report
    assert (root / "smoke" / "report" / "results.html").is_file()
    assert "done: test accuracy" in (root / "reproduce.log").read_text()


def test_what_is_done_is_not_done_again(done_once):
    root, _ = done_once
    before = result_file(root, LSTM).stat().st_mtime_ns
    done = smoke(root, "--rows=/lstm_trunc")
    assert "1 of 1 rows are done already" in done.stderr
    assert "row 1" not in done.stderr
    assert result_file(root, LSTM).stat().st_mtime_ns == before


def test_list_shows_commands_and_trains_nothing(done_once):
    root, _ = done_once
    done = smoke(root, "--list")
    assert f"done  {LSTM} seed 0" in done.stdout
    assert "to do dbpedia/p_lstm_truncated seed 0" in done.stdout
    assert "t2aux train --model_dir=" in done.stdout
    assert not result_file(root, "dbpedia/p_lstm_truncated").exists()


def test_list_makes_nothing(tmp_path):
    smoke(tmp_path / "new", "--list")
    assert not (tmp_path / "new").exists()


def test_other_settings_than_before_are_refused(done_once, tmp_path):
    root, _ = done_once
    copy = tmp_path / "smoke" / "rows"
    copy.mkdir(parents=True)
    value = json.loads(result_file(root, LSTM).read_text())
    value["flags"].append("--gin_param=LEARNING_RATE = 1.0")
    result_file(tmp_path, LSTM).write_text(json.dumps(value))
    done = smoke(tmp_path, "--rows=/lstm_trunc", check=False)
    assert_one_sentence(done, LSTM, str(tmp_path), "--output_dir")


# What was given for a row before there were files of budgets/.
OLDER = [
    "JOINT_EPOCHS = 10",
    "BATCH_SIZE = 32",
    "joint/Phase.decay_epochs = 7",
    "train.optimizer = @Adam",
    "joint/Phase.decay_factor = 0.2",
    "train.evaluate_every = 1",
    "train.log_every = 250",
]


def flags_of(*settings):
    files = ["--gin_file=paper/mnist", "--gin_file=models/lstm"]
    return [*files, "--gin_param=SEED = 0", *(f"--gin_param={setting}" for setting in settings)]


def done_with(job, flags, **more):
    values = {"row": job.row.id, "budget": "short", "seed": 0, "accuracy": 0.5}
    return results.Result(**values, test=[], train=[], updates=9, seconds=1.0, flags=flags, **more)


def test_a_row_is_the_same_however_its_budget_was_given(tmp_path):
    made = runner.Runner(tmp_path, "short", 1)
    (job,) = made.jobs([Row("mnist", "lstm")], [0], None)
    files.ensure_directory(job.result.parent)
    files.ensure_directory(job.model_dir)
    begun = job.model_dir / "command.json"
    begun.write_text(json.dumps({"flags": flags_of(*OLDER)}))
    results.write(job.result, done_with(job, flags_of(*OLDER)))
    assert made.jobs([job.row], [0], None) == [job]
    today = job.configuration.flags()
    set_then = {"JOINT_EPOCHS": "10", "BATCH_SIZE": "32", "train.optimizer": "@Adam"}
    set_then |= {"joint/Phase.decay_epochs": "7", "joint/Phase.decay_factor": "0.2"}
    results.write(job.result, done_with(job, today, of_budget=set_then))
    assert made.jobs([job.row], [0], None) == [job]
    # The file has changed since, or the row had other settings.
    results.write(job.result, done_with(job, today, of_budget={**set_then, "JOINT_EPOCHS": "9"}))
    with pytest.raises(ModelError, match=f"^{job.result} .*{job.row.id}.*--output_dir"):
        made.jobs([job.row], [0], None)
    results.write(job.result, done_with(job, today, of_budget=set_then))
    begun.write_text(json.dumps({"flags": flags_of(*OLDER, "train.clip_norm = 2.0")}))
    with pytest.raises(ModelError, match=f"^{begun} .*{job.row.id}.*--output_dir"):
        made.jobs([job.row], [0], None)


def test_what_a_budget_sets_is_kept():
    (found,) = recipes.read([rows.configuration(Row("mnist", "r_lstm"), "short", None, 0)])
    assert found.of_budget == {
        **{"BATCH_SIZE": "32", "PRETRAIN_EPOCHS": "1", "JOINT_EPOCHS": "9"},
        **{"SEGMENT_LENGTH": "300", "train.optimizer": "@Adam"},
        **{"joint/Phase.decay_epochs": "7", "joint/Phase.decay_factor": "0.2"},
        **{"Reconstruction.distant_past": "False", "Reconstruction.final_sampling": "0.5"},
    }


# A row that fails, and what `train` says to a second process, have tests of their own.
@pytest.mark.long
def test_a_row_that_another_process_trains_is_left_to_it(tmp_path):
    model_dir = tmp_path / "smoke" / LSTM / "seed0"
    model_dir.mkdir(parents=True)
    with files.locked(model_dir):
        done = smoke(tmp_path, "--rows=/lstm_trunc", check=False)
    assert_one_sentence(done, "1 of 1 ", LSTM, f"{model_dir}: ")


@pytest.mark.long
def test_a_row_that_fails_does_not_stop_the_others(tmp_path):
    # The run directory of one row can't be made: a file is in its place.
    blocked = tmp_path / "smoke" / LSTM / "seed0"
    blocked.mkdir(parents=True)
    (blocked / "checkpoints").write_text("in the way")
    done = smoke(tmp_path, "--rows=/(lstm|p_lstm)_trunc", check=False)
    assert_one_sentence(done, "1 of 2 ", LSTM)
    assert result_file(tmp_path, "dbpedia/p_lstm_truncated").is_file()
    assert not result_file(tmp_path, LSTM).exists()


def test_a_worker_that_dies_is_replaced(tmp_path, monkeypatch):
    # One that says what it was asked; `done_once` has workers that train.
    (tmp_path / "t2aux" / "reproduce").mkdir(parents=True)
    for package in ("t2aux", "t2aux/reproduce"):
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "t2aux" / "reproduce" / "worker.py").write_text(
        "import json\nwhile True: print(json.dumps({'error': json.loads(input())['model_dir']}))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    worker = runner._Worker(tmp_path / "workers.log")
    try:
        worker._process.kill()
        worker._process.wait()
        made = runner.Runner(tmp_path, "smoke", 1)
        (job,) = made.jobs([Row("dbpedia", "lstm")], [0], None)
        assert worker.train(job) == str(job.model_dir)
    finally:
        worker.close()


def test_what_killed_a_worker_can_be_read(tmp_path, monkeypatch):
    log = tmp_path / "workers.log"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # Python runs it at the start of every process.
    (tmp_path / "sitecustomize.py").write_text("import os; os.write(2, b'no!'); os._exit(7)")
    worker = runner._Worker(log)
    made = runner.Runner(tmp_path, "smoke", 1)
    (job,) = made.jobs([Row("dbpedia", "lstm")], [0], None)
    assert re.search(f" 7.*{log}", worker.train(job))
    assert log.read_text() == "no!"
    worker.close()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["tabel2"], ["'tabel2'", " table2?"]),
        ([], ["experiment", "figure6"]),
        (["table4", "--rows=("], ["--rows=(", "regular expression"]),
        (["table4", "--rows=nothing"], ["table4", "--rows=nothing", "--list"]),
        (["table4", "--seeds=a"], ["--seeds", "'a'"]),
        (["table4", "--budget=short"], ["--data_dir=FOLDER", "dbpedia"]),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, arguments, parts):
    done = t2aux("reproduce", *arguments, f"--output_dir={tmp_path}", check=False)
    assert_one_sentence(done, *parts)


def test_rows_are_listed_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = t2aux("reproduce", "table2", "--list", "--rows=^mnist/lstm_full$")
    assert "--model_dir=RUNS/short/mnist/lstm_full/seed0" in done.stdout
    assert_one_sentence(t2aux("reproduce", "table2", check=False), "--output_dir")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGKILL,
        *(pytest.param(s, marks=pytest.mark.long) for s in (signal.SIGTERM, signal.SIGINT)),
    ],
)
def test_a_stopped_command_is_resumed(tmp_path, how):
    data = tmp_path / "data" / "dbpedia"
    data.mkdir(parents=True)
    documents.write(data)
    # A part of them, which is read and trained on at once.
    for name in ("train.csv", "test.csv"):
        lines = (data / name).read_text("utf-8").splitlines(keepends=True)
        (data / name).write_text("".join(lines[:200]), "utf-8")
    command = [
        *("reproduce", "table4", "--rows=/lstm_trunc"),
        *(f"--output_dir={tmp_path}", f"--data_dir={data.parent}", "--budget=short"),
    ]
    model_dir = tmp_path / "short" / LSTM / "seed0"
    first = subprocess.Popen(
        [sys.executable, "-m", "t2aux", *command],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        # In the background of a script it is ignored, and would be so here.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    train_log = model_dir / "train.log"
    while first.poll() is None and time.monotonic() < deadline:
        # Before the first step there is nothing to save, and a run that is stopped leaves nothing.
        if train_log.exists() and "test accuracy" in train_log.read_text():
            break
        time.sleep(0.05)
    # What waits for those that train has not loaded TensorFlow to read their recipes.
    assert "tensorflow" not in pathlib.Path(f"/proc/{first.pid}/maps").read_text()
    first.send_signal(how)
    _, log = first.communicate(timeout=120)
    command_file = model_dir / "command.json"
    written = json.loads(command_file.read_text())
    if how != signal.SIGKILL:
        assert first.returncode == (75 if how == signal.SIGTERM else 130), log
        assert "Traceback" not in log
        assert "the same command continues" in log
        assert written["peak_mib"] > 100
    # The memory of all sessions counts.
    command_file.write_text(json.dumps({**written, "peak_mib": 99_999.0}))
    assert not result_file(tmp_path, LSTM, budget="short").exists()

    t2aux(*command)
    # Its run did not outlive the first command, whatever ended that.
    assert train_log.read_text().count("Stopped by SIGTERM") == 1
    result = results.read(result_file(tmp_path, LSTM, budget="short"))
    assert result.updates == result.test[-1][0]
    assert result.of_budget["BATCH_SIZE"] == "32"
    assert result.peak_mib == 99_999.0
    steps = [line["step"] for line in results.metrics(model_dir) if line["split"] == "test"]
    assert steps == sorted(set(steps))
    assert len(steps) == 5


def test_how_far_a_stopped_row_is_can_be_read(tmp_path, monkeypatch):
    made = runner.Runner(tmp_path, "short", 1)
    (job,) = made.jobs([Row("mnist", "lstm")], [0], None)
    train = {"split": "train", "phase": "joint", "total_steps": 90, "steps_per_second": 1.0}

    def train_alone(self, job, place, peak):
        lines = [{"step": 40, **train}, {"step": 45, "split": "test", "accuracy": 0.5}]
        (job.model_dir / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        if peak is None:
            self._stopping.set()
        return None, 70.0 if peak is None else 60.0

    monkeypatch.setattr(runner.Runner, "_train_alone", train_alone)
    assert not made.run([job])
    part = results.read(job.part)
    assert (part.updates, part.planned, part.accuracy, part.peak_mib) == (45, 90, 0.5, 70.0)
    assert results.read_all(tmp_path) == [part]
    # Another process resumes it to its end.
    assert runner.Runner(tmp_path, "short", 1).run([job])
    assert not job.part.exists()
    (done,) = results.read_all(tmp_path)
    assert (done.planned, done.peak_mib) == (None, 70.0)


def test_a_row_whose_files_are_damaged_does_not_stop_the_others(tmp_path, monkeypatch):
    made = runner.Runner(tmp_path, "short", 1)
    jobs = made.jobs([Row("mnist", "lstm"), Row("mnist", "p_lstm")], [0], None)
    written = {"phase": "joint", "total_steps": 9, "steps_per_second": 1.0, "accuracy": 0.5}
    lines = [{"step": 9, "split": split, **written} for split in ("train", "test")]

    def train_alone(self, job, place, peak):
        whole = "".join(json.dumps(line) + "\n" for line in lines)
        damaged = job.row.model == "lstm"
        (job.model_dir / "metrics.jsonl").write_text("no JSON\n" if damaged else whole)
        return ("the disk broke" if damaged and peak is None else None), 60.0

    monkeypatch.setattr(runner.Runner, "_train_alone", train_alone)
    # It fails by itself, then its metrics can't be read.
    for why in ("the disk broke", r"metrics\.jsonl"):
        with pytest.raises(ModelError, match=f"^1 of 2 .*{why}"):
            runner.Runner(tmp_path, "short", 1).run(jobs)
    assert [found.row for found in results.read_all(tmp_path)] == ["mnist/p_lstm_truncated"]


@pytest.mark.parametrize("name", ["result", "command"])
def test_a_damaged_file_is_named(tmp_path, name):
    made = runner.Runner(tmp_path, "short", 1)
    (job,) = made.jobs([Row("mnist", "lstm")], [0], None)
    path = {"result": job.result, "command": job.model_dir / "command.json"}[name]
    path.parent.mkdir(parents=True)
    for damage in ('{"flags": 3}', "[]", "{"):
        path.write_text(damage)
        with pytest.raises(ModelError, match=str(path)):
            made.jobs([Row("mnist", "lstm")], [0], None)


def test_a_damaged_part_does_not_keep_the_report_from_the_others(done_once, tmp_path):
    root, _ = done_once
    whole = result_file(root, LSTM)
    (tmp_path / whole.name).write_text(whole.read_text())
    (tmp_path / "mnist__transformer.seed0.part.json").write_text("{")
    done = t2aux("report", str(tmp_path))
    assert "transformer.seed0.part.json" in done.stderr
    assert (tmp_path / "report" / "results.md").is_file()


@pytest.mark.long
def test_every_row_of_every_table_and_figure_runs(tmp_path):
    began = time.monotonic()
    t2aux(
        *("reproduce", "all", "--budget=smoke", "--jobs=2", f"--output_dir={tmp_path}"),
        timeout=1200,
    )
    assert time.monotonic() - began < 600
    made = {result.row for result in results.read_all(tmp_path / "smoke" / "rows")}
    assert made == {row.id for row in experiments.rows_of("all")}


def test_the_commit_is_that_of_the_checkout_and_of_no_repository_around_it(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    package = tmp_path / "t2aux" / "__init__.py"
    package.parent.mkdir()
    package.touch()
    (tmp_path / "other").touch()
    subprocess.run([*git, "init", "-q"], check=True)
    monkeypatch.setattr(runner.t2aux, "__file__", str(package))
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert runner.commit() == head.stdout.strip()
    package.write_text("changed")
    assert runner.commit() == f"{head.stdout.strip()}-dirty"
    (tmp_path / "site" / "t2aux").mkdir(parents=True)
    monkeypatch.setattr(runner.t2aux, "__file__", str(tmp_path / "site" / "t2aux" / "a.py"))
    assert runner.commit() == ""
    monkeypatch.setattr(runner.t2aux, "__file__", str(package))
    monkeypatch.setenv("PATH", "")
    assert runner.commit() == ""


@pytest.mark.long
@pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH is of Python 3.11")
def test_a_folder_t2aux_of_the_working_directory_is_not_imported(tmp_path):
    (tmp_path / "t2aux").mkdir()
    variables = environment()
    del variables["PYTHONPATH"]  # With it, the checkout would be found first.
    command = [pathlib.Path(sys.executable).with_name("t2aux"), "reproduce", "table4"]
    flags = ["--budget=smoke", "--rows=/lstm_trunc", "--output_dir=out"]
    done = subprocess.run(
        [*command, *flags], cwd=tmp_path, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert result_file(tmp_path / "out", LSTM).is_file()
