import json

import pytest

from fixtures.sound import left_out, n_accounted, notes, rows_of, write_sound
from koser.data.corpora.aihub58 import prepare
from koser.errors import ConfigError, CorpusError, LabelError

RATE = 25.0


def person(number, script, first, last, emotion, *, frame=None, **values):
    judgement = {"emotion": emotion, **values}
    return {
        "frame": str(frame if frame is not None else first),
        "person_id": number,
        "xtl": "1",
        "text": {"script": script, "script_start": first, "script_end": last, "intent": "진술"},
        "emotion": {
            "image": {"emotion": "neutral"},
            "sound": {"emotion": "anger", **values},
            "text": {"emotion": "sadness"},
            "multimodal": judgement,
        },
    }


def clip(number, frames):
    return {"clip_id": str(number), "data": frames}


def frames_of(*utterances):
    """Every frame holds everyone who is seen in it; some hold a silent person."""
    frames = {}
    for key, (number, script, first, last, emotion) in enumerate(utterances):
        for frame in range(int(first), int(last) + 1):
            objects = frames.setdefault(str(frame), {})
            objects[str(key)] = person(number, script, first, last, emotion, frame=frame)
    frames["0"] = {"0": {"frame": "0", "person_id": 9, "emotion": {}}}
    return frames


UTTERANCES = (
    (1, "문이 또 잠겼네", 25, 50, "dislike"),
    (2, "열쇠 여기 있어", "40", "75", "happiness"),  # overlaps, as text in some clips
    (1, "문이 또 잠겼네", 100, 110, "surprise"),  # the same words again are another utterance
)


def write(root, number, frames, *, name=None, encoding="utf-8"):
    path = root / "라벨데이터" / f"clip_{number}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(clip(number, frames), ensure_ascii=False).encode(encoding))
    return write_sound(root / "원천데이터" / (name or f"{number:04d}.wav"), seconds=5)


@pytest.fixture
def root(tmp_path):
    write(tmp_path, 13, frames_of(*UTTERANCES))
    write(tmp_path, 5355, frames_of(UTTERANCES[0]), name="clip_5355.wav", encoding="cp949")
    return tmp_path


def test_an_utterance_is_read_once_however_many_frames_repeat_it(root):
    manifest = prepare(root, frame_rate=RATE)
    assert len(manifest) == manifest.provenance.n_rows_in == 4
    row = rows_of(manifest)["clip_13_1_25_50"]
    assert (row["start"], row["end"]) == (1.0, 2.0)
    assert (row["label"], row["text"]) == ("disgust", "문이 또 잠겼네")
    assert rows_of(manifest)["clip_13_2_40_75"]["start"] == 1.6
    assert "99 labelled frames make 4 utterances" in notes(manifest)


def test_clips_are_groups_because_the_corpus_names_no_speakers(root):
    manifest = prepare(root, frame_rate=RATE)
    assert manifest.provenance.grouping == "group(clip)"
    assert set(manifest.table["group"]) == {"clip_13", "clip_5355"}
    assert manifest.table["speaker"].null_count() == len(manifest)
    assert "A group-disjoint split keeps clips apart, not people" in notes(manifest)


def test_other_judgements_are_policies(root):
    labels = {
        row["label"] for row in rows_of(prepare(root, labels="sound", frame_rate=25)).values()
    }
    assert labels == {"angry"}
    with pytest.raises(ConfigError, match="Choose one of: multimodal, sound, text, image"):
        prepare(root, labels="majority", frame_rate=25)


def test_valence_and_arousal_are_taken_where_a_judgement_has_them(tmp_path):
    frames = {"30": {"0": person(1, "응", 30, 40, "neutral", valence="4", arousal=2)}}
    write(tmp_path, 1, frames)
    row = rows_of(prepare(tmp_path, frame_rate=RATE))["clip_1_1_30_40"]
    assert (row["valence"], row["arousal"]) == (4.0, 2.0)


@pytest.mark.parametrize("rate", [None, 0, -30.0, float("nan")])
def test_the_frame_rate_is_asked_for_never_guessed(root, rate):
    with pytest.raises(ConfigError, match=r"--frame-rate.*ffprobe"):
        prepare(root, frame_rate=rate)


def test_frames_that_contradict_each_other_and_times_that_are_none_are_reported(tmp_path):
    frames = frames_of(*UTTERANCES)
    frames["26"]["0"]["emotion"]["multimodal"]["emotion"] = "fear"
    frames["200"] = {"0": person(3, "어", "?", 210, "fear"), "1": person(3, "음", 1, 9, "")}
    write(tmp_path, 13, frames)
    manifest = prepare(tmp_path, frame_rate=RATE)
    assert left_out(manifest, "conflicting labels") == ["clip_13_1_25_50"]
    assert left_out(manifest, "unusable time") == ["clip_13_3_None_210"]
    assert left_out(manifest, "no label") == ["clip_13_3_1_9"]
    assert n_accounted(manifest) == manifest.provenance.n_rows_in == 5


def test_clips_without_sound_and_sound_without_clips_are_reported(root):
    (sound,) = root.rglob("0013.wav")
    stray = sound.rename(sound.with_name("0099.wav"))
    (root / "라벨데이터" / "clip_77.json").write_text("{}", encoding="utf-8")
    manifest = prepare(root, frame_rate=RATE)
    assert left_out(manifest, "clip without audio file") == ["clip_13"]
    assert left_out(manifest, "unreadable label file") == ["clip_77"]
    assert manifest.provenance.unlisted == (str(stray),)


def test_videos_alone_are_refused_with_the_command_that_helps(root):
    for path in list(root.rglob("*.wav")):
        path.rename(path.with_suffix(".MP4"))
    with pytest.raises(CorpusError, match="2 videos and no sound") as caught:
        prepare(root, frame_rate=RATE)
    assert "ffmpeg" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_emotion_is_an_error_with_its_count(tmp_path):
    write(tmp_path, 1, frames_of((1, "음", 1, 9, "bored")))
    with pytest.raises(LabelError, match=r"does not have: 'boredom' \(1 rows\)"):
        prepare(tmp_path, frame_rate=RATE)
