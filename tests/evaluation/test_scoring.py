"""`evaluate`: values, intervals, absent labels, notes and the form of metrics.json."""

import json
import re
import time

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from koser.errors import LabelError, UndefinedMetricError
from koser.evaluation.calibration import adaptive_calibration_error, expected_calibration_error
from koser.evaluation.scoring import SCORE_NAMES, Score, evaluate, majority_accuracy
from koser.labels import EMOTIONS

LABELS = ("angry", "neutral", "sadness")


def draw_predictions(seed, n_utterances=240, n_speakers=12, labels=LABELS):
    """References that the probabilities favour, and speakers, every one with every label."""
    rng = np.random.default_rng(seed)
    true_ids = rng.permutation(np.arange(n_utterances) % len(labels))
    logits = rng.normal(size=(n_utterances, len(labels)))
    logits[np.arange(n_utterances), true_ids] += 1
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    order = np.argsort(true_ids, kind="stable")
    speakers = np.empty(n_utterances, dtype="<U3")
    speakers[order] = [f"S{i % n_speakers:02}" for i in range(n_utterances)]
    return np.array(labels)[true_ids], probabilities, speakers


def scores_by_scikit_learn(y_true, probabilities):
    y_pred = np.array(LABELS)[probabilities.argmax(axis=1)]
    return {
        "accuracy": sklearn.metrics.accuracy_score(y_true, y_pred),
        "uar": sklearn.metrics.recall_score(y_true, y_pred, labels=LABELS, average="macro"),
        "macro_f1": sklearn.metrics.f1_score(y_true, y_pred, labels=LABELS, average="macro"),
        "nll": sklearn.metrics.log_loss(y_true, probabilities, labels=LABELS),
        "ece": expected_calibration_error(y_true, probabilities, labels=LABELS),
        "adaptive_ece": adaptive_calibration_error(y_true, probabilities, labels=LABELS),
    }


def test_values_agree_with_scikit_learn():
    y_true, probabilities, speakers = draw_predictions(0)
    evaluation = evaluate(y_true, probabilities, labels=LABELS, clusters=speakers)
    values = {name: score.value for name, score in evaluation.scores.items()}
    assert values == pytest.approx(scores_by_scikit_learn(y_true, probabilities), abs=1e-12)
    y_pred = np.array(LABELS)[probabilities.argmax(axis=1)]
    np.testing.assert_array_equal(
        evaluation.confusion, sklearn.metrics.confusion_matrix(y_true, y_pred, labels=LABELS)
    )
    recalls = sklearn.metrics.recall_score(y_true, y_pred, labels=LABELS, average=None)
    assert [evaluation.recall[label].value for label in LABELS] == recalls.tolist()


def test_intervals_equal_a_jackknife_that_leaves_out_every_speakers_utterances():
    y_true, probabilities, speakers = draw_predictions(1)
    # Speakers of unequal size.
    kept = np.random.default_rng(0).random(len(speakers)) < np.where(speakers < "S06", 0.9, 0.4)
    y_true, probabilities, speakers = y_true[kept], probabilities[kept], speakers[kept]
    evaluation = evaluate(y_true, probabilities, labels=LABELS, clusters=speakers)
    names = sorted(set(speakers))
    without = [
        scores_by_scikit_learn(y_true[speakers != name], probabilities[speakers != name])
        for name in names
    ]
    n_of = np.array([[np.sum(y_true[speakers == n] == label) for label in LABELS] for n in names])
    balanced = (n_of / n_of.sum(axis=0)).sum(axis=1)
    # The bins of the adaptive error are those of all utterances, left out or not.
    for name in ("accuracy", "uar", "macro_f1", "nll", "ece"):
        score = evaluation.scores[name]
        left = np.array([scores[name] for scores in without])
        error = np.sqrt(11 / 12 * np.sum((left - left.mean()) ** 2))
        sizes = balanced if name in ("uar", "macro_f1") else n_of.sum(axis=1)
        quantile = scipy.stats.t.ppf(0.975, sizes.sum() ** 2 / np.sum(sizes**2) - 1)
        value, margin = score.value, np.array([-1, 1]) * quantile * error
        if name == "nll":
            expected = value * np.exp(margin / value)
        else:
            odds = value / (1 - value) * np.exp(margin / (value * (1 - value)))
            expected = odds / (1 + odds)
        assert score.bounds == pytest.approx(expected.tolist(), rel=1e-7)


