"""The variants of the TensorFlow Lite files: they are what they say, and answer nearly the same."""

import functools
import sys

import numpy as np
import pytest

from t2aux.errors import DataError, DependencyError, ModelError, SettingError
from t2aux.export import flatbuffer, tflite, variants
from t2aux.export.runtimes import CheckpointClassifier
from t2aux_ondevice import litert
from tests import networks

STEPS = 42
# Every variant and form for vectors; for text, whose table is quantised, too, whole sequences.
QUANTISED = [
    pytest.param(
        kind,
        name,
        form,
        marks=pytest.mark.long if (kind == "vectors") == (form == "whole") else [],
    )
    for kind in ("text", "vectors")
    for name, variant in variants.VARIANTS.items()
    if name != "float32"
    for form in variant.forms
]


@functools.cache
def network(kind):
    """A classifier whose matrices are large enough, and sequences for it."""
    rng = np.random.default_rng(0)
    info = networks.text_info(vocabulary=27) if kind == "text" else networks.vectors_info(2, STEPS)
    classifier = networks.classifier(info, hidden=32, projection_size=32, head_size=64)
    for variable in classifier.weights:
        variable.assign(variable * 1.5)
    if kind == "text":
        return classifier, [rng.integers(0, 27, n).astype(np.int32) for n in (1, 9, 40)]
    return classifier, list(rng.random((3, STEPS, 2)).astype(np.float32))


@functools.cache
def expected(kind):
    """The answers of the checkpoint."""
    classifier, sequences = network(kind)
    reference = CheckpointClassifier(classifier)
    return [reference.probabilities(sequence) for sequence in sequences]


@functools.cache
def file(kind, form, variant="float32"):
    """What the network becomes."""
    classifier, sequences = network(kind)
    return tflite.convert(classifier, form, variants.VARIANTS[variant], calibration=sequences)


def answer(directory, content, info, form, variant, sequence):
    """What an exported file answers, through the client."""
    from t2aux import files

    path = directory / litert.file_name(form, variant)
    path.write_bytes(content)
    entry = {"form": form, "variant": variant}
    if form == "stateful":
        entry["segment"] = tflite.stateful_segment(info.length, 28)
    metadata = {
        "format": litert.FORMAT,
        "format_version": litert.FORMAT_VERSION,
        "classes": list(info.classes),
        "preprocessing": info.to_json(),
        "artefacts": {path.name: entry},
        "files": {path.name: litert.digest(content)},
    }
    files.write_json(directory / litert.METADATA, metadata)
    classifier = litert.LiteRTClassifier(path)
    assert (classifier.form, classifier.variant) == (form, variant)
    if form == "whole":
        return classifier.probabilities(sequence)
    segment = 28 if info.length is None else 21
    *_, (_, probabilities) = classifier.stream(sequence, segment)
    return probabilities


@pytest.mark.parametrize(("kind", "name", "form"), QUANTISED)
def test_a_variant_is_what_it_says_and_answers_nearly_the_same(kind, name, form, tmp_path, capfd):
    classifier, sequences = network(kind)
    variant = variants.VARIANTS[name]
    content = file(kind, form, name)
    assert capfd.readouterr() == ("", "")  # No library's notes.
    stored = flatbuffer.weights(content)
    large = {t for t, counts in stored.items() if max(counts) >= flatbuffer.MIN_QUANTISED}
    assert large == variant.types
    assert len(content) < 0.95 * len(file(kind, form))
    for sequence, wanted in zip(sequences, expected(kind), strict=True):
        found = answer(tmp_path, content, classifier.info, form, name, sequence)
        limit = {"float16": 1e-3, "dynamic_int8_int4_head": 0.1}.get(name, 0.03)
        assert 0 < np.abs(found - wanted).max() < limit


@pytest.mark.parametrize("kind", ["text", pytest.param("vectors", marks=pytest.mark.long)])
def test_no_values_are_lost_or_stored_twice(kind):
    stored = {
        name: sum(map(sum, flatbuffer.weights(file(kind, "whole", name)).values()))
        for name, variant in variants.VARIANTS.items()
        if "whole" in variant.forms
    }
    assert len(set(stored.values())) == 1


def test_a_network_that_is_too_small_is_refused():
    small = networks.classifier(networks.vectors_info(length=8), hidden=8)
    with pytest.raises(ModelError, match=r"classifier_dynamic_int8\.tflite.* float32"):
        tflite.convert(small, "whole", variants.VARIANTS["dynamic_int8"])


def test_weights_that_stay_in_float_are_refused():
    with pytest.raises(DependencyError, match=r" it .* int8 .* 4,096 .* float32"):
        flatbuffer.check_weights(file("vectors", "stream"), {"int8"}, "it")


def test_four_bits_need_the_extra(monkeypatch):
    classifier, _ = network("vectors")
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(DependencyError, match=r"pip install 't2aux\[quantization\]'"):
        tflite.convert(classifier, "whole", variants.VARIANTS["dynamic_int8_int4_head"])


@pytest.mark.parametrize("names", [["int9"], [], ["float32", ""]])
def test_unknown_variants(names):
    with pytest.raises(SettingError, match=r"'(int9)?'.* dynamic_int8"):
        variants.named(names)


def test_a_stateful_file_takes_multiples_of_its_segment(tmp_path):
    classifier, sequences = network("vectors")
    answer(
        tmp_path, file("vectors", "stateful"), classifier.info, "stateful", "float32", sequences[0]
    )
    model = litert.LiteRTClassifier(tmp_path / litert.file_name("stateful"))
    with pytest.raises(DataError, match=r" 21 steps"):
        list(model.stream(sequences[0], 5))
    assert [steps for steps, _ in model.stream(sequences[0], 21)] == [21, 42]
