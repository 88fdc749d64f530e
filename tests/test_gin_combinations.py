"""Gin files named together: each means what its name says, whatever came before it."""

import functools
import inspect
import itertools
import re

import gin
import pytest
from gin import config as gin_config

# Imported for the configurables that gin files name.
import t2aux.training.train  # noqa: F401
from t2aux import config
from t2aux.data.source import sources
from t2aux.errors import SettingError

BUNDLED = config.list_bundled()


def files_of(folder, *but):
    names = [name for name in BUNDLED if name.startswith(folder + "/")]
    return [name for name in names if name not in but]


DATASETS = files_of("datasets")
MODELS, CORES, TRAINING = files_of("models"), files_of("cores"), files_of("training")
BUDGETS = files_of("budgets")
WHOLE = ["quickstart", "quickstart_lstm", "sequences", *files_of("paper", "paper/images")]
# Two files of which the later one counts, as if the earlier were not there.
ALTERNATIVES = [
    *(DATASETS, MODELS, CORES),
    ["training/full", "training/truncated"],
    ["training/mirrored", "training/multi_worker"],
]
SIDE = ["SIDE = 40"]
MODEL = "models/r_lstm"
EPOCHS = ["PRETRAIN_EPOCHS = 1", "JOINT_EPOCHS = 2"]


def meaning(*files, settings=(), epochs=EPOCHS):
    """What `train` and `dataset` are given, defaults among it, all the way down.

    A configuration of the paper, which has no model, is r-LSTM's where no file says otherwise.
    """
    if files[0].startswith("paper/"):
        files = (files[0], MODEL, *files[1:])
    return parsed(files, (*epochs, *settings))


@functools.cache
def parsed(files, settings):
    config.parse(files, settings)
    return {name: given(name, "") for name in ("train", "RunConfig", "dataset", "LSTM")}


def settings_of(*names):
    """What must be set for some of the files."""
    return SIDE if any(name.endswith("/stanford_dogs") for name in names) else []


def given(name, scope):
    """The parameters of a configurable: its defaults, and what is bound."""
    registered = gin_config._REGISTRY.get_match(name)
    parameters = inspect.signature(registered.wrapped).parameters.values()
    found = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    for place in {"", scope}:
        found |= gin_config._CONFIG.get((place, registered.selector), {})
    return {key: resolved(value) for key, value in found.items()}


def resolved(value):
    if isinstance(value, gin_config.ConfigurableReference):
        scope, _, name = value.scoped_selector.rpartition("/")
        if name == "gin.macro" or name == "macro":
            return resolved(gin.query_parameter(f"%{scope}"))
        if name.endswith("constant"):
            return f"%{scope}"
        return {"of": name.rpartition(".")[2], **given(name, scope)}
    if isinstance(value, (list, tuple)):
        return [resolved(item) for item in value]
    return value


def dropped(found, *names):
    return {key: value for key, value in found.items() if key not in names}


def test_the_meaning_is_what_reaches_the_call():
    found = meaning("quickstart", "cores/lstm_chrono", settings=["main/LSTM.forget_bias = 0.5"])
    train = found["train"]
    assert train["batch_size"] == 16
    assert train["model"]["of"] == "Classifier"
    assert train["model"]["core"]["of"] == "LSTM"
    assert train["model"]["core"]["chrono_steps"] == 784
    assert train["model"]["core"]["forget_bias"] == 0.5
    assert found["LSTM"]["chrono_steps"] is None
    (loss,) = train["auxiliary_losses"]
    assert (loss["of"], loss["weight"], loss["layers"]) == ("Reconstruction", 20.0, 2)
    assert [phase["decay_epochs"] for phase in train["phases"]] == [None, 13]
    assert train["data"] == {"of": "digits", "side": 6, "border": 1, "permutation_seed": None}


@pytest.mark.parametrize("base", ["paper/pmnist", "paper/dbpedia", "quickstart"])
@pytest.mark.parametrize("files", ALTERNATIVES, ids=lambda files: files[0].split("/")[0])
def test_of_two_files_of_a_folder_the_later_counts(base, files):
    for later in files:
        settings = settings_of(later)
        alone = meaning(base, later, settings=settings)
        for earlier in {files[0], files[-1]}:
            together = meaning(base, earlier, later, settings=settings)
            assert together == alone, (earlier, later)


