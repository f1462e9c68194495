from __future__ import annotations

import csv
import hashlib
import itertools
import runpy
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import stft
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from koser.demo import TABLE_NAME, corpus_folder
from koser.labels import EMOTIONS

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_demo_corpus.py"
FOLDER = corpus_folder()


@pytest.fixture(scope="module")
def rows():
    with (FOLDER / TABLE_NAME).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def recordings(rows):
    return [soundfile.read(FOLDER / row["path"], dtype="float64")[0] for row in rows]


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


def column(rows, name):
    return np.array([row[name] for row in rows])


def recall_on_unheard_voices(features, rows):
    y_true = column(rows, "label")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    y_pred = cross_val_predict(
        classifier, features, y_true, groups=column(rows, "speaker"), cv=LeaveOneGroupOut()
    )
    return recall_score(y_true, y_pred, average="macro")


def test_the_table_and_the_files_agree_one_to_one(rows):
    listed = [row["path"] for row in rows]
    assert sorted(listed) == sorted(path.name for path in FOLDER.glob("**/*.flac"))
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(row["path"] == f"{row['id']}.flac" for row in rows)


def test_the_folder_holds_nothing_else(rows):
    others = {path.name for path in FOLDER.iterdir()} - {row["path"] for row in rows}
    assert others == {TABLE_NAME, "README.md"}


def test_every_voice_says_every_text_under_every_label_exactly_once(rows):
    said = Counter((row["speaker"], row["label"], row["text"]) for row in rows)
    speakers, texts = {row["speaker"] for row in rows}, {row["text"] for row in rows}
    assert said == Counter(itertools.product(speakers, EMOTIONS, texts))
    assert len(speakers) >= 8
    assert len(texts) >= 4


def test_half_of_the_voices_are_female_and_half_male(rows):
    genders = Counter(gender for _, gender in {(row["speaker"], row["gender"]) for row in rows})
    assert genders["female"] == genders["male"] == len({row["speaker"] for row in rows}) / 2


def test_the_shipped_table_is_the_one_the_script_describes(rows, script):
    described = {
        (voice.name, voice.gender, text)
        for voice, text in itertools.product(script["VOICES"], script["SENTENCES"])
    }
    assert {(row["speaker"], row["gender"], row["text"]) for row in rows} == described
    assert tuple(rows[0]) == script["COLUMNS"]


def test_texts_are_composed_hangul_without_a_byte_order_mark(rows):
    assert not (FOLDER / TABLE_NAME).read_bytes().startswith(b"\xef\xbb\xbf")
    assert all(unicodedata.is_normalized("NFC", row["text"]) for row in rows)


def test_every_file_is_16_khz_mono_16_bit_flac(rows):
    infos = [soundfile.info(FOLDER / row["path"]) for row in rows]
    kinds = {(info.format, info.subtype, info.samplerate, info.channels) for info in infos}
    assert kinds == {("FLAC", "PCM_16", 16_000, 1)}


def test_every_utterance_is_short_audible_and_not_clipped(recordings):
    durations = [len(samples) / 16_000 for samples in recordings]
    assert min(durations) > 0.3
    assert max(durations) < 4
    peaks = [np.abs(samples).max() for samples in recordings]
    assert min(peaks) > 0.01
    assert max(peaks) < 0.95


def test_no_two_utterances_sound_identical(recordings):
    digests = {hashlib.sha256(samples.tobytes()).digest() for samples in recordings}
    assert len(digests) == len(recordings)


def test_the_corpus_is_under_6_mb():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6_000_000


def test_the_readme_says_in_both_languages_that_the_speech_is_synthetic():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "synthetic" in readme
    assert "합성" in readme
    assert "espeak-ng 1.51" in readme


def test_an_unheard_voice_is_understood_above_chance_but_not_perfectly_without_loudness(
    rows, recordings
):
    # Log spectrum of each utterance at unit RMS, in 32 bands: its mean and spread over time.
    features = []
    for samples in recordings:
        level = np.sqrt(np.mean(samples**2))
        spectrum = np.abs(stft(samples / level, fs=16_000, nperseg=512)[2][1:]) ** 2
        bands = np.log(spectrum.reshape(32, 8, -1).mean(axis=1) + 1e-8)
        features.append(np.concatenate([bands.mean(axis=1), bands.std(axis=1)]))
    # Chance is 1/7. The bounds leave room for another espeak-ng, not for a broken one.
    assert 0.45 < recall_on_unheard_voices(np.array(features), rows) < 0.85


def test_neither_loudness_nor_duration_gives_the_label_away(rows, recordings):
    levels = [[np.log(np.mean(samples**2))] for samples in recordings]
    durations = [[len(samples)] for samples in recordings]
    assert recall_on_unheard_voices(np.array(levels), rows) < 0.35
    assert recall_on_unheard_voices(np.array(durations), rows) < 0.35


def test_trimming_keeps_the_speech_and_a_short_margin_only(script):
    tone = np.sin(np.arange(16_000) / 5)
    silence = np.zeros(8_000)
    trimmed = script["trim"](np.concatenate([silence, tone, silence]))
    margin = round(script["MARGIN"] * 16_000)
    assert len(trimmed) == 16_000 + 2 * margin
    np.testing.assert_array_equal(trimmed[margin:-margin], tone)


def test_the_script_says_what_to_install_where_espeak_ng_is_missing(tmp_path):
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(tmp_path / "corpus")],
        env={"PATH": str(tmp_path), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "espeak-ng is not on the PATH" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "corpus").exists()