def test_the_interval_of_a_recall_covers_its_value_and_is_its_own():
    y_true, probabilities, speakers = draw_predictions(2)
    evaluation = evaluate(y_true, probabilities, labels=LABELS, clusters=speakers)
    for recall in evaluation.recall.values():
        assert recall.low < recall.value < recall.high
    assert len({recall.low for recall in evaluation.recall.values()}) == 3


def test_the_order_of_rows_changes_nothing():
    y_true, probabilities, speakers = draw_predictions(4)
    rows = np.random.default_rng(0).permutation(len(y_true))
    first = evaluate(y_true, probabilities, labels=LABELS, clusters=speakers)
    second = evaluate(y_true[rows], probabilities[rows], labels=LABELS, clusters=speakers[rows])
    np.testing.assert_array_equal(first.confusion, second.confusion)
    for name in SCORE_NAMES:
        one, two = first.scores[name], second.scores[name]
        assert (one.value, one.low, one.high) == pytest.approx(
            (two.value, two.low, two.high), abs=1e-12
        )


def test_columns_permuted_together_with_labels_change_no_score():
    y_true, probabilities, speakers = draw_predictions(5)
    first = evaluate(y_true, probabilities, labels=LABELS, clusters=speakers)
    second = evaluate(y_true, probabilities[:, ::-1], labels=LABELS[::-1], clusters=speakers)
    for name in SCORE_NAMES:
        assert first.scores[name].value == pytest.approx(second.scores[name].value, abs=1e-12)
    for label in LABELS:
        assert first.recall[label] == second.recall[label]


def test_a_label_without_test_utterances_is_left_out_and_announced():
    labels = (*LABELS, "surprise")
    y_true, few, speakers = draw_predictions(6)
    probabilities = np.column_stack([few * 0.8, np.full(len(few), 0.2)])
    probabilities[0] = [0.0, 0.0, 0.0, 1.0]  # predicting the absent label is an error
    evaluation = evaluate(y_true, probabilities, labels=labels, clusters=speakers)
    y_pred = np.array(labels)[probabilities.argmax(axis=1)]
    macro = {"labels": LABELS, "average": "macro"}
    assert evaluation.scores["uar"].value == pytest.approx(
        sklearn.metrics.recall_score(y_true, y_pred, **macro), abs=1e-12
    )
    assert evaluation.scores["macro_f1"].value == pytest.approx(
        sklearn.metrics.f1_score(y_true, y_pred, **macro), abs=1e-12
    )
    assert evaluation.labels_absent == ("surprise",)
    assert evaluation.recall["surprise"] == Score(None)
    assert evaluation.chance_uar == pytest.approx(1 / 3)
    assert evaluation.confusion[:, 3].sum() == 1
    assert "UAR over 3 of 4 labels: no test utterance is 'surprise'" in evaluation.notes[0]


def test_a_label_of_one_speaker_has_a_recall_without_interval_and_a_note_says_why():
    y_true, probabilities, speakers = draw_predictions(7)
    # Of "sadness", only what S00 says is kept.
    rows = (y_true != "sadness") | (speakers == "S00")
    evaluation = evaluate(
        y_true[rows],
        probabilities[rows],
        labels=LABELS,
        clusters=speakers[rows],
        cluster_kind="speaker",
    )
    for score in (evaluation.recall["sadness"], *map(evaluation.scores.get, ("uar", "macro_f1"))):
        assert score.value is not None
        assert score.bounds is None
    for score in (evaluation.recall["angry"], evaluation.scores["accuracy"]):
        assert score.low < score.value < score.high
    assert evaluation.notes == (
        "No interval of UAR, macro-F1 and the recall of 'sadness': only one cluster (speaker) has "
        "utterances of it.",
    )


@pytest.mark.parametrize(
    ("clusters", "n_clusters", "match"),
    [
        (None, None, "No intervals: the speakers are unknown"),
        (["F1"] * 6, 1, "No intervals: .* at least 2 of them, and there is 1"),
    ],
)
def test_without_two_speakers_there_is_no_interval_and_a_note_says_why(clusters, n_clusters, match):
    y_true = ["angry", "neutral"] * 3
    evaluation = evaluate(
        y_true, np.tile([0.7, 0.3], (6, 1)), labels=["angry", "neutral"], clusters=clusters
    )
    assert evaluation.scores["uar"] == Score(0.5)
    assert evaluation.recall["angry"] == Score(1.0)
    assert (evaluation.n_clusters, evaluation.interval_method) == (n_clusters, None)
    (note,) = evaluation.notes
    assert re.match(match, note)