@pytest.mark.parametrize("whole", [*WHOLE, "paper/images"])
def test_a_data_set_is_the_same_after_every_configuration(whole):
    own = {} if whole == "paper/images" else meaning(whole, settings=settings_of(whole))["train"]
    for name in DATASETS:
        found = meaning(whole, name, settings=settings_of(name))
        alone = meaning("base", MODEL, name, settings=settings_of(name))
        assert found["train"]["data"] == alone["train"]["data"], name
        assert found["dataset"] == alone["dataset"], name
        # And everything else stays the configuration's.
        assert not own or dropped(found["train"], "data") == dropped(own, "data"), name


@pytest.mark.parametrize("whole", WHOLE)
def test_each_file_changes_its_own_concern_alone(whole):
    settings = settings_of(whole)
    own = meaning(whole, settings=settings)
    concerns = {
        "models": ("model", "auxiliary_losses", "phases"),
        "cores": ("model",),
        "training": (
            *("supervised_bptt", "auxiliary_bptt", "precision", "auxiliary_losses"),
            *("validation", "patience"),
        ),
    }
    for name in (*MODELS, *CORES, *TRAINING):
        found = meaning(whole, name, settings=settings)
        names = concerns[name.split("/")[0]]
        assert dropped(found["train"], *names) == dropped(own["train"], *names), name
        assert (found["dataset"], found["LSTM"]) == (own["dataset"], own["LSTM"]), name
        free = ["strategy"] if name.startswith("training/") else []
        assert dropped(found["RunConfig"], *free) == dropped(own["RunConfig"], *free), name


def test_files_of_different_folders_go_in_any_order():
    settings = ["SIDE = 40"]
    some = ["datasets/pmnist", "datasets/dbpedia"]
    folders = (some, MODELS, CORES, ["training/full"], ["training/mirrored"])
    for one, other in itertools.combinations(folders, 2):
        # Each file with one of the other folder.
        longer = max(len(one), len(other))
        pairs = zip(itertools.cycle(one), itertools.cycle(other), range(longer), strict=False)
        for first, second, _ in pairs:
            if first == "models/transformer" and second in CORES:
                continue  # See the next test.
            found = meaning("paper/stanford_dogs", first, second, settings=settings)
            swapped = meaning("paper/stanford_dogs", second, first, settings=settings)
            assert found == swapped, (first, second)


PAPER = [name for name in WHOLE if name.startswith("paper/")]


@pytest.mark.parametrize("whole", PAPER)
def test_of_two_budgets_the_later_counts(whole):
    options = {"settings": settings_of(whole), "epochs": ()}
    alone = {name: meaning(whole, name, **options) for name in BUDGETS}
    for earlier, later in itertools.product(BUDGETS, BUDGETS):
        assert meaning(whole, earlier, later, **options) == alone[later], (earlier, later)
    assert alone["budgets/paper"] == meaning(whole, **options)
    assert alone["budgets/short"] != alone["budgets/smoke"] != alone["budgets/paper"]


@pytest.mark.parametrize("whole", PAPER)
def test_a_budget_changes_the_schedule_and_the_lengths_alone(whole):
    settings = settings_of(whole)
    own = meaning(whole, settings=settings, epochs=())
    for name in BUDGETS:
        found = meaning(whole, name, settings=settings, epochs=())
        concerns = ("batch_size", "phases", "optimizer", "auxiliary_losses")
        concerns += ("supervised_bptt", "auxiliary_bptt")
        assert dropped(found["train"], *concerns) == dropped(own["train"], *concerns), name
        assert dropped(found["dataset"], "max_examples") == dropped(own["dataset"], "max_examples")
        assert dropped(found["RunConfig"], "log_every") == dropped(own["RunConfig"], "log_every")
        (loss,), (own_loss,) = found["train"]["auxiliary_losses"], own["train"]["auxiliary_losses"]
        concerns = ("length", "distant_past", "final_sampling", "weight", "rows", "levels")
        assert dropped(loss, *concerns) == dropped(own_loss, *concerns), name


