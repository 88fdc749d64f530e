"""Every artefact takes values as they are, and answers as the network to normalised ones."""

import dataclasses

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from t2aux.export import flatbuffer, saved_model, tflite, variants
from t2aux.export.runtimes import CheckpointClassifier, SavedModelClassifier
from t2aux.export.stateless import StatelessClassifier
from t2aux_ondevice import litert
from tests import networks
from tests.export.test_export_variants import answer

STEPS = 42
# In float16 the mean would be 12344, in float32 with the weights it would take all digits.
MEAN, DEVIATION = (12345.678, -3.1), (1.0, 1e-3)


@pytest.fixture(scope="module")
def normalised():
    """A classifier that normalises, sequences as they are, and the answers to normalised ones."""
    info = networks.vectors_info(2, STEPS)
    classifier = networks.classifier(info, hidden=32, projection_size=32, head_size=64)
    for variable in classifier.weights:
        variable.assign(variable * 1.5)
    numbers = np.random.default_rng(0).normal(size=(3, STEPS, 2))
    raw = (numbers * DEVIATION + MEAN).astype(np.float32)
    plain = CheckpointClassifier(classifier)
    by_hand = (raw - np.float32(MEAN)) / np.float32(DEVIATION)
    wanted = np.stack([plain.probabilities(sequence) for sequence in by_hand])
    assert np.abs(wanted[0] - wanted[1]).max() > 0.02
    classifier.info = dataclasses.replace(info, mean=MEAN, deviation=DEVIATION)
    return classifier, raw, wanted


_files = {}


def file(classifier, raw, form, variant="float32"):
    """What the classifier becomes."""
    if (form, variant) not in _files:
        _files[form, variant] = tflite.convert(
            classifier, form, variants.VARIANTS[variant], calibration=list(raw)
        )
    return _files[form, variant]


def test_the_checkpoint(normalised):
    classifier, raw, wanted = normalised
    checkpoint = CheckpointClassifier(classifier)
    for sequence, expected in zip(raw, wanted, strict=True):
        np.testing.assert_allclose(checkpoint.probabilities(sequence), expected, atol=1e-6)
        *_, (_, streamed) = checkpoint.stream(sequence, 5)
        np.testing.assert_allclose(streamed, expected, atol=1e-6)


def test_the_saved_model(normalised, tmp_path):
    classifier, raw, wanted = normalised
    from t2aux import files
    from t2aux.export import metadata
    from t2aux.export.model import Model

    saved_model.save(StatelessClassifier(classifier), tmp_path)
    model = Model(classifier, classifier.info, "", "")
    described = metadata.describe(model, tmp_path)
    assert described["model"]["normalization"] == {"mean": list(MEAN), "deviation": list(DEVIATION)}
    assert "mean" not in described["preprocessing"]
    files.write_json(tmp_path / litert.METADATA, described)
    served = SavedModelClassifier(tmp_path)
    padded = np.concatenate([raw, np.full((3, 4, 2), 1e9, np.float32)], axis=1)
    lengths = np.full(3, STEPS, np.int32)
    *_, (_, streamed) = served.stream_batch(raw, lengths, 5)
    for found in (
        served.batch(raw, lengths),
        served.batch(padded, lengths),
        served.example_batch(raw, lengths),
        streamed,
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "form"),
    [
        pytest.param(name, form, marks=[pytest.mark.long] if number and name != "float32" else [])
        for name, found in variants.VARIANTS.items()
        for number, form in enumerate(found.forms)
    ],
)
def test_tensorflow_lite_files(normalised, tmp_path, variant, form):
    if variant == variants.INT4_HEAD:
        pytest.importorskip("ai_edge_quantizer")
    classifier, raw, wanted = normalised
    content = file(classifier, raw, form, variant)
    assert flatbuffer.operators(content)[:2] == ["SUB", "DIV"]
    info = classifier.info.without_normalization()
    found = np.stack([answer(tmp_path, content, info, form, variant, s) for s in raw])
    tolerance = {"float32": 1e-6, "float16": 2e-4}.get(variant, 1e-2)
    np.testing.assert_allclose(found, wanted, atol=tolerance)


def inputs_of(content):
    """What a file says of its inputs, by name."""
    graph = schema.Model.GetRootAsModel(content, 0).Subgraphs(0)
    tensors = [graph.Tensors(graph.Inputs(i)) for i in range(graph.InputsLength())]
    return {
        t.Name(): (
            t.ShapeAsNumpy().tolist(),
            np.atleast_1d(t.ShapeSignatureAsNumpy()).tolist(),
            t.HasRank(),
            t.Type(),
        )
        for t in tensors
    }


@pytest.mark.parametrize("form", litert.FORMS)
def test_a_file_has_the_inputs_of_one_that_does_not_normalise(normalised, form):
    classifier, raw, _ = normalised
    plain = networks.classifier(classifier.info.without_normalization(), hidden=32)
    assert inputs_of(file(classifier, raw, form)) == inputs_of(tflite.convert(plain, form))


@pytest.mark.long
@pytest.mark.parametrize("form", litert.FORMS)
def test_files_for_any_length_have_the_same_inputs(form):
    info = networks.vectors_info(2)
    contents = [
        tflite.convert(networks.classifier(i), form)
        for i in (info, dataclasses.replace(info, mean=MEAN, deviation=DEVIATION))
    ]
    assert inputs_of(contents[0]) == inputs_of(contents[1])
