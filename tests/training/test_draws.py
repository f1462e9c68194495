"""Draws by address: as torch's in distribution, and the same whoever computes an utterance."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from koser.errors import RunError
from koser.models.cnn import CnnOptions, spec_augment
from koser.training.batches import Batch
from koser.training.draws import RowDraws, own_draws_noted
from koser.training.options import TrainOptions
from koser.training.ranks import Ranks

CPU = torch.device("cpu")


def batch_of(rows, n_windows=None):
    rows = np.asarray(rows)
    counts = np.ones(len(rows), int) if n_windows is None else np.asarray(n_windows)
    return Batch((), torch.zeros(len(rows), 1), rows, counts)


def drawn(function, rows, *, seed=0, epoch=1, n_windows=None):
    with RowDraws(seed, epoch).of(batch_of(rows, n_windows), CPU):
        return function()


def dropped(rows, shape, p=0.3, **address):
    return drawn(lambda: functional.dropout(torch.ones(len(rows), *shape), p), rows, **address)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_so_many_values_are_dropped_as_asked_and_the_mean_stays(p):
    kept = dropped(range(400), (50, 20), p) > 0
    n = kept.numel()
    assert kept.double().mean() == pytest.approx(1 - p, abs=4 * (p * (1 - p) / n) ** 0.5)
    values = dropped([7], (1000,), p).unique().tolist()
    assert values == [0.0, pytest.approx(1 / (1 - p))]


def test_draws_of_neighbours_in_every_direction_are_unrelated():
    """Rows, frames, values, epochs, seeds and draws: correlations lie within 5 sd of zero."""
    rows = range(1000, 1064)
    base = dropped(rows, (40, 32), 0.5)
    pairs = {
        "row": (base[:-1], base[1:]),
        "frame": (base[:, :-1], base[:, 1:]),
        "value": (base[..., :-1], base[..., 1:]),
        "epoch": (base, dropped(rows, (40, 32), 0.5, epoch=2)),
        "seed": (base, dropped(rows, (40, 32), 0.5, seed=1)),
        "high seed": (base, dropped(rows, (40, 32), 0.5, seed=2**32)),
    }
    twice = drawn(lambda: [functional.dropout(torch.ones(64, 40, 32), 0.5) for _ in "ab"], rows)
    pairs["draw"] = tuple(twice)
    for name, (one, other) in pairs.items():
        correlation = np.corrcoef(one.flatten(), other.flatten())[0, 1]
        assert abs(correlation) < 5 / one.numel() ** 0.5, name


def test_every_place_is_dropped_as_often_as_any_other():
    """Against the binomial distribution, over places of a mask and over rows."""
    kept = (dropped(range(3000), (64,), 0.5) > 0).double()
    for over in (0, 1):
        n = kept.shape[over]
        z = (kept.mean(over) - 0.5) / (0.25 / n) ** 0.5
        assert z.abs().max() < 5
        assert float(z.square().mean()) == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("shape", [(9, 4), (12, 5, 5), (3, 2, 8)])
def test_neither_company_nor_padding_moves_a_draw(shape):
    rows = [5, 17, 90_000_000_000, 3]
    together = dropped(rows, shape)
    for place, row in enumerate(rows):
        assert torch.equal(dropped([row], shape)[0], together[place])
    longer = dropped(rows[::-1], tuple(2 * size for size in shape)).flip(0)
    assert torch.equal(longer[(slice(None), *(slice(size) for size in shape))], together)


def test_windows_of_an_utterance_have_draws_of_their_own():
    def both():
        windows = functional.dropout(torch.ones(5, 100), 0.5)
        return windows, functional.dropout(torch.ones(2, 100), 0.5)

    windows, utterances = drawn(both, [8, 4], n_windows=[3, 2])
    assert len({tuple(window.tolist()) for window in windows}) == 5
    alone, utterance = drawn(both_of_one, [4], n_windows=[2])
    assert torch.equal(alone, windows[3:])
    assert torch.equal(utterance[0], utterances[1])


def both_of_one():
    windows = functional.dropout(torch.ones(2, 100), 0.5)
    return windows, functional.dropout(torch.ones(1, 100), 0.5)


def test_whole_channels_are_dropped_and_gradients_follow_the_mask():
    inputs = torch.ones(6, 10, 3, 4, requires_grad=True)
    result = drawn(lambda: functional.dropout2d(inputs, 0.4), range(6))
    flat = result.detach().flatten(2)
    assert torch.equal(flat.amin(2), flat.amax(2))
    result.sum().backward()
    torch.testing.assert_close(inputs.grad, result.detach())
    assert 0 < float((flat[..., 0] == 0).double().mean()) < 1


@pytest.mark.parametrize("masked", ["none", "bool", "float"])
def test_attention_without_dropout_is_torchs_and_with_it_its_mean_is(masked):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2000, 2, 6, 4)[:, :1].expand(3, 2000, 2, 6, 4)
    mask = torch.ones(2000, 1, 1, 6, dtype=torch.bool)
    mask[..., 4:] = False
    given = {"none": None, "bool": mask, "float": torch.zeros(mask.shape).masked_fill(~mask, -1e9)}
    attend = functional.scaled_dot_product_attention
    plain = attend(query, key, value, given[masked])
    none = drawn(lambda: attend(query, key, value, given[masked]), range(2000))
    torch.testing.assert_close(none, plain)
    some = drawn(lambda: attend(query, key, value, given[masked], dropout_p=0.2), range(2000))
    assert not torch.allclose(some[0], some[1])
    spread = some.std(0) / 2000**0.5
    assert ((some.mean(0) - plain[0]).abs() / spread).max() < 5


def test_spec_augment_is_drawn_by_address():
    options = CnnOptions(max_time_mask=5, max_band_mask=6)
    n_frames = torch.tensor([20, 30, 12])

    def keep(chosen):
        return spec_augment(torch.ones(len(chosen), 10, 30), n_frames[chosen], options)

    together = drawn(lambda: keep([0, 1, 2]), [11, 22, 33])
    assert torch.equal(drawn(lambda: keep([2, 1]), [33, 22]), together[[2, 1]])
    widths = {
        int((drawn(lambda: keep([1]), [row])[0, :, 0:] == 0).all(1).sum()) for row in range(100)
    }
    assert widths == set(range(7)), "bands of every width up to the largest are blanked"


def test_evaluation_draws_nothing():
    ones = torch.ones(3, 8)
    assert drawn(lambda: functional.dropout(ones, 0.5, training=False), [1, 2, 3]) is ones


@pytest.mark.parametrize(
    ("n_ranks", "draws", "rate", "is_said"),
    [(2, "step", 0.5, True), (2, "step", 0.0, False), (2, "row", 0.5, False), (1, "step", 0.5, 0)],
)
def test_that_processes_draw_for_themselves_is_said_where_it_matters(
    caplog, n_ranks, draws, rate, is_said
):
    with (
        torch.random.fork_rng(),
        own_draws_noted(Ranks(0, n_ranks), TrainOptions(draws=draws), CPU),
    ):
        functional.dropout(torch.ones(4), rate)
    notes = [record.getMessage() for record in caplog.records]
    assert bool(notes) == bool(is_said)
    assert all("--set train.draws=row" in note for note in notes)


def test_draws_that_have_no_address_are_refused():
    attention = torch.nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)
    states = torch.ones(2, 5, 4)
    with pytest.raises(RunError, match=r"train\.draws = row: this network .*--set train\.draws=st"):
        drawn(lambda: attention(states, states, states), [1, 2])
    with pytest.raises(RunError, match=r"a draw of shape \(7, 3\) has no utterance"):
        drawn(lambda: functional.dropout(torch.ones(7, 3), 0.5), [1, 2])
