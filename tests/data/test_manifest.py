import dataclasses
import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koser.data.manifest import SCHEMA, LeftOut, Manifest, Provenance, build_table
from koser.errors import ManifestError

PROVENANCE = Provenance(
    adapter="test",
    root="/corpus",
    labels=("angry", "sadness"),
    label_policy="invented",
    grouping="speaker",
    n_rows_in=2,
)


def row(identifier, **fields):
    return {
        "id": identifier,
        "path": f"/corpus/{identifier}.wav",
        "duration": 1.5,
        "sampling_rate": 16_000,
        "n_channels": 1,
        "label": "angry",
        "speaker": "F1",
        "corpus": "invented",
        **fields,
    }


def manifest(*rows, **provenance):
    provenance = {"n_rows_in": len(rows), **provenance}
    return Manifest(build_table(rows), dataclasses.replace(PROVENANCE, **provenance))


def test_what_a_row_lacks_is_null_and_columns_are_those_of_the_schema():
    table = build_table([row("a", age=30)])
    assert dict(table.schema) == SCHEMA
    assert table["age"].to_list() == [30]
    assert table["text"].null_count() == 1


def test_a_key_that_is_no_column_is_refused():
    with pytest.raises(ManifestError, match=r"No such columns in a manifest: \['emotion'\]"):
        build_table([row("a", emotion="angry")])


def test_a_sound_manifest_validates_to_itself():
    sound = manifest(row("a"), row("b", start=0.5, end=2.0, distribution=[0.4, 0.6]))
    assert sound.validate() is sound
    assert len(sound) == 2
    assert sound.labels == ("angry", "sadness")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "a"}, "2 rows have an id that another row has too"),
        ({"label": "fear"}, "1 rows carry an unlisted label, the first: b"),
        ({"label": None}, "Column 'label' is empty in 1 rows"),
        ({"path": None}, "Column 'path' is empty in 1 rows"),
        ({"duration": 0.0}, "1 rows do not last longer than 0 s"),
        ({"duration": float("nan")}, "1 rows do not last longer than 0 s"),
        ({"duration": float("inf")}, "1 rows do not last longer than 0 s"),
        ({"start": 0.5}, "have a start or an end, not both"),
        ({"start": 0.5, "end": 1.0}, "contradict the duration"),
        ({"start": -0.5, "end": 1.0}, "contradict the duration"),
        ({"channel": 1}, "1 rows name a channel that their file lacks, the first: b"),
        ({"channel": -1}, "1 rows name a channel that their file lacks"),
        ({"distribution": [1.0]}, "no distribution over the 2 labels .another length"),
        ({"distribution": [0.4, 0.4]}, "negative, or no sum of 1"),
        ({"distribution": [1.5, -0.5]}, "negative, or no sum of 1"),
        ({"distribution": [None, 1.0]}, "another length, or a null"),
        ({"speaker": None}, "1 rows have no speaker"),
    ],
)
def test_a_row_that_contradicts_itself_or_another_is_refused(fields, message):
    with pytest.raises(ManifestError, match=message):
        manifest(row("a"), {**row("b"), **fields}).validate()


def test_a_group_is_required_only_where_the_grouping_is_by_group():
    assert manifest(row("a"), grouping="group(age×gender)").grouping_column == "group"
    with pytest.raises(ManifestError, match="1 rows have no group"):
        manifest(row("a"), grouping="group(age×gender)").validate()
    assert manifest(row("a", speaker=None), grouping=None).validate().grouping_column is None


def test_a_lost_row_is_a_bug_of_the_adapter():
    with pytest.raises(ManifestError, match="3 rows were read, but 1 kept and 1 left out make 2"):
        manifest(row("a"), n_rows_in=3, left_out=(LeftOut("b", "no audio file"),)).validate()


def test_a_label_listed_twice_is_refused():
    with pytest.raises(ManifestError, match="names one twice"):
        manifest(row("a"), labels=("angry", "angry")).validate()


def test_another_table_is_refused_with_the_columns_that_differ():
    other = Manifest(build_table([row("a")]).with_columns(pl.col("age").cast(pl.Int64)), PROVENANCE)
    with pytest.raises(ManifestError, match=r"'age', Int16.*'age', Int64|'age', Int64.*Int16"):
        other.validate()


def test_left_out_rows_are_counted_by_reason_most_frequent_first():
    left_out = [LeftOut("a", "tie"), LeftOut("b", "no audio file"), LeftOut("c", "no audio file")]
    provenance = dataclasses.replace(PROVENANCE, left_out=tuple(left_out))
    assert list(provenance.left_out_by_reason().items()) == [("no audio file", 2), ("tie", 1)]


