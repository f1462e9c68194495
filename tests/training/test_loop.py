import logging

import numpy as np
import pytest
import torch

from koser.errors import RunError
from koser.models.checkpoint import load_tensors, trained_state
from koser.models.cnn import CnnOptions, MfccCnn
from koser.systems.mfcc import MfccTrain
from koser.training.batches import TrainingBatches, iter_plain_batches
from koser.training.loop import fit
from koser.training.ranks import ALONE
from koser.training.scoring import predict, score

OPTIONS = MfccTrain(epochs=6, batch_size=8, patience=6, learning_rate=3e-3)
CNN = CnnOptions(channels=(4, 6), hidden_size=8, max_time_mask=4, max_band_mask=4)


class InterruptionError(Exception):
    """What a kill is in these tests."""


class FrozenTrunk(torch.nn.Module):
    """What a pretrained encoder with a head is here: means, a frozen map, a trained one."""

    def __init__(self, n_classes):
        super().__init__()
        self.trunk = torch.nn.Linear(40, 16).requires_grad_(False)
        self.norm = torch.nn.BatchNorm1d(16)
        self.dropout = torch.nn.Dropout(0.3)
        self.head = torch.nn.Linear(16, n_classes)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def parameter_groups(self):
        slow = [*self.trunk.parameters(), *self.norm.parameters()]
        return [(slow, 0.1), (list(self.head.parameters()), 1.0)]

    def forward(self, features, n_frames):
        means = features.sum(2) / n_frames[:, None]
        return self.head(self.dropout(self.norm(self.trunk(means)).relu()))


def frozen_trunk(n_classes):
    torch.manual_seed(0)
    return FrozenTrunk(n_classes)


def cnn(n_classes):
    return MfccCnn(CNN, 40, n_classes)


