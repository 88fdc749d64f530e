"""Sequences that come in piece by piece."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2aux_ondevice import litert
from t2aux_ondevice.errors import DataError, ModelError
from tests import small_exports


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    place = tmp_path_factory.mktemp("exports")
    for name in ("IMAGES", "VECTORS"):
        small_exports.write(place / name, getattr(small_exports, name))
    return place


@pytest.fixture(scope="module")
def vectors(directories):
    return litert.LiteRTClassifier(directories / "VECTORS" / litert.STREAM)


def random_sequence(steps, seed=0):
    return np.random.default_rng(seed).random([steps, 2]).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_pieces_of_any_length_are_the_whole(vectors, pieces):
    sequence = random_sequence(sum(pieces))
    stream = vectors.start()
    for end, size in zip(np.cumsum(pieces), pieces, strict=True):
        probabilities = stream.read(sequence[end - size : end])
        assert stream.steps == end
        np.testing.assert_allclose(
            probabilities, vectors.probabilities(sequence[:end]), rtol=0, atol=1e-6
        )


def test_streams_do_not_disturb_each_other(vectors):
    one, other = random_sequence(8), random_sequence(8, seed=1)
    first, second = vectors.start(), vectors.start()
    first.read(one[:4])
    second.read(other[:4])
    np.testing.assert_array_equal(first.read(one[4:]), read(vectors, one))
    np.testing.assert_array_equal(second.read(other[4:]), read(vectors, other))


def read(classifier, sequence):
    """Reads 8 steps, 4 by 4."""
    *_, (_, probabilities) = classifier.stream(sequence, 4)
    return probabilities


def test_what_is_refused_leaves_the_state_as_it_was(vectors):
    sequence = random_sequence(8)
    stream = vectors.start()
    stream.read(sequence[:4])
    for wrong in (np.full([2, 2], np.nan), np.zeros([2, 3]), np.zeros([0, 2]), np.array(["a"])):
        with pytest.raises(DataError):
            stream.read(wrong)
    assert stream.steps == 4
    np.testing.assert_array_equal(stream.read(sequence[4:]), read(vectors, sequence))


def test_a_sequence_ends_where_the_classifier_does(directories):
    classifier = litert.LiteRTClassifier(directories / "IMAGES" / litert.STREAM)
    stream = classifier.start()
    stream.read(np.zeros([12, 1]))
    with pytest.raises(DataError, match=" 16 steps"):
        stream.read(np.zeros([5, 1]))
    stream.read(np.zeros([4, 1]))


def test_a_file_that_keeps_its_state_has_one_stream(directories):
    path = directories / "VECTORS" / litert.file_name(litert.STATEFUL_FORM)
    classifier = litert.LiteRTClassifier(path)
    segment = classifier.metadata["artefacts"][path.name]["segment"]
    sequence = random_sequence(2 * segment)
    first = classifier.start()
    first.read(sequence[:segment])
    second = classifier.start()
    with pytest.raises(ModelError, match=f"/{litert.file_name(litert.STATEFUL_FORM)}"):
        first.read(sequence[segment:])
    second.read(sequence[:segment])
    explicit = litert.LiteRTClassifier(directories / "VECTORS" / litert.STREAM)
    np.testing.assert_allclose(
        second.read(sequence[segment:]), explicit.probabilities(sequence), rtol=0, atol=1e-6
    )


def test_a_file_of_fixed_segments_refuses_others(directories):
    path = directories / "IMAGES" / litert.file_name(litert.STATEFUL_FORM)
    stream = litert.LiteRTClassifier(path).start()
    with pytest.raises(DataError, match=f"^{path} .* 16 steps"):
        stream.read(np.zeros([15, 1]))
    stream.read(np.zeros([16, 1]))
