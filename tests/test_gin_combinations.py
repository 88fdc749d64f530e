"""Gin files named together: each means what its name says, whatever came before it."""

import inspect
import itertools

import gin
import pytest
from gin import config as gin_config

# Imported for the configurables that gin files name.
import t2aux.training.loop  # noqa: F401
from t2aux import config, data
from t2aux.errors import UserError

BUNDLED = config.list_bundled()


def files_of(folder, *but):
    names = [name for name in BUNDLED if name.startswith(folder + "/")]
    return [name for name in names if name not in but]


DATASETS = files_of("datasets", "datasets/defaults")
MODELS, CORES, TRAINING = files_of("models"), files_of("cores"), files_of("training")
WHOLE = ["quickstart", "quickstart_lstm", *files_of("paper", "paper/images")]
# Two files of which the later one counts, as if the earlier were not there.
ALTERNATIVES = [
    *(DATASETS, MODELS, CORES),
    ["training/full", "training/truncated"],
    ["training/mirrored", "training/multi_worker"],
]
SIDE = ["load.side = 40"]


def meaning(*files, settings=()):
    """What `train` and `load` are given, defaults among it, all the way down."""
    config.parse(files, ["PRETRAIN_EPOCHS = 1", "JOINT_EPOCHS = 2", *settings])
    return {name: given(name, "") for name in ("train", "load", "LSTM")}


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
    assert found["load"]["side"] == 6


@pytest.mark.parametrize("base", ["paper/pmnist", "paper/dbpedia", "quickstart"])
@pytest.mark.parametrize("files", ALTERNATIVES, ids=lambda files: files[0].split("/")[0])
def test_of_two_files_of_a_folder_the_later_counts(base, files):
    for later in files:
        settings = SIDE if later == "datasets/stanford_dogs" else []
        alone = meaning(base, later, settings=settings)
        for earlier in files:
            together = meaning(base, earlier, later, settings=settings)
            assert together == alone, (earlier, later)


@pytest.mark.parametrize("whole", [*WHOLE, "paper/images"])
def test_a_data_set_is_the_same_after_every_configuration(whole):
    for name in DATASETS:
        settings = SIDE if name == "datasets/stanford_dogs" else []
        found = meaning(whole, name, settings=settings)
        assert found["load"] == meaning("base", name, settings=settings)["load"], name
        # And everything else stays the configuration's.
        own = meaning(whole, settings=SIDE if whole == "paper/stanford_dogs" else [])
        assert found["train"] == own["train"], name


@pytest.mark.parametrize("whole", WHOLE)
def test_each_file_changes_its_own_concern_alone(whole):
    settings = SIDE if whole == "paper/stanford_dogs" else []
    own = meaning(whole, settings=settings)
    concerns = {
        "models": ("model", "auxiliary_losses", "phases"),
        "cores": ("model",),
        "training": (
            *("supervised_bptt", "auxiliary_bptt", "strategy", "auxiliary_losses"),
            *("validation", "patience"),
        ),
    }
    for name in (*MODELS, *CORES, *TRAINING):
        found = meaning(whole, name, settings=settings)
        names = concerns[name.split("/")[0]]
        assert dropped(found["train"], *names) == dropped(own["train"], *names), name
        assert (found["load"], found["LSTM"]) == (own["load"], own["LSTM"]), name


def test_files_of_different_folders_go_in_any_order():
    settings = ["SIDE = 40"]
    some = ["datasets/pmnist", "datasets/dbpedia"]
    folders = (some, MODELS, CORES, ["training/full"], ["training/mirrored"])
    for one, other in itertools.combinations(folders, 2):
        for first, second in itertools.product(one, other):
            if first == "models/transformer" and second in CORES:
                continue  # See the next test.
            found = meaning("paper/stanford_dogs", first, second, settings=settings)
            swapped = meaning("paper/stanford_dogs", second, first, settings=settings)
            assert found == swapped, (first, second)


