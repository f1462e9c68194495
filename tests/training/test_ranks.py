"""Two processes train what one does: real ones, which talk through gloo.

Tolerances: a sum over two shares is rounded otherwise than over one. The first gradient differs
by less than 5e-5 of its largest value (1e-5 were found), later ones by more, as AdamW carries
differences into the weights; losses of three epochs differ by less than 1e-4 of themselves.
A mean of the shares' means, statistics of a share alone and the like are off by 1e-2 or more.
"""

import logging

import numpy as np
import pytest
import torch

from fixtures.encoders import save_encoder
from fixtures.ranks import (
    Processes,
    disagree,
    make_network,
    normalize_share,
    pass_on,
    step_as_koser_does,
    step_as_torch_does,
    train_system,
    train_table,
)
from koser.errors import RunError
from koser.systems.mfcc import MfccTrain
from koser.training.batches import TrainingBatches
from koser.training.ranks import ALONE, Ranks

OPTIONS = MfccTrain(epochs=3, patience=3, learning_rate=3e-3, draws="row")


@pytest.fixture(scope="module")
def pair():
    processes = Processes(2)
    yield processes
    processes.close()


def folders(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path / "one", tmp_path / "two"


def assert_alike(one, two, *, first_step=5e-5):
    """Two processes agree with each other to the last bit, and with one up to rounding."""
    first, second = two
    for name, tensor in first.state.items():
        assert torch.equal(tensor, second.state[name]), name
    assert torch.equal(first.gradients[-1], second.gradients[-1])
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    assert first.losses() == second.losses()
    assert len(first.gradients) == len(one.gradients)
    scale = one.gradients.abs().amax(1, keepdim=True)
    relative = ((first.gradients - one.gradients).abs() / scale).amax(1)
    assert relative[0] < first_step
    assert relative.max() < 1e-2
    np.testing.assert_allclose(first.losses(), one.losses(), rtol=1e-4)
    np.testing.assert_allclose(first.probabilities, one.probabilities, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "bound"),
    [
        ({}, {"batch_size": 8}),
        ({"accumulate": 2, "clip_norm": 0.05}, {"batch_size": 7}),
        ({"label_smoothing": 0.0, "class_weights": False}, {"batch_length": 180}),
    ],
)
def test_two_processes_take_the_steps_of_one(feature_table, tmp_path, pair, settings, bound):
    """Shares are unequal, padded, augmented and dropped out; the classes are not balanced."""
    table = feature_table(13, n_variants=2, crop_frames=20)
    table.targets[::5] = [0.7, 0.2, 0.1]
    options = OPTIONS.model_copy(update=settings)
    alone, together = folders(tmp_path)
    one = train_table(ALONE, table, options, bound, alone)
    two = pair.call(train_table, table, options, bound, together)
    assert_alike(one, two)


def test_dropout_of_the_steps_differs_between_one_process_and_two(feature_table, tmp_path, pair):
    """What `draws` is for: without it, what is learnt is another draw of the same thing."""
    table = feature_table(13)
    options = OPTIONS.model_copy(update={"draws": "step"})
    alone, together = folders(tmp_path)
    one = train_table(ALONE, table, options, {"batch_size": 8}, alone)
    first, second = pair.call(train_table, table, options, {"batch_size": 8}, together)
    assert torch.equal(first.gradients[-1], second.gradients[-1])
    difference = (first.gradients[0] - one.gradients[0]).abs().max()
    assert difference > 0.01 * one.gradients[0].abs().max()


@pytest.mark.parametrize("n_then", [1, 2])
def test_a_training_that_two_began_goes_on_in_as_many_as_there_are(
    feature_table, tmp_path, pair, n_then
):
    table, bound = feature_table(10), {"batch_size": 8}
    whole, parts = folders(tmp_path)
    undisturbed, _ = pair.call(train_table, table, OPTIONS, bound, whole)
    begun, _ = pair.call(train_table, table, OPTIONS, bound, parts, "cnn", 2)
    assert not begun.history
    if n_then == 2:
        resumed, other = pair.call(train_table, table, OPTIONS, bound, parts)
        assert resumed.losses() == undisturbed.losses() == other.losses()
        assert torch.equal(resumed.gradients[-1], undisturbed.gradients[-1])
    else:
        resumed = train_table(ALONE, table, OPTIONS, bound, parts)
        np.testing.assert_allclose(resumed.losses(), undisturbed.losses(), rtol=1e-4)
    assert len(resumed.gradients) < len(undisturbed.gradients)


def test_a_step_is_that_of_torchs_own_data_parallelism(feature_table, tmp_path, pair):
    """Where shares weigh the same, its mean over processes is the mean over utterances."""
    table, n_steps = feature_table(16), 5
    options = MfccTrain(
        epochs=1, learning_rate=1e-2, weight_decay=0.0, clip_norm=1e9,
        label_smoothing=0.0, class_weights=False,
    )  # fmt: skip
    expected, _ = pair.call(step_as_torch_does, table, n_steps, options)
    got, _ = pair.call(step_as_koser_does, table, n_steps, options, tmp_path / "last.pth")
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    start = make_network("linear", 3).head.weight
    assert (got - start).abs().max() > 1e-2