def test_a_budget_goes_before_and_after_files_of_other_folders():
    options = {"settings": SIDE, "epochs": ()}
    # Each file with one budget, each budget with files of all folders.
    for folder in (DATASETS, MODELS, CORES, TRAINING):
        for name, budget in zip(folder, itertools.cycle(BUDGETS), strict=False):
            found = meaning("paper/stanford_dogs", name, budget, **options)
            swapped = meaning("paper/stanford_dogs", budget, name, **options)
            assert found == swapped, (name, budget)


def test_every_budget_gives_every_model_the_same_epochs():
    def epochs_of(model, budget):
        found = meaning("paper/cifar10", model, budget, epochs=())["train"]["phases"]
        return [phase["epochs"] for phase in found]

    for model in MODELS:
        alone = model in ("models/lstm", "models/transformer")
        assert epochs_of(model, "budgets/short") == ([4] if alone else [1, 3])
        assert epochs_of(model, "budgets/smoke") == ([2] if alone else [1, 1])
        # The paper does not say that it trains any model for longer.
        assert epochs_of(model, "budgets/paper") == ([1000] if alone else [100, 1000])


@pytest.mark.parametrize("model", ["models/lstm", "models/r_lstm"])
def test_the_joint_epochs_of_a_budget_are_overridden_as_ever(model):
    found = meaning("paper/mnist", model, "budgets/short", epochs=["JOINT_EPOCHS = 7"])
    assert found["train"]["phases"][-1]["epochs"] == 7


@pytest.mark.parametrize("whole", ["quickstart", "base"])
def test_a_budget_asks_for_a_file_of_the_paper(whole):
    for name in BUDGETS:
        with pytest.raises(SettingError, match=rf"macro %\w+ .*{name}\.gin, line .*paper/"):
            config.parse([whole, name], [])


def test_a_transformer_has_no_core_so_that_the_later_file_counts():
    for core in CORES:
        model = meaning("paper/mnist", "models/transformer", core)["train"]["model"]
        assert model == meaning("paper/mnist", "models/lstm", core)["train"]["model"]
        model = meaning("paper/mnist", core, "models/transformer")["train"]["model"]
        assert model == meaning("paper/mnist", "models/transformer")["train"]["model"]


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (["paper/pmnist"], {"of": "pmnist", "permutation_seed": 92916, "side": None}),
        (["paper/pmnist", "datasets/mnist"], {"of": "mnist", "permutation_seed": None}),
        (["paper/pmnist", "datasets/idx"], {"of": "idx", "permutation_seed": None}),
        (["paper/pmnist", "datasets/image_folder"], {"permutation_seed": None}),
        (["paper/pmnist", "datasets/digits"], {"of": "digits", "permutation_seed": None}),
        (["paper/mnist", "datasets/pmnist"], {"of": "pmnist", "permutation_seed": 92916}),
        (["paper/stanford_dogs", "datasets/cifar10"], {"of": "cifar10", "side": None}),
        (["paper/dbpedia"], {"of": "dbpedia", "max_length": 1024}),
        (["paper/dbpedia", "datasets/csv"], {"of": "csv", "max_length": None}),
        (["paper/dbpedia", "datasets/mnist"], {"of": "mnist"}),
        (["quickstart", "datasets/mnist"], {"of": "mnist", "side": None, "border": 0}),
        (["quickstart", "datasets/digits"], {"of": "digits", "side": None, "border": 0}),
        (["quickstart", "datasets/dbpedia"], {"of": "dbpedia", "max_length": 1024}),
        (["quickstart", "datasets/shards"], {"of": "shards"}),
    ],
)
def test_the_data_of_some(files, wanted):
    found = meaning(*files)["train"]["data"]
    assert {name: found[name] for name in wanted} == wanted


def test_nothing_of_a_data_set_that_was_replaced_is_left():
    # Each once as the earlier and once as the later one.
    for earlier, later in zip(DATASETS, [*DATASETS[1:], DATASETS[0]], strict=True):
        files = ["base", MODEL, earlier, later]
        text = config.parse(files, [*EPOCHS, *settings_of(later)])
        names = {line.split(".")[0] for line in text.splitlines() if re.match(r"\w+\.\w+ =", line)}
        assert names & sources().keys() <= {later.split("/")[1]}, (earlier, later)


