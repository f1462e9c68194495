import unicodedata
from pathlib import Path

import numpy as np
import pytest

from fixtures.aihub_dialogues import LINES, Line, label_bytes, write_dialogue, write_recording
from fixtures.sound import left_out, n_accounted, notes, rows_of, write_sound
from koser.audio.reading import load
from koser.data import corpora
from koser.data.corpora.aihub71631 import prepare
from koser.data.corpora.channels import Dialogue, Turn, find_channels, turns_alone
from koser.data.manifest import Manifest
from koser.errors import ConfigError, CorpusError, LabelError
from koser.features.extraction import clips_of


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "134-1.감정이 태깅된 자유대화 (성인)"
    write_recording(root, "HS_0001")
    write_recording(root, "HS_0002", first_channel=1)
    return root


def label_file(root, name):
    (path,) = root.rglob(f"{name}.json")
    return path


def test_each_utterance_is_a_part_of_its_recording(root):
    manifest = prepare(root)
    assert len(manifest) == manifest.provenance.n_rows_in == 2 * len(LINES)
    for number, line in enumerate(LINES, start=1):
        row = rows_of(manifest)[f"HS_0001_{number:04d}"]
        assert (row["start"], row["end"]) == (line.start, line.end)
        assert row["duration"] == pytest.approx(line.end - line.start)
        assert row["path"].endswith("HS_0001.wav")
        assert row["session"] == "HS_0001"
    # of the file itself, whatever the label file says
    assert set(manifest.table["sampling_rate"]) == {16_000}
    assert set(manifest.table["n_channels"]) == {2}


def test_labels_people_and_texts(root):
    rows = rows_of(prepare(root))
    labels = [rows[f"HS_0001_{number:04d}"]["label"] for number in range(1, 7)]
    assert labels == ["happiness", "surprise", "affection", "neutral", "sadness", "angry"]
    woman, man = rows["HS_0001_0001"], rows["HS_0001_0006"]
    assert (woman["speaker"], woman["gender"], woman["age"]) == ("aihub71631-0011", "female", None)
    assert (man["speaker"], man["gender"], man["age"]) == ("aihub71631-0012", "male", 31)
    assert woman["text"] == "주말에 이랑 등산을 갔어"  # the mark stood for a name
    assert man["votes"] == [{"label": "angry", "intensity": 3}]
    assert prepare(root).labels[-1] == "affection"


def test_a_speaker_is_heard_in_the_channel_that_was_measured(root):
    manifest = prepare(root)
    channels = {id: row["channel"] for id, row in rows_of(manifest).items()}
    assert [channels[f"HS_0001_{n:04d}"] for n in (1, 2)] == [0, 1]
    assert [channels[f"HS_0002_{n:04d}"] for n in (1, 2)] == [1, 0]
    assert "The channels of 2 recordings were measured; in 1 of them Speaker1" in notes(manifest)
    # and a reader of the manifest hears it: the own voice, not the mean of both channels
    for clip in clips_of(manifest.table):
        waveform = load(clip.path, start=clip.start, end=clip.end, channel=clip.channel)
        heard = np.sqrt(np.mean(waveform**2))
        assert heard == pytest.approx(0.1, rel=0.15)


def test_a_channel_survives_writing_and_reading_the_manifest(root, tmp_path):
    manifest = prepare(root)
    manifest.write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet").table["channel"].equals(manifest.table["channel"])


def test_thousands_separators_are_no_decimal_points(root):
    late = [Line(1, "1,000.73", "1,001.50", "기쁨"), *LINES]
    label_file(root, "HS_0001").write_bytes(label_bytes(late))
    manifest = prepare(root)
    (row,) = (row for row in manifest.provenance.left_out if row.source == "HS_0001_0001")
    assert row.reason == "no such segment in the audio"
    assert row.detail == "1000.73–1001.5 s of 6 s"


