import csv
import shutil
import unicodedata
from collections import Counter

import numpy as np
import pytest
import soundfile

from fixtures.aihub263 import (
    invent_rows,
    object_id,
    wav_bytes,
    write_corpus,
    write_csv,
)
from koser.data.corpora.aihub263 import prepare
from koser.data.corpora.votes import Vote, decide, vote_shares
from koser.errors import ConfigError, CorpusError, LabelError
from koser.labels import EMOTIONS, canonical_label


@pytest.fixture
def rows():
    return invent_rows()


def left_out(manifest, reason):
    return [row.source for row in manifest.provenance.left_out if row.reason == reason]


def find_wav(root, wav_id):
    (path,) = root.rglob(f"{wav_id}.wav")
    return path


def notes(manifest):
    return " ".join(manifest.provenance.notes)


# What is read


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_every_row_of_all_three_releases_arrives_whole(tmp_path, rows, form):
    manifest = prepare(write_corpus(tmp_path / "raw", rows, form=form))
    assert manifest.provenance.n_rows_in == len(manifest) == len(rows)
    assert manifest.labels == EMOTIONS
    assert manifest.provenance.grouping == "group(age×gender)"
    for row, got in zip(rows, manifest.table.iter_rows(named=True), strict=True):
        assert got["id"] == row.wav_id
        assert got["release"] == row.release
        assert got["label"] == got["situation"] == canonical_label(row.situation)
        assert got["votes"] == [
            {"label": canonical_label(label), "intensity": intensity}
            for label, intensity in row.votes
        ]
        assert got["text"] == row.text.strip()
        assert (got["age"], got["gender"]) == (row.age, row.gender)
        assert got["group"] == f"{row.age}-{row.gender}"
        assert got["speaker"] is None
        assert got["distribution"] is None
        assert (got["corpus"], got["language"]) == ("aihub263", "ko")
        assert (got["sampling_rate"], got["n_channels"]) == (48_000, 1)
        assert got["duration"] == pytest.approx(0.005)


def test_paths_stay_as_they_are_on_disk_and_open(tmp_path, rows):
    manifest = prepare(write_corpus(tmp_path, rows, form="NFD"))
    paths = manifest.table["path"].to_list()
    assert all(unicodedata.is_normalized("NFD", path) for path in paths)
    assert not unicodedata.is_normalized("NFC", paths[0])
    assert soundfile.info(paths[0]).samplerate == 48_000


def test_text_in_quotes_keeps_its_commas_and_quotes(tmp_path, rows):
    text = '그가 "네, 그럼요"라고\n말했어, 정말로'
    root = write_corpus(tmp_path, [rows[0].but(text=f"\t {text} \t"), *rows[1:]])
    assert prepare(root).table["text"][0] == text


@pytest.mark.parametrize("encoding", ["cp949", "utf-8", "utf-8-sig"])
@pytest.mark.parametrize("is_repaired", [True, False])
def test_both_spellings_of_the_fourth_intensity_and_all_encodings_are_read(
    tmp_path, rows, encoding, is_repaired
):
    rows = [rows[0].but(text="똠방각하 펲시콜라"), *rows[1:14]]  # strict euc-kr has neither
    root = write_corpus(tmp_path, rows)
    write_csv(root / "4차년도.csv", rows, encoding=encoding, is_repaired=is_repaired)
    table = prepare(root).table
    assert table["text"][0] == "똠방각하 펲시콜라"
    assert [vote["intensity"] for vote in table["votes"][0]] == [n for _, n in rows[0].votes]


def test_one_release_alone_keeps_its_own_labels_and_names_the_missing_ones(tmp_path, rows):
    manifest = prepare(write_corpus(tmp_path, rows[:14]))
    assert manifest.labels == ("angry", "disgust", "fear", "neutral", "sadness")
    assert "Release 5차년도 is not there" in notes(manifest)
    assert "Release 5차년도_2차 is not there" in notes(manifest)


# Rows and audio that do not fit together


