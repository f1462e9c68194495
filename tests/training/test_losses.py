"""The loss, held against torch's own and SciPy's; votes and labels."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from koser.training.losses import class_weights, cross_entropy, weight_of, weighted_loss
from koser.training.options import TrainOptions

OPTIONS = TrainOptions()


def some_votes(n_utterances=40, n_classes=4, n_raters=5, seed=0):
    """Shares of simulated raters' votes, and logits."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n_raters, [0.5, 0.3, 0.15, 0.05][:n_classes], n_utterances)
    logits = torch.from_numpy(rng.normal(size=(n_utterances, n_classes)))
    return torch.from_numpy(counts / n_raters), logits


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_one_hot_targets_is_that_of_torch(smoothing):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 4, generator=rng)
    label_ids = torch.randint(4, (9,), generator=rng)
    targets = nn.functional.one_hot(label_ids, 4).float()
    expected = nn.functional.cross_entropy(logits, label_ids, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, targets), expected)
    # torch weighs the smoothed targets of each class; ours weighs utterances, so equal weights
    expected = nn.functional.cross_entropy(
        logits, label_ids, reduction="sum", label_smoothing=smoothing
    )
    ours = weighted_loss(logits, targets, torch.ones(4), smoothing)
    torch.testing.assert_close(ours, expected)


def test_an_utterance_counts_as_its_class_does():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    label_ids = torch.tensor([0, 1, 2, 2, 1, 0])
    weights = torch.tensor([1.0, 2.0, 0.5])
    expected = nn.functional.cross_entropy(logits, label_ids, weights, reduction="sum")
    targets = nn.functional.one_hot(label_ids, 3).float()
    torch.testing.assert_close(weighted_loss(logits, targets, weights, 0.0), expected)


def test_with_class_weights_every_class_counts_the_same():
    shares = np.array([0.5, 0.3, 0.2, 0.0])
    weights = class_weights(shares, OPTIONS).numpy()
    assert weights * shares == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert weights[3] == 0
    without = OPTIONS.model_copy(update={"class_weights": False})
    assert class_weights(shares, without).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_the_loss_of_votes_is_torchs_cross_entropy_with_probabilities(smoothing):
    shares, logits = some_votes()
    expected = nn.functional.cross_entropy(
        logits, shares, reduction="sum", label_smoothing=smoothing
    )
    ours = weighted_loss(logits, shares, torch.ones(4, dtype=torch.float64), smoothing)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)


def test_the_loss_of_votes_is_their_divergence_plus_their_own_entropy():
    shares, logits = some_votes()
    divergence = scipy.stats.entropy(shares.numpy(), logits.softmax(1).numpy(), axis=1)
    own = scipy.stats.entropy(shares.numpy(), axis=1)
    np.testing.assert_allclose(cross_entropy(logits, shares).numpy(), divergence + own, rtol=1e-12)


def test_a_weight_multiplies_the_whole_loss_of_an_utterance_so_votes_stay_the_optimum():
    shares, logits = some_votes()
    weights = torch.tensor([0.3, 1.0, 4.0, 9.0], dtype=torch.float64)
    ours = weighted_loss(logits, shares, weights, 0.0)
    own = nn.functional.cross_entropy(logits, shares, reduction="none") * weight_of(shares, weights)
    torch.testing.assert_close(ours, own.sum())
    # At the raters' own distribution the slope is zero, which with torch's weights it is not.
    at_votes = (shares + 1e-12).log().requires_grad_(True)
    weighted_loss(at_votes, shares, weights, 0.0).backward()
    assert at_votes.grad.abs().max() < 1e-9
    at_votes.grad = None
    nn.functional.cross_entropy(at_votes, shares, weights, reduction="sum").backward()
    assert at_votes.grad.abs().max() > 0.1


def test_unanimous_votes_have_the_loss_of_labels():
    _, logits = some_votes()
    label_ids = torch.arange(40) % 4
    weights = torch.tensor([0.3, 1.0, 4.0, 9.0], dtype=torch.float64)
    unanimous = nn.functional.one_hot(label_ids, 4).double()
    expected = nn.functional.cross_entropy(logits, label_ids, weights, reduction="mean")
    ours = weighted_loss(logits, unanimous, weights, 0.0) / weight_of(unanimous, weights).sum()
    torch.testing.assert_close(ours, expected)


def test_a_step_in_parts_has_the_loss_of_one_batch():
    shares, logits = some_votes()
    weights = torch.tensor([0.3, 1.0, 4.0, 9.0], dtype=torch.float64)
    whole = weighted_loss(logits, shares, weights, 0.1) / weight_of(shares, weights).sum()
    parts = [slice(0, 7), slice(7, 30), slice(30, 40)]
    numerator = sum(weighted_loss(logits[part], shares[part], weights, 0.1) for part in parts)
    denominator = sum(weight_of(shares[part], weights).sum() for part in parts)
    torch.testing.assert_close(numerator / denominator, whole)


def test_with_votes_a_class_weighs_by_its_share_of_them():
    shares, _ = some_votes()
    weights = class_weights(shares.numpy().mean(axis=0), OPTIONS)
    totals = (shares.float() * weights).sum(0)  # each class's total weight over all votes
    torch.testing.assert_close(totals, torch.full((4,), float(len(shares) / 4)))
