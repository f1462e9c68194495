import numpy as np
import pytest

from koser.features.store import FeatureStore
from koser.training.batches import TrainingBatches, iter_plain_batches
from koser.training.tables import FramesTable, StatisticsTable, WindowTable


@pytest.fixture
def stored(tmp_path):
    """Make a table of random arrays, stored as float16."""

    def make(kind, shapes):
        rng = np.random.default_rng(0)
        store = FeatureStore(tmp_path / "hidden", {"extractor": "hidden"}, dtype="float16")
        keys = np.array([[f"{row}".encode() for row in range(len(shapes))]], "S16")
        with store.writer() as writer:
            for key, shape in zip(keys[0], shapes, strict=True):
                writer.append(bytes(key), rng.normal(size=shape))
        return kind((store,), keys, np.eye(len(shapes), dtype=np.float32))

    return make


@pytest.fixture
def window_table(stored):
    """Four utterances of 1, 3, 1 and 2 windows."""
    return stored(WindowTable, [(1, 2, 5), (3, 2, 4), (1, 2, 1), (2, 2, 7)])


def test_all_variants_train_and_only_the_plain_one_is_tested(feature_table):
    table = feature_table(40, n_variants=3)  # variant v lies around 100 v
    source = TrainingBatches(table, np.arange(120), batch_size=1, seed=0)
    heard = [round(float(batch.inputs[0].mean()) / 100) for batch in source.epoch(1)]
    assert set(heard) == {0, 1, 2}
    tested = iter_plain_batches(table, np.arange(120), batch_size=1)
    assert {round(float(batch.inputs[0].mean()) / 100) for batch in tested} == {0}


def test_long_utterances_are_heard_in_stretches_that_reach_both_ends(feature_table):
    table = feature_table(1, n_classes=1, crop_frames=5)
    whole = table.read(0)
    assert table.lengths(np.array([0])).tolist() == [whole.shape[1]]
    assert whole.shape[1] > 5
    source = TrainingBatches(table, np.array([0]), batch_size=1, seed=0)
    starts = set()
    for epoch in range(300):
        (batch,) = source.epoch(epoch)
        assert batch.inputs[0].shape[2] == 5
        first = batch.inputs[0][0, 0, 0].item()
        starts.add(int(np.flatnonzero(whole[0] == np.float32(first))[0]))
    assert starts == set(range(whole.shape[1] - 5 + 1))


def test_short_utterances_are_heard_whole(feature_table):
    table = feature_table(3, crop_frames=40)
    for row in range(9):
        heard = table.read(row, np.random.default_rng(0))
        np.testing.assert_array_equal(heard, table.read(row))


def test_windows_are_gathered_with_their_owners(window_table):
    arrays = [window_table.read(row) for row in (1, 0)]
    hidden_states, n_frames, owners = window_table.collate(arrays)
    assert hidden_states.shape == (4, 2, 5)
    assert owners.tolist() == [0, 0, 0, 1]
    assert n_frames.tolist() == [4, 4, 4, 5]
    np.testing.assert_array_equal(hidden_states[:3, :, :4], arrays[0])
    np.testing.assert_array_equal(hidden_states[3], arrays[1][0])


def test_the_length_of_windows_is_that_of_them_all(window_table):
    assert window_table.lengths(np.array([3, 1, 2, 0])).tolist() == [14, 12, 1, 5]
    assert window_table.n_windows(np.array([3, 1, 2, 0])).tolist() == [2, 3, 1, 1]


def test_a_batch_of_windows_keeps_every_window(window_table):
    (batch,) = iter_plain_batches(window_table, np.arange(4), batch_size=9)
    assert batch.rows.tolist() == [2, 0, 1, 3]  # by length
    assert np.bincount(batch.inputs[2]).tolist() == [1, 1, 3, 2]
    np.testing.assert_array_equal(batch.targets, np.eye(4)[batch.rows])


def test_frames_of_several_states_are_padded_to_the_longest(stored):
    table = stored(FramesTable, [(2, 3, 5), (2, 3, 2), (2, 3, 4)])
    assert table.lengths(np.array([2, 0, 1])).tolist() == [4, 5, 2]
    (batch,) = iter_plain_batches(table, np.arange(3), batch_length=15)
    hidden_states, n_frames = batch.inputs
    assert batch.rows.tolist() == [1, 2, 0]
    assert n_frames.tolist() == [2, 4, 5]
    assert hidden_states.shape == (3, 2, 3, 5)
    assert hidden_states.numpy().dtype == np.float32
    for place, row in enumerate(batch.rows.tolist()):
        np.testing.assert_array_equal(
            hidden_states[place, :, :, : n_frames[place]], table.read(row)
        )
        assert not hidden_states[place, :, :, n_frames[place] :].any()


def test_statistics_are_put_side_by_side(stored):
    table = stored(StatisticsTable, [(2, 2, 3)] * 5)
    sizes = [len(batch.rows) for batch in iter_plain_batches(table, np.arange(5), batch_size=2)]
    assert sizes == [2, 2, 1]
    (batch,) = TrainingBatches(table, np.arange(5), batch_size=5, seed=0).epoch(1)
    (statistics,) = batch.inputs
    assert statistics.numpy().dtype == np.float32
    for place, row in enumerate(batch.rows.tolist()):
        np.testing.assert_array_equal(statistics[place], table.read(row))