def test_the_sixteen_official_orphans_of_each_kind_are_listed_without_a_warning(tmp_path):
    rows = invent_rows((40, 4, 7))
    silent = [row.wav_id for row in rows[:16]]
    manifest = prepare(write_corpus(tmp_path, rows, silent=silent, n_strays=16))
    assert left_out(manifest, "no audio file") == silent
    assert len(manifest.provenance.unlisted) == 16
    assert len(manifest) + 16 == manifest.provenance.n_rows_in == len(rows)
    assert "Warning" not in notes(manifest)


def test_one_orphan_more_of_either_kind_is_a_warning_with_counts(tmp_path):
    rows = invent_rows((40, 4, 7))
    silent = [row.wav_id for row in rows[:17]] + [rows[-1].wav_id]
    manifest = prepare(write_corpus(tmp_path, rows, silent=silent, n_strays=18))
    assert "Warning: 17 rows of release 4차년도 have no audio file, 1 more" in notes(manifest)
    assert "Warning: 1 rows of release 5차년도_2차 have no audio file, 1 more" in notes(manifest)
    assert "Warning: 18 audio files have no row, 2 more" in notes(manifest)


def test_a_copy_of_the_same_audio_is_settled_by_path_and_noted(tmp_path, rows):
    root = write_corpus(tmp_path, rows)
    original = find_wav(root, rows[0].wav_id)
    (root / "0_again").mkdir()
    shutil.copy(original, root / "0_again")
    manifest = prepare(root)
    assert manifest.table["path"][0] == str(root / "0_again" / original.name)
    assert len(manifest) == len(rows)
    assert "1 audio files lie in more than one folder" in notes(manifest)


def test_two_different_recordings_of_one_id_are_left_out(tmp_path, rows):
    root = write_corpus(tmp_path, rows)
    (root / "other").mkdir()
    (root / "other" / f"{rows[0].wav_id}.wav").write_bytes(wav_bytes(99_999))
    manifest = prepare(root)
    assert left_out(manifest, "different audio files of one name") == [rows[0].wav_id]


def test_unreadable_audio_is_left_out_with_its_reason(tmp_path, rows):
    root = write_corpus(tmp_path, rows)
    find_wav(root, rows[2].wav_id).write_bytes(b"")
    manifest = prepare(root)
    assert left_out(manifest, "unreadable audio") == [rows[2].wav_id]
    assert "empty" in manifest.provenance.left_out[0].detail


def test_a_repeated_row_of_the_same_label_is_kept_once(tmp_path, rows):
    again = rows[0].but(text="다른 문장", situation=rows[0].situation.upper())
    manifest = prepare(write_corpus(tmp_path, [*rows, again]))
    assert left_out(manifest, "repeated id") == [rows[0].wav_id]
    assert manifest.table["text"][0] == rows[0].text


def test_rows_of_one_id_with_different_labels_are_all_left_out(tmp_path, rows):
    again = rows[0].but(situation="fear")
    assert rows[0].situation == "anger"
    manifest = prepare(write_corpus(tmp_path, [*rows, again]))
    assert left_out(manifest, "conflicting labels") == [rows[0].wav_id] * 2
    assert "angry, fear" in manifest.provenance.left_out[0].detail


# Cells that are wrong


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"age": ""}, "no usable age"),
        ({"age": "서른"}, "no usable age"),
        ({"gender": "?"}, "no usable gender"),
        ({"situation": " "}, "no scripted emotion"),
    ],
)
def test_a_row_with_an_unusable_cell_is_left_out_with_its_reason(tmp_path, rows, cells, reason):
    manifest = prepare(write_corpus(tmp_path, [rows[0].but(**cells), *rows[1:]]))
    assert left_out(manifest, reason) == [rows[0].wav_id]
    assert len(manifest) == len(rows) - 1


def test_a_short_row_and_a_row_without_an_id_are_named_by_file_and_line(tmp_path, rows):
    root = write_corpus(tmp_path, rows)
    with (root / "4차년도.csv").open("ab") as file:
        file.write(b"only,three,cells\r\n" + b"," * 14 + b"\r\n")
    manifest = prepare(root)
    assert left_out(manifest, "malformed row") == ["4차년도.csv, line 16"]
    assert left_out(manifest, "no wav_id") == ["4차년도.csv, line 17"]
    assert manifest.provenance.n_rows_in == len(rows) + 2


