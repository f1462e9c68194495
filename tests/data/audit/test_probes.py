import time

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.naive_bayes

from fixtures.audits import LABELS, clean_manifest, clean_rows
from fixtures.manifests import manifest
from koser.data.audit.classifiers import (
    UNKNOWN,
    HashedTexts,
    binned,
    credits_of,
    ridge_beliefs,
    table_beliefs,
)
from koser.data.audit.probes import Probed, file_order, probe_baselines, run_probes
from koser.data.splits import SplitOptions, make_split


def probes(rows, protocol="speaker", measured=None, *, grouping="speaker", **options):
    made = manifest(rows, grouping)
    split = make_split(made, protocol, SplitOptions(**options))
    found = run_probes(Probed.of(made, split.parts(made)), measured or {})
    return {probe.name: probe for probe in found}


def test_a_clean_corpus_gives_nothing_away():
    found = probes(clean_rows(n_speakers=20), "kfold")
    assert {
        name for name, probe in found.items() if probe.verdict not in ("pass", "not_run")
    } == set()
    ran = {name for name, probe in found.items() if probe.uar is not None}
    assert ran == {"release", "age", "gender", "duration", "file_order", "metadata", "text"}


def test_of_several_corpora_the_metadata_baseline_knows_which_is_which():
    rows = clean_rows(n_speakers=24)
    for row in rows:
        row["corpus"] = "a" if row["label"] == "angry" else "b"
    found = probes(rows, "kfold")
    assert "corpus" in found["metadata"].note
    assert found["metadata"].uar > found["metadata"].chance + 0.1
    assert "corpus" not in probes(clean_rows(n_speakers=24), "kfold")["metadata"].note


def test_a_release_with_labels_of_its_own_fails_and_a_weaker_confound_warns():
    rows = clean_rows(n_speakers=24)
    for number, row in enumerate(rows):
        row["release"] = row["label"]
        row["gender"] = "female" if row["label"] == "angry" or number % 2 else "male"
    found = probes(rows, "kfold")
    assert (found["release"].verdict, found["release"].uar) == ("fail", 1.0)
    assert found["gender"].verdict == "warn"
    assert found["gender"].chance == 1 / len(LABELS)
    assert found["metadata"].uar == 1.0
    assert found["duration"].verdict == "pass"


def test_a_duration_that_tells_the_label_warns_and_does_not_fail():
    rows = clean_rows()
    for row in rows:
        row["duration"] = 2.0 + LABELS.index(row["label"])
    probe = probes(rows, "kfold")["duration"]
    assert probe.verdict == "warn"
    assert probe.uar > 0.95


@pytest.mark.parametrize("seed", range(8))
def test_one_slower_label_of_four_is_noticed_in_every_corpus(seed):
    """UAR about .36 in 288 utterances: the guesses alone show it in half of the corpora."""
    rows = clean_rows(1000 + seed)
    for row in rows:
        row["duration"] *= 1.6 if row["label"] == "sadness" else 1.0
    assert probes(rows, "leave_one_speaker_out")["duration"].verdict == "warn"


def test_the_beliefs_of_every_classifier_add_up_to_one_and_leave_absent_labels_out():
    rng = np.random.default_rng(0)
    y, codes = rng.choice([0, 1, 3], size=90), rng.integers(-1, 5, size=90)
    train, test = np.arange(60), np.arange(60, 90)
    hashed = HashedTexts.of([f"말 {code} 다시 {code * 7}" for code in codes])
    ridge = ridge_beliefs([codes], y, train)[test]
    for beliefs in (table_beliefs(codes, y, train, test), ridge, hashed.beliefs(y, train, test)):
        assert np.allclose(beliefs.sum(axis=1), 1.0)
        assert np.abs(beliefs[:, 2]).max() == 0.0


@pytest.mark.parametrize("name", ["level", "bandwidth", "leading_silence"])
def test_a_measurement_that_tells_the_label_is_found_and_unread_rows_do_no_harm(name):
    rows = clean_rows()
    values = np.array([float(LABELS.index(row["label"])) for row in rows])
    values[::10] = np.nan
    found = probes(rows, "kfold", {name: values})
    assert found[name].verdict == "warn"
    assert 0.8 < found[name].uar < 1.0
    others = {"level", "bandwidth", "leading_silence"} - {name}
    assert {found[other].note for other in others} == {"the sound was not read"}


