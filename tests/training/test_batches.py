import numpy as np
import pytest

from koser.training.batches import TrainingBatches, iter_plain_batches, pad_features


def test_an_epoch_holds_every_utterance_once(feature_table):
    table = feature_table(11)
    rows = np.arange(2, 33)
    source = TrainingBatches(table, rows, batch_size=4, crop_frames=0, seed=1)
    batches = list(source.epoch(1))
    assert len(batches) == len(source) == 8
    assert sorted(np.concatenate([batch.rows for batch in batches])) == rows.tolist()


def test_an_epoch_depends_on_seed_and_epoch_and_on_nothing_else(feature_table):
    table = feature_table(20, n_variants=2)

    def orders(rows, seed, epoch):
        source = TrainingBatches(table, rows, batch_size=4, crop_frames=9, seed=seed)
        return [(batch.rows.tolist(), float(batch.features.sum())) for batch in source.epoch(epoch)]

    rows = np.arange(60)
    assert orders(rows, 1, 1) == orders(rows[::-1].copy(), 1, 1)
    assert orders(rows, 1, 1) != orders(rows, 1, 2)
    assert orders(rows, 1, 1) != orders(rows, 2, 1)


def test_batches_gather_similar_lengths(feature_table):
    table = feature_table(100)
    batches = list(
        TrainingBatches(table, np.arange(300), batch_size=10, crop_frames=0, seed=0).epoch(1)
    )
    spread = [np.ptp(batch.n_frames.numpy()) for batch in batches]
    assert np.mean(spread) < 8  # of lengths that range over 32 frames


def test_utterances_are_padded_with_zeros_and_keep_their_targets(feature_table):
    table = feature_table(5)
    for batch in iter_plain_batches(table, np.arange(15), batch_size=4):
        for place, row in enumerate(batch.rows):
            n = int(batch.n_frames[place])
            np.testing.assert_array_equal(batch.features[place, :, :n], table.read(row))
            assert not batch.features[place, :, n:].any()
            np.testing.assert_array_equal(batch.targets[place], table.targets[row])


def test_all_variants_train_and_only_the_plain_one_is_tested(feature_table):
    table = feature_table(40, n_variants=3)  # variant v lies around 100 v
    source = TrainingBatches(table, np.arange(120), batch_size=1, crop_frames=0, seed=0)
    heard = [round(float(batch.features.mean()) / 100) for batch in source.epoch(1)]
    assert set(heard) == {0, 1, 2}
    tested = iter_plain_batches(table, np.arange(120), batch_size=1)
    assert {round(float(batch.features.mean()) / 100) for batch in tested} == {0}


def test_long_utterances_are_heard_in_stretches_that_reach_both_ends(feature_table):
    table = feature_table(1, n_classes=1)
    whole = table.read(0)
    source = TrainingBatches(table, np.array([0]), batch_size=1, crop_frames=5, seed=0)
    starts = set()
    for epoch in range(300):
        (batch,) = source.epoch(epoch)
        assert batch.features.shape[2] == 5
        first = batch.features[0, 0, 0].item()
        starts.add(int(np.flatnonzero(whole[0] == np.float32(first))[0]))
    assert starts == set(range(whole.shape[1] - 5 + 1))


def test_shares_are_those_of_the_train_part(feature_table):
    table = feature_table(10, n_classes=2)
    source = TrainingBatches(table, np.array([0, 2, 4, 1]), batch_size=2, crop_frames=0, seed=0)
    assert source.class_shares().tolist() == [0.75, 0.25]


def test_padding_of_nothing_is_nothing():
    features, n_frames = pad_features([np.ones((2, 3), np.float32)])
    assert features.shape == (1, 2, 3)
    assert n_frames.tolist() == [3]


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_plain_batches_hold_every_row_once(feature_table, batch_size):
    table = feature_table(8)
    rows = np.array([5, 3, 20, 1])
    batches = iter_plain_batches(table, rows, batch_size=batch_size)
    assert sorted(np.concatenate([batch.rows for batch in batches])) == [1, 3, 5, 20]