def test_a_recall_that_all_speakers_have_in_common_has_no_interval_and_a_note_says_why():
    y_true = np.tile(["angry", "neutral", "neutral", "neutral", "angry"], 3)
    p_angry = np.array([0.9, 0.4, 0.8, 0.3, 0.2, 0.8, 0.7, 0.2, 0.1, 0.3, 0.7, 0.6, 0.9, 0.1, 0.4])
    speakers = np.repeat(["F1", "F2", "M1"], 5)
    evaluation = evaluate(
        y_true,
        np.column_stack([p_angry, 1 - p_angry]),
        labels=["angry", "neutral"],
        clusters=speakers,
        cluster_kind="speaker",
    )
    assert evaluation.recall["angry"] == Score(0.5)  # one of two, of everybody
    assert evaluation.recall["neutral"].bounds is not None
    assert evaluation.notes[1] == (
        "No interval of the recall of 'angry': the same in every cluster (speaker), which says "
        "nothing about others."
    )


def test_intervals_over_few_speakers_are_announced():
    y_true, probabilities, _ = draw_predictions(8)
    speakers = [f"group {i % 4}" for i in range(len(y_true))]
    evaluation = evaluate(
        y_true,
        probabilities,
        labels=LABELS,
        clusters=speakers,
        cluster_kind="group(age×gender)",
    )
    assert evaluation.notes[0].startswith("Only 4 clusters (group(age×gender)): the intervals")


def test_the_dictionary_is_json_with_the_same_names_under_ci95():
    labels = (*LABELS, "surprise")
    y_true, few, speakers = draw_predictions(9)
    probabilities = np.column_stack([few, np.zeros(len(few))])
    evaluation = evaluate(
        y_true, probabilities, labels=labels, clusters=speakers, cluster_kind="speaker"
    )
    written = json.loads(json.dumps(evaluation.to_dict(), ensure_ascii=False, allow_nan=False))
    for name in ("accuracy", "uar", "macro_f1", "nll", "ece"):
        score = evaluation.scores[name]
        assert written[name] == score.value
        assert written["ci95"][name] == [score.low, score.high]
    assert list(written["recall"]) == list(written["ci95"]["recall"]) == list(labels)
    assert written["recall"]["surprise"] is written["ci95"]["recall"]["surprise"] is None
    assert (written["n"], written["n_speakers"]) == (240, 12)
    assert written["interval_method"] == "cluster jackknife, Student's t"
    assert written["cluster_kind"] == "speaker"
    assert written["labels"] == list(labels)
    assert written["labels_absent"] == ["surprise"]
    assert np.sum(written["confusion"]) == 240
    assert written["notes"] == list(evaluation.notes)


def test_a_corpus_of_the_documents_size_is_evaluated_in_well_under_a_second():
    # 44,000 utterances of 59 groups: 0.1 s on one idle core.
    y_true, probabilities, speakers = draw_predictions(
        10, n_utterances=44_000, n_speakers=59, labels=EMOTIONS
    )
    start = time.process_time()
    evaluate(y_true, probabilities, labels=EMOTIONS, clusters=speakers)
    assert time.process_time() - start < 1


def test_malformed_input_is_refused():
    probabilities = [[0.5, 0.5], [0.5, 0.5]]
    labels = ["angry", "neutral"]
    with pytest.raises(LabelError, match="'calm'"):
        evaluate(["angry", "calm"], probabilities, labels=labels)
    with pytest.raises(UndefinedMetricError, match=r"not \(3, 2\)"):
        evaluate(["angry"] * 3, probabilities, labels=labels)
    with pytest.raises(UndefinedMetricError, match="1 of 2 utterances have no cluster"):
        evaluate(["angry"] * 2, probabilities, labels=labels, clusters=["F1", None])


def test_the_majority_is_that_of_the_training_part():
    assert majority_accuracy(["fear"] * 3 + ["angry"], ["angry"] * 3 + ["fear"]) == 0.25
    # A tie is decided by name.
    assert majority_accuracy(["fear", "angry"], ["angry", "angry", "fear", "calm"]) == 0.5
    with pytest.raises(UndefinedMetricError, match="0 training and 1 test utterances"):
        majority_accuracy([], ["angry"])