def test_a_confound_of_single_speakers_is_found_between_them():
    """Release and label are one thing, and each speaker has one label."""
    rows = clean_rows(n_speakers=24)
    for row in rows:
        number = int(row["speaker"][1:]) % 3
        row["label"], row["release"] = LABELS[number], f"r{number}"
    assert probes(rows, "kfold")["release"].verdict == "fail"


def test_words_that_belong_to_an_emotion_are_found_in_unheard_sentences():
    rows = clean_rows()
    words = {label: f"{label[:3]}가나다라" for label in LABELS}
    for row in rows:
        row["text"] = f"{row['text']} {words[row['label']]}"
    assert probes(rows)["text"].uar > 0.9


def test_files_in_the_order_of_their_labels_are_found_and_folders_do_not_count():
    rows = clean_rows()
    made = manifest(rows)
    order = file_order(made)
    assert (order.min(), order.max()) == (0.0, 1.0)
    rows.sort(key=lambda row: (row["speaker"], row["label"]))
    for number, row in enumerate(rows):
        row["path"] = f"/{row['label']}/{row['speaker']}_{number}.wav"
    assert probes(rows, "kfold")["file_order"].verdict == "warn"
    rng = np.random.default_rng(0)
    for row, number in zip(rows, rng.permutation(len(rows)).tolist(), strict=True):
        row["path"] = f"/{row['label']}/{row['speaker']}_{number}.wav"
    assert probes(rows, "kfold")["file_order"].verdict == "pass"


def test_numbers_in_names_are_in_the_order_of_numbers():
    rows = [{"label": "angry", "speaker": "a", "path": f"/x/take{n}.wav"} for n in (10, 9, 1)]
    assert file_order(manifest(rows)).tolist() == [1.0, 0.5, 0.0]


def test_without_speakers_there_is_no_interval_and_the_note_says_so():
    rows = [{**row, "speaker": None, "session": None} for row in clean_rows()]
    found = probes(rows, "random", grouping=None)["duration"]
    assert (found.low, found.n_speakers) == (None, None)
    assert "speakers unknown" in found.note


def test_baselines_are_those_of_the_whole_audit_under_the_same_split():
    made = clean_manifest()
    split = make_split(made, "speaker")
    alone = {probe.name: probe for probe in probe_baselines(made, split)}
    assert set(alone) == {"metadata", "text"}
    whole = {probe.name: probe for probe in run_probes(Probed.of(made, split.parts(made)), {})}
    assert alone == {name: whole[name] for name in alone}
    assert "from release, gender, age, duration" in alone["metadata"].note


def test_a_large_manifest_is_sampled_and_says_so(monkeypatch):
    from koser.data.audit import probes as module

    monkeypatch.setattr(module, "MIN_SAMPLE", 60)
    monkeypatch.setattr(module, "MAX_SAMPLED_ROWS", 60)
    rows = clean_rows()
    found = probes(rows)
    assert "on a sample of 60 of 288 utterances" in found["text"].note
    assert found["text"].n < found["duration"].n
    shuffled = [rows[place] for place in np.random.default_rng(1).permutation(len(rows))]
    assert probes(shuffled)["text"] == found["text"]