def test_labels_past_the_end_of_the_sound_are_cut_back_or_left_out_and_said(root):
    lines = [*LINES[:-1], LINES[-1].but(end=7.5), Line(1, 6.5, 7.0), Line(1, "", "7.0")]
    label_file(root, "HS_0001").write_bytes(label_bytes(lines))
    manifest = prepare(root)
    assert rows_of(manifest)["HS_0001_0006"]["end"] == 6.0
    assert "1 segments reach past the end of their file and end there." in notes(manifest)
    assert left_out(manifest, "no such segment in the audio") == ["HS_0001_0007"]
    assert left_out(manifest, "unusable time") == ["HS_0001_0008"]
    assert n_accounted(manifest) == manifest.provenance.n_rows_in == 14


def test_the_second_persons_judgement_is_another_policy_and_both_are_votes(root):
    lines = [LINES[0].but(verified="슬픔"), LINES[1].but(verified=""), *LINES[2:]]
    label_file(root, "HS_0001").write_bytes(label_bytes(lines))
    rows = rows_of(prepare(root))
    assert rows["HS_0001_0001"]["label"] == "happiness"
    assert rows["HS_0001_0001"]["votes"] == [
        {"label": "happiness", "intensity": 2},
        {"label": "sadness", "intensity": 1},
    ]
    verified = prepare(root, labels="verified")
    assert {id: row["label"] for id, row in rows_of(verified).items()} == {
        "HS_0001_0001": "sadness"
    }
    assert len(left_out(verified, "no label")) == 11
    with pytest.raises(ConfigError, match="Choose one of: speaker, verified"):
        prepare(root, labels="majority")


def test_recordings_without_sound_or_the_other_way_round_are_reported_once_each(root):
    (sound,) = root.rglob("HS_0001.wav")
    stray = sound.rename(sound.with_name("HS_0009.wav"))
    manifest = prepare(root)
    (row,) = manifest.provenance.left_out
    assert (row.source, row.reason) == ("HS_0001", "recording without audio file")
    assert row.detail == "6 utterances"
    assert manifest.provenance.unlisted == (str(stray),)


def test_a_damaged_label_file_costs_its_recording_alone(root):
    label_file(root, "HS_0001").write_bytes(b"\xef\xbb\xbf{")
    manifest = prepare(root)
    assert left_out(manifest, "unreadable label file") == ["HS_0001"]
    assert len(manifest) == 6


def test_youths_are_a_corpus_and_speakers_of_their_own(root, tmp_path):
    young = tmp_path / "134-2.감정이 태깅된 자유대화 (청소년)"
    write_recording(young, "YS_0001")
    rows = rows_of(prepare(tmp_path))
    assert rows["YS_0001_0001"]["corpus"] == "aihub71632"
    assert rows["YS_0001_0001"]["speaker"] == "aihub71632-0011"
    assert rows["HS_0001_0001"]["corpus"] == "aihub71631"


def called(name, root):
    """Which corpora the rows are of, as their speakers are, and the notes."""
    manifest = corpora.prepare(name, root)
    assert name in ("auto", manifest.provenance.adapter)
    table = manifest.table
    assert all(s.startswith(c) for s, c in zip(table["speaker"], table["corpus"], strict=True))
    return sorted(set(table["corpus"])), notes(manifest)


@pytest.mark.parametrize("name", ["aihub71631", "aihub71632"])
def test_the_name_that_is_given_is_the_corpus_where_the_path_says_nothing(tmp_path, name):
    write_recording(tmp_path / "free", "S_0001")
    said, why = called(name, tmp_path / "free")
    assert said == [name]
    assert f"taken for {name}, and no folder's name says otherwise (71631, 성인 or 71632" in why


@pytest.mark.parametrize("folder", ["71632", "자유대화 (청소년)"])
def test_how_the_path_is_typed_does_not_matter(tmp_path, monkeypatch, folder):
    root = tmp_path / "d" / unicodedata.normalize("NFD", folder)
    write_recording(root, "YS_0001")
    monkeypatch.chdir(root)
    for typed in (tmp_path / "d", root, Path(".")):
        for name in ("aihub71632", "auto"):
            said, why = called(name, typed)
            assert said == ["aihub71632"]
            assert "as their folders' names say" in why
        said, why = called("aihub71631", typed)
        assert said == ["aihub71631"]
        assert "as asked for, although their folders' names say aihub71632" in why