def test_spreadsheet_ages_and_upper_case_genders_are_understood(tmp_path, rows):
    manifest = prepare(write_corpus(tmp_path, [rows[0].but(age="24.0", gender=" FEMALE")]))
    assert manifest.table["group"][0] == "24-female"


def test_an_unusable_intensity_is_null_and_counted_with_contradictions(tmp_path, rows):
    votes = (("Anger", "x"), ("Anger", 0), ("Neutral", 2), ("Anger", 1), ("Neutral", 0))
    manifest = prepare(write_corpus(tmp_path, [rows[0].but(votes=votes), *rows[1:]]))
    assert [vote["intensity"] for vote in manifest.table["votes"][0]] == [None, 0, 2, 1, 0]
    assert "3 intensities are missing" in notes(manifest)


def test_unknown_labels_are_one_error_with_the_rows_of_each(tmp_path, rows):
    wrong_vote = (("melancholy", 1), ("Melancholy", 2), *rows[1].votes[2:])
    changed = [
        rows[0].but(situation="angst"),
        rows[1].but(votes=wrong_vote),
        rows[2].but(situation="angst"),
        *rows[3:],
    ]
    root = write_corpus(tmp_path, changed)
    with pytest.raises(LabelError, match=r"'angst' \(2 rows\), 'melancholy' \(1 rows\)"):
        prepare(root)


# Files that are wrong


def test_a_folder_without_the_corpus_says_what_was_looked_for(tmp_path):
    (tmp_path / "export.csv").write_text("a,b\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"looked for: 4차년도\.csv.*other CSV.*export\.csv"):
        prepare(tmp_path)
    with pytest.raises(CorpusError, match="No folder at"):
        prepare(tmp_path / "missing")


@pytest.mark.parametrize("has_csv", [True, False])
def test_a_packed_release_is_an_error_with_the_command_that_unpacks_it(tmp_path, rows, has_csv):
    root = write_corpus(tmp_path, rows)
    shutil.rmtree(root / "5차년도")
    (root / unicodedata.normalize("NFD", "5차_wav.zip")).write_bytes(b"PK")
    if not has_csv:
        for path in root.glob("*.csv"):
            path.unlink()
    with pytest.raises(CorpusError, match=r"Not unpacked: .*wav\.zip'.*Run: unzip -q '"):
        prepare(root)


def test_an_unpacked_release_may_keep_its_zip(tmp_path, rows):
    root = write_corpus(tmp_path, rows)
    (root / "5차_wav.zip").write_bytes(b"PK")
    assert len(prepare(root)) == len(rows)


def test_two_csv_files_of_one_release_must_agree(tmp_path, rows):
    root = write_corpus(tmp_path, rows)
    write_csv(root / "4차_14606.csv", rows[:14], encoding="utf-8", is_repaired=True)
    assert prepare(root).provenance.n_rows_in == len(rows)
    write_csv(root / "4차_14606.csv", rows[:13])
    with pytest.raises(CorpusError, match="two CSV files with different rows"):
        prepare(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"wav_id,text\r\n", "does not have each of these columns once: 발화문, 상황"),
        (b"\xff\xfe\x00w", "neither UTF-8 nor cp949"),
        (b'wav_id\r\n"open quote', "quote is not closed"),
    ],
)
def test_a_damaged_csv_file_is_refused(tmp_path, rows, content, message):
    root = write_corpus(tmp_path, rows)
    (root / "4차년도.csv").write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        prepare(root)


# Sessions


def test_sessions_are_one_group_with_pauses_of_ten_minutes_at_most(tmp_path, rows):
    start = 1_580_000_000
    seconds = [0, 600, 1201, 1300]  # the third comes 601 s after the second
    changed = [
        rows[0].but(wav_id=object_id(start + second, index)) for index, second in enumerate(seconds)
    ]
    other = rows[0].but(wav_id=object_id(start + 300, 9), age=77)
    table = prepare(write_corpus(tmp_path, [*changed[::-1], other])).table.sort("id")
    session = dict(zip(table["id"], table["session"], strict=True))
    first, second, third, fourth = (session[row.wav_id] for row in changed)
    assert first == second == "4차년도/24-female/2020-01-26T00:53:20Z"
    assert third == fourth != first
    assert session[other.wav_id].startswith("4차년도/77-female/")


