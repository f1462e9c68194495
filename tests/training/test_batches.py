from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from koser.errors import ConfigError
from koser.training.batches import (
    TrainingBatches,
    iter_plain_batches,
    pad_features,
    pad_windows,
)
from koser.training.bounds import share_by_length
from koser.training.ranks import Ranks


def heard(source, epoch):
    """What each utterance of an epoch sounds like, without padding."""
    return {
        row: batch.inputs[0][place, :, : batch.inputs[1][place]].numpy()
        for batch in source.epoch(epoch)
        for place, row in enumerate(batch.rows.tolist())
    }


def test_an_epoch_holds_every_utterance_once(feature_table):
    table = feature_table(11)
    rows = np.arange(2, 33)
    source = TrainingBatches(table, rows, batch_size=4, seed=1)
    batches = list(source.epoch(1))
    assert len(batches) == source.n_batches(1) == 8
    assert sorted(np.concatenate([batch.rows for batch in batches])) == rows.tolist()


@pytest.mark.parametrize("limit", [10, 100, 250, 10_000])
def test_an_epoch_of_bounded_length_holds_every_utterance_once(feature_table, limit):
    table = feature_table(40)
    lengths = table.lengths(np.arange(120))
    source = TrainingBatches(table, np.arange(120), batch_length=limit, seed=1)
    for epoch in (1, 2):
        batches = list(source.epoch(epoch))
        assert len(batches) == source.n_batches(epoch)
        assert sorted(np.concatenate([batch.rows for batch in batches])) == [*range(120)]
        for batch in batches:
            assert len(batch.rows) == 1 or len(batch.rows) * lengths[batch.rows].max() <= limit


def test_batches_of_bounded_length_are_about_as_large_as_the_bound_allows(feature_table):
    """A pool that were too small would leave every batch half empty."""
    table = feature_table(100)
    source = TrainingBatches(table, np.arange(300), batch_length=240, seed=1)
    padded = [batch.inputs[0].shape[0] * batch.inputs[0].shape[2] for batch in source.epoch(1)]
    assert np.mean(padded) > 0.7 * 240


def test_an_epoch_depends_on_seed_and_epoch_and_on_nothing_else(feature_table):
    table = feature_table(20, n_variants=2, crop_frames=9)

    def orders(rows, seed, epoch):
        source = TrainingBatches(table, rows, batch_size=4, seed=seed)
        return [
            (batch.rows.tolist(), float(batch.inputs[0].sum())) for batch in source.epoch(epoch)
        ]

    rows = np.arange(60)
    assert orders(rows, 1, 1) == orders(rows, 1, 1)
    assert orders(rows, 1, 1) == orders(rows[::-1].copy(), 1, 1)
    assert orders(rows, 1, 1) != orders(rows, 1, 2)
    assert orders(rows, 1, 1) != orders(rows, 2, 1)


def test_what_is_heard_of_an_utterance_does_not_depend_on_its_batch(feature_table):
    table = feature_table(20, n_variants=3, crop_frames=9)
    rows = np.arange(60)
    reference = heard(TrainingBatches(table, rows, batch_size=4, seed=5), 3)
    others = [
        (TrainingBatches(table, rows, batch_size=7, seed=5), True),
        (TrainingBatches(table, rows, batch_length=60, seed=5), True),
        (TrainingBatches(table, rows[30:], batch_size=1, seed=5), True),
        (TrainingBatches(table, rows, batch_size=4, seed=6), False),
    ]
    for source, is_same in others:
        found = heard(source, 3)
        equal = [np.array_equal(found[row], reference[row]) for row in found]
        assert all(equal) if is_same else not all(equal)
    again = heard(TrainingBatches(table, rows, batch_size=4, seed=5), 4)
    assert not all(np.array_equal(again[row], reference[row]) for row in rows.tolist())


def test_batches_gather_similar_lengths(feature_table):
    table = feature_table(100)
    batches = list(TrainingBatches(table, np.arange(300), batch_size=10, seed=0).epoch(1))
    spread = [np.ptp(batch.inputs[1].numpy()) for batch in batches]
    assert np.mean(spread) < 8  # of lengths that range over 32 frames


def test_utterances_are_padded_with_zeros_and_keep_their_targets(feature_table):
    table = feature_table(5)
    for batch in iter_plain_batches(table, np.arange(15), batch_size=4):
        features, n_frames = batch.inputs
        for place, row in enumerate(batch.rows):
            n = int(n_frames[place])
            np.testing.assert_array_equal(features[place, :, :n], table.read(row))
            assert not features[place, :, n:].any()
            np.testing.assert_array_equal(batch.targets[place], table.targets[row])


