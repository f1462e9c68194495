"""The mechanisms that deal groups to parts, each against what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koser.data.assignment import (
    LEFT_OUT,
    TEST,
    TRAIN,
    VAL,
    agree_on_scripts,
    assign_stratified,
    count_table,
    crossed_share,
    hold_out,
    take_in_order,
)


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
    st.floats(0.05, 0.5),
    st.floats(0, 0.4),
)
def test_a_part_is_filled_until_it_holds_its_share_and_no_further(sizes, test, val):
    sizes = np.array(sizes)
    part = take_in_order(sizes, range(len(sizes)), {TEST: test, VAL: val})
    assert sorted({TEST, VAL, TRAIN} | set(part), key=[2, 1, 0].index) == [TEST, VAL, TRAIN]
    for code, share in ((TEST, test), (VAL, val)):
        held = sizes[part == code]
        assert held[:-1].sum() < share * sizes.sum() or not len(held)
        if (part == TRAIN).any():
            assert held.sum() >= share * sizes.sum()


def test_dealing_largest_groups_first_beats_a_random_deal():
    rng = np.random.default_rng(9)
    groups = rng.choice(40, size=2_000, p=rng.dirichlet(np.full(40, 2.0)))
    tilts = rng.dirichlet([8, 2, 4, 6], size=40)
    labels = np.array([rng.choice(4, p=tilts[group]) for group in groups])
    weights = np.array([0.7, 0.1, 0.2])
    wanted = weights[:, None] * np.bincount(labels)

    def distance(part: np.ndarray) -> float:
        counts = np.bincount(4 * part[groups] + labels, minlength=12).reshape(3, 4)
        return float(((counts - wanted) ** 2 / wanted).sum())

    dealt = distance(assign_stratified(groups, labels, weights, rng))
    random = [distance(rng.choice(3, size=40, p=weights)) for _ in range(200)]
    assert dealt < 0.5 * min(random)


def test_a_part_of_weight_zero_gets_nothing():
    part = assign_stratified(np.arange(9), np.zeros(9, int), [2, 0, 1], np.random.default_rng(0))
    assert np.bincount(part).tolist() == [6, 0, 3]


def test_44000_groups_are_dealt_in_one_pass_over_them():
    rng = np.random.default_rng(0)
    labels = rng.integers(7, size=44_000)
    part = assign_stratified(np.arange(44_000), labels, [1] * 10, rng)
    assert (np.ptp(count_table(part, labels), axis=0) <= 1).all()
    assert np.ptp(np.bincount(part)) <= 1


def test_nothing_is_held_out_for_a_share_of_zero():
    groups = np.array([0, 0, 1, 1])
    for known in (groups, None):
        assert not hold_out(known, np.zeros(4, int), 0.0, np.random.default_rng(0)).any()


def test_which_groups_are_held_out_is_drawn():
    groups, labels = np.repeat(np.arange(10), 5), np.zeros(50, int)
    drawn = [hold_out(groups, labels, 0.1, np.random.default_rng(seed)) for seed in range(50)]
    assert {tuple(np.unique(groups[is_val])) for is_val in drawn} == {(g,) for g in range(10)}


def test_a_shared_script_goes_to_the_part_that_has_less():
    # 5 utterances in each; train holds 300 others, test 10
    part = np.array([TRAIN] * 300 + [TEST] * 10 + [TRAIN, TEST] * 5)
    scripts = np.array([*range(310), *[310] * 10])
    agreed = agree_on_scripts(part, scripts, np.zeros(320, int), np.random.default_rng(0))
    assert agreed[310:].tolist() == [LEFT_OUT, TEST] * 5


def test_a_shared_script_goes_where_it_counts_most():
    # a script with 30 utterances in train and 1 in test; both parts hold 100 others
    part = np.array([TRAIN] * 100 + [TEST] * 100 + [TRAIN] * 30 + [TEST])
    scripts = np.array([*range(200), *[200] * 31])
    agreed = agree_on_scripts(part, scripts, np.zeros(231, int), np.random.default_rng(0))
    assert agreed.tolist() == [*part[:-1].tolist(), LEFT_OUT]


def test_all_pairs_of_a_cross_validation_are_crossed_and_none_of_a_single_split():
    folds = np.repeat(np.arange(5), 4)
    parts = np.where(folds == np.arange(5)[:, None], TEST, TRAIN)
    assert crossed_share(parts) == 1
    assert crossed_share(parts[:1]) == 0
    # Of 2 folds of 5, a quarter of what a fold learns from is tested in the other.
    assert crossed_share(parts[:2]) == pytest.approx(1 / 4)
    # Counted one by one, with parts dealt at random.
    parts = np.random.default_rng(0).integers(0, 4, (4, 12))
    learnt = (parts == TRAIN) | (parts == VAL)
    pairs = [
        (tested, other)
        for fold, part in enumerate(parts)
        for tested in np.flatnonzero(part == TEST)
        for other in np.flatnonzero(learnt[fold])
    ]
    crossed = sum(((parts[:, j] == TEST) & learnt[:, i]).sum() for i, j in pairs)
    assert crossed_share(parts) == pytest.approx(crossed / len(pairs))
