"""`t2aux predict --runner`: the rows of one machine, whole or absent, from and to anywhere."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

import t2aux
from t2aux.data import convert
from t2aux.data.table import Table
from t2aux.errors import DataError, FileError
from t2aux.pipelines import inputs, predict, runners
from t2aux.prediction import predictor
from t2aux.prediction.api import Writing
from t2aux.prediction.model import Model
from t2aux.prediction.source import Reading
from tests import small_exports
from tests.cli_helpers import assert_one_sentence, environment
from tests.cli_helpers import t2aux as run_t2aux
from tests.pipelines.conftest import run_all, write_table

TWO_WORKERS = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


def by_pipeline(model, data, output, runner="DirectRunner", on_error=predictor.STOP, **writes):
    spec = predict.Spec(Model(str(model)), on_error)
    writes = Writing(str(output), **writes)
    return predict.predict(runners.Runner(runner), spec, str(data), Reading(), writes)


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_two_workers_killed_and_started_again_answer_as_one_process(exports, tmp_path):
    table = write_table(tmp_path / "t.csv", 4200)
    t2aux.predict(exports("texts"), table, tmp_path / "here.csv", all_classes=True)
    output = tmp_path / "there.csv"
    command = [sys.executable, "-m", "t2aux", "predict", f"--model={exports('texts')}"]
    command += [f"--data={table}", f"--output={output}", "--probabilities", "--runner=DirectRunner"]
    command += ["--", *TWO_WORKERS]
    process = subprocess.Popen(
        command, env=environment(), stderr=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 120
    while process.poll() is None and not list(tmp_path.glob(".there.csv.*/blocks/*")):
        assert time.monotonic() < until
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if output.exists():  # It was as quick as that.
        assert output.read_bytes() == (tmp_path / "here.csv").read_bytes()
        output.unlink()
    done = run_t2aux(*command[3:])
    assert output.read_bytes() == (tmp_path / "here.csv").read_bytes()
    assert hidden(tmp_path) == []
    assert "4,200 rows" in done.stdout
    # Of Beam and its processes nothing; progress where it took long.
    ours = ("Note: ", "Rows: ", str(table))
    assert all(line.startswith(ours) for line in done.stderr.splitlines())


def test_a_bundle_that_fails_is_retried_and_no_row_is_doubled(exports, tmp_path, monkeypatch):
    table = write_table(tmp_path / "t.csv", 300)
    t2aux.predict(exports("texts"), table, tmp_path / "here.csv")
    monkeypatch.setattr(inputs, "_BLOCK_ROWS", 64)
    failed = set()
    writes, joins = predict._write_block, predict._check_complete

    def write_block(path, batch, tally):
        writes(path, batch, tally)
        place = os.path.basename(path).rsplit("-", 2)[0]
        # Both may be in one bundle, which is tried four times.
        if place in ("00000000-0000000001", "00000000-0000000003") and place not in failed:
            failed.add(place)
            raise RuntimeError("the machine is gone")

    def check_complete(done, parts):
        joins(done, parts)
        if "join" not in failed:
            failed.add("join")
            raise RuntimeError("the machine is gone")

    monkeypatch.setattr(predict, "_write_block", write_block)
    monkeypatch.setattr(predict, "_check_complete", check_complete)
    # Of Beam's runners without a cluster the one that tries again.
    summary = by_pipeline(
        exports("texts"),
        table,
        tmp_path / "there.csv",
        "BundleBasedDirectRunner",
        report=str(tmp_path / "report"),
    )
    report = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert report["accuracy"] == summary.evaluation.accuracy
    assert len(failed) == 3
    assert summary.rows == 300
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([(0, 0, False), (0, 1, True), (1, 0, True)], None),
        ([(0, 0, False), (0, 1, True)], "missing"),
        ([(0, 0, False), (0, 1, False), (1, 0, True)], "missing"),
        ([(0, 1, True), (1, 0, True)], "missing"),
        ([(0, 0, True), (1, 0, True), (1, 0, True)], "doubled"),
    ],
)
def test_a_block_that_the_runner_loses_or_doubles_is_an_error(found, message):
    done = [predict._Done(*place, None) for place in found]
    if message is None:
        predict._check_complete(done, range(2))
    else:
        with pytest.raises(RuntimeError, match=message):
            predict._check_complete(done, range(2))


def test_buckets_hold_the_model_the_data_and_the_predictions(exports, tmp_path, bucket):
    table = write_table(tmp_path / "t.csv", 40)
    summary = t2aux.predict(exports("texts"), table, tmp_path / "here.jsonl", top=2)
    model = bucket.add(exports("texts"), "models/news")
    data, output = bucket.add(table, "t.csv"), f"{bucket.root}/out/there.jsonl"
    before = set(bucket.files)
    found = by_pipeline(model, data, output, top=2)
    assert bucket.files[output] == (tmp_path / "here.jsonl").read_bytes()
    assert set(bucket.files) == {*before, output}
    assert found.evaluation.accuracy == summary.evaluation.accuracy
    with pytest.raises(FileError, match=r"/out/there\.jsonl .*--overwrite"):
        by_pipeline(model, data, output)
    by_pipeline(model, data, output, overwrite=True)
    with pytest.raises(FileError, match=r"/b/no\.csv\b.*--data"):
        by_pipeline(model, f"{bucket.root}/no.csv", f"{bucket.root}/x.csv")
    assert set(bucket.files) == {*before, output}


def test_times_that_name_the_rows_of_many_files(exports, tmp_path):
    for number in range(2):
        times = pyarrow.array([number], pyarrow.timestamp("ns"))
        index = {"pandas": json.dumps({"index_columns": ["time"]})}
        table = pyarrow.table({"text": ["abc"], "time": times}).replace_schema_metadata(index)
        pyarrow.parquet.write_table(table, tmp_path / f"part-{number}.parquet")
    by_pipeline(exports("texts"), tmp_path / "part-*.parquet", tmp_path / "one.csv")
    lines = (tmp_path / "one.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == [
        f'"part-{number}.parquet:1970-01-01 00:00:00.00000000{number}"' for number in range(2)
    ]


def test_many_files_have_one_output_or_as_many(exports, tmp_path):
    for number in range(3):
        write_table(tmp_path / f"part-{number}.csv", 10, 10 * number)
    by_pipeline(exports("texts"), tmp_path / "part-*.csv", tmp_path / "one.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "one.parquet").to_pydict()
    assert table["input"][9:11] == ["part-0.csv:9", "part-1.csv:10"]
    assert table["label"] == [f"class {i % 3}" for i in range(30)]
    by_pipeline(exports("texts"), tmp_path / "part-*.csv", tmp_path / "many-*.parquet")
    parts = [f"many-0000{n}-of-00003.parquet" for n in range(3)]
    assert sorted(p.name for p in tmp_path.glob("many*")) == parts
    read = [pyarrow.parquet.read_table(tmp_path / name).to_pylist() for name in parts]
    one = pyarrow.parquet.read_table(tmp_path / "one.parquet").to_pylist()
    assert list(itertools.chain(*read)) == one
    (tmp_path / "part-2.csv").write_text("text\nabc\n")
    with pytest.raises(DataError, match=r"part-2\.csv .*columns.*--label_column"):
        by_pipeline(exports("texts"), tmp_path / "part-*.csv", tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()


def test_a_folder_of_images_here_and_in_a_bucket(exports, tmp_path, bucket):
    rng = np.random.default_rng(1)
    for number in range(9):
        path = tmp_path / "photos" / ("cat", "dog", "yak")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(path)
    (tmp_path / "photos" / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no image")
    given = {"on_error": predictor.SKIP}
    summary = t2aux.predict(exports("images"), tmp_path / "photos", tmp_path / "o.csv", **given)
    assert summary.skipped == 1
    by_pipeline(exports("images"), tmp_path / "photos", tmp_path / "p.csv", **given)
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "o.csv").read_bytes()
    photos = bucket.add(tmp_path / "photos", "photos")
    by_pipeline(exports("images"), photos, tmp_path / "q.csv", **given)
    there = (tmp_path / "q.csv").read_text().replace(photos, str(tmp_path / "photos"))
    assert there == (tmp_path / "o.csv").read_text()


def test_shards_here_and_in_a_bucket(exports, tmp_path, bucket):
    rng = np.random.default_rng(0)
    info = small_exports.VECTORS
    splits = {}
    for split, count in (("train", 3), ("test", 25)):
        lengths = rng.integers(1, 9, count)
        values = rng.normal(size=(lengths.sum(), 2)).astype(np.float32)
        splits[split] = Table.of_lengths(values, lengths, np.arange(count) % info.num_classes)
    convert.convert(info, splits, tmp_path / "shards", shards=4)
    t2aux.predict(exports("vectors"), tmp_path / "shards", tmp_path / "o.csv", all_classes=True)
    for data in (tmp_path / "shards", bucket.add(tmp_path / "shards", "shards")):
        by_pipeline(exports("vectors"), data, tmp_path / "p.csv", all_classes=True, overwrite=True)
        assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "o.csv").read_bytes()


def test_errors_are_those_of_one_machine(exports, tmp_path):
    table = write_table(tmp_path / "t.csv", 5)
    table.write_text(table.read_text() + '5,"",class 0\n6,"",class 0\n')
    with pytest.raises(DataError) as here:
        t2aux.predict(exports("texts"), table, tmp_path / "o.csv")
    with pytest.raises(DataError) as there:
        by_pipeline(exports("texts"), table, tmp_path / "o.csv")
    assert str(there.value) == str(here.value)
    assert "line 7" in str(there.value)
    assert not (tmp_path / "o.csv").exists()
    assert hidden(tmp_path) == []


WRONG = [
    (["--runner=DirectRuner"], ["'DirectRuner'", " DirectRunner?"]),
    (["--runner=DirectRunner", "--", "--direct_num_worker=2"], ["--direct_num_workers"]),
    (
        ["--runner=DirectRunner", "--", "--direct_num_workers=x"],
        ["--direct_num_workers", " int "],
    ),
    (["--runner=DirectRunner", "--data=-"], ["Standard input"]),
    (["--runner=DirectRunner", "--output=-"], ["standard output"]),
    (["--runner=DirectRunner", "--data=gs://b/t.csv"], ["apache-beam[gcp]"]),
    (["--runner=DirectRunner", "--split=x", "--data_dir=d"], ["--data", "convert"]),
    (["--runner=DataflowRunner"], ["temp_location", "project", "region"]),
    (["--data=gs://b/t.csv"], ["--data ", "gs://b/t.csv"]),
    (["--output=gs://b/o.csv"], ["--output ", "gs://b/o.csv"]),
    (["--", "--direct_num_workers=2"], ["--runner"]),
]


def test_what_can_not_run_is_said_in_one_sentence(exports, tmp_path):
    table = write_table(tmp_path / "t.csv", 2)
    given = [f"--model={exports('texts')}", f"--data={table}", f"--output={tmp_path / 'o.csv'}"]
    done = run_all(*(["predict", *given, *arguments] for arguments, _ in WRONG))
    for one, (_, parts) in zip(done, WRONG, strict=True):
        assert_one_sentence(one, *parts)
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv"}


def test_without_beam_its_installation_is_reported(exports, tmp_path):
    table = write_table(tmp_path / "t.csv", 2)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "apache_beam.py").write_text("raise ImportError('none')")
    path = os.pathsep.join([str(tmp_path / "hidden"), environment()["PYTHONPATH"]])
    given = [f"--model={exports('texts')}", f"--data={table}", f"--output={tmp_path / 'o.csv'}"]
    given.append("--runner=DirectRunner")
    done = run_t2aux("predict", *given, check=False, PYTHONPATH=path)
    assert_one_sentence(done, "pip install 't2aux[beam]'")
