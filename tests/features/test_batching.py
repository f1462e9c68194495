from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from koser.features.batching import batches_by_length

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
