"""Several corpora in one training: heard equally often, aligned, and not to be told apart."""

import numpy as np
import pytest
import torch
from torch import nn

from fixtures.manifests import manifest
from koser.errors import ConfigError
from koser.models.adversary import AdversarialNetwork, reverse_gradient, schedule
from koser.training.batches import TrainingBatches
from koser.training.corpora import AlignedTable, Alignment, Origins, balance_cells
from koser.training.loop import fit
from koser.training.options import TrainOptions
from koser.training.tables import ArrayTable

CORPORA = np.array([0] * 60 + [1] * 12)
LABELS = np.array([0] * 50 + [1] * 10 + [0] * 4 + [1] * 8)


def origins(ids=CORPORA):
    return Origins(("a", "b"), ids)


def table(n=72, seed=0):
    rng = np.random.default_rng(seed)
    targets = np.eye(2, dtype=np.float32)[LABELS[:n]]
    return ArrayTable(rng.normal(size=(n, 6)).astype(np.float32), targets)


def heard(source, epoch):
    return np.concatenate([batch.rows for batch in source.epoch(epoch)])


@pytest.mark.parametrize("balance", ["corpus", "corpus+label"])
def test_an_epoch_hears_every_cell_equally_often_and_is_as_long_as_before(balance):
    cells = balance_cells(balance, origins(), np.eye(2)[LABELS])
    rows = np.arange(2, 72)
    source = TrainingBatches(table(), rows, batch_size=8, seed=1, cells=cells)
    counts = [np.bincount(cells[heard(source, epoch)]) for epoch in (1, 2, 3)]
    for each in counts:
        assert each.sum() == 70
        assert each.max() - each.min() <= 1
    # A rare utterance is repeated no more often than another of its cell, up to one.
    repeated = np.bincount(heard(source, 1), minlength=72)[rows]
    for cell in np.unique(cells):
        of_cell = repeated[cells[rows] == cell]
        assert of_cell.max() - of_cell.min() <= 1
    assert set(heard(source, 1)) <= set(rows)
    # All of a frequent cell are heard in the course of some epochs.
    assert set(np.concatenate([heard(source, epoch) for epoch in range(1, 60)])) == set(rows)
    np.testing.assert_array_equal(heard(source, 2), heard(source, 2))
    shares = np.mean([np.eye(2)[LABELS][heard(source, e)].mean(axis=0) for e in range(1, 40)], 0)
    np.testing.assert_allclose(source.class_shares(), shares, atol=0.02)


def test_without_balance_nothing_changes():
    plain = TrainingBatches(table(), np.arange(72), batch_size=8, seed=1)
    same = TrainingBatches(
        table(), np.arange(72), batch_size=8, seed=1, cells=balance_cells("none", origins(), LABELS)
    )
    assert plain.describe() == same.describe()
    np.testing.assert_array_equal(heard(plain, 1), heard(same, 1))
    balanced = TrainingBatches(table(), np.arange(72), batch_size=8, seed=1, cells=CORPORA)
    assert balanced.describe() != plain.describe()


def test_one_corpus_cannot_be_balanced_or_aligned():
    alone = Origins.of(manifest([{"label": "angry", "speaker": "S"}] * 3))
    assert alone.names == ("invented",)
    with pytest.raises(ConfigError, match=r"balance = corpus needs several corpora"):
        balance_cells("corpus", alone, np.ones((3, 1)))
    assert balance_cells("corpus+label", alone, np.ones((3, 1))) is not None


def test_corpora_are_numbered_by_name_whatever_the_order_of_the_rows():
    rows = [{"corpus": name, "speaker": "S"} for name in ("b", "a", "b")]
    assert Origins.of(manifest(rows)).ids.tolist() == [1, 0, 1]


