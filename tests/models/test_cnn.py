import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from koser.models.cnn import (
    CnnOptions,
    MaskedBatchNorm,
    MfccCnn,
    Standardizer,
    frame_mask,
    halve_frames,
    mean_and_deviation,
    spec_augment,
)

SMALL = CnnOptions(channels=(4, 6), hidden_size=8)


def utterances(lengths, seed=0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(40, n)) * 30 - 5).astype(np.float32) for n in lengths]


def padded(arrays) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([array.shape[1] for array in arrays])
    features = torch.zeros(len(arrays), 40, int(lengths.max()))
    for place, array in zip(features, arrays, strict=True):
        place[:, : array.shape[1]] = torch.from_numpy(array)
    return features, lengths


def trained_a_little(options=SMALL, seed=0) -> MfccCnn:
    """A network whose batch statistics are not their initial zeros and ones."""
    torch.manual_seed(seed)
    network = MfccCnn(options, 40, 7)
    arrays = utterances([30, 50, 41, 9])
    network.standardizer.fit(arrays)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for _ in range(5):
        logits = network(*padded(arrays))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
        optimizer.step()
    return network.eval()


@pytest.mark.parametrize("options", [SMALL, CnnOptions(), CnnOptions(channels=(5,), n_bands=3)])
@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(lengths=st.lists(st.integers(1, 130), min_size=1, max_size=5))
def test_probabilities_are_the_same_alone_and_in_any_batch(options, lengths):
    network = trained_a_little(options)
    arrays = utterances(lengths, seed=1)
    with torch.inference_mode():
        together = network(*padded(arrays)).softmax(1)
        alone = torch.cat([network(*padded([array])) for array in arrays]).softmax(1)
    # float32 rounding: the same sums over other block sizes
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_padding_does_not_change_what_is_learnt():
    """Gradients and batch statistics of a padded batch do not depend on how far it is padded."""
    options = SMALL.model_copy(update={"dropout": 0.0, "channel_dropout": 0.0})
    states = []
    for extra in (0, 37):
        torch.manual_seed(0)
        network = MfccCnn(options, 40, 7).double()
        features, lengths = padded(utterances([20, 33, 8]))
        features = torch.nn.functional.pad(features, (0, extra))
        network(features.double(), lengths).square().sum().backward()
        states.append(
            [parameter.grad for parameter in network.parameters()] + list(network.buffers())
        )
    for short, long in zip(*states, strict=True):
        torch.testing.assert_close(short, long, atol=1e-9, rtol=1e-9)


def test_masked_batch_norm_is_batch_norm_where_nothing_is_padded():
    torch.manual_seed(0)
    hidden = torch.randn(6, 5, 4, 11) * 3 + 1
    ours, theirs = MaskedBatchNorm(5), torch.nn.BatchNorm2d(5)
    for is_training in (True, False):
        ours.train(is_training)
        theirs.train(is_training)
        torch.testing.assert_close(ours(hidden, torch.ones(6, 11)), theirs(hidden))
    # torch keeps the unbiased variance, 1 in 263 larger here
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=5e-3, atol=0)


def test_statistics_are_those_of_the_real_frames():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 17)).astype(np.float32)
    hidden = torch.zeros(1, 3, 25)
    hidden[0, :, :17] = torch.from_numpy(values)
    pooled = mean_and_deviation(hidden, frame_mask(torch.tensor([17]), 25))[0].numpy()
    np.testing.assert_allclose(pooled[:3], values.mean(1), atol=1e-6)
    np.testing.assert_allclose(pooled[3:], values.std(1), atol=1e-4)


def test_halving_takes_the_mean_over_the_real_frames_of_each_pair():
    hidden = torch.tensor([[[1.0, 3.0, 5.0, 0.0, 0.0]]])
    halved, is_real = halve_frames(hidden, torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]]))
    assert halved.tolist() == [[[2.0, 5.0, 0.0]]]
    assert is_real.tolist() == [[1.0, 1.0, 0.0]]


def test_standardised_train_part_has_zero_mean_and_unit_variance_overall():
    arrays = utterances([50, 3, 200])
    standardizer = Standardizer(40)
    standardizer.fit(iter(arrays))
    frames = np.concatenate(arrays, axis=1)
    result = standardizer(torch.from_numpy(frames)[None])[0].numpy()
    np.testing.assert_allclose(result.mean(axis=1), 0, atol=1e-4)
    assert result.var(axis=1).mean() == pytest.approx(1.0, abs=1e-4)


def test_standardisation_of_constant_features_is_finite():
    standardizer = Standardizer(2)
    standardizer.fit([np.full((2, 9), 4.0, np.float32)])
    assert standardizer(torch.full((1, 2, 3), 4.0)).tolist() == [[[0.0] * 3] * 2]


def test_spec_augment_blanks_stretches_within_their_limits():
    torch.manual_seed(0)
    options = CnnOptions(max_time_mask=6, max_band_mask=5)
    bands = torch.ones(200, 40, 30)
    augmented = bands * spec_augment(bands, torch.full((200,), 20), options)
    blank = augmented == 0
    n_frames = blank.all(1).sum(1)
    n_bands = blank.all(2).sum(1)
    assert 0 < n_frames.max() <= 12
    assert n_bands.max() == 5
    assert n_bands.min() == 0
    assert set(augmented.unique().tolist()) == {0.0, 1.0}


def test_nothing_is_augmented_outside_training():
    options = CnnOptions(channels=(4, 6), hidden_size=8, max_time_mask=30, max_band_mask=20)
    network = trained_a_little(options)
    inputs = padded(utterances([40, 12]))
    torch.testing.assert_close(network(*inputs), network(*inputs), atol=0, rtol=0)


def test_the_network_sees_time_order():
    """It is a convolutional network over the matrix, not over its mean."""
    network = trained_a_little(CnnOptions())
    array = utterances([80])[0]
    forward = network(*padded([array]))
    shuffled = network(*padded([np.ascontiguousarray(array[:, ::-1])]))
    assert (forward - shuffled).abs().max() > 1e-3