def test_shares_are_those_of_the_train_part(feature_table):
    table = feature_table(10, n_classes=2)
    source = TrainingBatches(table, np.array([0, 2, 4, 1]), batch_size=2, seed=0)
    assert source.class_shares().tolist() == [0.75, 0.25]


def test_a_source_is_described_by_all_that_its_batches_depend_on(feature_table):
    table = feature_table(4)
    rows = np.arange(10)

    def description(table=table, rows=rows, seed=0, **bound):
        bound = bound or {"batch_size": 4}
        return TrainingBatches(table, rows, **bound, seed=seed).describe()

    assert description() == description(rows=rows[::-1])
    others = [
        description(rows=np.arange(1, 11)),
        description(seed=1),
        description(batch_size=5),
        description(batch_length=4),
        description(batch_size=4, batch_length=4),
        description(table=feature_table(4, crop_frames=3)),
        description(table=feature_table(4, n_variants=2)),
        description(table=feature_table(4, n_classes=2), rows=np.arange(8)),
    ]
    assert len({description(), *others}) == 1 + len(others)


@pytest.mark.parametrize("bound", [{"batch_size": 1}, {"batch_size": 100}, {"batch_length": 50}])
def test_plain_batches_hold_every_row_once(feature_table, bound):
    table = feature_table(8)
    rows = np.array([5, 3, 20, 1])
    batches = list(iter_plain_batches(table, rows, **bound))
    assert sorted(np.concatenate([batch.rows for batch in batches])) == [1, 3, 5, 20]
    longest = [int(table.lengths(batch.rows).max()) for batch in batches]
    assert longest == sorted(longest)


def test_a_batch_without_a_bound_is_refused(feature_table):
    table = feature_table(1)
    with pytest.raises(ConfigError, match="Give batch_size, batch_length or both"):
        TrainingBatches(table, np.arange(3), seed=0)
    with pytest.raises(ConfigError, match="Give batch_size, batch_length or both"):
        list(iter_plain_batches(table, np.arange(3)))


def test_features_that_are_not_float32_become_it():
    features, n_frames = pad_features([np.ones((2, 3), np.float16), np.ones((2, 1), np.float16)])
    assert features.dtype.is_floating_point
    assert features.numpy().dtype == np.float32
    assert features.tolist() == [[[1, 1, 1]] * 2, [[1, 0, 0]] * 2]
    assert n_frames.tolist() == [3, 1]


@given(
    shapes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=6),
    n_features=st.none() | st.integers(1, 3),
)
def test_windows_of_all_utterances_lie_below_each_other(shapes, n_features):
    """Of waveforms (windows, samples) and of hidden states (windows, features, frames)."""
    rng = np.random.default_rng(0)
    middle = () if n_features is None else (n_features,)
    arrays = [rng.normal(size=(n, *middle, m)).astype(np.float16) for n, m in shapes]
    windows, lengths, owners = pad_windows(arrays)
    assert windows.shape == (sum(n for n, _ in shapes), *middle, max(m for _, m in shapes))
    assert windows.numpy().dtype == np.float32
    assert (lengths.numpy().dtype, owners.numpy().dtype) == (np.int64, np.int64)
    for owner, (array, (n, m)) in enumerate(zip(arrays, shapes, strict=True)):
        own = windows.numpy()[owners.numpy() == owner]
        assert len(own) == n
        np.testing.assert_array_equal(own[..., :m], array)
        assert not own[..., m:].any()
        assert lengths[owners == owner].tolist() == [m] * n


class LengthsTable:
    """A table of which only lengths count; what is read of an utterance is a draw, or its row."""

    in_windows = False

    def __init__(self, lengths):
        self.all_lengths = np.asarray(lengths)
        self.all_windows = np.ones(len(lengths), int)
        self.targets = np.ones((len(lengths), 1), np.float32)

    def lengths(self, rows):
        return self.all_lengths[rows]

    def n_windows(self, rows):
        return self.all_windows[rows]

    def read(self, row, rng=None):
        return np.array([row if rng is None else rng.integers(2**62)])

    def collate(self, arrays):
        return (torch.from_numpy(np.stack(arrays)),)


class WindowsTable(LengthsTable):
    """A table of utterances in windows of zeros [each (n_windows, window length)]."""

    in_windows = True

    def __init__(self, shapes):
        super().__init__([n * length for n, length in shapes])
        self.shapes = shapes
        self.all_windows = np.array([n for n, _ in shapes])

    def read(self, row, rng=None):
        return np.zeros(self.shapes[row], np.float32)

    def collate(self, arrays):
        return pad_windows(arrays)


SHAPES = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 60)), min_size=5, max_size=80)