def train(
    table,
    folder,
    *,
    options=OPTIONS,
    seed=0,
    train_rows=None,
    val=True,
    on_epoch=None,
    make=cnn,
    **bound,
):
    n_utterances, n_classes = table.targets.shape
    everything = np.arange(n_utterances)
    rows = everything[: 2 * n_utterances // 3] if train_rows is None else train_rows
    val_rows = np.setdiff1d(everything, rows)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = make(n_classes)
    if make is cnn:
        network.standardizer.fit(table.read(row) for row in rows)
    bound = bound or {"batch_size": options.batch_size}
    source = TrainingBatches(table, rows, **bound, seed=seed)
    folder.mkdir(exist_ok=True)
    result = fit(
        network,
        source,
        (lambda: iter_plain_batches(table, val_rows, batch_size=8)) if val else None,
        options,
        seed=seed,
        resume_file=folder / "last.pth",
        on_epoch=on_epoch,
    )
    return network, result, val_rows


def without_times(fit_result):
    return [
        {name: value for name, value in vars(record).items() if name != "seconds"}
        for record in fit_result.history
    ]


def assert_equal_networks(one, other):
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize(
    ("n_before", "settings"),
    [
        (1, {}),
        (3, {}),
        (5, {}),
        (2, {"options": OPTIONS.model_copy(update={"accumulate": 3})}),
        (2, {"make": frozen_trunk, "batch_length": 150}),
        (4, {"options": OPTIONS.model_copy(update={"precision": "bf16"}), "make": frozen_trunk}),
    ],
)
def test_a_killed_training_resumes_bit_for_bit(feature_table, tmp_path, n_before, settings):
    table = feature_table(16, n_variants=2, crop_frames=20)
    network, whole, _ = train(table, tmp_path / "whole", **settings)

    def interrupt(record):
        if record.epoch == n_before:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        train(table, tmp_path / "parts", on_epoch=interrupt, **settings)
    resumed_network, resumed, _ = train(table, tmp_path / "parts", **settings)
    assert without_times(resumed) == without_times(whole)
    assert resumed.best_epoch == whole.best_epoch
    assert_equal_networks(network, resumed_network)


def test_frozen_parameters_stay_as_they_are_and_are_not_kept(feature_table, tmp_path):
    table = feature_table(16)
    network, _, _ = train(table, tmp_path / "a", make=frozen_trunk)
    start = frozen_trunk(3)
    assert torch.equal(network.trunk.weight, start.trunk.weight)
    assert torch.equal(network.norm.running_mean, start.norm.running_mean), "train() was overruled"
    assert not torch.equal(network.norm.weight, start.norm.weight)
    assert not torch.equal(network.head.weight, start.head.weight)
    kept = load_tensors(tmp_path / "a" / "last.pth")
    names = trained_state(network).keys()
    assert kept["network"].keys() == kept["best_state"].keys() == names
    assert not any(name.startswith("trunk") for name in names)
    n_learning = sum(len(group["params"]) for group in kept["optimizer"]["param_groups"])
    assert n_learning == len(list(network.parameters())) - 2


class GivenBatches:
    """A source whose batches are known, the same in every epoch."""

    ranks = ALONE

    def __init__(self, table, batches):
        self.table = table
        self.batches = batches

    def n_batches(self, epoch):
        return len(self.batches)

    def epoch(self, epoch):
        for rows in self.batches:
            yield from iter_plain_batches(self.table, rows, batch_size=len(rows))

    def describe(self):
        return ""

    def class_shares(self):
        return self.table.targets[np.concatenate(self.batches)].mean(axis=0)


@pytest.mark.parametrize("accumulate", [2, 3, 10])
def test_accumulated_batches_learn_what_one_large_batch_does(
    feature_table, tmp_path, monkeypatch, accumulate
):
    """Classes are unequal, so a mean over the means of the parts would be another loss."""
    table = feature_table(9)
    rows = np.array([0, 3, 1, 6, 9, 4, 12, 2, 15, 7])
    large = [rows[first : first + accumulate] for first in range(0, 10, accumulate)]
    gradients = []
    step = torch.optim.AdamW.step

    def spy(self):
        learning = [each for group in self.param_groups for each in group["params"]]
        gradients.append(torch.cat([each.grad.flatten() for each in learning]))
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)

    def learn(name, batches, n_accumulated):
        network = frozen_trunk(3)
        network.dropout.p = 0.0  # its draws depend on the batches
        options = OPTIONS.model_copy(update={"accumulate": n_accumulated, "clip_norm": 1e9})
        file = tmp_path / name
        source = GivenBatches(table, batches)
        result = fit(network, source, None, options, seed=0, resume_file=file)
        taken, gradients[:] = torch.stack(gradients), []
        return network, result, taken

    whole, one, expected_gradients = learn("whole", large, 1)
    parts, other, accumulated = learn("parts", list(rows[:, None]), accumulate)
    assert expected_gradients.abs().max() > 0.01
    torch.testing.assert_close(accumulated, expected_gradients, rtol=0, atol=1e-6)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], tensor, rtol=0, atol=1e-6)
    for record, expected in zip(other.history, one.history, strict=True):
        assert record.train_loss == pytest.approx(expected.train_loss, abs=1e-6)
        assert record.train_accuracy == expected.train_accuracy
    assert not torch.equal(whole.head.weight, frozen_trunk(3).head.weight)


def test_a_seed_reproduces_a_training_and_another_seed_does_not(feature_table, tmp_path):
    table = feature_table(16)
    first, one, _ = train(table, tmp_path / "1")
    torch.manual_seed(12345)  # whatever happened to torch's own generator before
    second, two, _ = train(table, tmp_path / "2")
    third, three, _ = train(table, tmp_path / "3", seed=1)
    assert without_times(one) == without_times(two)
    assert_equal_networks(first, second)
    assert without_times(one) != without_times(three)
    assert not torch.equal(first.classifier.weight, third.classifier.weight)