@pytest.mark.parametrize(
    "shares", [[[0, 1, 2, 3], [4]], [[1, 3], [0, 2, 4]], [[0, 1, 2, 3, 4], []]]
)
def test_batch_normalisation_is_over_the_real_frames_of_the_whole_batch(pair, shares):
    torch.manual_seed(0)
    hidden = torch.randn(5, 3, 9) * 2 + 1
    n_frames = torch.tensor([9, 4, 1, 7, 2])
    real = [hidden[row, :, :n] for row, n in enumerate(n_frames.tolist())]
    frames = torch.cat(real, 1).T.clone().requires_grad_()  # every real frame of the batch, once
    oracle = torch.nn.BatchNorm1d(3)
    with torch.no_grad():
        oracle.weight.copy_(torch.linspace(0.5, 2.0, 3))
        oracle.bias.copy_(torch.linspace(-1.0, 1.0, 3))
    expected = oracle(frames)
    (expected**3).sum().backward()
    ends = n_frames.cumsum(0).tolist()
    for rank, found in enumerate(pair.call(normalize_share, hidden, n_frames, shares)):
        for place, row in enumerate(shares[rank]):
            n, own = int(n_frames[row]), slice(ends[row] - int(n_frames[row]), ends[row])
            for got, wanted in (("result", expected), ("gradient", frames.grad)):
                torch.testing.assert_close(
                    found[got][place, :, :n].T, wanted[own].detach(), rtol=1e-4, atol=1e-5
                )
            assert not found["result"][place, :, n:].any()
        torch.testing.assert_close(found["weight"], oracle.weight.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["running_mean"], oracle.running_mean)
        torch.testing.assert_close(found["running_var"], oracle.running_var)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder("wav2vec2", tmp_path_factory.mktemp("encoder") / "wav2vec2")


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("wav2vec2", ("head.hidden=8", "train.batch_size=5")),
        ("wav2vec2ft", ("train.batch_seconds=2.5",)),
        ("wav2vec2ft", ("train.batch_seconds=2.5", "tune.lora_rank=2", "head.hidden=8")),
        ("wav2vec2ft", ("train.batch_seconds=2.5", "augment.noise_snr_db=20")),
    ],
)
def test_two_processes_fine_tune_as_one_does(tone_corpus, tmp_path, pair, encoder, name, overrides):
    """Dropout within the encoder and its attention too: the stored trunk, adapters, waveforms."""
    corpus = tone_corpus(n_speakers=4, seconds=0.4)
    chosen = [f"encoder.name={encoder}", "train.epochs=3", "train.draws=row", "train.n_threads=1"]
    if name == "wav2vec2ft":
        chosen += ["tune.layers=2", "probe_epochs=3"]
    alone, together = folders(tmp_path)
    one = train_system(ALONE, name, corpus, (*chosen, *overrides), alone)
    two = pair.call(train_system, name, corpus, (*chosen, *overrides), together)
    assert_alike(one, two, first_step=5e-5)
    assert len(one.gradients) > 5


def test_ranks_whose_weights_drift_apart_are_stopped(pair):
    for said in pair.call(disagree):
        assert said.startswith("The network after epoch 3 of rank 1 is no longer that of rank 0")


def test_what_the_first_rank_has_reaches_the_others_however_late(pair):
    first, second = pair.call(pass_on, 0.5)
    for passed, keys, _ in (first, second):
        assert passed == {"a": [1, "문장"]}
        assert keys.dtype == "S3"
        assert keys.tolist() == [[b"ab", b""]]
    found = sorted((rows.tolist(), values.shape, values.mean()) for rows, values in first[2])
    shape = (2, 1, 3)
    assert found == [
        ([0, 0], shape, 0.0), ([0, 1], shape, 1.0),
        *(([1, n], shape, 10.0 + n) for n in range(4)),
    ]  # fmt: skip
    assert second[2] == []


def test_more_processes_than_utterances_in_a_batch_are_refused(feature_table):
    table = feature_table(8)
    with pytest.raises(RunError, match=r"5 processes share batches of about 4 utt.*per-node 4"):
        TrainingBatches(table, np.arange(24), batch_size=4, seed=0, ranks=Ranks(0, 5))
    with pytest.raises(RunError, match=r"train\.batch_seconds="):
        TrainingBatches(table, np.arange(24), batch_length=60, seed=0, ranks=Ranks(0, 9))


def test_a_gpu_for_every_process_is_asked_for():
    with pytest.raises(RunError, match=r"4 processes on a machine with 2 GPUs.*--nproc-per-node 2"):
        Ranks(1, 4, 4, n_gpus=2).use(torch.device("cuda"))
    assert Ranks(1, 4, 4).use(torch.device("cpu")) == torch.device("cpu")


def test_a_process_that_is_alone_sends_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        assert ALONE.sum(torch.ones(3)).tolist() == [1, 1, 1]
        assert ALONE.from_first(lambda: 7) == 7
        assert list(ALONE.gather_to_first([(np.zeros(1), np.ones(1))])) != []
        ALONE.check_agreement([torch.ones(3)], "anything")
    assert not caplog.records
