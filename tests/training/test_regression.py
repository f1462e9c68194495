"""Learning values: the losses against audmetric and torch, and what training may look at."""

import audmetric
import numpy as np
import pytest
import torch
from torch import nn

from koser.errors import RunError
from koser.training.batches import TrainingBatches, iter_plain_batches
from koser.training.options import TrainOptions
from koser.training.regression import (
    ValueScaler,
    concordance_of_batch,
    fit_values,
    predict_values,
    value_loss,
)
from koser.training.tables import ArrayTable


def values(n=64, seed=0):
    rng = torch.Generator().manual_seed(seed)
    targets = torch.randn(n, 2, generator=rng, dtype=torch.float64)
    return targets * 0.5 + torch.randn(n, 2, generator=rng, dtype=torch.float64), targets


def test_the_concordance_of_a_batch_is_audmetrics():
    outputs, targets = values()
    expected = [
        audmetric.concordance_cc(targets[:, place].numpy(), outputs[:, place].numpy())
        for place in (0, 1)
    ]
    np.testing.assert_allclose(concordance_of_batch(outputs, targets), expected, rtol=1e-12)
    loss = value_loss(outputs, targets, "ccc")
    assert float(loss) == pytest.approx(1 - np.mean(expected))
    mse = nn.functional.mse_loss(outputs, targets)
    torch.testing.assert_close(value_loss(outputs, targets, "mse"), mse)
    torch.testing.assert_close(value_loss(outputs, targets, "ccc+mse"), (loss + mse) / 2)


def test_a_batch_of_one_has_a_gradient_of_nothing_instead_of_none():
    outputs = torch.ones(1, 2, requires_grad=True)
    value_loss(outputs, torch.ones(1, 2), "ccc").backward()
    assert torch.isfinite(outputs.grad).all()


def test_values_are_standardised_by_what_they_were_fitted_on_and_come_back():
    given = np.random.default_rng(0).uniform(1, 5, (50, 2))
    scaler = ValueScaler.fit(given)
    scaled = scaler.scaled(given)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(scaler.restored(scaled), given, atol=1e-6)
    with pytest.raises(RunError, match="are the same in the train part"):
        ValueScaler.fit(np.ones((3, 2)))


@pytest.mark.parametrize("loss", ["ccc", "mse", "ccc+mse"])
def test_a_linear_network_learns_linear_values_and_is_left_with_its_best_epoch(loss):
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(160, 5)).astype(np.float32)
    targets = (inputs @ rng.normal(size=(5, 2))).astype(np.float32)
    targets /= targets.std(axis=0)
    table = ArrayTable(inputs, targets)
    torch.manual_seed(0)
    network = nn.Linear(5, 2)
    options = TrainOptions(epochs=25, patience=25, learning_rate=0.05, weight_decay=0)
    val = np.arange(120, 140)
    found = fit_values(
        network,
        TrainingBatches(table, np.arange(120), batch_size=32, seed=0),
        lambda: iter_plain_batches(table, val, batch_size=7),
        options,
        loss=loss,
        seed=0,
    )
    rows, outputs = predict_values(
        network, iter_plain_batches(table, val, batch_size=9), precision="float32"
    )
    ccc = [audmetric.concordance_cc(targets[rows, place], outputs[:, place]) for place in (0, 1)]
    assert found.best.val_ccc == pytest.approx(np.mean(ccc), abs=1e-6)
    assert found.best.val_ccc == max(each.val_ccc for each in found.history)
    assert found.best.val_ccc > 0.95
