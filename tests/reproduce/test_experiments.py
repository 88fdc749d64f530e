"""The rows of every table and figure: what is published, and that each can be run."""

import math

import pytest

# Imported for the configurables that gin files name.
import t2aux.training.train  # noqa: F401
from t2aux import config
from t2aux.errors import UserError
from t2aux.reproduce import documents, experiments, rows
from t2aux.reproduce.rows import Row

ALL = experiments.rows_of("all")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in ("mnist", "cifar10", "stanford_dogs", "dbpedia"):
        (folder / name).mkdir()
    return str(folder)


def bindings(row, budget, data_dir):
    configured = rows.configuration(row, budget, data_dir, 0, "texts")
    text = config.parse(configured.gin_files, configured.gin_params)
    lines = text.replace("\\\n", " ").splitlines()
    return {k.strip(): v.strip() for k, _, v in (line.partition(" = ") for line in lines)}


@pytest.mark.parametrize("budget", rows.BUDGETS)
def test_every_row_is_a_configuration_that_parses(budget, data_dir):
    for row in ALL:
        assert bindings(row, budget, data_dir)["SEED"] == "0", row.id


def test_names_of_rows_are_unique():
    assert len({row.id for row in ALL}) == len(ALL) == 119


def test_what_is_the_same_run_is_run_once():
    def row_at(name, line, column):
        cells = experiments.EXPERIMENTS[name].cells
        return next(c.row for c in cells if c.line == line and c.column == column)

    r_lstm = row_at("table2", "r-LSTM, truncated 300", "cifar10")
    assert row_at("figure4", "r-LSTM", 300) == r_lstm
    assert row_at("figure5", "r-LSTM, truncated 300", 390_000) == r_lstm
    assert row_at("figure6", "without predict future", "lost") == r_lstm
    assert row_at("table6", "1 step", "1x600") == row_at("figure4", "r-LSTM", 1)
    full = row_at("table2", "LSTM, full BPTT", "cifar10")
    assert row_at("table3", "LSTM, full BPTT", "cifar10") == full
    assert row_at("figure5", "LSTM, full BPTT", 50_000) == full


# The sizes of the training sets that rows are run on.
EXAMPLES = {"mnist": 60_000, "pmnist": 60_000, "cifar10": 50_000, "dbpedia": 560_000}


@pytest.mark.parametrize(
    ("dataset", "examples", "folder"),
    [
        *((dataset, examples, True) for dataset, examples in EXAMPLES.items()),
        ("stanford_dogs", 12_000, True),
        # scikit-learn's digits stand in.
        ("stanford_dogs", 1_437, False),
    ],
)
def test_short_gives_every_row_of_a_data_set_the_same_updates(dataset, examples, folder, data_dir):
    seen = set()
    for row in ALL:
        if row.dataset == dataset:
            bound = bindings(row, "short", data_dir if folder else None)
            phases = bound["train.phases"]
            epochs = int(bound["JOINT_EPOCHS"])
            if "pretrain" in phases:
                epochs += int(bound["PRETRAIN_EPOCHS"])
            used = int(bound.get("dataset.max_examples", examples))
            assert used <= examples
            seen.add(epochs * math.ceil(used / int(bound["BATCH_SIZE"])))
    assert len(seen) == 1


def test_the_paper_budget_is_the_papers_schedule(data_dir):
    bound = bindings(Row("mnist", "r_lstm"), "paper", data_dir)
    assert (bound["PRETRAIN_EPOCHS"], bound["JOINT_EPOCHS"]) == ("100", "1000")
    assert (bound["BATCH_SIZE"], bound["LEARNING_RATE"]) == ("128", "0.001")
    assert (bound["ANCHORS"], bound["SEGMENT_LENGTH"]) == ("1", "600")
    assert bound["SUPERVISED_BPTT"] == "300"


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (Row("cifar10", "r_lstm", bptt=0), {"SUPERVISED_BPTT": "0"}),
        (Row("cifar10", "p_lstm", full=True), {"AUXILIARY_BPTT": "'full'"}),
        (
            Row("cifar10", "r_lstm", anchors=20, length=30),
            {"ANCHORS": "20", "SEGMENT_LENGTH": "30"},
        ),
        (Row("dbpedia", "p_lstm"), {"ANCHORS": "1", "SEGMENT_LENGTH": "300"}),
        (Row("dbpedia", "r_lstm"), {"ANCHORS": "20", "SEGMENT_LENGTH": "15"}),
        (Row("mnist", "lstm", core="gru"), {"Classifier.core": "@GRU"}),
        (Row("cifar10", "lstm", core="lstm_chrono"), {"CHRONO_STEPS": "1024"}),
        (Row("cifar10", "lstm", core="mingru"), {"CHRONO_STEPS": "1024"}),
        (Row("stanford_dogs", "r_lstm", side=56), {"SIDE": "56"}),
        (
            Row("cifar10", "rp_lstm", off="joint training"),
            {"joint/Phase.auxiliary": "False"},
        ),
        (Row("cifar10", "rp_lstm", off="pretraining"), {"train.phases": "[@joint/Phase()]"}),
    ],
)
def test_what_a_row_varies_reaches_its_configuration(row, wanted, data_dir):
    bound = bindings(row, "paper", data_dir)
    assert {name: bound[name] for name in wanted} == wanted


def test_smoke_keeps_the_product_of_anchors_and_length(data_dir):
    products = set()
    for row in experiments.EXPERIMENTS["table6"].rows:
        bound = bindings(row, "smoke", data_dir)
        products.add(int(bound["ANCHORS"]) * int(bound["SEGMENT_LENGTH"]))
        assert bound["SUPERVISED_BPTT"] == str(row.bptt)
    assert products == {40}


def test_documents_that_are_nowhere_are_asked_for(tmp_path):
    with pytest.raises(UserError, match="--data_dir=FOLDER with a subfolder dbpedia"):
        rows.configuration(Row("dbpedia", "lstm"), "short", str(tmp_path), 0)
    with pytest.raises(UserError, match="--data_dir=FOLDER with a subfolder dbpedia"):
        rows.configuration(Row("dbpedia", "lstm"), "paper", None, 0)


def test_stand_ins_are_named(tmp_path):
    (tmp_path / "debian_sections").mkdir()
    folder, stand_in = rows.data_source(Row("dbpedia", "lstm"), "short", str(tmp_path))
    assert (folder, stand_in) == (str(tmp_path / "debian_sections"), "debian_sections")
    dogs = Row("stanford_dogs", "lstm", side=40)
    assert rows.data_source(dogs, "short", str(tmp_path)) == (None, "digits")
    assert rows.data_source(dogs, "paper", str(tmp_path)) == (None, None)


def test_docstrings_are_texts_of_several_classes(tmp_path):
    documents.write(tmp_path)
    train = (tmp_path / "train.csv").read_text(encoding="utf-8").splitlines()
    test = (tmp_path / "test.csv").read_text(encoding="utf-8").splitlines()
    classes = (tmp_path / "classes.txt").read_text(encoding="utf-8").split()
    assert {line.split(",")[0] for line in train} == {f'"{i + 1}"' for i in range(len(classes))}
    assert not set(train) & set(test)
