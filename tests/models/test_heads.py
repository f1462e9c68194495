import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from koser.config import build_config
from koser.errors import ConfigError
from koser.models.heads import FramePooling, HeadOptions, StateClassifier, StateStandardizer

POOLINGS = ["mean", "mean+std", "attentive"]


@pytest.mark.parametrize(
    ("layers", "states"), [("weighted", (0, 1, 2, 3)), ("last", (3,)), (0, (0,)), (2, (2,))]
)
def test_a_head_takes_the_states_it_is_told_to(layers, states):
    assert HeadOptions(layers=layers).states(3) == states


@pytest.mark.parametrize("layers", [-1, 4, 99])
def test_a_state_that_the_encoder_has_not_is_refused(layers):
    with pytest.raises(
        ConfigError, match=rf"head\.layers = {layers}: .*states are 0 to 3\. Give one"
    ):
        HeadOptions(layers=layers).states(3)


@pytest.mark.parametrize(
    "wrong", [{"layers": "first"}, {"pooling": "max"}, {"hidden": -1}, {"dropout": 1.0}]
)
def test_a_head_that_does_not_exist_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build_config(HeadOptions, wrong)


@given(n_states=st.integers(1, 30), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_weights_of_layers_are_shares_of_one(n_states, seed):
    network = StateClassifier(n_states, 4, 3, HeadOptions())
    torch.testing.assert_close(network.weights, torch.full((n_states,), 1 / n_states))
    torch.nn.init.normal_(network.scores, std=3.0, generator=torch.Generator().manual_seed(seed))
    assert float(network.weights.detach().sum()) == pytest.approx(1.0, abs=1e-5)


def random_classifier(options, seed=0):
    """One with every value random, as after training: 5 states, 4 values each, 3 labels."""
    torch.manual_seed(seed)
    network = StateClassifier(5, 4, 3, options).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    network.standardizer.fit([np.random.default_rng(seed).normal(3.0, 2.0, size=(50, 5, 4))])
    return network


def test_a_linear_classifier_is_a_sum_over_states_of_maps_that_their_weights_scale():
    network = random_classifier(HeadOptions())
    pooled = torch.randn(7, 5, 4)
    assert network(pooled).shape == (7, 3)
    # The map of all states together, found by what each single value does to the logits.
    silence = network.standardizer.mean[None]
    offset = network(silence)

    def response(state, value):
        probe = silence.clone()
        probe[0, state, value] += network.standardizer.scale[state, value]
        return (network(probe) - offset)[0]

    standardised = (pooled - network.standardizer.mean) / network.standardizer.scale
    expected = offset + sum(
        standardised[:, state, value, None] * response(state, value)
        for state in range(5)
        for value in range(4)
    )
    torch.testing.assert_close(network(pooled), expected, rtol=1e-4, atol=1e-4)


def test_a_state_without_weight_has_no_say():
    network = random_classifier(HeadOptions())
    with torch.no_grad():
        network.scores.fill_(0.0)
        network.scores[2] = -200.0
    pooled = torch.randn(7, 5, 4)
    before = network(pooled)
    pooled[:, 2] += 10.0
    torch.testing.assert_close(network(pooled), before)
    pooled[:, 1] += 10.0
    assert not torch.allclose(network(pooled), before, atol=0.1)


def test_only_a_linear_classifier_has_a_penalty_and_it_shrinks_with_the_train_part():
    options = HeadOptions(ridge=50.0)
    network = random_classifier(options)
    assert float(network.penalty().detach()) == 0.0
    network.set_ridge(options, 200)
    few = float(network.penalty().detach())
    assert few == pytest.approx(0.5 * 50.0 / 200 * float(network.maps.detach().square().sum()))
    network.set_ridge(options, 400)
    assert float(network.penalty().detach()) == pytest.approx(few / 2)
    deep = random_classifier(HeadOptions(hidden=8, ridge=50.0))
    deep.set_ridge(HeadOptions(hidden=8, ridge=50.0), 200)
    assert float(deep.penalty().detach()) == 0.0


def test_standardising_measures_mean_and_deviation_over_all_blocks():
    rng = np.random.default_rng(0)
    blocks = [rng.normal(100.0, 3.0, size=(n, 2, 4)).astype(np.float32) for n in (5, 1, 30)]
    for block in blocks:
        block[:, 1, 2] = 7.0  # says nothing
    standardizer = StateStandardizer(2, 4)
    standardizer.fit(iter(blocks))
    everything = np.concatenate(blocks)
    standardised = standardizer(torch.from_numpy(everything)).numpy()
    deviation = everything.std(0, dtype=np.float64)
    deviation[1, 2] = 1.0
    expected = (everything - everything.mean(0, dtype=np.float64)) / deviation
    np.testing.assert_allclose(standardised, expected, atol=1e-4)
    assert np.all(standardised[:, 1, 2] == 0.0)
    # What was measured is kept with the weights.
    assert standardizer.state_dict().keys() == {"mean", "scale"}


def pooled_in_numpy(frames, n_frames, kind):
    rows = [row[:n].astype(np.float64) for row, n in zip(frames, n_frames, strict=True)]
    mean = np.stack([row.mean(0) for row in rows])
    if kind == "mean":
        return mean
    return np.concatenate([mean, np.sqrt(np.stack([row.var(0) for row in rows]) + 1e-5)], 1)


@pytest.mark.parametrize("kind", ["mean", "mean+std"])
def test_pooling_is_that_of_numpy_over_real_frames(kind):
    rng = np.random.default_rng(0)
    frames = rng.normal(2.0, 3.0, size=(3, 9, 4)).astype(np.float32)
    n_frames = [9, 1, 5]
    pooling = FramePooling(4, kind)
    pooled = pooling(torch.from_numpy(frames), torch.tensor(n_frames))
    assert pooled.shape == (3, pooling.n_outputs)
    np.testing.assert_allclose(pooled, pooled_in_numpy(frames, n_frames, kind), atol=1e-5)


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize("garbage", [1e4, float("inf"), float("nan")])
def test_what_stands_after_the_last_real_frame_is_not_pooled(kind, garbage):
    torch.manual_seed(0)
    pooling = FramePooling(6, kind)
    frames, n_frames = torch.randn(2, 8, 6), torch.tensor([8, 3])
    expected = [pooling(frames[i : i + 1, :n], n_frames[i : i + 1]) for i, n in enumerate((8, 3))]
    frames[1, 3:] = garbage
    torch.testing.assert_close(pooling(frames, n_frames), torch.cat(expected))


def test_attentive_pooling_weighs_frames_with_shares_of_one():
    torch.manual_seed(0)
    pooling = FramePooling(4, "attentive")
    constant = torch.full((1, 7, 4), 3.0)
    torch.testing.assert_close(pooling(constant, torch.tensor([5])), constant[:, 0])
    frames = 3 * torch.randn(1, 7, 4)
    pooled = pooling(frames, torch.tensor([7]))
    assert bool((pooled >= frames.amin(1)).all())
    assert bool((pooled <= frames.amax(1)).all())
    assert not torch.allclose(pooled, frames.mean(1), atol=1e-3)


def test_attentive_pooling_learns_which_frames_count():
    torch.manual_seed(0)
    pooling = FramePooling(8, "attentive")
    optimizer = torch.optim.Adam(pooling.parameters(), lr=0.05)
    frames = torch.randn(64, 20, 8)
    frames[:, :, 1] = 0.0
    frames[:, 7, 1] = 3.0  # marks the frame that counts
    lengths = torch.full((64,), 20)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (pooling(frames, lengths)[:, 0] - frames[:, 7, 0]).square().mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05  # the plain mean's is about 1


@pytest.mark.parametrize("kind", POOLINGS)
def test_gradients_are_finite_where_nothing_moves(kind):
    frames = torch.ones(2, 5, 3, requires_grad=True)
    FramePooling(3, kind)(frames, torch.tensor([5, 1])).sum().backward()
    assert bool(frames.grad.isfinite().all())
    assert bool((frames.grad[1, 1:] == 0).all())


@pytest.mark.parametrize("hidden", [0, 32])
def test_a_classifier_drops_out_around_its_hidden_layer_in_training_only(hidden):
    network = random_classifier(HeadOptions(hidden=hidden, dropout=0.5))
    pooled = torch.randn(4, 5, 4)
    torch.testing.assert_close(network(pooled), network(pooled), rtol=0, atol=0)
    network.train()
    assert torch.equal(network(pooled), network(pooled)) == (hidden == 0)


def test_a_hidden_layer_bends_the_map():
    network = random_classifier(HeadOptions(hidden=8))
    one, two = torch.randn(2, 4, 5, 4)
    bend = network(one) + network(two) - 2 * network((one + two) / 2)
    assert float(bend.detach().abs().max()) > 0.1
    linear = random_classifier(HeadOptions())
    bend = linear(one) + linear(two) - 2 * linear((one + two) / 2)
    assert float(bend.detach().abs().max()) < 1e-4


@pytest.mark.parametrize("hidden", [0, 16])
def test_every_parameter_learns(hidden):
    torch.manual_seed(0)
    network = StateClassifier(5, 4, 3, HeadOptions(hidden=hidden, dropout=0.0))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    before = {name: value.clone() for name, value in network.named_parameters()}
    for _ in range(2):  # a map that starts at zero gives its weight no gradient at first
        optimizer.zero_grad()
        logits = network(torch.randn(32, 5, 4))
        torch.nn.functional.cross_entropy(logits, torch.arange(32) % 3).backward()
        optimizer.step()
    for name, value in network.named_parameters():
        assert not torch.equal(value, before[name]), name
