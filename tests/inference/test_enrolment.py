"""A voice heard before: the same probabilities from files, batches, timelines and streams."""

import json
from functools import partial

import numpy as np
import pytest
import soundfile

from fixtures.recognizers import LoudnessModel, enrolling_checkpoint, mfcc_checkpoint, speech
from koser.audio.reading import Clip
from koser.errors import ConfigError, NoSpeechError
from koser.inference.enrolment import EnrolSource
from koser.inference.explanation import explain
from koser.inference.models import load_model
from koser.inference.recognizer import Recognizer
from koser.inference.segments import TimelineOptions
from koser.inference.stream import EmotionStream
from koser.inference.timeline import make_timeline

RATE = 16_000


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("enrolling") / "best_model_mfcc.pth"
    enrolling_checkpoint().write(path)
    return path


@pytest.fixture(scope="module")
def recognizer(model_file):
    return Recognizer(load_model(model_file))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Six utterances of one person, as files, and the same as waveforms."""
    folder = tmp_path_factory.mktemp("voice")
    waveforms = np.array_split(speech(12, silence=0, seed=3), 6)
    paths = [folder / f"{number}.wav" for number in range(6)]
    for path, waveform in zip(paths, waveforms, strict=True):
        soundfile.write(path, waveform, RATE, "FLOAT")
    return paths, waveforms


def test_files_arrays_and_batches_of_an_enrolled_voice_are_recognised_alike(recognizer, files):
    paths, waveforms = files
    known = recognizer.enrol(paths[:2])
    again = recognizer.enrol([waveforms[0]]).enrol([waveforms[1]])
    assert known.voice.n_utterances == again.voice.n_utterances == 2
    np.testing.assert_array_equal(known.voice.offset, again.voice.offset)
    batch = known.predict_waveforms(waveforms)
    alone = np.concatenate([known.predict_waveforms([each]) for each in waveforms])
    np.testing.assert_allclose(alone, batch, atol=1e-6)
    from_files = known.predict_files(paths)
    from_clips = list(known.iter_clips([Clip(str(path)) for path in paths]))
    for row, one, other in zip(batch, from_files, from_clips, strict=True):
        np.testing.assert_allclose(list(one.probabilities.values()), row, atol=1e-6)
        assert one == other
    # Who was not heard is recognised as before, by the same model.
    unknown = recognizer.predict_waveforms(waveforms)
    assert np.abs(unknown - batch).max() > 0.01
    assert recognizer.voice is None


def test_threshold_and_labels_leave_the_voice(recognizer, files):
    known = recognizer.enrol(files[1][:2])
    chosen = known.configured(threshold=0.4, labels=["angry", "calm"])
    assert chosen.voice is known.voice
    whole, part = (each.predict_waveforms(files[1]) for each in (known, chosen))
    expected = whole[:, [0, 2]] / whole[:, [0, 2]].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(part, expected, atol=1e-6)


def test_models_without_enrolment_refuse_it_in_one_line(files, tmp_path):
    mfcc_checkpoint().write(tmp_path / "plain.pth")
    options = TimelineOptions(enrol_first=5)
    for model in (LoudnessModel(), load_model(tmp_path / "plain.pth")):
        plain = Recognizer(model)
        for attempt in (
            partial(plain.enrol, files[0]),
            partial(make_timeline, plain, files[0][0], options),
            partial(EmotionStream, plain, options),
        ):
            with pytest.raises(ConfigError, match="does not adapt to a speaker") as refusal:
                attempt()
            assert "\n" not in str(refusal.value)


def test_a_timeline_of_a_known_voice_is_the_streams(recognizer, files):
    known, sound = recognizer.enrol(files[0][:3]), speech(20, seed=4)
    timeline = make_timeline(known, [sound])
    assert timeline.enrolled_from == 0.0
    stream = EmotionStream(known)
    results = [each for piece in np.split(sound, 20) for each in stream.feed(piece)]
    finals = [each.segment for each in results + stream.finish() if each.is_final]
    assert_same_segments(finals, timeline.segments)
    plain = make_timeline(recognizer, [sound])
    assert plain.enrolled_from is None
    assert "enrolled_from" not in plain.to_dict()
    assert curve(plain) != curve(timeline)


@pytest.mark.parametrize("n_samples", [1_600, 7_777, 64_000])
def test_the_first_speech_enrols_whatever_the_pieces(recognizer, n_samples):
    sound, options = speech(40, seed=5), TimelineOptions(enrol_first=6)
    timeline = make_timeline(recognizer, [sound], options)
    stream, finals, enrolled = EmotionStream(recognizer, options), [], []
    for first in range(0, len(sound), n_samples):
        finals += [e.segment for e in stream.feed(sound[first : first + n_samples]) if e.is_final]
        enrolled.append(stream.enrolled_from)
    finals += [each.segment for each in stream.finish()]
    assert_same_segments(finals, timeline.segments)
    assert enrolled[0] is None
    assert enrolled[-1] == timeline.enrolled_from
    assert 6 <= timeline.enrolled_from < 40


def test_what_was_said_before_stays_and_what_follows_is_of_the_voice(recognizer):
    """An oracle: the same windows, cut out and recognised by hand."""
    sound, options = speech(40, silence=0, seed=6), TimelineOptions(enrol_first=6)
    timeline = make_timeline(recognizer, [sound], options)
    plain = make_timeline(recognizer, [sound])
    assert timeline.speech == plain.speech
    heard, missing, end = [], 6.0, 0.0
    for start, stop in timeline.speech:
        while missing > 0 and end < stop:
            start = max(start, end)
            if stop - start < 4 and heard and end > timeline.speech[0][0] and start == end:
                break  # the rest of a region overlaps what was heard
            end = min(start + 4.0, stop)
            heard.append(sound[round(start * RATE) : round(end * RATE)])
            missing -= end - start
    assert timeline.enrolled_from == pytest.approx(end)
    known = make_timeline(recognizer.enrol(heard), [sound])
    window = options.window
    before = [cell for cell in timeline.cells if cell.end <= timeline.enrolled_from - window]
    after = [cell for cell in timeline.cells if cell.start >= timeline.enrolled_from + window]
    assert before
    assert len(after) > 10
    for cells, expected in ((before, plain.cells), (after, known.cells)):
        of_start = {cell.start: cell for cell in expected}
        for cell in cells:
            np.testing.assert_allclose(
                list(cell.probabilities.values()),
                list(of_start[cell.start].probabilities.values()),
                atol=1e-5,
            )


def test_too_little_speech_enrols_nobody(recognizer):
    sound = speech(6, seed=7)
    timeline = make_timeline(recognizer, [sound], TimelineOptions(enrol_first=60))
    assert timeline.enrolled_from is None
    assert curve(timeline) == curve(make_timeline(recognizer, [sound]))


def test_enrol_names_files_folders_or_the_first_speech(files, tmp_path):
    paths = [str(path) for path in files[0]]
    folder = str(files[0][0].parent)
    assert EnrolSource.parse(paths, is_timeline=False).paths == tuple(paths)
    assert EnrolSource.parse([folder], is_timeline=True).paths == tuple(sorted(paths))
    assert EnrolSource.parse(["first:20"], is_timeline=True) == EnrolSource(first=20.0)
    assert EnrolSource.parse([], is_timeline=False) == EnrolSource()
    for given, is_timeline in ((["first:20"], False), (["first:20", paths[0]], True)):
        with pytest.raises(ConfigError, match="is for koser predict --timeline"):
            EnrolSource.parse(given, is_timeline=is_timeline)
    with pytest.raises(ConfigError, match="no sound is in this folder"):
        EnrolSource.parse([str(tmp_path)], is_timeline=False)
    for wrong in ("first:", "first:-1", "first:inf", "first:nan"):
        with pytest.raises(ConfigError, match="as in first:20"):
            EnrolSource.parse([wrong], is_timeline=True)


def test_the_command_adapts_to_the_files_it_is_given(koser, model_file, recognizer, files):
    paths = [str(path) for path in files[0]]
    enrol = [part for path in paths[:2] for part in ("--enrol", path)]
    status, out, _ = koser("predict", str(model_file), *paths[2:], *enrol, "--format", "json")
    assert status == 0
    expected = recognizer.enrol(paths[:2]).predict_files(paths[2:])
    values = build_json(out)
    assert [each["label"] for each in values] == [each.label for each in expected]
    for value, each in zip(values, expected, strict=True):
        assert value["probabilities"] == pytest.approx(dict(each.probabilities), abs=1e-6)
    status, _, error = koser("predict", str(model_file), paths[0], "--enrol", "first:3")
    assert status == 1
    assert "is for koser predict --timeline" in error
    status, _, error = koser("predict", str(model_file), paths[0], "--enrol", "nothing.wav")
    assert status == 1
    assert "nothing.wav" in error


@pytest.mark.parametrize("n_samples", [1, 2 * RATE])
def test_where_nobody_speaks_there_is_no_voice(koser, recognizer, model_file, files, n_samples):
    silence = np.zeros(n_samples, np.float32)
    path = files[0][0].parent.parent / f"silence-{n_samples}.wav"
    soundfile.write(path, silence, RATE, "FLOAT")
    for sound, name in ((silence, "the sound"), (path, str(path))):
        with pytest.raises(NoSpeechError, match="No speech is heard in") as refusal:
            recognizer.enrol([files[0][0], sound])
        assert name in str(refusal.value)
        assert "\n" not in str(refusal.value)
    status, out, error = koser("predict", str(model_file), str(files[0][0]), "--enrol", str(path))
    assert (status, out) == (1, "")
    assert f"No speech is heard in '{path}'" in error


def test_what_an_enrolled_prediction_rests_on_is_explained(koser, recognizer, model_file, files):
    paths = [str(path) for path in files[0]]
    command = ("explain", str(model_file), paths[2], "--format", "json", "--enrol")
    status, out, error = koser(*command, paths[0])
    assert (status, error) == (0, "")
    found, expected = json.loads(out), explain(recognizer.enrol(paths[:1]), paths[2])
    assert found["probabilities"] == pytest.approx(
        dict(expected.prediction.probabilities), abs=1e-6
    )
    evidence = [cell.evidence for cell in expected.cells]
    assert [cell["evidence"] for cell in found["cells"]] == pytest.approx(evidence, abs=1e-4)
    status, _, error = koser(*command, "first:3")
    assert status == 1
    assert "is for koser predict --timeline" in error


def test_the_files_of_a_folder_in_which_somebody_speaks_are_heard(
    koser, recognizer, model_file, files, tmp_path
):
    paths, waveforms = files
    for number in range(2):
        soundfile.write(tmp_path / f"silence{number}.wav", np.zeros(RATE), RATE)
    status, _, error = koser("predict", str(model_file), str(paths[0]), "--enrol", str(tmp_path))
    assert status == 1
    assert "No speech is heard in any of 2 files" in error
    soundfile.write(tmp_path / "speech.wav", waveforms[1], RATE, "FLOAT")
    command = ("predict", str(model_file), str(paths[0]), "--enrol", str(tmp_path))
    status, out, error = koser(*command, "--format", "json")
    assert status == 0
    left_out = [str(tmp_path / f"silence{number}.wav") for number in range(2)]
    named = ", ".join(left_out)
    assert error == f"Note: without speech and left out: 2 of 3 files to enrol by ({named})\n"
    (value,) = build_json(out)
    expected = recognizer.enrol(paths[1:2]).predict_file(paths[0])
    assert value["probabilities"] == pytest.approx(dict(expected.probabilities), abs=1e-6)
    # What was named is meant: it is not left out because its folder was named too.
    status, _, error = koser(*command, "--enrol", left_out[0])
    assert status == 1
    assert left_out[0] in error


def test_a_file_that_is_heard_and_recognised_too_is_told(koser, model_file, files, monkeypatch):
    paths = [str(path) for path in files[0]]
    folder = files[0][0].parent
    for enrol, told in ((paths[0], paths[:1]), (str(folder), paths[:2]), (paths[2], [])):
        status, _, error = koser("predict", str(model_file), *paths[:2], "--enrol", enrol)
        assert status == 0
        note = "Note: heard for the voice and recognised too, so adapted to itself: "
        assert error == (f"{note}{', '.join(told)}\n" if told else "")
    monkeypatch.chdir(folder)
    _, _, error = koser("predict", str(model_file), "0.wav", "--enrol", paths[0])
    assert error == f"{note}0.wav\n"


def build_json(text):
    return [json.loads(line) for line in text.splitlines()] if text[0] == "{" else json.loads(text)


def curve(timeline):
    return [tuple(cell.probabilities.values()) for cell in timeline.cells]


def assert_same_segments(found, expected):
    assert [(each.start, each.end, each.label) for each in found] == [
        (each.start, each.end, each.label) for each in expected
    ]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            list(one.probabilities.values()), list(other.probabilities.values()), atol=1e-5
        )