def test_ids_that_are_no_object_ids_have_no_session_and_are_counted(tmp_path, rows):
    changed = [rows[0].but(wav_id="recording-1"), *rows[1:]]
    manifest = prepare(write_corpus(tmp_path, changed))
    assert manifest.table["session"].null_count() == 1
    assert "1 ids are not 24 hexadecimal digits" in notes(manifest)


# Label policies


def test_majority_is_the_plurality_and_every_other_row_is_left_out_with_its_reason(tmp_path, rows):
    manifest = prepare(write_corpus(tmp_path, rows), labels="majority", min_votes=3)
    label = dict(zip(manifest.table["id"], manifest.table["label"], strict=True))
    ties = set(left_out(manifest, "tie for first place"))
    weak = set(left_out(manifest, "fewer than 3 votes for one label"))
    assert ties
    assert weak
    for row in rows:
        counts = Counter(canonical_label(name) for name, _ in row.votes).most_common()
        if len(counts) > 1 and counts[0][1] == counts[1][1]:
            assert row.wav_id in ties
        elif counts[0][1] < 3:
            assert row.wav_id in weak
        else:
            assert label[row.wav_id] == counts[0][0]
    assert len(label) + len(ties) + len(weak) == len(rows)


def test_soft_keeps_every_row_with_the_shares_of_its_votes(tmp_path, rows):
    manifest = prepare(write_corpus(tmp_path, rows), labels="soft")
    assert len(manifest) == len(rows)
    for row, got in zip(rows, manifest.table.iter_rows(named=True), strict=True):
        names = [canonical_label(name) for name, _ in row.votes]
        expected = [names.count(label) / 5 for label in manifest.labels]
        assert got["distribution"] == pytest.approx(expected)
        assert np.max(expected) == expected[manifest.labels.index(got["label"])]
    assert "not weighted by intensity" in notes(manifest)


def votes(*labels):
    return [Vote(label, None) for label in labels]


@pytest.mark.parametrize(
    ("situation", "raters", "expected"),
    [
        ("sadness", ("fear", "fear", "sadness", "sadness", "angry"), "sadness"),
        ("angry", ("sadness", "sadness", "fear", "fear", "angry"), "fear"),
        (None, ("sadness", "sadness", "fear", "fear", "angry"), "fear"),
        ("angry", ("neutral", "neutral", "neutral", "angry", "angry"), "neutral"),
    ],
)
def test_a_soft_tie_goes_to_the_scripted_emotion_if_tied_else_to_label_order(
    situation, raters, expected
):
    decision = decide(situation, votes(*raters), policy="soft", min_votes=None)
    assert decision.label == expected


def test_blank_votes_are_counted_and_a_row_without_any_has_no_majority(tmp_path, rows):
    silent = rows[0].but(votes=(("", ""),) * 5)
    partly = rows[1].but(votes=(*rows[1].votes[:3], ("", ""), ("", "")))
    manifest = prepare(write_corpus(tmp_path, [silent, partly, *rows[2:]]), labels="soft")
    assert left_out(manifest, "no votes") == [silent.wav_id]
    assert "2 rows have fewer than 5 votes" in notes(manifest)
    assert sum(vote_shares(votes("fear", "angry", "fear"), ["angry", "fear"])) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "average"}, "Unknown label policy 'average'.*situation, majority, soft"),
        ({"labels": "soft", "min_votes": 3}, "says nothing about the label policy 'soft'"),
        ({"min_votes": 3}, "says nothing about the label policy 'situation'"),
        ({"labels": "majority", "min_votes": 0}, "outside 1–5"),
        ({"labels": "majority", "min_votes": 6}, "outside 1–5"),
    ],
)
def test_a_policy_that_does_not_exist_or_fit_is_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        prepare(tmp_path, **options)


def test_the_invented_files_have_the_quirks_they_stand_for(tmp_path, rows):
    root = write_corpus(tmp_path, rows)
    official = (root / "4차년도.csv").read_bytes()
    assert b"\r\n" in official
    assert b"\t" in official
    header = next(csv.reader([official.decode("cp949").splitlines()[0]]))
    assert len(header) == 15
    assert header[10] == "4번감정세기"
    assert "Anger" in official.decode("cp949")
