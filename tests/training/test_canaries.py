from collections import Counter

import numpy as np
import polars as pl
import pytest

from fixtures.audits import clean_manifest, clean_rows
from fixtures.manifests import manifest
from koser.audio.reading import load, probe
from koser.reporting.language import load_phrases
from koser.training.canaries import (
    NOISE_SECONDS,
    judge_chance,
    judge_invariance,
    make_noise,
    permute_labels,
)


def per_speaker(made):
    table = made.table.sort("id")
    return {
        speaker: Counter(part["label"])
        for (speaker,), part in table.group_by("speaker", maintain_order=True)
    }


def test_labels_are_dealt_within_speakers_and_nothing_else_moves():
    made = clean_manifest()
    dealt, is_within = permute_labels(made, 0)
    assert is_within
    assert per_speaker(dealt) == per_speaker(made)
    assert (dealt.table["label"] != made.table["label"]).mean() > 0.6
    others = [name for name in made.table.columns if name not in ("label", "distribution")]
    assert dealt.table.select(others).equals(made.table.select(others))


def test_a_distribution_goes_with_its_label():
    rows = clean_rows(n_speakers=2)
    labels = ("angry", "happiness", "neutral", "sadness")
    for row in rows:
        row["distribution"] = [0.7 if row["label"] == label else 0.1 for label in labels]
    dealt, _ = permute_labels(manifest(rows), 0)
    for label, shares in dealt.table.select("label", "distribution").iter_rows():
        assert labels[int(np.argmax(shares))] == label


def test_where_every_speaker_has_one_label_all_are_dealt_together():
    rows = [
        {"speaker": f"s{number // 4}", "label": ("angry", "neutral")[number // 4 % 2]}
        for number in range(80)
    ]
    made = manifest(rows)
    dealt, is_within = permute_labels(made, 0)
    assert not is_within
    assert Counter(dealt.table["label"]) == Counter(made.table["label"])
    assert per_speaker(dealt) != per_speaker(made)
    assert not permute_labels(manifest([{**row, "speaker": None} for row in rows], None), 0)[1]


def test_a_deal_depends_on_ids_and_not_on_the_order_of_rows():
    made = clean_manifest(n_speakers=3)
    turned = type(made)(made.table.reverse(), made.provenance)
    one, other = (permute_labels(each, 5)[0].table.sort("id") for each in (made, turned))
    assert one["label"].equals(other["label"])
    assert not one["label"].equals(permute_labels(made, 6)[0].table.sort("id")["label"])


def test_noise_has_the_corpus_mean_and_variance_and_nothing_of_a_clip(tmp_path):
    made = manifest(clean_rows(n_speakers=3, n_each=8, folder=tmp_path / "speech"))
    noise = make_noise(made, tmp_path / "noise", 0)
    originals = np.concatenate([load(path) for path in made.table["path"]])
    sounds = [load(path) for path in noise.table["path"]]
    assert np.concatenate(sounds).std() == pytest.approx(originals.std(), rel=0.02)
    levels = np.array([sound.std() for sound in sounds])
    assert levels.std() / levels.mean() < 0.05
    spectrum = np.abs(np.fft.rfft(sounds[0])) ** 2
    halves = spectrum[: len(spectrum) // 2].mean(), spectrum[len(spectrum) // 2 :].mean()
    assert halves[0] == pytest.approx(halves[1], rel=0.1), "white"
    for row in noise.table.iter_rows(named=True):
        info = probe(row["path"])
        assert info.duration == pytest.approx(row["duration"])
        assert NOISE_SECONDS[0] <= row["duration"] <= NOISE_SECONDS[1]


def test_noise_lies_in_the_order_of_the_labels_and_keeps_who_says_what(tmp_path):
    made = manifest(clean_rows(n_speakers=3, n_each=8, folder=tmp_path / "speech"))
    noise = make_noise(made, tmp_path / "noise", 0).validate()
    assert noise.table["label"].is_sorted()
    assert noise.table["path"].is_sorted()
    kept = ("id", "label", "speaker", "release", "gender")
    assert noise.table.select(kept).sort("id").equals(made.table.select(kept).sort("id"))
    assert sorted(noise.table["text"]) == sorted(made.table["text"])
    same = noise.table.join(made.table, on="id").select(pl.col("text") == pl.col("text_right"))
    assert same["text"].mean() < 0.3


def test_chance_passes_and_knowledge_fails():
    rng = np.random.default_rng(0)
    labels, guessed = rng.integers(4, size=(2, 240))
    clusters = np.repeat(np.arange(6), 40)
    options = {"is_within": True, "n_labels": 4}
    assert judge_chance("noise", labels, guessed, clusters, **options).verdict == "pass"
    known = np.where(rng.random(240) < 0.25, labels, guessed)
    canary = judge_chance("noise", labels, known, clusters, **options)
    assert canary.verdict == "fail"
    assert canary.facts["p_value"] <= 0.001
    assert canary.facts["uar"] == pytest.approx(0.44, abs=0.08)


def test_what_canaries_say_is_said_in_korean_too():
    labels = np.repeat([0, 1], 40)
    said = [
        judge_chance("noise", labels, guess, None, is_within=False, n_labels=2).summary
        for guess in (labels, np.tile([0, 1], 40))
    ]
    said += [judge_invariance(*values, 9).summary for values in ((1e-5, 1e-5), (0.1, 0.5))]
    said.append(judge_invariance(None, 0.0, 9).summary)
    assert [language for _, language in load_phrases("ko").notes(said)] == [""] * 5


def test_invariance_has_a_tolerance_for_each_kind_of_difference():
    assert judge_invariance(1e-3, 1e-3, 9).verdict == "pass"
    assert judge_invariance(None, 1e-3, 9).verdict == "pass"
    assert judge_invariance(1e-2, 1e-3, 9).verdict == "fail"
    assert judge_invariance(1e-3, 0.1, 9).verdict == "fail"