def test_a_transformer_has_no_core_so_that_the_later_file_counts():
    for core in CORES:
        model = meaning("paper/mnist", "models/transformer", core)["train"]["model"]
        assert model == meaning("paper/mnist", "models/lstm", core)["train"]["model"]
        model = meaning("paper/mnist", core, "models/transformer")["train"]["model"]
        assert model == meaning("paper/mnist", "models/transformer")["train"]["model"]


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (["paper/pmnist"], {"name": "mnist", "permutation_seed": 92916, "side": None}),
        (["paper/pmnist", "datasets/mnist"], {"name": "mnist", "permutation_seed": None}),
        (["paper/pmnist", "datasets/image_folder"], {"permutation_seed": None}),
        (["paper/mnist", "datasets/pmnist"], {"permutation_seed": 92916}),
        (["paper/stanford_dogs", "datasets/cifar10"], {"name": "cifar10", "side": None}),
        (["paper/dbpedia", "datasets/mnist"], {"name": "mnist", "max_length": None}),
        (["quickstart", "datasets/mnist"], {"name": "mnist", "side": None, "border": 0}),
        (["quickstart", "datasets/dbpedia"], {"max_length": 1024, "side": None, "border": 0}),
    ],
)
def test_the_data_of_some(files, wanted):
    found = meaning(*files)["load"]
    assert {name: found[name] for name in wanted} == wanted


def test_the_schedule_of_texts_stays_that_of_the_paper_file():
    found = meaning("paper/dbpedia", "datasets/mnist")["train"]
    assert found["supervised_bptt"] == found["auxiliary_bptt"] == 100
    (loss,) = found["auxiliary_losses"]
    assert (loss["anchors"], loss["length"]) == (20, 15)


def test_a_data_set_after_pmnist_is_in_raster_order():
    config.parse(["paper/pmnist", "datasets/digits"], [])
    assert data.load("test").info == data.load("test", permutation_seed=None).info
    assert data.load("test").info.permutation_seed is None


def test_defaults_are_those_of_load_and_all_of_them():
    # Where the data is, and how much of it is taken and how, is another concern.
    kept = {"split", "name", "data_dir", "max_examples", "bucket_batches", "info"}
    config.parse(["datasets/defaults"], [])
    bound = gin.get_bindings("load")
    parameters = inspect.signature(data.load).parameters
    assert bound == {name: p.default for name, p in parameters.items() if name not in kept}, (
        "Name each new parameter of `load` in gin/datasets/defaults.gin, or here."
    )


def test_base_sets_everything_that_other_files_set():
    def bound(*files):
        config.parse(files, ["PRETRAIN_EPOCHS = 1", "JOINT_EPOCHS = 1", *SIDE])
        return {
            (*key, parameter)
            for key, values in gin_config._CONFIG.items()
            for parameter in values
            if key[1] != "gin.macro" and not key[1].endswith(".load")
        }

    reset = bound("base", "models/lstm")
    for name in WHOLE:
        assert bound(name) <= reset, name


@pytest.mark.parametrize(
    ("files", "undone"),
    [
        (["models/lstm", "paper/mnist"], "models/lstm"),
        (["training/full", "paper/mnist"], "training/full"),
        (["cores/gru", "quickstart"], "cores/gru"),
        (["datasets/mnist", "paper/cifar10"], "datasets/mnist"),
        (["paper/mnist", "quickstart"], "paper/mnist"),
        (["datasets/mnist", "training/full", "paper/pmnist"], "datasets/mnist"),
    ],
)
def test_a_whole_configuration_undoes_nothing_in_silence(files, undone):
    with pytest.raises(UserError, match=f"{files[-1]}.*undoes {undone}"):
        config.parse(files, SIDE if "paper/stanford_dogs" in files else [])


def test_a_file_of_the_user_is_not_undone_in_silence(tmp_path):
    mine = tmp_path / "mine.gin"
    mine.write_text("BATCH_SIZE = 7\n")
    with pytest.raises(UserError, match=r"quickstart.*undoes .*mine\.gin"):
        config.parse([str(mine), "quickstart"], [])
    assert "BATCH_SIZE = 7" in config.parse(["quickstart", str(mine)], [])


@pytest.mark.parametrize(
    "files",
    [
        ["training/mirrored", "paper/mnist"],
        ["models/r_lstm", "paper/mnist"],
        ["datasets/mnist", "paper/images"],
    ],
)
def test_what_is_not_undone_may_come_first(files):
    assert meaning(*files) == meaning(*files[::-1])
