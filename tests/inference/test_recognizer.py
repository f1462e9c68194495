import csv
import io
import json
import subprocess
import sys
from itertools import chain

import numpy as np
import polars as pl
import pytest
import soundfile

import koser
from fixtures.recognizers import LoudnessModel, mfcc_checkpoint, speech
from koser.audio.reading import Clip, load
from koser.config import resolve_config
from koser.errors import AudioError, CheckpointError, ConfigError, LabelError
from koser.inference.output import find_clips, iter_lines, write_parquet
from koser.inference.prediction import Failure, Prediction
from koser.inference.recognizer import Recognizer, load_recognizer
from koser.systems.mfcc import MfccConfig, MfccSystem

LABELS = ("angry", "neutral", "calm")


@pytest.fixture
def model(tmp_path):
    """A run folder with an untrained network: what matters here is what surrounds it."""
    config = resolve_config(MfccConfig, overrides=["cnn.channels=[4, 6]", "cnn.hidden_size=8"])
    system = MfccSystem(LABELS, config)
    (tmp_path / "run").mkdir()
    system.to_checkpoint({"split": "none"}).write(tmp_path / "run" / "best_model_mfcc.pth")
    return tmp_path / "run"


@pytest.fixture
def files(tmp_path, write_wav):
    rng = np.random.default_rng(0)
    paths = [
        write_wav(tmp_path / "in" / f"{i:02d}.wav", seconds=s, pitch=100 + 30 * i)
        for i, s in enumerate(rng.uniform(0.02, 0.6, size=20))
    ]
    bad = tmp_path / "in" / "07_bad.wav"
    bad.write_bytes(b"not audio at all")
    return sorted([*paths, bad])


def close(one: Prediction, other: Prediction) -> bool:
    return all(
        one.probabilities[label] == pytest.approx(other.probabilities[label], abs=1e-5)
        for label in LABELS
    )


def test_file_array_folder_and_batch_give_the_same_probabilities(model, files):
    recognizer = load_recognizer(model)
    good = [path for path in files if "bad" not in path.name]
    together = recognizer.predict_files(good)
    folder = [
        each for each in recognizer.predict_folder(good[0].parent) if isinstance(each, Prediction)
    ]
    for path, batched, found in zip(good, together, folder, strict=True):
        alone = recognizer.predict_file(path)
        array = recognizer.predict_array(load(path), 16_000)
        assert alone.path == batched.path == found.path == str(path)
        assert close(alone, batched)
        assert close(alone, found)
        assert close(alone, array)
        assert sum(alone.probabilities.values()) == pytest.approx(1)
        assert alone.confidence == max(alone.probabilities.values())
        assert tuple(alone.probabilities) == LABELS


def test_a_run_folder_and_its_checkpoint_are_the_same_model(model, files):
    checkpoint = model / "best_model_mfcc.pth"
    assert close(
        load_recognizer(model).predict_file(files[0]),
        koser.load_recognizer(str(checkpoint)).predict_file(files[0]),
    )


def test_a_stereo_array_at_another_rate_is_mixed_and_resampled(model, tmp_path):
    times = np.arange(24_000) / 48_000
    stereo = np.stack([np.sin(2 * np.pi * 300 * times), np.zeros_like(times)], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, 48_000, subtype="FLOAT")
    recognizer = load_recognizer(model)
    array = recognizer.predict_array(stereo, 48_000)
    assert close(array, recognizer.predict_file(tmp_path / "stereo.wav"))
    assert array.duration == pytest.approx(0.5)


def test_a_bad_file_takes_its_place_and_stops_nothing(model, files):
    results = load_recognizer(model).predict_files(files)
    assert [result.path for result in results] == [str(path) for path in files]
    failures = [result for result in results if isinstance(result, Failure)]
    assert len(failures) == 1
    assert "07_bad.wav" in failures[0].error