def test_training_leaves_the_global_generators_alone(feature_table, tmp_path):
    table = feature_table(8)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train(table, tmp_path / "a")
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002


def test_the_network_is_left_with_the_weights_of_the_best_val_epoch(feature_table, tmp_path):
    table = feature_table(20, contrast=0.0)  # noise: epochs go up and down
    options = OPTIONS.model_copy(update={"epochs": 12, "patience": 12})
    network, result, val_rows = train(table, tmp_path / "a", options=options)
    ranks = [(record.val_uar, -record.val_loss) for record in result.history]
    assert ranks[result.best_epoch - 1] == max(ranks)
    assert result.best_epoch < 12, "the last epoch is the best: this run cannot show the rule"
    again = score(network, iter_plain_batches(table, val_rows, batch_size=8))
    assert (again.uar, again.loss) == (result.best.val_uar, pytest.approx(result.best.val_loss))


def test_training_stops_when_val_does_not_improve(feature_table, tmp_path):
    table = feature_table(12, contrast=0.0)
    options = OPTIONS.model_copy(update={"epochs": 100, "patience": 3})
    _, result, _ = train(table, tmp_path / "a", options=options)
    assert len(result.history) == result.best_epoch + 3 < 100


def test_without_a_val_part_every_epoch_runs_and_the_last_counts(feature_table, tmp_path):
    table = feature_table(8)
    options = OPTIONS.model_copy(update={"patience": 1})
    _, result, _ = train(table, tmp_path / "a", options=options, val=False)
    assert (len(result.history), result.best_epoch) == (6, 6)
    assert result.best.val_uar is None


@pytest.mark.parametrize(("contrast", "low", "high"), [(1.0, 0.9, 1.0), (0.0, 0.2, 0.47)])
def test_it_learns_what_is_there_and_nothing_from_noise(
    feature_table, tmp_path, contrast, low, high
):
    """Noise in place of features is a canary: 150 guesses lie within 3 sd of chance."""
    table = feature_table(80, contrast=contrast)
    options = OPTIONS.model_copy(update={"epochs": 12})
    rows = np.arange(90)
    network, _, rest = train(table, tmp_path / "a", options=options, train_rows=rows, val=False)
    probabilities = predict(network, iter_plain_batches(table, rest, batch_size=8), 240)[rest]
    accuracy = (probabilities.argmax(1) == table.targets[rest].argmax(1)).mean()
    assert low <= accuracy <= high


def test_class_weights_make_a_rare_class_heard(feature_table, tmp_path):
    table = feature_table(60, n_classes=2, contrast=0.25)
    rows = np.concatenate([np.arange(0, 80, 2), np.arange(1, 9, 2)])  # 40 of one, 4 of the other
    recalls = {}
    for class_weights in (True, False):
        options = OPTIONS.model_copy(update={"class_weights": class_weights, "epochs": 8})
        network, _, _ = train(
            table, tmp_path / str(class_weights), options=options, train_rows=rows, val=False
        )
        rest = np.arange(81, 120, 2)
        predicted = predict(network, iter_plain_batches(table, rest, batch_size=8), 120)[rest]
        recalls[class_weights] = (predicted.argmax(1) == 1).mean()
    assert recalls[True] > recalls[False]


def test_probabilities_add_up_and_lie_in_their_rows(feature_table, tmp_path):
    table = feature_table(8)
    network, _, _ = train(table, tmp_path / "a")
    rows = np.array([20, 3])
    probabilities = predict(network, iter_plain_batches(table, rows, batch_size=1), 24)
    np.testing.assert_allclose(probabilities[rows].sum(1), 1)
    assert np.isnan(np.delete(probabilities, rows, axis=0)).all()


