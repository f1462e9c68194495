"""Published lists: the shipped one, the user's own, and what is wrong with some."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from fixtures.manifests import manifest
from koser.data.corpora import ravdess
from koser.data.fold_lists import shipped_lists
from koser.data.manifest import Manifest
from koser.data.splits import SplitOptions, make_split
from koser.errors import SplitError

CORPORA = Path(__file__).resolve().parents[2] / ".." / "shared" / "corpora"


def speakers(n_utterances: int = 60, n_speakers: int = 12) -> Manifest:
    return manifest(
        [
            {"speaker": f"화자{i % n_speakers:02d}", "label": ("angry", "fear", "sadness")[i % 3]}
            for i in range(n_utterances)
        ]
    )


def actors(names: range = range(1, 25)) -> Manifest:
    return manifest([{"speaker": f"Actor_{i:02d}"} for i in names for _ in range(3)])


def test_the_shipped_ravdess_folds_are_the_published_ones():
    published = "1 11 20 21 | 4 10 12 14 | 8 9 19 23 | 3 5 7 24 | 2 15 16 18 | 6 13 17 22"
    data = actors()
    split = make_split(data, "fixed:ravdess")
    speaker_of = dict(zip(data.table["id"], data.table["speaker"], strict=True))
    tested = [{speaker_of[i] for i in split.ids(fold, "test")} for fold in range(split.n_folds)]
    assert tested == [
        {f"Actor_{int(name):02d}" for name in fold.split()} for fold in published.split("|")
    ]
    assert split.protocol == "fixed:ravdess"
    assert split.grouping == "speaker"
    assert split.leakage(data)[0].n_shared == 0
    for counts in split.counts().iter_rows(named=True):
        assert counts["val"] == 6  # 2 of 20 actors
    assert shipped_lists() == ["ravdess"]


def test_listed_speakers_that_the_manifest_lacks_are_noted():
    split = make_split(actors(range(1, 20)), "fixed:ravdess")
    assert "5 of the 24 listed in 'ravdess' are not in the manifest: Actor_20" in split.notes[0]


def test_speakers_that_the_list_lacks_are_refused():
    message = "does not name the speaker of 9 utterances: Actor_25, Actor_26, Actor_27. List"
    with pytest.raises(SplitError, match=message):
        make_split(actors(range(1, 28)), "fixed:ravdess")


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t")])
def test_parts_are_taken_from_a_file_as_they_are(tmp_path, suffix, separator):
    data = speakers(12, 6)
    parts = ["train", "val", "test", "left_out"] * 3
    lines = [f"{i}{separator} {part} " for i, part in zip(data.table["id"], parts, strict=True)]
    file = tmp_path / f"목록{suffix}"
    file.write_text("\n".join([f"id{separator}part", *reversed(lines)]), encoding="utf-8-sig")
    split = make_split(data, f"fixed:{file}", SplitOptions(val_fraction=0.5))
    assert split.table["part"].to_list() == parts
    assert split.protocol == "fixed:목록"
    assert split.grouping == "utterance"  # the list does not keep the speakers apart


def test_validation_is_held_out_where_a_list_of_parts_names_none(tmp_path):
    data = speakers(60, 12)
    table = data.table.select("speaker").unique()
    is_test = pl.col("speaker").is_in(["화자00", "화자05"])
    table = table.with_columns(
        part=pl.when(is_test).then(pl.lit("test")).otherwise(pl.lit("train"))
    )
    table.write_parquet(tmp_path / "parts.parquet")
    split = make_split(data, f"fixed:{tmp_path / 'parts.parquet'}")
    assert split.counts().rows() == [(0, 45, 5, 10, 0)]
    assert split.grouping == "speaker"
    assert "names no val" in split.notes[0]
    kept = make_split(data, f"fixed:{tmp_path / 'parts.parquet'}", SplitOptions(val_fraction=0))
    assert kept.counts().rows() == [(0, 50, 0, 10, 0)]


def test_folds_are_numbered_by_their_numbers_or_names(tmp_path):
    data = manifest([{}] * 12, grouping=None)
    for names in (["9", "10", "11"], ["a", "b", "c"]):
        file = tmp_path / "folds.csv"
        rows = [f"{i},{names[n % 3]}" for n, i in enumerate(data.table["id"])]
        file.write_text("\n".join(["id,fold", *rows]), encoding="utf-8")
        split = make_split(data, f"fixed:{file}")
        tested = [split.ids(fold, "test") for fold in range(3)]
        assert tested == [data.table["id"][fold::3].to_list() for fold in range(3)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("speaker,fold\na,1\nb,2\na,3\nb,1\n", "names 2 × speaker more than once: a, b"),
        (
            "id,part\nu00000,train\nu00001,dev\nu00002,eval\n",
            "2 rows with an unknown part: dev, eval",
        ),
        ("id,part,fold\nu00000,train,1\n", "has the columns id, part, fold. It needs one of id"),
        ("name,fold\nx,1\n", "has the columns name, fold. It needs"),
        ("id,fold\nu00000,\nu00001,1\n", "Column 'fold' .* is empty in 1 rows"),
        ("id,fold\nu00000,1,2,3\n", "is not a table"),
        (
            "id,fold\n",
            r"does not name the id of 6 utterances: u00000, .*u00004, …\. List them",
        ),
    ],
)
def test_an_unsound_list_is_refused(tmp_path, content, message):
    file = tmp_path / "list.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(SplitError, match=message):
        make_split(speakers(6, 3), f"fixed:{file}")


def test_a_list_that_does_not_exist_is_refused():
    with pytest.raises(SplitError, match=r"No list 'iemocap'.*koser ships \(ravdess\)"):
        make_split(speakers(), "fixed:iemocap")


@pytest.mark.integration
def test_ravdess_has_its_published_folds():
    data = ravdess.prepare(CORPORA / "ravdess")
    split = make_split(data, "fixed:ravdess")
    assert split.n_folds == 6
    assert split.counts()["test"].to_list() == [240] * 6
    assert {leak.kind: leak.n_shared for leak in split.leakage(data)}["speaker"] == 0
    assert {leak.kind: leak.n_shared for leak in split.leakage(data)}["script"] == 2