@pytest.mark.parametrize("name", ["aihub71631", "aihub71632", "auto"])
def test_both_data_sets_below_one_folder_are_told_apart_whichever_is_named(root, tmp_path, name):
    write_recording(tmp_path / "134-2.감정이 태깅된 자유대화 (청소년)", "YS_0001")
    said, why = called(name, tmp_path)
    assert said == ["aihub71631", "aihub71632"]
    assert "what their folders' names say: 2 for aihub71631, 1 for aihub71632." in why


def test_an_unknown_emotion_is_an_error_with_its_count(root):
    lines = [line.but(target="설렘") for line in LINES]
    label_file(root, "HS_0001").write_bytes(label_bytes(lines))
    with pytest.raises(LabelError, match=r"does not have: '설렘' \(6 rows\)"):
        prepare(root)


def test_a_folder_without_label_files_is_refused(tmp_path):
    write_dialogue(tmp_path / "a.wav", LINES)
    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    with pytest.raises(CorpusError, match="Unpack the label zips there too"):
        prepare(tmp_path)


# Channels


def dialogue(path, lines=LINES):
    turns = (Turn(f"Speaker{line.speaker}", line.start, line.end) for line in lines)
    return Dialogue(str(path), tuple(turns))


@pytest.mark.parametrize("first_channel", [0, 1])
@pytest.mark.parametrize("crosstalk", [-24.0, -6.0, -2.0])
@pytest.mark.parametrize("gains", [(1.0, 1.0), (0.1, 1.0), (1.0, 0.2)])
def test_the_measured_channel_is_right_whatever_crosstalk_and_gain(
    tmp_path, first_channel, crosstalk, gains
):
    path = write_dialogue(
        tmp_path / "a.wav", LINES, first_channel=first_channel, crosstalk=crosstalk, gains=gains
    )
    found = find_channels(dialogue(path))
    assert found.channel_of == {"Speaker1": first_channel, "Speaker2": 1 - first_channel}
    assert found.separation == pytest.approx(-crosstalk, abs=0.3)


def test_channels_that_hear_both_speakers_alike_are_told_as_such(tmp_path):
    path = write_dialogue(tmp_path / "a.wav", LINES, crosstalk=-0.3)
    found = find_channels(dialogue(path))
    assert (found.channel_of, found.why_not) == ({}, "both channels hear both speakers")


def test_nothing_is_guessed_where_a_speaker_is_never_alone_or_the_file_is_mono(tmp_path):
    path = write_dialogue(tmp_path / "a.wav", LINES)
    together = [Line(1, 0.0, 3.0), Line(2, 0.0, 3.0)]
    assert find_channels(dialogue(path, together)).why_not == "no turns of both speakers alone"
    assert find_channels(dialogue(path, LINES[:1])).why_not == "no turns of both speakers alone"
    assert find_channels(dialogue(tmp_path / "no.wav")).why_not == "unreadable audio"
    mono = write_sound(tmp_path / "mono.wav", seconds=6)
    assert find_channels(dialogue(mono)).why_not == "not stereo"


def test_turns_alone_agree_with_comparing_every_pair():
    rng = np.random.default_rng(0)
    for _ in range(200):
        starts = rng.uniform(0, 10, 12).round(1)
        lengths = rng.uniform(0.1, 2, 12).round(1)
        turns = [
            Turn(str(rng.integers(3)), float(start), float(start + length))
            for start, length in zip(starts, lengths, strict=True)
        ]
        expected = [
            turn
            for turn in turns
            if not any(
                other.speaker != turn.speaker and other.start < turn.end and other.end > turn.start
                for other in turns
            )
        ]
        assert sorted(turns_alone(turns), key=repr) == sorted(expected, key=repr)
