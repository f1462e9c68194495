import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.recognizers import LoudnessModel, mfcc_checkpoint, speech
from koser.audio.reading import Clip
from koser.config import resolve_config
from koser.errors import AudioError, ConfigError
from koser.inference.explanation import ExplainOptions, explain
from koser.inference.recognizer import Recognizer, load_recognizer

RATE = 16_000


class Weighted:
    """Log-odds of the first of two labels are a weighted sum of the sound's mean square."""

    labels = ("angry", "neutral")
    origin = {}  # noqa: RUF012
    is_threaded = False
    is_on_gpu = False

    def __init__(self, weights):
        self.weights = np.asarray(weights, np.float64)  # of stretches of 0.1 s

    def predict_waveforms(self, waveforms):
        logits = [
            self.weights @ np.square(each.reshape(len(self.weights), -1)).mean(1)
            for each in waveforms
        ]
        first = 1 / (1 + np.exp(-np.array(logits)))
        return np.stack([first, 1 - first], axis=1)


class Words(Weighted):
    """The same, and each word adds what it is worth."""

    worth = {"화나": 2.0, "정말": 0.5, "좋아": -1.0}  # noqa: RUF012

    def transcribe(self, waveforms):
        return ["정말 화나 좋아 오늘"] * len(waveforms)

    def predict_spoken(self, waveforms, texts):
        odds = self.predict_waveforms(waveforms)[:, 0]
        logits = np.log(odds / (1 - odds))
        logits += [sum(self.worth.get(word, 0) for word in (text or "").split()) for text in texts]
        first = 1 / (1 + np.exp(-logits))
        return np.stack([first, 1 - first], axis=1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=4, max_size=12))