def test_segments_that_fail_can_be_told_from_each_other(model, tmp_path):
    """Each has the place and the length that was asked for, as those that are recognised have."""
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000).astype(np.float32)
    sound[[20_000, 40_000]] = np.nan
    soundfile.write(tmp_path / "call.wav", sound, 16_000, subtype="FLOAT")
    call = str(tmp_path / "call.wav")
    asked = [(0.0, 0.4), (1.2, 1.5), (2.4, 2.7), (2.8, None), (None, None)]
    clips = [Clip(call, start, end) for start, end in asked]
    results = list(load_recognizer(model).iter_clips(clips))
    assert [isinstance(each, Failure) for each in results] == [False, True, True, False, True]
    texts = {format: "\n".join(iter_lines(results, format, LABELS)) for format in ("json", "csv")}
    places = [(0.0, 0.4), (1.2, 0.3), (2.4, 0.3), (2.8, 0.2), (None, None)]
    written = [(row["start"], row["duration"]) for row in json.loads(texts["json"])]
    assert written == places
    rows = csv.DictReader(texts["csv"].splitlines())
    written = [tuple(float(row[name] or "nan") for name in ("start", "duration")) for row in rows]
    np.testing.assert_array_equal(written, np.array(places, float))


def test_results_come_as_they_are_ready(model, files):
    """The first result is there when two batches have been read: one ahead of the other."""
    opened = []

    def clips():
        for path in files * 3:
            opened.append(path)
            yield Clip(str(path))

    next(load_recognizer(model).iter_clips(clips()))
    assert len(opened) == 32


def test_long_files_do_not_pad_short_ones(model, monkeypatch):
    recognizer = load_recognizer(model)
    shapes = []

    def spy(waveforms):
        shapes.append([len(waveform) for waveform in waveforms])
        return np.full((len(waveforms), 3), 1 / 3)

    monkeypatch.setattr(recognizer._model, "predict_waveforms", spy)
    lengths = [16_000 * seconds for seconds in (1, 300, 2, 1, 100, 40, 50)]
    recognizer.predict_waveforms([np.zeros(length, np.float32) for length in lengths])
    assert sorted(chain.from_iterable(shapes)) == sorted(lengths)
    assert any(len(shape) > 1 for shape in shapes)
    for shape in shapes:
        assert len(shape) == 1 or len(shape) * max(shape) <= 120 * 16_000


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros(0), "holds no sound"),
        (np.zeros((2, 2, 2)), "holds no sound"),
        (np.array([0.0, np.nan]), "NaN or infinite"),
        (np.array([0.0, 3e38]), "absurdly large"),
    ],
)
def test_impossible_arrays_are_refused(model, waveform, message):
    with pytest.raises(AudioError, match=message):
        load_recognizer(model).predict_array(waveform, 16_000)


def test_silence_is_legal(model):
    prediction = load_recognizer(model).predict_array(np.zeros(16_000), 16_000)
    assert np.isfinite(list(prediction.probabilities.values())).all()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"best_model_\*\.pth"):
        load_recognizer(tmp_path)


def results_for_output():
    return [
        Prediction("angry", {"angry": 0.7, "neutral": 0.3}, 1.5, path='한글, "a".wav'),
        Failure("b.wav", "b.wav is empty"),
        Prediction("neutral", {"angry": 0.4, "neutral": 0.6}, 2.0, path="c.wav", start=3.0),
    ]


def test_json_is_one_array_with_korean_readable():
    text = "\n".join(iter_lines(results_for_output(), "json", ("angry", "neutral")))
    assert "한글" in text
    values = json.loads(text)
    assert values[0]["probabilities"] == {"angry": 0.7, "neutral": 0.3}
    assert values[1] == {
        "path": "b.wav",
        "start": None,
        "duration": None,
        "error": "b.wav is empty",
    }
    assert values[2]["start"] == 3.0
    assert json.loads("\n".join(iter_lines([], "json", ("angry",)))) == []


def test_csv_has_one_row_per_file_with_every_probability():
    lines = list(iter_lines(results_for_output(), "csv", ("angry", "neutral")))
    rows = list(csv.DictReader(lines))
    assert [row["path"] for row in rows] == ['한글, "a".wav', "b.wav", "c.wav"]
    assert [row["error"] for row in rows] == ["", "b.wav is empty", ""]
    assert float(rows[0]["angry"]) == 0.7
    assert rows[1]["label"] == ""


def test_a_table_shows_predictions_and_leaves_failures_to_standard_error():
    lines = list(iter_lines(results_for_output(), "table", ("angry", "neutral")))
    assert len(lines) == 3
    assert "0.700" in lines[1]
    assert lines[2].endswith("c.wav from 3.00 s")


def test_an_unknown_format_is_refused():
    with pytest.raises(ConfigError, match="Formats: table, json, csv"):
        list(iter_lines([], "xml", LABELS))