def test_scores_agree_with_scikit_learn(feature_table, tmp_path):
    import sklearn.metrics

    table = feature_table(20, contrast=0.2)
    network, _, val_rows = train(table, tmp_path / "a")
    ours = score(network, iter_plain_batches(table, val_rows, batch_size=7))
    probabilities = predict(network, iter_plain_batches(table, val_rows, batch_size=7), 60)
    y_true, y_pred = table.targets[val_rows].argmax(1), probabilities[val_rows].argmax(1)
    assert ours.accuracy == pytest.approx(sklearn.metrics.accuracy_score(y_true, y_pred))
    assert ours.uar == pytest.approx(sklearn.metrics.balanced_accuracy_score(y_true, y_pred))
    expected = sklearn.metrics.log_loss(y_true, probabilities[val_rows], labels=[0, 1, 2])
    assert ours.loss == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_is_not_finite_ends_the_training_with_a_way_out(feature_table, tmp_path):
    table = feature_table(8)
    table.targets[0] = np.nan
    with pytest.raises(RunError, match=r"The loss is nan in epoch 1.*--set train.learning_rate="):
        train(table, tmp_path / "a", train_rows=np.arange(20))


def test_another_trainings_resume_file_is_refused(feature_table, tmp_path):
    table = feature_table(8)
    train(table, tmp_path / "a")
    with pytest.raises(RunError, match="other settings or data"):
        train(table, tmp_path / "a", options=OPTIONS.model_copy(update={"weight_decay": 0.5}))
    with pytest.raises(RunError, match="other settings or data"):
        train(table, tmp_path / "a", train_rows=np.arange(1, 17))


@pytest.mark.parametrize("bound", [{"batch_size": 7}, {"batch_length": 150}])
def test_the_schedule_ends_where_the_training_does(feature_table, tmp_path, monkeypatch, bound):
    """With batches of bounded length their number differs from epoch to epoch."""
    rates = []
    step = torch.optim.AdamW.step

    def spy(self):
        rates.append(self.param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    options = OPTIONS.model_copy(update={"accumulate": 2})
    table = feature_table(20)
    train(table, tmp_path / "a", options=options, val=False, **bound)
    source = TrainingBatches(table, np.arange(40), **bound, seed=0)
    assert len(rates) == sum(-(-source.n_batches(epoch) // 2) for epoch in range(1, 7))
    peak = int(np.argmax(rates))
    assert np.all(np.diff(rates[: peak + 1]) > 0)
    assert np.all(np.diff(rates[peak:]) < 0)
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_in_bf16_it_learns_nearly_the_same(feature_table, tmp_path):
    table = feature_table(20)
    results = {}
    for precision in ("float32", "bf16"):
        options = OPTIONS.model_copy(update={"precision": precision})
        network, result, val_rows = train(table, tmp_path / precision, options=options)
        batches = iter_plain_batches(table, val_rows, batch_size=8)
        results[precision] = predict(network, batches, 60, precision=precision)[val_rows]
        losses = [record.train_loss for record in result.history]
        assert losses[-1] < 0.7 * losses[0]
    difference = np.abs(results["bf16"] - results["float32"]).max()
    assert 1e-6 < difference < 0.1


def test_what_is_trained_and_where_is_logged_once(feature_table, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="koser"):
        train(feature_table(8), tmp_path / "a", make=frozen_trunk)
    lines = [record.message for record in caplog.records if "frozen" in record.message]
    n_frozen, n_learning = 40 * 16 + 16, 2 * 16 + 16 * 3 + 3
    assert lines == [
        f"training on cpu in float32: {n_learning} parameters learn, {n_frozen} are frozen; "
        f"2 steps in the first epoch"
    ]


def test_a_lack_of_memory_names_the_batch_and_what_to_try(feature_table, tmp_path):
    class Greedy(FrozenTrunk):
        def forward(self, features, n_frames):
            torch.empty(2**50)  # 4 PiB: more than any process can address
            return super().forward(features, n_frames)

    with pytest.raises(RunError, match=r"memory of this machine ended at train\.batch_size=8"):
        train(feature_table(8), tmp_path / "a", make=Greedy)
