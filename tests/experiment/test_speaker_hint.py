from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import soundfile

from fixtures.audits import clean_rows
from fixtures.manifests import manifest
from fixtures.speech import SAMPLING_RATE, invent_speech
from koser.data.audit.sharing import Audited
from koser.data.splits import SplitOptions, make_split
from koser.experiment.audit import AuditOptions, run_audit
from koser.experiment.speaker_hint import Likeness, _judge, check_voices, compare_groups
from koser.reporting.language import load_phrases


def embeddings(n_groups, n_each, *, same=(), spread=1.0, seed=0):
    """Voices of width 64 as points of their own, utterances around them."""
    rng = np.random.default_rng(seed)
    voices = rng.normal(size=(n_groups, 64))
    for first, second in same:
        voices[second] = voices[first]
    groups = np.repeat(np.arange(n_groups), n_each)
    return voices[groups] + spread * rng.normal(size=(len(groups), 64)), groups


def names(n):
    return tuple(f"g{number}" for number in range(n))


def test_two_names_of_one_voice_are_suspects_and_nobody_else_is():
    likeness = compare_groups(*embeddings(12, 20, same=[(3, 8)]), names(12))
    assert likeness.suspects() == [(3, 8)]
    assert likeness.across[3, 8] == pytest.approx(likeness.within[3], abs=0.1)


def test_an_encoder_that_hears_no_voices_cannot_tell(rows):
    values = np.random.default_rng(0).normal(size=(200, 64))
    likeness = compare_groups(values, np.repeat(np.arange(10), 20), names(10))
    assert likeness.recognised < 0.5
    check = _judge(Audited(manifest(rows), None), likeness, "speaker", "x/enc")
    assert (check.verdict, check.finding) == ("not_run", "cannot_tell")
    ((_, language),) = load_phrases("ko").notes([check.summary])
    assert language == ""


@pytest.mark.parametrize("seed", range(10))
def test_different_voices_are_no_suspects(seed):
    likeness = compare_groups(*embeddings(20, 12, seed=seed), names(20))
    assert likeness.suspects() == []


def test_only_groups_that_are_nearest_to_each_other_are_suspects():
    across = np.full((4, 4), 0.1)
    across[0, 1] = across[1, 0] = 0.8  # the nearest of the first, but not of the second
    across[1, 2] = across[2, 1] = 0.9
    np.fill_diagonal(across, np.nan)
    assert Likeness(names(4), np.full(4, 0.5), across).suspects() == [(1, 2)]
    assert Likeness(names(4), np.full(4, 0.95), across).suspects() == []


def test_how_loud_a_value_is_does_not_count():
    values, groups = embeddings(8, 20, same=[(0, 1)])
    plain = compare_groups(values, groups, names(8))
    scaled = compare_groups(values * np.geomspace(1e-3, 1e3, 64) + 7, groups, names(8))
    assert np.allclose(plain.across, scaled.across, equal_nan=True)


@pytest.fixture
def rows(tmp_path):
    """Six names of eight utterances each, cut from one recording: the last is the first one's."""
    rows, times = clean_rows(n_speakers=6, n_each=8), np.arange(64_000) / SAMPLING_RATE
    # a random encoder hears little: a hum is what tells these voices apart
    voices = [
        0.3 * invent_speech(name, seconds=4)
        + 0.3 * np.sin(2 * np.pi * 150 * (1 + 2 * name) * times)
        for name in range(5)
    ]
    for number, row in enumerate(rows):
        speech = voices[number // 8 % 5]
        start = 3_200 * (number % 8)  # whole hops of the encoder
        row["path"], row["duration"] = str(tmp_path / f"{row['id']}.wav"), 1.5
        soundfile.write(row["path"], speech[start : start + 24_000], SAMPLING_RATE)
    return rows


def test_a_person_under_two_names_is_hinted_at_from_sound_to_verdict(
    rows, encoder_folder, tmp_path
):
    made = manifest(rows)
    split = make_split(made, "leave_one_speaker_out", SplitOptions(val_fraction=0.0))
    options = AuditOptions(tmp_path / "store", encoder=str(encoder_folder("wav2vec2")))
    audit = run_audit(made, split, options)
    (check,) = (each for each in audit.checks if each.name == "same_person")
    assert (check.verdict, check.finding) == ("warn", "alike")
    assert check.evidence.rows[0][:2] == ("s00", "s05")
    assert check.summary.startswith("A hint:")
    assert audit.about["encoder"] == str(encoder_folder("wav2vec2"))


def test_names_on_one_side_of_the_split_are_no_concern(rows, encoder_folder, tmp_path):
    made = manifest(rows)
    split = make_split(made, "speaker", SplitOptions(val_fraction=0.0))
    apart = pl.col("id").str.starts_with("s02")
    table = split.table.with_columns(
        part=pl.when(apart).then(pl.lit("test")).otherwise(pl.lit("train"))
    )
    audited = Audited(made, replace(split, table=table))
    check = check_voices(audited, str(encoder_folder("wav2vec2")), store_root=tmp_path / "store")
    assert (check.verdict, check.finding) == ("pass", "unlike")


def test_too_few_utterances_are_not_compared(rows, encoder_folder, tmp_path):
    made = manifest(rows[:20])
    check = check_voices(
        Audited(made, None), str(encoder_folder("wav2vec2")), store_root=tmp_path / "store"
    )
    assert (check.verdict, check.finding) == ("not_run", "too_few")