texts = st.text(max_size=20)


@given(
    left_out=st.lists(st.builds(LeftOut, texts, texts, texts), max_size=3),
    notes=st.lists(texts, max_size=3),
    unlisted=st.lists(texts, max_size=3),
    is_synthetic=st.booleans(),
    grouping=st.none() | texts,
)
def test_provenance_survives_json(left_out, notes, unlisted, is_synthetic, grouping):
    provenance = dataclasses.replace(
        PROVENANCE,
        left_out=tuple(left_out),
        notes=tuple(notes),
        unlisted=tuple(unlisted),
        is_synthetic=is_synthetic,
        grouping=grouping,
    )
    assert Provenance.from_json(provenance.to_json()) == provenance


def test_korean_stays_readable_in_json():
    assert "슬픔" in dataclasses.replace(PROVENANCE, notes=("슬픔",)).to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"left_out": [{"why": 1}]}'])
def test_provenance_of_another_version_is_refused(text):
    with pytest.raises(ManifestError, match="Make the manifest again"):
        Provenance.from_json(text)


def test_a_manifest_survives_its_file_with_everything(tmp_path):
    votes = [{"label": "angry", "intensity": 2}, {"label": "sadness", "intensity": None}]
    written = manifest(
        row("가", votes=votes, distribution=[0.5, 0.5], text="안녕", age=30),
        row("b", start=1.0, end=2.5, n_channels=2, channel=1),
        left_out=(LeftOut("c", "no audio file", "4차년도"),),
        n_rows_in=3,
        notes=("한 문장.",),
    )
    path = tmp_path / "new" / "M.parquet"
    written.write(path)
    read = Manifest.read(path)
    assert read.table.equals(written.table)
    assert read.provenance == written.provenance
    assert [each.name for each in path.parent.iterdir()] == ["M.parquet"]


def test_a_manifest_from_before_there_were_channels_is_read_as_heard_on_all(tmp_path):
    path = tmp_path / "M.parquet"
    written = manifest(row("a"), row("b", start=1.0, end=2.5))
    written.write(path)
    metadata = pl.read_parquet_metadata(path)
    older = pl.read_parquet(path).drop("channel")
    older.write_parquet(path, metadata={"koser.provenance": metadata["koser.provenance"]})
    assert Manifest.read(path).table.equals(written.table)
    older.drop("text").write_parquet(
        path, metadata={"koser.provenance": metadata["koser.provenance"]}
    )
    with pytest.raises(ManifestError, match="Columns are not those of a koser manifest"):
        Manifest.read(path)


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "M.parquet"
    manifest(row("a")).write(path)

    def break_off(self, file, **kwargs):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", break_off)
    with pytest.raises(ManifestError, match=r"Cannot write the manifest.*No space left"):
        manifest(row("b")).write(path)
    assert Manifest.read(path).table["id"].to_list() == ["a"]
    assert [each.name for each in tmp_path.iterdir()] == ["M.parquet"]


def test_a_reader_of_the_old_file_is_not_disturbed_by_a_new_one(tmp_path):
    path = tmp_path / "M.parquet"
    manifest(row("a")).write(path)
    old = path.read_bytes()
    with path.open("rb") as file:
        manifest(row("b")).write(path)
        assert file.read() == old
    assert Manifest.read(path).table["id"].to_list() == ["b"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ManifestError, match="Cannot write the manifest"):
        manifest(row("a")).write(tmp_path / "file" / "M.parquet")


def test_files_that_are_no_manifest_are_refused_with_the_way_out(tmp_path):
    path = tmp_path / "M.parquet"
    with pytest.raises(ManifestError, match=r"No manifest at .* Make one: koser prepare"):
        Manifest.read(path)
    path.write_bytes(b"not a table")
    with pytest.raises(ManifestError, match="is not a Parquet file"):
        Manifest.read(path)
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(ManifestError, match=r"not a manifest of koser.*koser prepare table"):
        Manifest.read(path)


def test_a_manifest_that_was_edited_into_contradiction_is_refused_when_read(tmp_path):
    path = tmp_path / "M.parquet"
    broken = manifest(row("a"), row("a"))
    metadata = {"koser.provenance": broken.provenance.to_json()}
    broken.table.write_parquet(path, metadata=metadata)
    with pytest.raises(ManifestError, match="an id that another row has too"):
        Manifest.read(path)
    assert json.loads(metadata["koser.provenance"])["n_rows_in"] == 2