def test_the_table_is_the_best_guess_of_one_column():
    """With many rows it recognises as often as one can who knows the true shares."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(6), size=3)  # of each value, given the label
    y = rng.integers(3, size=40_000)
    codes = np.array([rng.choice(6, p=shares[label]) for label in y])
    train, test = np.arange(20_000), np.arange(20_000, 40_000)
    credits = credits_of(table_beliefs(codes, y, train, test))
    best = shares.argmax(axis=0)[codes[test]]
    ours = np.mean([credits[y[test] == label, label].mean() for label in range(3)])
    theirs = np.mean([(best[y[test] == label] == label).mean() for label in range(3)])
    assert ours == pytest.approx(theirs, abs=0.01)


def test_a_value_that_was_never_seen_speaks_for_no_label():
    y = np.array([0, 0, 1, 0])
    beliefs = table_beliefs(np.array([0, 0, 1, UNKNOWN]), y, np.arange(3), np.array([3]))
    assert beliefs.tolist() == credits_of(beliefs).tolist() == [[0.5, 0.5]]


def test_bins_have_equal_numbers_of_train_rows_and_missing_values_a_code_of_their_own():
    values = np.concatenate([np.arange(240.0), [np.nan, 1e9, -1e9]])
    codes = binned(values, np.arange(240))
    assert np.bincount(codes[:240]).tolist() == [20] * 12
    assert codes[240:].tolist() == [UNKNOWN, 11, 0]


def test_the_ridge_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    columns = [rng.integers(4, size=300), rng.integers(3, size=300)]
    y = rng.integers(3, size=300)
    y[columns[0] == 1] = 0
    train = np.arange(200)
    x = np.hstack([(each[:, None] == np.arange(each.max() + 1)) for each in columns]).astype(float)
    counts = np.bincount(y[train])
    weight = 200 / (3 * counts[y[train]])
    reference = sklearn.linear_model.Ridge(alpha=1.0).fit(
        x[train], np.eye(3)[y[train]], sample_weight=weight
    )
    ours = ridge_beliefs(columns, y, train)
    expected = reference.predict(x)
    assert np.allclose(ours, expected, atol=1e-9)


def test_naive_bayes_on_texts_agrees_with_scikit_learns_on_most_answers():
    rng = np.random.default_rng(0)
    words = ["".join(chr(0xAC00 + code) for code in rng.integers(0, 11_172, 3)) for _ in range(60)]
    y = rng.integers(3, size=300)
    texts = [
        " ".join(words[w] for w in np.clip(rng.normal(15 + 15 * label, 14, 6), 0, 59).astype(int))
        for label in y
    ]
    hashed = HashedTexts.of(texts)
    train, test = np.arange(200), np.arange(200, 300)
    ours = hashed.beliefs(y, train, test).argmax(axis=1)
    x = np.zeros((300, hashed.grams.max() + 1))
    x[hashed.owners[np.searchsorted(hashed.owners, hashed.owners)], hashed.grams] = 1
    x = x[hashed.text_of_row]
    reference = sklearn.naive_bayes.MultinomialNB(alpha=1.0, fit_prior=False)
    theirs = reference.fit(x[train], y[train]).predict(x[test])
    assert (ours == theirs).mean() > 0.9
    assert (ours == y[test]).mean() > 0.6


def test_spacing_and_punctuation_are_no_words():
    hashed = HashedTexts.of(["안녕 하세요", "안녕하세요!", None])
    assert hashed.text_of_row.tolist() == [0, 0, 1]


def test_forty_thousand_rows_are_probed_in_seconds():
    rng = np.random.default_rng(0)
    rows = clean_rows(n_speakers=20, n_each=50)
    rows = [{**rows[n % 1000], "id": f"u{n}"} for n in rng.permutation(44_000)]
    made = manifest(rows)
    split = make_split(made, "speaker")
    started = time.process_time()
    probe_baselines(made, split)
    assert time.process_time() - started < 8


@pytest.mark.parametrize("protocol", ["leave_one_speaker_out", "speaker"])
def test_what_says_nothing_is_above_chance_as_often_as_the_p_value_says(protocol):
    """In a cross-validation, what two speakers share by chance helps both of them."""
    rng, p_values = np.random.default_rng(0), []
    for seed in range(5):
        made = clean_manifest(seed, n_speakers=8, n_each=20)
        probed = Probed.of(made, make_split(made, protocol, SplitOptions()).parts(made))
        for _ in range(60):
            p_values.append(probed.numbers("noise", rng.random(len(made))).p_value)
    # 1 % of 300 is 3; 9 or more happen once in 250 such tests
    assert np.sum(np.array(p_values) <= 0.01) < 9