def test_a_data_file_is_a_line_and_what_it_sets():
    for name in DATASETS:
        source = name.split("/")[1]
        lines = (config.bundled_gin_dir() / f"{name}.gin").read_text().splitlines()
        lines = [line for line in lines if line and not line.startswith("#")]
        assert f"train.data = @{source}()" in lines
        allowed = rf"train\.data = @{source}\(\)|{source}\.\w+ = .*|[A-Z]+ = .*"
        assert all(re.fullmatch(allowed, line) for line in lines), lines


@pytest.mark.parametrize("whole", [name for name in WHOLE if name.startswith("paper/")])
def test_the_paper_is_silent_about_the_model(whole):
    with pytest.raises(SettingError, match=r"model: .*models/lstm, .*models/r_lstm"):
        config.parse([whole], settings_of(whole))
    # A core alone does not choose a model.
    with pytest.raises(SettingError, match=r"model: .*models/lstm, "):
        config.parse([whole, "cores/gru"], settings_of(whole))
    for model in MODELS:
        assert meaning(whole, model, settings=settings_of(whole))


def test_a_configuration_without_data_names_the_choices():
    for whole in ("base", "paper/images"):
        with pytest.raises(SettingError, match=r"data set: .*datasets/csv, .*datasets/mnist"):
            config.parse([whole, MODEL], EPOCHS)


def test_the_schedule_of_texts_stays_that_of_the_paper_file():
    found = meaning("paper/dbpedia", "datasets/mnist")["train"]
    assert found["supervised_bptt"] == found["auxiliary_bptt"] == 100
    (loss,) = found["auxiliary_losses"]
    assert (loss["anchors"], loss["length"]) == (20, 15)


def test_base_sets_everything_that_other_files_set():
    def bound(*files):
        config.parse(files, [*EPOCHS, *settings_of(files[0])])
        return {
            (*key, parameter)
            for key, values in gin_config._CONFIG.items()
            for parameter in values
            if key[1] != "gin.macro" and key[1].rpartition(".")[2] not in sources()
        }

    reset = bound("base", "datasets/digits", "models/lstm")
    # A whole configuration that no other is meant to follow, with sizes of its own.
    for name in set(WHOLE) - {"sequences"}:
        assert bound(name, "models/lstm") <= reset, name


@pytest.mark.parametrize(
    ("files", "undone"),
    [
        (["models/lstm", "paper/mnist"], "models/lstm"),
        (["training/full", "paper/mnist"], "training/full"),
        (["budgets/short", "paper/mnist"], "budgets/short"),
        (["cores/gru", "quickstart"], "cores/gru"),
        (["datasets/mnist", "paper/cifar10"], "datasets/mnist"),
        (["paper/mnist", "quickstart"], "paper/mnist"),
        (["datasets/mnist", "training/full", "paper/pmnist"], "datasets/mnist"),
        (["models/r_lstm", "paper/mnist"], "models/r_lstm"),
        (["datasets/mnist", "paper/images"], "datasets/mnist"),
    ],
)
def test_a_whole_configuration_undoes_nothing_in_silence(files, undone):
    with pytest.raises(SettingError, match=f"^{files[-1]} .* {undone}, "):
        config.parse(files, [])


def test_a_file_of_the_user_is_not_undone_in_silence(tmp_path):
    mine = tmp_path / "mine.gin"
    mine.write_text("BATCH_SIZE = 7\n")
    with pytest.raises(SettingError, match=r"^quickstart .*/mine\.gin, "):
        config.parse([str(mine), "quickstart"], [])
    assert "BATCH_SIZE = 7" in config.parse(["quickstart", str(mine)], [])


@pytest.mark.parametrize(
    "files",
    [
        ["training/mirrored", "paper/mnist"],
    ],
)
def test_what_is_not_undone_may_come_first(files):
    config.parse([*files, MODEL], [])
    found = given("train", "")
    config.parse([*files[::-1], MODEL], [])
    assert given("train", "") == found
