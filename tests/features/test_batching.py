from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from koser.features.batching import batches_by_length

WINDOWS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 50)), max_size=40)
LENGTHS = st.lists(st.integers(1, 50), max_size=40)


@given(lengths=LENGTHS, limit=st.integers(1, 200))
def test_every_utterance_is_in_one_batch_and_none_exceeds_the_limit(lengths, limit):
    batches = batches_by_length(lengths, limit)
    assert sorted(position for batch in batches for position in batch) == [*range(len(lengths))]
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= limit


@given(lengths=LENGTHS, limit=st.integers(1, 200))
def test_a_batch_ends_only_where_the_next_utterance_does_not_fit(lengths, limit):
    batches = batches_by_length(np.array(lengths, int), limit)
    assert all(len(batch) for batch in batches)
    in_order = [lengths[position] for batch in batches for position in batch]
    assert in_order == sorted(lengths)
    for batch, following in pairwise(batches):
        assert (len(batch) + 1) * lengths[following[0]] > limit


@given(windows=WINDOWS, limit=st.integers(1, 400), max_size=st.none() | st.integers(1, 9))
def test_windows_count_each_by_itself_and_utterances_together(windows, limit, max_size):
    """A batch ends where the next utterance does not fit, and nowhere else."""
    n_windows, lengths = np.array(windows, int).reshape(-1, 2).T
    batches = batches_by_length(lengths, limit, n_windows=n_windows, max_size=max_size)
    assert sorted(position for batch in batches for position in batch) == [*range(len(lengths))]

    def fits(batch):
        padded = n_windows[batch].sum() * lengths[batch].max()
        return padded <= limit and (max_size is None or len(batch) <= max_size)

    assert all(len(batch) == 1 or fits(batch) for batch in batches)
    for batch, following in pairwise(batches):
        assert not fits([*batch, following[0]])


@given(lengths=LENGTHS, size=st.integers(1, 9))
def test_a_size_that_alone_bounds_cuts_evenly(lengths, size):
    order = np.argsort(lengths, kind="stable")
    expected = [order[first : first + size].tolist() for first in range(0, len(order), size)]
    found = batches_by_length(lengths, 50 * size, max_size=size)
    assert [batch.tolist() for batch in found] == expected
