"""The rows of every table and figure: what is published, and that each can be run."""

import functools
import math

import pytest

# Imported for the configurables that gin files name.
import t2aux.training.train  # noqa: F401
from t2aux.errors import SettingError
from t2aux.reproduce import documents, experiments, recipes, rows
from t2aux.reproduce.rows import Row

ALL = experiments.rows_of("all")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in ("mnist", "cifar10", "stanford_dogs", "dbpedia"):
        (folder / name).mkdir()
    return str(folder)


@functools.cache
def in_effect(row, budget, data_dir):
    configured = rows.configuration(row, budget, data_dir, 0, "texts")
    assert configured.gin_files.count(f"budgets/{budget}") == 1
    (recipe,) = recipes.read([configured])
    assert recipe.error is None, row.id
    return recipe.in_effect


# With another budget a row is read with the paper's, too.
@pytest.mark.parametrize(
    "budget",
    [pytest.param(b, marks=pytest.mark.long if b == "paper" else []) for b in rows.BUDGETS],
)
def test_every_row_is_a_configuration_that_parses(budget, data_dir):
    # Two budgets with each model, core and part of each data set.
    some = {(row.dataset, row.model, row.core, row.off, row.full): row for row in ALL}.values()
    for row in some if budget in ("smoke", "medium") else ALL:
        assert in_effect(row, budget, data_dir)["train.seed"] == "0", row.id


def test_names_of_rows_are_unique():
    assert len({row.id for row in ALL}) == len(ALL) == 144


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
@pytest.mark.parametrize("budget", ["short", "medium"])
def test_every_row_of_a_data_set_has_the_same_updates(budget, dataset, examples, folder, data_dir):
    seen = set()
    for row in ALL:
        if row.dataset == dataset:
            found = in_effect(row, budget, data_dir if folder else None)
            epochs = int(found["joint/Phase.epochs"])
            if "pretrain" in found["train.phases"]:
                epochs += int(found["pretrain/Phase.epochs"])
            some = found["dataset.max_examples"]
            used = examples if some == "None" else int(some)
            assert used <= examples
            seen.add(epochs * math.ceil(used / int(found["train.batch_size"])))
    assert len(seen) == 1


# Of a row under a budget: epochs of pretraining (None: there is none) and joint ones, batch,
# examples, when and to what the rate falls, the optimizer, segments, and both truncations.
PLANS = {
    ("mnist", "r_lstm", "short"): (1, 9, 32, None, 7, 0.2, "Adam", (1, 300), (300, 300)),
    ("pmnist", "p_lstm", "short"): (1, 9, 32, None, 7, 0.2, "Adam", (1, 300), (300, 300)),
    ("mnist", "lstm", "short"): (None, 10, 32, None, 7, 0.2, "Adam", None, (300, None)),
    ("mnist", "transformer", "short"): (None, 5, 8, 30000, 3, 0.2, "Adam", None, (300, None)),
    ("cifar10", "r_lstm", "short"): (1, 3, 32, 25000, 2, 0.2, "Adam", (1, 600), (300, 300)),
    ("cifar10", "transformer", "short"): (None, 4, 32, 25000, 2, 0.2, "Adam", None, (300, None)),
    ("stanford_dogs", "p_lstm", "short"): (1, 4, 16, None, 3, 0.2, "Adam", (1, 600), (300, 300)),
    ("stanford_dogs", "lstm", "short"): (None, 5, 16, None, 3, 0.2, "Adam", None, (300, None)),
    ("dbpedia", "r_lstm", "short"): (1, 4, 32, None, 3, 0.2, "Adam", (20, 15), (100, 100)),
    ("dbpedia", "p_lstm", "short"): (1, 4, 32, None, 3, 0.2, "Adam", (1, 300), (100, 100)),
    ("dbpedia", "sa_lstm", "short"): (1, 4, 32, None, 3, 0.2, "Adam", None, (100, 100)),
    ("cifar10", "r_lstm", "medium"): (4, 32, 32, None, None, 0.5, "Adam", (1, 300), (300, 300)),
    ("cifar10", "lstm", "medium"): (None, 36, 32, None, None, 0.5, "Adam", None, (300, None)),
    ("pmnist", "p_lstm", "medium"): (3, 27, 32, None, None, 0.5, "Adam", (1, 300), (300, 300)),
    ("dbpedia", "r_lstm", "medium"): (2, 18, 32, None, None, 0.5, "Adam", (20, 15), (100, 100)),
    ("mnist", "r_lstm", "smoke"): (1, 1, 16, 64, 300, 0.5, "RMSprop", (1, 40), (20, 20)),
    ("mnist", "lstm", "smoke"): (None, 2, 16, 64, 300, 0.5, "RMSprop", None, (20, None)),
    ("stanford_dogs", "r_lstm", "smoke"): (1, 1, 16, 64, 300, 0.5, "RMSprop", (1, 10), (5, 5)),
    ("dbpedia", "r_lstm", "smoke"): (1, 1, 16, 64, 300, 0.5, "RMSprop", (20, 1), (7, 7)),
    ("dbpedia", "p_lstm", "smoke"): (1, 1, 16, 64, 300, 0.5, "RMSprop", (1, 20), (7, 7)),
    ("mnist", "r_lstm", "paper"): (100, 1000, 128, None, 300, 0.5, "RMSprop", (1, 600), (300, 300)),
    ("cifar10", "lstm", "paper"): (None, 1000, 128, None, 300, 0.5, "RMSprop", None, (300, None)),
    ("stanford_dogs", "r_lstm", "paper"): (
        20,
        100,
        128,
        None,
        300,
        0.5,
        "RMSprop",
        (1, 600),
        (300, 300),
    ),
    ("dbpedia", "r_lstm", "paper"): (10, 20, 128, None, 300, 0.5, "RMSprop", (20, 15), (100, 100)),
}


