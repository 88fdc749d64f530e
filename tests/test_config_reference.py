"""What gin files and configurables are said to be is what they are."""

import gin
import pytest

from t2aux import config, config_reference
from t2aux.training import train  # noqa: F401  (for its configurables)

OWN = [
    name
    for name in config_reference.configurables()
    if config.gin_config._REGISTRY.get_match(name).selector.startswith("t2aux.")
]


@pytest.mark.parametrize("name", OWN)
def test_every_parameter_of_ours_has_a_meaning_and_a_type(name):
    assert config_reference.about(name)
    for parameter in config_reference.parameters(name):
        assert parameter.meaning, parameter.name
        assert parameter.allowed, parameter.name
        assert not parameter.meaning.startswith("As for"), parameter.name


def test_parameters_are_those_of_the_constructor():
    found = {p.name: p for p in config_reference.parameters("Reconstruction")}
    assert found["Reconstruction.length"].default == "600"
    assert found["Reconstruction.bptt"].allowed == "a whole number or 'full' or None"
    assert found["Reconstruction.reverse"].meaning.startswith("Emit the segment from its end")
    # What gin may not set is not there.
    names = [p.name for p in config_reference.parameters("LSTM")]
    assert names == ["LSTM.forget_bias", "LSTM.recurrent_initializer", "LSTM.chrono_steps"]
    # Inherited ones are, with the words of the class that has them.
    (side,) = (p for p in config_reference.parameters("image_folder") if p.name.endswith("side"))
    assert side.meaning.startswith("Height and width that images are resized to")
    # Functions, classes and objects as gin writes them.
    of_train = {p.name: p.default for p in config_reference.parameters("train")}
    assert of_train["train.optimizer"] == "@RMSprop"
    assert of_train["train.phases"] == "[@Phase(), @Phase()]"
    assert {p.name for p in config_reference.parameters("RMSprop")} > {"RMSprop.rho"}


def test_every_bundled_file_has_a_line_and_can_be_read_alone():
    lines = config_reference.bundled()
    assert list(lines) == config.list_bundled()
    for name, line in lines.items():
        assert len(line) > 10
        assert "\n" not in line
        read = config_reference.read([name])
        assert name in read.files
        assert read.settings or read.macros


def test_settings_are_those_that_parsing_gives():
    read = config_reference.read(["quickstart", "training/validation"])
    settings = {s.full_name: s for s in read.settings}
    config.parse(["quickstart", "training/validation"], [])
    assert settings["train.validation"].value == repr(gin.query_parameter("train.validation"))
    assert settings["train.validation"].file == "training/validation"
    batch_size = settings["train.batch_size"]
    assert (batch_size.written, batch_size.value) == ("%BATCH_SIZE", "16")
    # The file that sets the macro, which base names.
    assert batch_size.file == "quickstart"
    assert settings["joint/Phase.decay_epochs"].value == "13"
    assert read.users("JOINT_EPOCHS") == ["joint/Phase.epochs"]
    assert read.is_whole
    assert read.used[0] == "train"
    assert {"digits", "dataset", "Reconstruction", "LSTM", "Phase", "RMSprop"} < set(read.used)
    assert read.unused == ("Prediction",)


def test_what_must_be_set_and_what_is_not_set_here():
    read = config_reference.read(["base"])
    assert not read.is_whole
    assert read.macros["JOINT_EPOCHS"].value == config_reference.REQUIRED
    assert read.macros["BUDGET_EPOCHS"].value is None
    assert {"Reconstruction", "Prediction"} < set(read.used)


def test_macros_and_where_they_stand():
    assert {"SIDE", "ANCHORS", "CHRONO_STEPS"} < set(config_reference.macros())
    assert config_reference.mentions("SIDE") == {
        "datasets/stanford_dogs": ["SIDE = %gin.REQUIRED", "stanford_dogs.side = %SIDE"]
    }
    assert config_reference.users("SIDE") == ["datasets/stanford_dogs"]


def test_a_macro_that_holds_itself_has_no_value(tmp_path):
    (tmp_path / "own.gin").write_text("A = %B\nB = %A\ndigits.side = %A\n")
    read = config_reference.read([str(tmp_path / "own.gin")])
    assert [s.value for s in read.settings] == [None]
    assert read.files == (str(tmp_path / "own.gin"),)