def test_of_an_additive_model_each_moment_gets_what_it_added(weights):
    # A constant sound, so that a stretch adds its weight; silenced one by one, without ramps.
    sound = np.ones(len(weights) * RATE // 10, np.float32)
    options = ExplainOptions(window=0.1, hop=0.1, ramp=0.0)
    found = explain(Recognizer(Weighted(weights)), sound, options)
    sign = 1 if found.prediction.best == "angry" else -1
    assert [cell.evidence for cell in found.cells] == pytest.approx(sign * np.array(weights))
    assert [cell.start for cell in found.cells] == pytest.approx(0.1 * np.arange(len(weights)))
    assert found.cells[-1].end == pytest.approx(len(sound) / RATE)
    # As they are printed: 0.3, not 0.30000000000000004.
    assert all(each == round(each, 6) for cell in found.cells for each in (cell.start, cell.end))


def test_overlapping_stretches_are_averaged_over_the_moments_they_hold():
    weights = np.zeros(20)
    weights[8] = 3.0
    sound = np.ones(2 * RATE, np.float32)
    found = explain(
        Recognizer(Weighted(weights)), sound, ExplainOptions(window=0.3, hop=0.1, ramp=0.0)
    )
    # 0.8 s is in all three stretches that hold it, its neighbours' in two and one of theirs.
    expected = np.zeros(20)
    expected[6:11] = [1, 2, 3, 2, 1]
    assert [cell.evidence for cell in found.cells] == pytest.approx(expected)


def test_each_word_gets_what_it_added_while_the_sound_keeps_its_words():
    found = explain(Recognizer(Words([0.5] * 10)), np.ones(RATE, np.float32))
    assert found.prediction.best == "angry"
    assert [word.text for word in found.words] == ["정말", "화나", "좋아", "오늘"]
    assert [word.evidence for word in found.words] == pytest.approx([0.5, 2.0, -1.0, 0.0])
    silent = explain(Recognizer(Weighted([0.5] * 10)), np.ones(RATE, np.float32))
    assert [cell.evidence for cell in found.cells] == pytest.approx(
        [cell.evidence for cell in silent.cells]
    )


def test_the_evidence_is_for_the_label_that_was_recognised_among_those_allowed():
    model = LoudnessModel()
    sound = 0.5 * speech(2.0)
    whole = Recognizer(model).predict_array(sound, RATE)
    found = explain(Recognizer(model), sound)
    assert found.prediction.probabilities == pytest.approx(whole.probabilities)
    kept = Recognizer(model, labels=["neutral", "calm"])
    assert explain(kept, sound).prediction.best in ("neutral", "calm")


def test_what_it_points_at_matters_more_to_a_network_than_other_moments(tmp_path):
    mfcc_checkpoint().write(tmp_path / "best_model_mfcc.pth")
    recognizer = load_recognizer(tmp_path / "best_model_mfcc.pth")
    sound = speech(3.0, silence=0.1, seed=3)
    found = explain(recognizer, sound, ExplainOptions(window=0.2, hop=0.1))
    best = recognizer.labels.index(found.prediction.best)
    order = np.argsort([-cell.evidence for cell in found.cells])

    def without(cells):
        changed = sound.copy()
        for place in cells:
            cell = found.cells[place]
            changed[round(cell.start * RATE) : round(cell.end * RATE)] = 0
        return recognizer.predict_waveforms([changed])[0, best]

    assert without(order[:5]) < without(order[-5:])


def test_a_file_and_its_samples_are_explained_alike(tmp_path):
    sound = speech(1.5)
    soundfile.write(tmp_path / "a.wav", sound, RATE, "FLOAT")
    recognizer = Recognizer(LoudnessModel())
    of_file, of_array = explain(recognizer, tmp_path / "a.wav"), explain(recognizer, sound)
    assert of_file.cells == of_array.cells
    assert of_file.prediction.path == str(tmp_path / "a.wav")
    part = explain(recognizer, Clip(str(tmp_path / "a.wav"), 0.5, 1.0))
    assert part.cells == explain(recognizer, sound[8000:16000]).cells
    assert part.prediction.start == 0.5
    assert set(of_file.to_dict()) == {*of_file.prediction.to_dict(), "cells", "words"}


@pytest.mark.parametrize("n_samples", [1, 700, 1601])
def test_the_shortest_sounds_are_explained_to_their_end(n_samples):
    found = explain(Recognizer(LoudnessModel()), np.full(n_samples, 0.1, np.float32))
    assert found.cells[0].start == 0
    assert found.cells[-1].end == pytest.approx(n_samples / RATE)
    assert np.isfinite([cell.evidence for cell in found.cells]).all()


def test_few_variants_are_in_memory_at_once():
    model = LoudnessModel()
    sizes = []
    predict = model.predict_waveforms

    def counted(waveforms):
        sizes.append(len(waveforms))
        return predict(waveforms)

    model.predict_waveforms = counted
    explain(Recognizer(model), speech(12.0))
    assert max(sizes) <= 16
    assert sum(sizes) > 120


def test_the_sound_given_at_once_is_bounded_and_whoever_waits_can_stop():
    class Enough(Exception):  # noqa: N818  # no error
        pass

    model = LoudnessModel()
    done = []

    def stop(n_done):
        done.append((n_done, len(model.n_seconds)))
        if n_done >= 9:
            raise Enough

    with pytest.raises(Enough):
        explain(Recognizer(model), speech(5.0), batch_seconds=16.0, progress=stop)
    # The clip itself, then three variants of 5 s at a time.
    assert done == [(3, 4), (6, 7), (9, 10)]
    lonely = LoudnessModel()
    sound = speech(1.0)
    found = explain(Recognizer(lonely), sound, batch_seconds=0.5)
    assert found == explain(Recognizer(LoudnessModel()), sound)


def test_of_a_subset_of_labels_the_share_is_told():
    sound = 0.1 * speech(2.0)
    kept = Recognizer(LoudnessModel(), labels=["angry", "calm"])
    expected = kept.predict_array(sound, RATE)
    assert 0.1 < expected.share < 0.95
    assert explain(kept, sound).prediction == expected


@pytest.mark.parametrize("seconds", [0, 31])
def test_what_is_too_long_or_empty_is_refused(seconds):
    with pytest.raises(AudioError, match=r"up to 30 s are explained"):
        explain(Recognizer(LoudnessModel()), np.zeros(seconds * RATE, np.float32))


def test_a_file_of_hours_is_refused_before_it_is_read(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.zeros(40 * 8000, np.int16), 8000)
    model = LoudnessModel()
    with pytest.raises(AudioError, match=r"long.wav' lasts 40.0 s; up to 30 s"):
        explain(Recognizer(model), tmp_path / "long.wav")
    assert model.n_seconds == []


def test_a_hop_beyond_the_window_is_refused():
    with pytest.raises(ConfigError, match="exceeds window"):
        resolve_config(ExplainOptions, overrides=["hop=1"])
