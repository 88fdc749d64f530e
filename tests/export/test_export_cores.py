"""Every core exports, a user's own among them: each artefact answers as the checkpoint."""

import json
import re
import types
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from t2aux import data
from t2aux.errors import ModelError
from t2aux.export import flatbuffer, tflite
from t2aux.export.pipeline import export
from t2aux.export.runtimes import CheckpointClassifier, SavedModelClassifier
from t2aux.export.stateless import StatelessClassifier
from t2aux.export.variants import VARIANTS
from t2aux.model import inference
from t2aux.model.gru import GRU
from t2aux.model.lstm import LSTMState
from t2aux.model.mingru import MinGRU
from t2aux_ondevice import litert
from tests import networks
from tests.cli_helpers import python
from tests.cores import CORES, Traces
from tests.export import test_export_warmup
from tests.export.conftest import load, make_run

# The same in float32, summed in another order: up to 1.2e-6 was seen after 53 steps.
EXACT = 5e-6
# Of the core Traces with 8 cells.
STATE = {"state_segment": [8], "traces_0": [8], "traces_1": [2, 8]}


def network(name, kind="vectors", **sizes):
    """A classifier whose answers differ, and what it has in memory."""
    info = networks.text_info() if kind == "text" else networks.vectors_info(channels=2)
    classifier = networks.classifier(info, core=CORES[name], **sizes)
    for variable in classifier.weights:
        variable.assign(1.5 * variable)
    return classifier, CheckpointClassifier(classifier)


def sequence(info, steps):
    rng = np.random.default_rng(steps)
    if info.is_text:
        return rng.integers(0, info.vocabulary_size, steps).astype(np.int32)
    return rng.normal(size=(steps, info.channels)).astype(np.float32)


def written(directory, classifier, form, variant="float32"):
    """A file, written as an export's, in the client."""
    content = tflite.convert(classifier, form, VARIANTS[variant])
    name = litert.file_name(form, variant)
    (directory / name).write_bytes(content)
    described = {
        **litert.description(classifier.info, StatelessClassifier(classifier).state),
        "artefacts": {name: {"form": form, "variant": variant}},
        "files": {name: litert.digest(content)},
    }
    (directory / litert.METADATA).write_text(json.dumps(described))
    return content, litert.LiteRTClassifier(directory / name)


@pytest.mark.parametrize("name", ["GRU", "MinGRU", "own"])
def test_files_answer_as_the_checkpoint(name, tmp_path):
    classifier, reference = network(name)
    # More than a pass through the loop, a part of one, and none.
    sequences = [sequence(classifier.info, steps) for steps in (1, 16, 37)]
    wanted = [reference.probabilities(s) for s in sequences]
    assert np.ptp(wanted, 0).max() > 0.05
    content, whole = written(tmp_path, classifier, litert.WHOLE_FORM)
    operators = set(flatbuffer.operators(content))
    assert "WHILE" in operators
    assert not [o for o in operators if o.startswith(("CUSTOM", "Flex")) or o == tflite.FUSED]
    for given, answer in zip(sequences, wanted, strict=True):
        np.testing.assert_allclose(whole.probabilities(given), answer, rtol=0, atol=EXACT)
    _, stream = written(tmp_path, classifier, litert.STREAM_FORM)
    for given, answer in zip(sequences, wanted, strict=True):
        for segment in (1, 5, 20):
            *_, (steps, found) = stream.stream(given, segment)
            assert steps == len(given)
            np.testing.assert_allclose(found, answer, rtol=0, atol=EXACT)


@pytest.mark.parametrize(
    ("name", "kind", "limits"),
    [
        pytest.param("MinGRU", "vectors", {"dynamic_int8": 0.05}, marks=pytest.mark.long),
        # The table of ids becomes int8, too.
        ("own", "text", {"float16": 2e-3, "dynamic_int8": 0.05, "dynamic_int8_int4_head": 0.15}),
    ],
)
def test_variants_answer_nearly_the_same(name, kind, limits, tmp_path):
    classifier, reference = network(name, kind, hidden=32, projection_size=32, head_size=64)
    given = sequence(classifier.info, 40)
    wanted = reference.probabilities(given)
    for variant, limit in limits.items():
        _, client = written(tmp_path, classifier, litert.STREAM_FORM, variant)
        assert 0 < np.abs(client.probabilities(given) - wanted).max() < limit


def test_only_an_lstm_has_files_that_keep_their_state():
    for name in CORES:
        classifier, _ = network(name)
        assert tflite.forms(classifier) == (litert.WHOLE_FORM, litert.STREAM_FORM)
        with pytest.raises(ModelError, match=f"int8 .* {type(classifier.core).__name__}: "):
            tflite.forms(classifier, VARIANTS["int8"])
        with pytest.raises(ModelError, match="stateful"):
            tflite.convert(classifier, litert.STATEFUL_FORM)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The export of a run whose configuration names a core of a user's."""
    folder = tmp_path_factory.mktemp("cores") / "vectors"
    loaded = load(make_run("vectors", folder, "Classifier.core = @Traces"))
    split = data.load(loaded.source, "test", loaded.info)
    directory, parity = export(loaded, folder / "export", segment=3, serving_batch_sizes=(1, 3))
    return types.SimpleNamespace(
        info=loaded.info,
        sequences=[split.example(i) for i in range(3)],
        directory=directory,
        parity=parity,
        checkpoint=CheckpointClassifier(loaded.classifier),
        saved_model=SavedModelClassifier(directory),
    )


