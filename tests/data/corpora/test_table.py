import unicodedata

import numpy as np
import polars as pl
import pytest

from fixtures.aihub263 import wav_bytes
from fixtures.sound import write_sound
from koser.audio.reading import load
from koser.data.corpora.table import prepare
from koser.errors import ConfigError, CorpusError
from koser.features.extraction import clips_of

COLUMNS = {"path": "wav", "label": "감정"}


@pytest.fixture
def root(tmp_path):
    for name in ("a.wav", "b.wav", "sub/c.wav"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(wav_bytes(len(name), seconds=0.5))
    return tmp_path


def write(root, text, name="rows.csv", encoding="utf-8"):
    (root / name).write_bytes(text.encode(encoding))
    return root / name


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
def test_columns_are_mapped_and_labels_put_under_koser_names(root, encoding):
    text = 'wav,감정,speaker,note\r\na.wav,기쁨,F1,"x, y"\r\nsub/c.wav,Anger,M2,\r\n'
    manifest = prepare(write(root, text, encoding=encoding), columns=COLUMNS)
    assert manifest.table.select("id", "label", "speaker").rows() == [
        ("a", "happiness", "F1"),
        ("sub/c", "angry", "M2"),
    ]
    assert manifest.provenance.grouping == "speaker"
    assert manifest.provenance.label_policy == "column '감정'"
    assert manifest.provenance.notes == ("Columns not used: note.",)
    assert not manifest.provenance.is_synthetic


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_column_is_found_however_its_hangul_is_composed(root, form, suffix):
    table = pl.DataFrame({"wav": ["a.wav"], unicodedata.normalize(form, "감정"): ["fear"]})
    file = root / f"rows.{suffix}"
    (table.write_csv if suffix == "csv" else table.write_parquet)(file)
    for typed in ("NFC", "NFD"):
        columns = {"path": "wav", "label": unicodedata.normalize(typed, "감정")}
        assert prepare(file, columns=columns).table["label"].to_list() == ["fear"]


def test_equal_names_need_no_mapping_and_tsv_is_read(root):
    file = write(root, "id\tpath\tlabel\tgroup\nu1\ta.wav\tfear\tg\n", name="rows.tsv")
    manifest = prepare(file, is_synthetic=True)
    assert manifest.table.select("id", "label", "group").row(0) == ("u1", "fear", "g")
    assert manifest.grouping_column == "group"
    assert manifest.provenance.is_synthetic


def test_parquet_gives_the_same_manifest_as_csv(root):
    rows = {"path": ["a.wav", "b.wav"], "label": ["fear", "calm"], "age": [30, None]}
    table = pl.DataFrame({**rows, "start": [0.1, 0.0], "end": [0.25, 0.5]})
    table.write_csv(root / "rows.csv")
    table.with_columns(votes=pl.Series([[1], [2]])).write_parquet(root / "rows.parquet")
    from_csv, from_parquet = prepare(root / "rows.csv"), prepare(root / "rows.parquet")
    assert from_parquet.table.equals(from_csv.table)
    assert from_csv.table["age"].to_list() == [30, None]
    assert from_csv.table["duration"].to_list() == pytest.approx([0.15, 0.5])


def test_audio_is_looked_for_below_the_root_given(root):
    (root / "tables").mkdir()
    file = write(root, "path,label\nc.wav,fear\n", name="tables/rows.csv")
    manifest = prepare(file, audio_root=root / "sub")
    assert manifest.table["path"][0] == str(root / "sub" / "c.wav")


def test_paths_of_windows_absolute_paths_and_other_forms_of_hangul_are_found(root):
    decomposed = root / unicodedata.normalize("NFD", "감정.wav")
    decomposed.write_bytes(wav_bytes(9))
    text = f"path,label\nsub\\c.wav,fear\n{root / 'a.wav'},fear\n감정.wav,fear\n"
    table = prepare(write(root, text)).table
    paths = [str(root / "sub" / "c.wav"), str(root / "a.wav"), str(decomposed)]
    assert table["path"].to_list() == paths
    assert table["id"][0] == "sub/c"
    assert table["id"][2] == "감정"


def test_every_row_that_cannot_be_used_is_left_out_with_its_reason(root):
    text = (
        "path,label,speaker,start,age,valence\n"
        "a.wav,fear,F1,,30,1.5\n"
        "missing.wav,fear,F1,,,\n"
        "b.wav,,F1,,,\n"
        ",fear,F1,,,\n"
        "b.wav,fear,,,,\n"
        "b.wav,fear,F1,soon,,\n"
        "b.wav,fear,F1,0.7,,\n"
        "b.wav,fear\n"
        "b.wav,fear,F1,0.2,old,nan\n"
        "sub/c.wav,fear,F1,,999,2\n"
    )
    manifest = prepare(write(root, text))
    assert {row.source: row.reason for row in manifest.provenance.left_out} == {
        "rows.csv, row 2": "no audio file",
        "rows.csv, row 3": "no label",
        "rows.csv, row 4": "no path",
        "rows.csv, row 5": "no speaker",
        "rows.csv, row 6": "unusable time",
        "b@0.7-": "no such segment in the audio",
        "rows.csv, row 8": "malformed row",
    }
    assert manifest.provenance.n_rows_in == 10
    kept = manifest.table.select("id", "age", "valence").rows()
    assert kept == [("a", 30, 1.5), ("b@0.2-", None, None), ("sub/c", None, 2.0)]
    assert "2 cells of 'age' are no numbers" in " ".join(manifest.provenance.notes)


def test_segments_of_one_file_have_ids_of_their_own(root):
    text = "path,label,start,end\na.wav,fear,0,0.2\na.wav,angry,0.2,0.4\na.wav,fear,0,0.2\n"
    manifest = prepare(write(root, text))
    assert manifest.table["id"].to_list() == ["a@0-0.2", "a@0.2-0.4"]
    assert manifest.provenance.left_out_by_reason() == {"repeated id": 1}


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        ("wav,감정", {"path": "wav"}, r"No column is given for label.*has the columns: wav, 감정"),
        ("wav,감정", {}, "No column is given for path and label"),
        ("wav,감정", {"path": "file", "label": "감정"}, r"No column file\..*columns: wav, 감정"),
        ("wav,감정", {"emotion": "감정"}, "koser has no column emotion to fill. Choose from: id"),
        ("wav,wav,감정", COLUMNS, "Column wav is there more than once"),
    ],
)
def test_a_mapping_that_does_not_fit_says_what_the_file_has(root, header, columns, message):
    with pytest.raises(ConfigError, match=message):
        prepare(write(root, f"{header}\na.wav,fear\n"), columns=columns)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.xlsx", b"", "Save it as .csv, .tsv or .parquet"),
        ("rows.csv", b"", "is empty"),
        ("rows.csv", b'path,label\n"a.wav,fear\n', "is not a sound .csv file"),
        ("rows.parquet", b"PAR0", "is not a sound .parquet file"),
    ],
)
def test_a_file_that_is_no_table_is_refused(root, name, content, message):
    (root / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        prepare(root / name)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    for name in ("rows.csv", "rows.parquet"):
        with pytest.raises(CorpusError, match="Cannot read"):
            prepare(tmp_path / name)


def test_two_speakers_of_a_stereo_call_are_heard_in_their_own_channels(root):
    write_sound(root / "call.wav", seconds=0.5, levels=(0.3, 0.02))
    text = (
        "path,label,speaker,start,end,channel\n"
        "call.wav,fear,F1,0,0.4,0\ncall.wav,angry,M1,0,0.4,1\n"
        "call.wav,fear,F1,0,0.4,2\ncall.wav,fear,F1,0,0.4,left\ncall.wav,fear,F1,0,0.4,0.5\n"
        "a.wav,neutral,M2,,,\n"
    )
    manifest = prepare(write(root, text))
    channels = dict(manifest.table.select("id", "channel").iter_rows())
    assert channels == {"call@0-0.4#0": 0, "call@0-0.4#1": 1, "a": None}
    assert manifest.provenance.left_out_by_reason() == {
        "unusable channel": 2,
        "no such channel in the audio": 1,
    }
    louder, quieter = (
        np.abs(load(clip.path, start=clip.start, end=clip.end, channel=clip.channel)).mean()
        for clip in clips_of(manifest.table)[:2]
    )
    assert louder / quieter == pytest.approx(15, rel=0.1)
