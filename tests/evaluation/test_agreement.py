"""Agreement of raters, against published examples and other implementations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koser.errors import UndefinedMetricError
from koser.evaluation.agreement import (
    fleiss_kappa,
)

# Fleiss (1971), table 1: 30 patients, 6 raters, 5 diagnoses is not reprinted everywhere; this
# is the worked example of its Wikipedia article: 10 subjects, 14 raters, kappa = 0.210.
WORKED_EXAMPLE = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)


def test_kappa_of_the_worked_example_is_the_published_one():
    assert fleiss_kappa(WORKED_EXAMPLE) == pytest.approx(0.210, abs=5e-4)


def test_kappa_of_a_case_counted_by_hand():
    # pairs that agree: 3/3, 1/3, 3/3 -> 7/9; shares 5/9, 4/9 -> chance 41/81; 22/81 / (40/81)
    assert fleiss_kappa(np.array([[3, 0], [2, 1], [0, 3]])) == pytest.approx(22 / 40)


def test_kappa_of_perfect_agreement_is_one_and_of_chance_zero():
    rng = np.random.default_rng(0)
    assert fleiss_kappa(np.array([[5, 0, 0], [0, 5, 0], [0, 0, 5]])) == pytest.approx(1)
    by_chance = rng.multinomial(5, [0.6, 0.3, 0.1], size=20_000)
    # 20,000 utterances: a standard error of about 0.003
    assert fleiss_kappa(by_chance) == pytest.approx(0, abs=0.01)


@given(st.lists(st.permutations([4, 1, 0, 2]), min_size=1, max_size=8), st.randoms())
def test_kappa_does_not_depend_on_the_order_of_rows_or_columns(rows, random):
    counts = np.array(rows)
    order = list(range(4))
    random.shuffle(order)
    shuffled = counts[::-1][:, order]
    assert fleiss_kappa(shuffled) == pytest.approx(fleiss_kappa(counts), abs=1e-12)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.empty((0, 3), int), "of 0 utterances none"),
        (np.array([[1, 0], [0, 1]]), "of 2 utterances none has two raters"),
        (np.array([[3, 0], [3, 0]]), "the same label"),
    ],
)
def test_kappa_is_refused_where_it_is_undefined(counts, message):
    with pytest.raises(UndefinedMetricError, match=message):
        fleiss_kappa(counts)
