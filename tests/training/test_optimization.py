import pytest
from torch import nn

from koser.errors import RunError
from koser.training.optimization import (
    make_optimizer,
    set_learning_rate,
    trained_parameters,
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