def test_an_export_says_what_the_core_is(exported):
    metadata = litert.read_metadata(exported.directory)
    assert metadata["model"]["core"] == "Traces"
    assert metadata["state"] == STATE
    described = exported.saved_model._signatures["describe"](batch=tf.zeros([1], tf.int32))
    assert json.loads(described["metadata"].numpy()[0])["state"] == STATE
    for name in ("SavedModel step_segment", litert.WHOLE, litert.STREAM):
        assert exported.parity.artefacts[name].largest_difference < 1e-5
    names = {path.name for path in exported.directory.glob("*.tflite")}
    assert names == {litert.WHOLE, litert.STREAM}
    signatures = metadata["artefacts"]["SavedModel"]["signatures"]
    state = {n: {"shape": [None, *s], "dtype": "float32"} for n, s in STATE.items()}
    assert signatures["initial_state"]["outputs"] == state
    assert signatures["step_segment"]["inputs"].items() >= state.items()
    card = (exported.directory / "README.md").read_text()
    assert all(name in card for name in ("Traces", *STATE))
    assert "LSTM" not in card.replace(tflite.NO_STATEFUL_FORM, "")


def test_streaming_equals_whole_sequences(exported):
    for given in exported.sequences:
        wanted = exported.checkpoint.probabilities(given)
        found = exported.saved_model.probabilities(given)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
        for segment in (1, 4):
            found, expected = (
                list(c.stream(given, segment)) for c in (exported.saved_model, exported.checkpoint)
            )
            for (steps, ours), (wanted_steps, theirs) in zip(found, expected, strict=True):
                assert steps == wanted_steps
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
            np.testing.assert_allclose(found[-1][1], wanted, rtol=0, atol=1e-5)


def test_every_signature_takes_its_warm_up_requests(exported):
    signatures = exported.saved_model._signatures
    seen = set()
    for log in test_export_warmup.read(exported):
        name, inputs = test_export_warmup.parts(log)
        answers = signatures[name](**{n: tf.constant(v) for n, v in inputs.items()})
        assert {len(v) for v in answers.values()} == {len(v) for v in inputs.values()}
        seen.add(name)
    assert seen == set(signatures) - {"describe"}


def test_the_card_s_program_runs(exported):
    card = (exported.directory / "README.md").read_text()
    code = "".join(re.findall(r"```python\n(.*?)```", card, re.DOTALL))
    code += "assert np.allclose(probabilities, classify(inputs=inputs)['probabilities'], atol=1e-6)"
    done = python(f"import os; os.chdir({str(exported.directory)!r})\n{code}")
    assert done.stdout.rsplit(maxsplit=1)[0] in exported.info.classes


class Special(Traces):
    """Uses an operation that TensorFlow Lite lacks."""

    def step(self, x, state):
        h = tf.math.igamma(2.0, state.h**2)
        return h, state._replace(segment=h)


def test_an_operation_that_tensorflow_lite_lacks_is_named():
    classifier = networks.classifier(networks.vectors_info(), core=Special)
    with pytest.raises(ModelError, match=r"float32 .* Igamma.*--formats=saved_model"):
        tflite.convert(classifier, litert.WHOLE_FORM)


class Begun(GRU):
    """Whose first state is not zeros."""

    def init_state(self, batch):
        return super().init_state(batch)._replace(h=tf.ones([batch, self.hidden_size]))


class Doubled(GRU):
    """With a tensor in float64."""

    def init_state(self, batch):
        return (super().init_state(batch).h, tf.zeros([batch, 2], tf.float64))


class Shared(GRU):
    """With a tensor that all sequences share."""

    def init_state(self, batch):
        return (super().init_state(batch).h, tf.zeros([]))


@pytest.mark.parametrize(
    ("core", "parts"),
    [(Begun, ("Begun", "h", "zeros")), (Doubled, ("1", "float64")), (Shared, ("1", r"\[\]"))],
)
def test_states_that_no_client_could_carry_are_refused(core, parts):
    with pytest.raises(ModelError, match=r".*".join(parts)):
        inference.initial_state(core(2, 3, seed=0))


class Odd(NamedTuple):
    """Names that a signature can't have, or has twice."""

    lengths: tf.Tensor
    größe: tf.Tensor
    a_b: tf.Tensor
    a: dict

    h = property(lambda self: self.lengths)


def test_the_tensors_of_a_state_have_names_of_their_own():
    assert list(inference.named(LSTMState(1, 2))) == ["h", "c"]
    assert list(inference.state_shapes(GRU(2, 3, seed=0))) == ["h"]
    layers = {"layers_0": (3,), "layers_1": (3,)}
    assert inference.state_shapes(MinGRU(2, 3, seed=0, layers=2)) == layers
    found = inference.named(Odd(1, 2, 3, {"b": 4, "_": (5,)}))
    assert list(found.values()) == [1, 2, 3, 5, 4]  # In tf.nest's order.
    assert next(iter(found)) == "state_lengths"
    assert len({name.lower() for name in found}) == 5
    assert all(re.fullmatch("[a-zA-Z][a-zA-Z0-9_]*", name) for name in found)


def test_a_class_s_own_inference_is_taken_where_it_is_of_its_own_step():
    layer = networks.classifier(networks.vectors_info()).input_layer
    for core, own in ((GRU, True), (MinGRU, True), (Traces, False), (CORES["own step"], False)):
        made = core(4, 3, seed=0).inference(layer)
        assert isinstance(made, inference.FoldedInference) == own