@given(shapes=SHAPES, limit=st.integers(20, 600), size=st.none() | st.integers(1, 9))
def test_a_bound_of_length_holds_for_the_padded_windows_of_a_batch(shapes, limit, size):
    """As many windows as there are, each as long as the longest: not the sum of their lengths."""
    table, rows = WindowsTable(shapes), np.arange(len(shapes))
    bound = {"batch_length": limit, "batch_size": size}
    source = TrainingBatches(table, rows, **bound, seed=0)
    for batches in (list(source.epoch(1)), list(iter_plain_batches(table, rows, **bound))):
        assert sorted(np.concatenate([batch.rows for batch in batches])) == rows.tolist()
        for batch in batches:
            assert size is None or len(batch.rows) <= size
            assert len(batch.rows) == 1 or batch.inputs[0].numel() <= limit


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=120), size=st.integers(1, 30))
def test_a_length_that_never_binds_leaves_the_batches_of_a_size(lengths, size):
    table, rows = LengthsTable(lengths), np.arange(len(lengths))
    sources = [
        TrainingBatches(table, rows, batch_size=size, batch_length=length, seed=3)
        for length in (None, 60 * size)
    ]
    plain, both = ([batch.rows.tolist() for batch in each.epoch(1)] for each in sources)
    assert plain == both


def drawn(batches):
    """What was read of each utterance, with how often it was heard."""
    return sorted(
        (row, int(value))
        for batch in batches
        for row, value in zip(batch.rows.tolist(), batch.inputs[0], strict=True)
    )


BOUNDS = st.sampled_from([{"batch_size": 8}, {"batch_size": 13}, {"batch_length": 400}])


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=20, max_size=120),
    n_ranks=st.integers(1, 5),
    bound=BOUNDS,
    epoch=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_ranks_share_every_batch_and_lose_nothing(lengths, n_ranks, bound, epoch, seed):
    """Each row in one share of its batch, drawn as one process draws it."""
    table, rows = LengthsTable(lengths), np.arange(len(lengths))
    one = list(TrainingBatches(table, rows, **bound, seed=seed).epoch(epoch))
    sources = [
        TrainingBatches(table, rows, **bound, seed=seed, ranks=Ranks(rank, n_ranks))
        for rank in range(n_ranks)
    ]
    shares = [list(source.epoch(epoch)) for source in sources]
    assert {len(share) for share in shares} == {len(one)} == {sources[0].n_batches(epoch)}
    for whole, *parts in zip(one, *shares, strict=True):
        assert drawn(parts) == drawn([whole])
        costs = [len(p.rows) * table.lengths(p.rows).max(initial=0) for p in parts]
        if "batch_length" in bound:
            # No share costs more than a fair one and its longest utterance twice.
            longest = int(table.lengths(whole.rows).max())
            assert max(costs) <= len(whole.rows) * longest / n_ranks + 2 * longest
        else:
            sizes = [len(p.rows) for p in parts]
            assert max(sizes) - min(sizes) <= 1


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=120),
    n_ranks=st.integers(1, 5),
    bound=BOUNDS,
)
def test_ranks_are_dealt_every_plain_batch_once(lengths, n_ranks, bound):
    table, rows = LengthsTable(lengths), np.arange(len(lengths))
    one = list(iter_plain_batches(table, rows, **bound))
    shares = [
        list(iter_plain_batches(table, rows, **bound, ranks=Ranks(rank, n_ranks)))
        for rank in range(n_ranks)
    ]
    batches = [batch.rows.tolist() for share in shares for batch in share]
    assert sorted(batches) == sorted(batch.rows.tolist() for batch in one)
    loads = [sum(len(b.rows) * int(table.lengths(b.rows).max()) for b in share) for share in shares]
    dearest = max(len(b.rows) * int(table.lengths(b.rows).max()) for b in one)
    assert max(loads) <= sum(loads) / n_ranks + dearest


@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=7),
    n_ranks=st.integers(1, 3),
    in_windows=st.booleans(),
)
def test_no_other_cut_makes_the_dearest_share_cheaper(shapes, n_ranks, in_windows):
    """Against every way to cut the sorted lengths into so many neighbourhoods."""
    lengths, counts = np.array(shapes).T
    counts = counts if in_windows else np.ones_like(counts)
    order = np.argsort(lengths, kind="stable")

    def dearest(shares):
        return max(counts[share].sum() * lengths[share].max(initial=0) for share in shares)

    cuts = combinations_with_replacement(range(len(order) + 1), n_ranks - 1)
    best = min(
        dearest([order[first:end] for first, end in pairwise([0, *cut, len(order)])])
        for cut in cuts
    )
    shares = share_by_length(lengths, n_ranks, n_windows=counts)
    assert len(shares) == n_ranks
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(lengths)))
    assert dearest(shares) == best
