import numpy as np
import pytest
import torch

from koser.errors import RunError
from koser.models.cnn import CnnOptions, MfccCnn
from koser.training.batches import TrainingBatches, iter_plain_batches
from koser.training.loop import (
    TrainOptions,
    choose_device,
    fit,
    learning_rate_at,
    predict,
    score,
)

OPTIONS = TrainOptions(epochs=6, batch_size=8, patience=6, learning_rate=3e-3)
CNN = CnnOptions(channels=(4, 6), hidden_size=8, max_time_mask=4, max_band_mask=4)


class InterruptionError(Exception):
    """What a kill is in these tests."""


def train(table, folder, *, options=OPTIONS, seed=0, train_rows=None, val=True, on_epoch=None):
    n_utterances, n_classes = table.targets.shape
    everything = np.arange(n_utterances)
    rows = everything[: 2 * n_utterances // 3] if train_rows is None else train_rows
    val_rows = np.setdiff1d(everything, rows)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MfccCnn(CNN, 40, n_classes)
    network.standardizer.fit(table.read(row) for row in rows)
    source = TrainingBatches(table, rows, batch_size=options.batch_size, crop_frames=20, seed=seed)
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


@pytest.mark.parametrize("n_before", [1, 3, 5])
def test_a_killed_training_resumes_bit_for_bit(feature_table, tmp_path, n_before):
    table = feature_table(16, n_variants=2)
    network, whole, _ = train(table, tmp_path / "whole")

    def interrupt(record):
        if record.epoch == n_before:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        train(table, tmp_path / "parts", on_epoch=interrupt)
    resumed_network, resumed, _ = train(table, tmp_path / "parts")
    assert without_times(resumed) == without_times(whole)
    assert resumed.best_epoch == whole.best_epoch
    assert_equal_networks(network, resumed_network)


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
    again = score(network, iter_plain_batches(table, val_rows, batch_size=8), torch.device("cpu"))
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
    ours = score(network, iter_plain_batches(table, val_rows, batch_size=7), torch.device("cpu"))
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


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero():
    rates = [learning_rate_at(share, OPTIONS) for share in np.linspace(0, 1, 101)]
    peak = int(np.argmax(rates))
    assert peak == round(OPTIONS.warmup * 100)
    assert rates[peak] == pytest.approx(OPTIONS.learning_rate)
    assert np.all(np.diff(rates[: peak + 1]) > 0)
    assert np.all(np.diff(rates[peak:]) < 0)
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_a_gpu_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        assert choose_device("cuda").type == "cuda"
    else:
        with pytest.raises(RunError, match=r"--set train\.device=cpu"):
            choose_device("cuda")