@pytest.mark.parametrize(("name", "plan"), PLANS.items(), ids=map("-".join, PLANS))
def test_the_plan_of_a_budget(name, plan, data_dir):
    dataset, model, budget = name
    side = 40 if dataset == "stanford_dogs" else None
    found = in_effect(Row(dataset, model, side=side), budget, data_dir)
    loss = {"r_lstm": "Reconstruction", "p_lstm": "Prediction"}.get(model)
    values = (
        *("pretrain/Phase.epochs", "joint/Phase.epochs", "train.batch_size"),
        *("dataset.max_examples", "joint/Phase.decay_epochs", "joint/Phase.decay_factor"),
    )
    *numbers, optimizer, segments, truncations = plan
    assert [found.get(value, "None") for value in values] == list(map(str, numbers))
    assert found["train.optimizer"] == f"@{optimizer}"
    if segments:
        assert (int(found[f"{loss}.anchors"]), int(found[f"{loss}.length"])) == segments
    got = (found["train.supervised_bptt"], found.get("train.auxiliary_bptt"))
    assert got == tuple(steps and str(steps) for steps in truncations)
    assert found["train.evaluate_every"] == "1"
    assert found.get("joint/Phase.decay_schedule", "'steps'") == (
        "'cosine'" if budget == "medium" else "'steps'"
    )
    if model == "r_lstm":
        near = (budget, dataset) in (("short", "mnist"), ("medium", "cifar10"))
        assert found["Reconstruction.distant_past"] == str(not near)
        assert found["Reconstruction.final_sampling"] == (
            "0.5" if budget in ("short", "medium") else "1"
        )


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (Row("cifar10", "r_lstm", bptt=0), {"train.supervised_bptt": "0"}),
        (Row("cifar10", "p_lstm", full=True), {"train.auxiliary_bptt": "'full'"}),
        (
            Row("cifar10", "r_lstm", anchors=20, length=30),
            {"Reconstruction.anchors": "20", "Reconstruction.length": "30"},
        ),
        (Row("dbpedia", "p_lstm"), {"Prediction.anchors": "1", "Prediction.length": "300"}),
        (Row("dbpedia", "r_lstm"), {"Reconstruction.anchors": "20", "Reconstruction.length": "15"}),
        (Row("mnist", "lstm", core="gru"), {"Classifier.core": "@GRU"}),
        (Row("cifar10", "lstm", core="lstm_chrono"), {"main/LSTM.chrono_steps": "1024"}),
        (Row("cifar10", "lstm", core="mingru"), {"MinGRU.chrono_steps": "1024"}),
        (Row("stanford_dogs", "r_lstm", side=56), {"image_folder.side": "56"}),
        (
            Row("cifar10", "rp_lstm", off="joint training"),
            {"joint/Phase.auxiliary": "False"},
        ),
        (Row("cifar10", "rp_lstm", off="pretraining"), {"train.phases": "[@joint/Phase()]"}),
    ],
)
def test_what_a_row_varies_reaches_its_configuration(row, wanted, data_dir):
    found = in_effect(row, "paper", data_dir)
    assert {name: found[name] for name in wanted} == wanted


def test_smoke_keeps_the_product_of_anchors_and_length(data_dir):
    products = set()
    for row in experiments.EXPERIMENTS["table6"].rows:
        found = in_effect(row, "smoke", data_dir)
        products.add(int(found["Reconstruction.anchors"]) * int(found["Reconstruction.length"]))
        assert found["train.supervised_bptt"] == str(row.bptt)
    assert products == {40}


def test_documents_that_are_nowhere_are_asked_for(tmp_path):
    with pytest.raises(SettingError, match=r"--data_dir=FOLDER .*dbpedia"):
        rows.configuration(Row("dbpedia", "lstm"), "short", str(tmp_path), 0)
    with pytest.raises(SettingError, match=r"--data_dir=FOLDER .*dbpedia"):
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
