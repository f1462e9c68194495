import numpy as np
import pytest
import torch
from torch import nn

from koser.errors import RunError
from koser.training.optimization import (
    class_weights,
    cross_entropy,
    make_optimizer,
    set_learning_rate,
    trained_parameters,
    weighted_loss,
)
from koser.training.options import TrainOptions

OPTIONS = TrainOptions(learning_rate=0.01, weight_decay=0.3)


class Encoder(nn.Module):
    """Three layers: one frozen, one slow, one that learns at the full rate."""

    def __init__(self):
        super().__init__()
        self.frozen, self.slow, self.head = nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5)
        self.frozen.requires_grad_(False)


class GroupedEncoder(Encoder):
    def parameter_groups(self):
        slow = [*self.frozen.parameters(), *self.slow.parameters()]
        return [(slow, 0.1), (list(self.head.parameters()), 1.0)]


def settings(network, optimizer):
    """Decay, factor and rate of every parameter that learns."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        names[id(parameter)]: (group["weight_decay"], group["factor"], group["lr"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_weights_decay_and_biases_do_not_and_frozen_parameters_are_left_out():
    network = Encoder()
    optimizer = make_optimizer(network, OPTIONS)
    set_learning_rate(optimizer, 0.02)
    assert settings(network, optimizer) == {
        "slow.weight": (0.3, 1.0, 0.02),
        "slow.bias": (0.0, 1.0, 0.02),
        "head.weight": (0.3, 1.0, 0.02),
        "head.bias": (0.0, 1.0, 0.02),
    }
    assert len(trained_parameters(network)) == 4


def test_groups_learn_at_their_factor_of_the_learning_rate():
    network = GroupedEncoder()
    optimizer = make_optimizer(network, OPTIONS)
    set_learning_rate(optimizer, 0.02)
    assert settings(network, optimizer) == {
        "slow.weight": (0.3, 0.1, pytest.approx(0.002)),
        "slow.bias": (0.0, 0.1, pytest.approx(0.002)),
        "head.weight": (0.3, 1.0, 0.02),
        "head.bias": (0.0, 1.0, 0.02),
    }


def test_a_parameter_in_no_group_is_refused_unless_it_is_frozen():
    network = GroupedEncoder()
    network.extra = nn.Linear(1, 1)
    with pytest.raises(RunError, match=r"2 of 6 parameters .* in none of the network's"):
        make_optimizer(network, OPTIONS)
    network.extra.requires_grad_(False)
    make_optimizer(network, OPTIONS)


def test_a_network_with_nothing_to_learn_is_refused():
    with pytest.raises(RunError, match="all are frozen"):
        make_optimizer(Encoder().requires_grad_(False), OPTIONS)


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