def test_aligned_corpora_have_the_moments_of_all_and_one_shifted_corpus_changes_nothing():
    plain = table()
    moved = ArrayTable(plain.arrays.copy(), plain.targets)
    moved.arrays[CORPORA == 1] = moved.arrays[CORPORA == 1] * 5 + 3
    rows = np.arange(0, 72, 2)  # the train part
    aligned = []
    for each in (plain, moved):
        alignment = Alignment.fit(each, rows, origins(), has_frames=False)
        over = AlignedTable(each, origins(), alignment)
        aligned.append(np.stack([over.read(row) for row in range(72)]))
    for corpus in (0, 1):
        own = aligned[1][rows[CORPORA[rows] == corpus]]
        np.testing.assert_allclose(own.mean(axis=0), moved.arrays[rows].mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(own.std(axis=0), moved.arrays[rows].std(axis=0), atol=1e-4)
    # Up to one common map, what the corpora look like relative to each other is the same.
    first, second = ((each - each.mean(0)) / each.std(0) for each in aligned)
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_test_utterances_have_no_say_in_the_alignment():
    plain = table()
    spoiled = ArrayTable(plain.arrays.copy(), plain.targets)
    rows = np.arange(0, 72, 2)
    spoiled.arrays[1::2] = 1e6
    one, other = (
        Alignment.fit(each, rows, origins(), has_frames=False) for each in (plain, spoiled)
    )
    np.testing.assert_array_equal(one.gains, other.gains)
    np.testing.assert_array_equal(one.offsets, other.offsets)
    with pytest.raises(ConfigError, match="train part has no utterance of 'b'"):
        Alignment.fit(plain, np.arange(10), origins(), has_frames=False)


def test_frames_keep_one_spread_so_that_a_spectrum_keeps_its_shape(feature_table):
    frames = feature_table(8)
    ids = np.arange(24) % 2
    alignment = Alignment.fit(frames, np.arange(24), origins(ids), has_frames=True)
    assert alignment.gains.shape == (2, 1, 1)
    over = AlignedTable(frames, origins(ids), alignment)
    means = [
        np.concatenate([over.read(row) for row in np.flatnonzero(ids == corpus)], axis=1).mean(1)
        for corpus in (0, 1)
    ]
    np.testing.assert_allclose(means[0], means[1], atol=1e-4)
    assert over.collate([over.read(0), over.read(1)])[0].dtype == torch.float32


def test_a_reversed_gradient_is_the_gradient_times_minus_the_factor():
    values = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 3, dtype=torch.float64)
    (reverse_gradient(values, 0.7) * weights).sum().backward()
    torch.testing.assert_close(values.grad, -0.7 * weights)
    assert schedule(0) == 0
    assert 0.999 < schedule(1) < 1


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, values):
        return self.last(self.first(values))


def betraying_table():
    """Four values tell the corpus loudly, two the label softly, in each corpus alike."""
    rng = np.random.default_rng(0)
    n = 240
    ids, labels = np.arange(n) % 2, np.arange(n) // 2 % 2
    arrays = rng.normal(size=(n, 6))
    arrays[:, :4] += 1.0 * (2 * ids[:, None] - 1)
    arrays[:, 4:] += 1.0 * (2 * labels[:, None] - 1)
    return ArrayTable(arrays.astype(np.float32), np.eye(2, dtype=np.float32)[labels]), ids


def trained_against(strength, tmp_path):
    made, ids = betraying_table()
    torch.manual_seed(0)
    inner = TwoLayers()
    network = AdversarialNetwork(inner, inner.last, 8, origins=ids, strength=strength)
    options = TrainOptions(epochs=20, learning_rate=0.02, class_weights=False)
    source = TrainingBatches(made, np.arange(240), batch_size=32, seed=0)
    fit(network, source, None, options, seed=0, resume_file=tmp_path / f"{strength}.pth")
    network.release()
    values = torch.from_numpy(made.arrays)
    with torch.no_grad():
        heard, logits = inner.first(values).numpy(), inner(values)
    first, second = heard[ids == 0], heard[ids == 1]
    spread = np.sqrt((first.var(axis=0) + second.var(axis=0)) / 2)
    apart = (np.abs(first.mean(axis=0) - second.mean(axis=0)) / spread).max()
    right = (logits.argmax(1).numpy() == made.targets.argmax(1)).mean()
    return apart, right, inner


def test_an_adversary_moves_the_corpora_together_and_leaves_the_labels(tmp_path):
    apart_before, right_before, _ = trained_against(1e-9, tmp_path)
    apart, right, inner = trained_against(3.0, tmp_path)
    assert apart_before > 3
    assert apart < 0.6 * apart_before  # in standard deviations, of what tells them apart best
    assert right > right_before - 0.05
    assert not inner.last._forward_pre_hooks  # an ordinary network again


def test_the_adversary_itself_learns_from_its_own_unreversed_gradient():
    made, ids = betraying_table()
    inner = TwoLayers()
    network = AdversarialNetwork(inner, inner.last, 8, origins=ids, strength=2.0).train()
    network(torch.from_numpy(made.arrays[:16]))
    network.adversary_loss(np.arange(16), progress=1.0).backward()
    own = {
        name: each.grad.clone()
        for name, each in network.named_parameters()
        if each.grad is not None
    }
    heard = inner.first(torch.from_numpy(made.arrays[:16]))
    network.zero_grad()
    nn.functional.cross_entropy(
        network.adversary(heard), torch.from_numpy(ids[:16]), reduction="sum"
    ).backward()
    for name, each in network.named_parameters():
        if name.startswith("adversary"):
            torch.testing.assert_close(own[name], each.grad)
        elif name.startswith("network.first"):
            torch.testing.assert_close(own[name], -2.0 * schedule(1.0) * each.grad)
    assert "network.last.weight" not in own  # it is no part of what is judged
