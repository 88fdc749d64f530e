"""Every artefact is measured against the checkpoint, and one that is off is refused."""

import dataclasses
import json
import math

import numpy as np
import pytest

from t2aux import data, files
from t2aux.errors import ModelError
from t2aux.export import parity, tflite
from t2aux.export.comparison import Comparison, Tolerance
from t2aux.export.pipeline import export
from t2aux_ondevice import litert
from tests import networks
from tests.export.conftest import load, shifted_bias

FILES = [litert.file_name(form) for form in litert.FORMS]


def test_every_artefact_is_measured(exported):
    measured = exported.parity
    signatures = ["serving_default", "serving_classify", "step_segment"]
    more = {"text": ["serving_text"], "image": ["serving_image"], "vectors": []}
    signatures += more[exported.info.kind]
    assert list(measured.artefacts) == [f"SavedModel {s}" for s in signatures] + FILES
    assert measured.examples == len(exported.sequences)
    run = load(exported.run.model_dir)
    labels = data.load(run.source, "test", run.info).labels
    answers = [exported.checkpoint.probabilities(s).argmax() for s in exported.sequences]
    assert measured.checkpoint_accuracy == pytest.approx(np.mean(answers == labels))
    for comparison in measured.artefacts.values():
        assert comparison.accuracy == measured.checkpoint_accuracy
        assert comparison.agreement == 1
        assert comparison.largest_difference < 1e-5
        assert comparison.bytes > 1000
    for name, comparison in measured.artefacts.items():
        assert (comparison.milliseconds is not None) == (name in FILES)


def card_row(card, name):
    """The cells of a row of the card's table."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines()]
    (row,) = [row for row in rows if row[0] == name]
    return row


def test_parity_json_and_the_tables_say_the_same(exported):
    written = files.read_json(exported.directory / "parity.json")
    assert written == json.loads(json.dumps(exported.parity.to_json()))
    card = (exported.directory / "README.md").read_text()
    table = exported.parity.table()
    for name, comparison in exported.parity.artefacts.items():
        size = f"{comparison.bytes / 1000:,.0f} kB"
        row = card_row(card, name)
        assert row[1:3] == [f"{comparison.accuracy:.2%}", "100.00%"]
        (line,) = [line for line in table.splitlines() if line.strip().startswith(f"{name} ")]
        assert line.endswith(size)
        time_taken = f"{comparison.milliseconds:.3g} ms" if name in FILES else " ms"
        assert (time_taken in line) == (name in FILES)
        assert (time_taken in row) == (name in FILES)


def test_an_artefact_that_is_off_leaves_nothing(model_dirs, tmp_path, monkeypatch):
    convert, made = tflite.convert, {}

    def convert_wrongly(classifier, form, *args, **kwargs):
        if form not in made:
            with shifted_bias(classifier, 0.1):
                made[form] = convert(classifier, form, *args, **kwargs)
        return made[form]

    monkeypatch.setattr(tflite, "convert", convert_wrongly)
    run = load(model_dirs("grey"))
    with pytest.raises(ModelError, match=r"classifier\.tflite .* 0\.\d+ .*_tolerance=0\.001"):
        export(run, tmp_path / "new" / "base", formats=["tflite"])
    assert not (tmp_path / "new" / "base").exists()
    loose = Tolerance(accuracy=100, probability=1)
    directory, _ = export(run, tmp_path / "base", formats=["tflite"], tolerance=loose)
    assert sorted(p.name for p in directory.glob("*.tflite")) == sorted(FILES)
    assert not (directory / "saved_model.pb").exists()


@pytest.mark.parametrize(
    ("accuracy", "difference", "passes"),
    [
        (0.5, 0.0, True),
        (0.501, 1e-3, True),
        (0.503, 0.0, False),
        (0.497, 0.0, False),
        (0.5, 1.1e-3, False),
        (0.5, math.nan, False),
    ],
)
def test_tolerance(accuracy, difference, passes):
    found = compared(accuracy, difference).fault("it", 0.5, Tolerance(), True)
    assert (found is None) == passes
    if not passes:
        assert found.startswith("it ")
        assert "_tolerance=" in found


def compared(accuracy, difference):
    return Comparison(accuracy, 1.0, difference, difference / 2, 1)


def test_tolerance_of_quantised_artefacts():
    far = compared(0.492, 0.9)
    assert far.fault("it", 0.5, Tolerance(), False) is None
    found = far.fault("it", 0.5, Tolerance(quantised_accuracy=0.5), False)
    for part in ("49.20%", "50.00%", "--quantised_accuracy_tolerance=0.5"):
        assert part in found
    found = far.fault("it", 0.5, Tolerance(quantised_probability=0.8), False)
    for part in ("0.9", "--quantised_probability_tolerance=0.8"):
        assert part in found
    assert compared(0.5, math.nan).fault("it", 0.5, Tolerance(), False) is not None
    assert compared(math.nan, 0).fault("it", 0.5, Tolerance(), False) is not None


def test_what_drifts_is_pointed_out():
    artefacts = {"near": compared(0.5, 0.09), "far": Comparison(0.5, 0.987, 0.73, 0.02, 1)}
    found = parity.Parity("x", 1000, 28, Tolerance(), 0.5, artefacts)
    (remark,) = found.remarks()
    for part in ("far", "0.73", "0.02", "1.30%"):
        assert part in remark
    assert remark in found.table()
    written = found.to_json()["artefacts"]
    assert [written[name]["drifts"] for name in ("near", "far")] == [False, True]
    nan = parity.Parity("x", 1, 28, Tolerance(), 0.5, {"n": compared(0.5, math.nan)}).to_json()
    assert json.loads(json.dumps(nan, allow_nan=False))["artefacts"]["n"]["drifts"]


@pytest.mark.parametrize("tokens", ["characters", "bytes"])
@pytest.mark.parametrize("max_length", [None, 4])
def test_text_of_ids_becomes_the_same_ids(tokens, max_length):
    vocabulary = ("\ufffd", "a", " ", "é") if tokens == "characters" else None
    made_up = networks.text_info()
    info = dataclasses.replace(made_up, max_length=max_length, tokens=tokens, vocabulary=vocabulary)
    # Blanks alone may be what is left of a text that was cut.
    for ids in ([2, 2, 2, 2], [0, 1, 2, 3], [1]):
        if tokens == "bytes":
            ids = [b"\xffa \xc3"[i] for i in ids]
        text = parity.text_of_ids(info, np.array(ids, np.int32))
        text = text.decode("utf-8", "surrogateescape")
        if text.strip():
            assert info.text_ids(text).tolist() == ids


def test_a_long_measurement_says_how_it_goes(monkeypatch, caplog):
    clock = iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    caplog.set_level("INFO", "absl")

    def predict(progress):
        for done in range(1, 101):
            progress.update(done)
        return np.zeros([100, 2])

    assert parity._measured("it", range(100), predict).shape == (100, 2)
    lines = [r.getMessage() for r in caplog.records]
    assert any(line.startswith("Measuring it: ") and line.endswith(" left") for line in lines)
    assert lines[-1].startswith("Measured it in ")
    assert 3 < len(lines) < 30