def test_a_folder_without_audio_is_named_and_stops_nothing(model, tmp_path, files):
    (tmp_path / "empty").mkdir()
    clips = find_clips([tmp_path / "empty", files[0]], None)
    failure, prediction = load_recognizer(model).iter_clips(clips)
    assert "empty' is a folder" in failure.error
    assert prediction.path == str(files[0])


def test_what_to_recognise_is_named_or_refused(files):
    clips = find_clips([files[3], files[0].parent], None)
    assert [clip.path for clip in clips] == [str(files[3]), *map(str, files)]
    with pytest.raises(ConfigError, match="Nothing to recognise"):
        find_clips([], None)


def test_the_names_of_the_package_are_loaded_when_they_are_used():
    code = (
        "import koser, sys; assert 'numpy' not in sys.modules; koser.load_recognizer; "
        "assert 'numpy' in sys.modules; print(koser.__version__)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip()[0].isdigit()
    assert all(getattr(koser, name) is not None for name in koser.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        koser.nonsense  # noqa: B018


def test_probabilities_are_calibrated_by_the_checkpoints_temperature(tmp_path, files):
    probabilities = {}
    for temperature in (1.0, 2.5):
        mfcc_checkpoint(temperature=temperature).write(tmp_path / "a.pth")
        prediction = load_recognizer(tmp_path / "a.pth").predict_file(files[0])
        probabilities[temperature] = np.array(list(prediction.probabilities.values()))
    logits = np.log(probabilities[1.0])
    expected = np.exp(logits / 2.5) / np.exp(logits / 2.5).sum()
    np.testing.assert_allclose(probabilities[2.5], expected, atol=1e-6)
    assert np.abs(probabilities[2.5] - probabilities[1.0]).max() > 0.01


def test_below_the_threshold_it_abstains_and_says_what_it_would_have_said():
    sounds = [speech(2, seed=seed) for seed in range(20)]
    sure = Recognizer(LoudnessModel())
    unsure = sure.configured(threshold=0.5)
    answers = [(sure.predict_array(x, 16_000), unsure.predict_array(x, 16_000)) for x in sounds]
    assert {other.label is None for _, other in answers} == {True, False}
    for one, other in answers:
        assert one.label == one.best == other.best
        assert one.probabilities == other.probabilities
        assert other.label == (one.label if one.confidence >= 0.5 else None)
        assert (one.threshold, other.threshold) == (0.0, 0.5)


def test_a_subset_of_labels_is_brought_to_one_and_says_so():
    sound = speech(2)
    whole = Recognizer(LoudnessModel()).predict_array(sound, 16_000)
    subset = Recognizer(LoudnessModel(), labels=["calm", "angry"])
    assert subset.labels == ("angry", "calm")  # the model's order
    part = subset.predict_array(sound, 16_000)
    share = whole.probabilities["angry"] + whole.probabilities["calm"]
    assert (part.share, whole.share) == (pytest.approx(share), 1.0)
    for label in subset.labels:
        assert part.probabilities[label] == pytest.approx(whole.probabilities[label] / share)


def test_a_subset_that_the_model_rules_out_is_even():
    class Certain(LoudnessModel):
        def predict_waveforms(self, waveforms):
            return np.tile([0.0, 1.0, 0.0], (len(waveforms), 1))

    prediction = Recognizer(Certain(), labels=["angry", "calm"]).predict_array(speech(1), 16_000)
    assert prediction.probabilities == {"angry": 0.5, "calm": 0.5}
    assert prediction.share == 0.0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": ["angry", "joy"]}, LabelError, "does not know 'joy'. It knows: angry, neutral"),
        ({"labels": ["angry"]}, ConfigError, "give two or more"),
        ({"labels": ["angry", "angry", "calm"]}, ConfigError, "each once"),
        ({"threshold": 1.5}, ConfigError, "between 0 and 1"),
        ({"threshold": float("nan")}, ConfigError, "between 0 and 1"),
    ],
)
def test_impossible_choices_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        Recognizer(LoudnessModel(), **options)


def test_a_parquet_table_has_the_columns_of_the_csv(tmp_path):
    write_parquet(results_for_output(), ("angry", "neutral"), tmp_path / "a.parquet")
    table = pl.read_parquet(tmp_path / "a.parquet")
    lines = iter_lines(results_for_output(), "csv", ("angry", "neutral"))
    expected = pl.read_csv(io.StringIO("\n".join(lines)), schema=table.schema)
    assert table.equals(expected)
    assert table["angry"].to_list() == [0.7, None, 0.4]
