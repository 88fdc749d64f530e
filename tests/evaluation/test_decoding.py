"""What an r-LSTM remembers: measured against a plain decoding, drawn, and the command."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2aux import config, data
from t2aux.data.split import Split
from t2aux.data.table import Table
from t2aux.errors import DataError, ModelError
from t2aux.evaluation import decoding, decoding_report
from t2aux.losses.reconstruction import Reconstruction
from t2aux.run import Run, load_run
from t2aux.training import train as train_module
from t2aux_ondevice.preprocessing import DatasetInfo
from tests import networks
from tests.cli_helpers import assert_one_sentence, t2aux
from tests.export.conftest import make_run, write_data

LENGTHS = [9, 4, 12, 7, 12, 8, 11]


def make(info, **parameters):
    """A run with random weights large enough for states that differ, and a split."""
    classifier = networks.classifier(info)
    loss = Reconstruction(head_size=6, length=5, **parameters)
    loss.build(classifier.network)
    rng = np.random.default_rng(4)
    for variable in (*classifier.trainable_variables, *loss.trainable_variables):
        variable.assign(variable + rng.normal(scale=0.4, size=variable.shape))
    run = Run("runs/made_up", classifier, info, 7, "ckpt-7", "", (loss,))
    lengths = np.full(7, info.length) if info.length else np.array(LENGTHS)
    total = lengths.sum()
    if info.is_text:
        values = rng.integers(0, info.vocabulary_size, total).astype(np.uint8)
    else:
        values = rng.random((total, info.channels)).astype(np.float32)
    return run, loss, Split(info, Table.of_lengths(values, lengths, np.arange(7) % 3))


def plain_statistics(split, reverse):
    """As `reconstructions.statistics`, token by token."""
    sequences = [split.example(i) for i in range(len(split))]
    if not split.info.is_text:
        longest = max(map(len, sequences))
        by_position = [
            np.mean([s[t] for s in sequences if t < len(s)], axis=0) for t in range(longest)
        ]
        return np.mean(np.concatenate(sequences), axis=0), np.array(by_position)
    size = split.info.vocabulary_size
    unigram, bigram = np.ones(size), np.ones((size, size))
    for sequence in sequences:
        emitted = sequence[::-1] if reverse else sequence
        for i, token in enumerate(emitted):
            unigram[token] += 1
            if i:
                bigram[emitted[i - 1], token] += 1
    return unigram / unigram.sum(), bigram / bigram.sum(axis=1, keepdims=True)


INFOS = {
    "fixed": networks.vectors_info(channels=2, length=10),
    "ragged": networks.vectors_info(channels=2),
    "text": networks.text_info(),
}


@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("kind", INFOS)
def test_what_the_guesses_know(kind, reverse):
    _, _, split = make(INFOS[kind])
    got = decoding.statistics(split, reverse=reverse)
    want = plain_statistics(split, reverse)
    if kind == "text":
        np.testing.assert_allclose(np.exp(got.unigram), want[0], rtol=1e-5)
        np.testing.assert_allclose(np.exp(got.bigram), want[1], rtol=1e-5)
    else:
        np.testing.assert_allclose(got.mean, want[0], rtol=1e-5)
        np.testing.assert_allclose(got.by_position, want[1], rtol=1e-5)


def test_the_mean_of_stored_pixels_is_that_of_what_the_model_sees():
    split = data.load(data.Digits(), "train", max_examples=30)
    got = decoding.statistics(split, reverse=True)
    sequences = np.stack([split.example(i) for i in range(30)])
    assert split.values.dtype == np.uint8
    np.testing.assert_allclose(got.mean, sequences.mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(got.by_position, sequences.mean(axis=0), rtol=1e-5, atol=1e-7)


def plain_losses(run, loss, split, decoded, batch_size, known):
    """The losses per token by predictor, one sequence and one step at a time."""
    classifier, sums, count = run.classifier, {}, 0
    step = tf.function(classifier.step, autograph=False)
    for number, batch in enumerate(split.batches(batch_size)):
        one = decoded(batch, tf.constant(number))
        positions, valid_mask = one.positions.numpy(), one.valid_mask.numpy()
        size, anchors = len(batch.labels), []
        steps = int(max(batch.lengths))
        starts = steps - batch.lengths.numpy() if split.info.length is None else np.zeros(size, int)
        seed = tf.stack([3, number])
        anchors = loss.draw(seed, tf.constant(starts, tf.int32), tf.constant(steps)).numpy()
        for row in range(loss.anchors * size):
            if not valid_mask[row]:
                continue
            anchor, b = anchors[row // size], row % size
            place = positions[:, row]
            assert min(place) >= 0
            assert max(place) < anchor - starts[b]
            np.testing.assert_array_equal(np.diff(place), -1 if loss.reverse else 1)
            sequence = batch.inputs[b, : batch.lengths[b]]
            true = tf.gather(sequence, place)
            np.testing.assert_array_equal(one.tokens[:, row], true)

            def state_of(b, anchor=anchor, starts=starts, batch=batch):
                state = classifier.init_state(1)
                for t in range(anchor - starts[b]):
                    state = step(batch.inputs[b : b + 1, t], state)
                return state

            def decode(state, forced, true=true):
                carried, token, losses = loss.bottom_state(state), true[:1], []
                for t in range(loss.length):
                    if forced:
                        token = true[t : t + 1]
                    x = classifier.input_layer(token)
                    for i, layer in enumerate(loss.layers):
                        x, carried[i] = layer.step(x, carried[i])
                    token = loss.head(x)
                    losses.append(error(token, true[t + 1]))
                return losses

            def error(prediction, target):
                if split.info.is_text:
                    return -tf.nn.log_softmax(tf.reshape(prediction, [-1]))[target]
                return tf.reduce_sum((tf.reshape(prediction, [-1]) - target) ** 2)

            state, other = state_of(b), state_of((b - 1) % size)
            has_other = size > 1 and starts[(b - 1) % size] < anchor
            losses = {"teacher_forced": decode(state, True)}
            if has_other:
                losses["another_forced"] = decode(other, True)
            targets = true[1:]
            if split.info.is_text:
                losses["unigram"] = [-np.log(known[0][t]) for t in targets]
                losses["bigram"] = [
                    -np.log(known[1][a, b]) for a, b in zip(true[:-1], targets, strict=True)
                ]
            else:
                losses["reconstruction"] = decode(state, False)
                if has_other:
                    losses["another_state"] = decode(other, False)
                losses["mean"] = [error(tf.constant(known[0]), t) for t in targets]
                losses["mean_by_position"] = [
                    error(known[1][p], t) for p, t in zip(place[1:], targets, strict=True)
                ]
                losses["repeat_first"] = [error(true[0], t) for t in targets]
                losses["copy_previous"] = [
                    error(a, t) for a, t in zip(true[:-1], targets, strict=True)
                ]
            for name, values in losses.items():
                sums.setdefault(name, []).append(np.array(values, np.float64))
            count += loss.length
    return {name: np.mean(values, axis=0) for name, values in sums.items()}, count


FORWARDS = {"anchors": 2, "reverse": False}


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("fixed", FORWARDS),
        ("ragged", {}),
        ("text", FORWARDS),
        *(
            pytest.param(kind, parameters, marks=pytest.mark.long)
            for kind, parameters in (("fixed", {}), ("ragged", FORWARDS), ("text", {}))
        ),
    ],
)
def test_losses_equal_a_plain_decoding(kind, parameters):
    run, loss, split = make(INFOS[kind], scheduled_sampling=False, **parameters)
    known = decoding.statistics(split, reverse=loss.reverse)
    decode = decoding.decoder(run, loss, known, seed=3)
    # The last batch has one sequence, and no other's state.
    got = decoding.measure(decode, loss, split, batch_size=3)
    plain = [np.float32(part) for part in plain_statistics(split, loss.reverse)]
    want, tokens = plain_losses(run, loss, split, decode, 3, plain)
    assert got.tokens == tokens
    sampled = {"reconstruction", "another_state"} if kind == "text" else set()
    assert got.loss.keys() == want.keys() | sampled
    for name, values in want.items():
        np.testing.assert_allclose(got.by_step[name], values, rtol=5e-5, err_msg=name)
        np.testing.assert_allclose(got.loss[name], values.mean(), rtol=5e-5, err_msg=name)
    assert json.loads(json.dumps(got.to_json()))["tokens"] == tokens
    assert bool(got.accuracy) == (kind == "text")
    # A state that is not the sequence's own changes what is decoded.
    assert got.loss["another_forced"] != pytest.approx(got.loss["teacher_forced"], rel=1e-4)
    table = decoding_report.table(got)
    assert max(map(len, table.splitlines())) <= 100
    for name, value in got.loss.items():
        assert f"{value:.5f}" in next(r for r in table.splitlines() if r.split(" ")[0] == name)


def test_another_sequences_state_counts_where_that_has_begun():
    run, loss, split = make(INFOS["ragged"], distant_past=False)
    lengths = np.array([20, 8])
    values = np.random.default_rng(0).random((28, split.info.channels)).astype(np.float32)
    split = Split(split.info, Table.of_lengths(values, lengths, np.array([0, 1])))
    decode = decoding.decoder(run, loss, decoding.statistics(split, reverse=loss.reverse), seed=3)
    (batch,) = split.batches(2)
    starts, seen = 20 - lengths, set()
    for number in range(12):
        decoded = decode(batch, tf.constant(number))
        # The segment ends at the anchor.
        anchors = np.max(decoded.positions, axis=0) + 1 + starts
        want = decoded.valid_mask * (starts[::-1] < anchors)
        np.testing.assert_array_equal(decoded.other_mask, want)
        seen.add(tuple(want.numpy()))
    assert {(0.0, 0.0), (1.0, 1.0)} < seen


def test_a_memory_that_is_perfect_is_seen():
    # One channel, tokens that only their own sequence can tell: a decoder whose head is replaced
    # by the truth must get 0, and the share of right ids be 1.
    run, loss, split = make(INFOS["text"])
    known = decoding.statistics(split, reverse=True)
    decode = decoding.decoder(run, loss, known, seed=3)

    def perfect(batch, number):
        decoded = decode(batch, number)
        truth = 50.0 * tf.one_hot(decoded.tokens[1:], split.info.vocabulary_size)
        return decoded._replace(predictions={**decoded.predictions, "reconstruction": truth})

    got = decoding.measure(perfect, loss, split, batch_size=4)
    assert got.loss["reconstruction"] == pytest.approx(0, abs=1e-6)
    assert got.accuracy["reconstruction"] == 1
    assert got.accuracy["unigram"] < 1


def measured_with(**losses):
    return decoding.Measured(INFOS["fixed"], 4, losses, {name: np.ones(4) for name in losses}, {})


@pytest.mark.parametrize(
    ("changed", "forced", "sampled"),
    [
        (
            {},
            "the decoder (0.10000) beats every guess without a memory, the best of which is "
            "copy_previous (0.20000); another sequence's state costs 4.00 times the loss.",
            # Copying the true token before is not a rival of a decoder that does not read it.
            "the decoder (0.25000) beats every guess without a memory, the best of which is "
            "mean (0.30000); another sequence's state costs 1.20 times the loss.",
        ),
        (
            {"teacher_forced": 0.21, "reconstruction": 0.3, "another_state": 0.3},
            "does not beat copy_previous (0.20000)",
            "does not beat mean (0.30000), and another sequence's state does as well",
        ),
    ],
)
def test_the_verdict(changed, forced, sampled):
    losses = {
        "reconstruction": 0.25,
        "teacher_forced": 0.1,
        "another_state": 0.3,
        "another_forced": 0.4,
        "mean": 0.3,
        "copy_previous": 0.2,
    }
    first, second = (
        measured_with(**{**losses, **changed}).verdict().split(" Given its own predictions, ")
    )
    assert forced in first
    assert sampled in second


@pytest.mark.parametrize("kind", ["ragged", "text"])
def test_batches_of_one_have_no_other_state(kind):
    run, loss, split = make(INFOS[kind])
    known = decoding.statistics(split, reverse=loss.reverse)
    decode = decoding.decoder(run, loss, known, seed=3)
    got = decoding.measure(decode, loss, split, batch_size=1)
    assert not {"another_state", "another_forced"} & {*got.loss, *got.by_step, *got.accuracy}
    assert all(map(math.isfinite, got.loss.values()))
    assert "nother" not in got.verdict()


def image_info(permutation_seed=None):
    return DatasetInfo(
        "made up",
        "image",
        ("cat", "dog"),
        channels=3,
        length=36,
        side=4,
        border=1,
        permutation_seed=permutation_seed,
    )


def image_sample(info, predicted=None):
    picture = np.random.default_rng(0).random((36, 3)).astype(np.float32)
    sequence = picture if info.permutation is None else picture[info.permutation]
    positions = np.array([np.arange(20)[::-1], np.arange(16, 36)[::-1]])
    reconstruction = sequence[positions[:, 1:]] if predicted is None else predicted
    return decoding.Sample(0, sequence, positions, reconstruction, 0.25)


def drawn(info, sample, path):
    decoding_report.draw_samples(info, [sample] * 3, path, "title")
    return np.asarray(Image.open(path).convert("RGB"), np.int32)


def test_segments_are_drawn_in_their_places(tmp_path):
    raster, permuted = image_info(), image_info(permutation_seed=3)
    picture = drawn(raster, image_sample(raster), tmp_path / "a.png")
    # Every pixel is in one of the segments: the three rows show the same image, and so does a
    # sequence whose pixels come in another order.
    np.testing.assert_array_equal(
        drawn(permuted, image_sample(permuted), tmp_path / "b.png"), picture
    )
    other = drawn(raster, image_sample(raster, np.zeros((2, 19, 3))), tmp_path / "c.png")
    changed = np.flatnonzero(np.any(other != picture, axis=(1, 2)))
    # Only the third row is another's.
    assert changed.min() > picture.shape[0] * 0.6
    lone = image_sample(raster)
    lone = decoding.Sample(0, lone.sequence, lone.positions[:1], lone.reconstruction[:1], 0)
    nowhere = np.round(255 * np.array(decoding_report._NO_SEGMENT))
    cut = drawn(raster, lone, tmp_path / "d.png")
    assert (np.abs(cut - nowhere).max(axis=-1) <= 1).mean() > 0.1
    assert (np.abs(picture - nowhere).max(axis=-1) <= 1).mean() < 0.01


def test_texts_are_written_in_their_own_order(tmp_path):
    info = networks.text_info(vocabulary=27)
    ids = np.arange(1, 13)
    backwards = np.array([[7, 6, 5, 4, 3]])
    sample = decoding.Sample(5, ids, backwards, np.array([[1, 2, 3, 4]]), 1.5)
    measured = decoding.Measured(info, 4, {"bigram": 2.0}, {"bigram": np.ones(4)}, {})
    decoding_report.write_texts(measured, [sample], tmp_path / "x.md", "title")
    text = (tmp_path / "x.md").read_text()
    assert "3  original        defg[h]" in text
    assert "3  reconstruction  dcba[h]" in text
    sample = decoding.Sample(5, ids, backwards[:, ::-1], np.array([[1, 2, 3, 4]]), 1.5)
    decoding_report.write_texts(measured, [sample], tmp_path / "x.md", "title")
    text = (tmp_path / "x.md").read_text()
    assert "3  original        [d]efgh" in text
    assert "3  reconstruction  [d]abcd" in text


def train(kind, folder, *settings):
    folder.mkdir()
    settings = [*write_data(kind, folder), f"dataset.data_dir = '{folder}'", *settings]
    small = ["Classifier.hidden_size = 6", "PRETRAIN_EPOCHS = 0", "JOINT_EPOCHS = 1"]
    text = config.parse(["base", "models/r_lstm"], [*small, "BATCH_SIZE = 8", *settings])
    assert train_module.train(str(folder / "run"), text)
    return folder / "run"


@pytest.mark.parametrize(
    "kind", ["rgb", *(pytest.param(k, marks=pytest.mark.long) for k in ("characters", "vectors"))]
)
def test_the_command_writes_what_it_prints(kind, tmp_path):
    model_dir = train(kind, tmp_path / kind, "SEGMENT_LENGTH = 4", "ANCHORS = 2")
    command = ["reconstructions", f"--model_dir={model_dir}", "--samples=3", "--batch_size=5"]
    done = t2aux(*command)
    folder = model_dir / "reconstructions" / "test"
    shown = "reconstructions.md" if kind == "characters" else "reconstructions.png"
    assert {path.name for path in folder.iterdir()} == {
        "reconstructions.json",
        "by_step.png",
        shown,
    }
    report = json.loads((folder / "reconstructions.json").read_text())
    assert report["length"] == 4
    assert report["anchors"] == 2
    for name, value in report["loss"].items():
        assert math.isfinite(value)
        assert len(report["by_step"][name]) == 4
        assert f"{value:.5f}" in done.stdout
    assert report["verdict"] in done.stdout
    assert Image.open(folder / "by_step.png").format == "PNG"
    if kind == "characters":
        assert (folder / shown).read_text().count("original") >= 2
    else:
        assert Image.open(folder / shown).format == "PNG"
    if kind != "characters":
        return
    # The seed fixes everything, the tokens that a text decoder draws among it.
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    t2aux(*command)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    t2aux(*command, "--seed=1", f"--output_dir={tmp_path / 'other'}")
    other = json.loads((tmp_path / "other" / "reconstructions.json").read_text())
    assert other["loss"]["reconstruction"] != report["loss"]["reconstruction"]


def test_mistakes_are_one_sentence_each(tmp_path):
    bare = make_run("grey", tmp_path / "bare")
    flags = [f"--model_dir={bare}", "--checkpoint=ckpt-3"]
    done = t2aux("reconstructions", *flags, check=False)
    assert_one_sentence(done, "Reconstruction", "models/r_lstm")
    # A checkpoint without auxiliary networks is not read as if it had them.
    settings = ["train.auxiliary_losses = [@Reconstruction]", "Reconstruction.length = 4"]
    with pytest.raises(ModelError, match=r"/ckpt-3 .*\[256\] .*auxiliary/reconstruction/"):
        load_run(bare, "ckpt-3", settings, auxiliary=True)


def test_no_sequence_that_a_segment_fits_into():
    run, loss, split = make(INFOS["ragged"])
    known = decoding.statistics(split, reverse=True)
    short = Split(split.info, Table.of_lengths(np.ones((5, 2), np.float32), [2, 3], [0, 1]))
    decode = decoding.decoder(run, loss, known, seed=3)
    with pytest.raises(DataError, match=r"made up .* 6 steps .*Reconstruction\.length = 5 "):
        decoding.measure(decode, loss, short)


@pytest.mark.long
def test_the_quickstarts_memory_is_real(tmp_path):
    t2aux("train", f"--model_dir={tmp_path}", "--gin_file=quickstart", timeout=1200)
    t2aux("reconstructions", f"--model_dir={tmp_path}")
    folder = tmp_path / "reconstructions" / "test"
    loss = json.loads((folder / "reconstructions.json").read_text())["loss"]
    memory = loss.pop("reconstruction")
    assert memory < 0.02
    for name in ("mean", "mean_by_position", "repeat_first", "copy_previous", "another_state"):
        assert memory < 0.6 * loss[name], name
