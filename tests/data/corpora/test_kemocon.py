import shutil

import pytest

from fixtures.sound import left_out, n_accounted, notes, rows_of, write_sound
from koser.data.corpora.kemocon import prepare
from koser.data.splits import SplitOptions, make_split
from koser.errors import ConfigError, CorpusError

HEADER = "seconds,arousal,valence,cheerful,happy,angry,nervous,sad,boredom"


def write_table(root, name, ratings):
    folder = {"self": "self", "partner": "partner", "external": "aggregated_external"}.get(
        name.split(".")[1], "external"
    )
    path = root / "emotion_annotations" / f"{folder}_annotations" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [HEADER, *(f"{seconds},{a},{v},1,2,1,1,1,x" for seconds, a, v in ratings)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


RATINGS = [(5, 1, 1), (10, 3, 3), (15, 5, 4), (20, 2, 2)]


@pytest.fixture
def root(tmp_path):
    for first in (1, 3, 5, 7, 9):
        write_sound(tmp_path / "debate_audios" / f"p{first}.p{first + 1}.wav", seconds=22)
        for person in (first, first + 1):
            write_table(tmp_path, f"P{person}.external", RATINGS)
            write_table(tmp_path, f"P{person}.self", [(5, 4, 4.5), *RATINGS[1:]])
    meta = tmp_path / "metadata" / "subjects.csv"
    meta.parent.mkdir()
    meta.write_text("pid,age,gender,startTime\n1,23,F,1\n2,31,M,1\n", encoding="utf-8")
    return tmp_path


def test_a_row_is_five_seconds_of_one_person(root):
    manifest = prepare(root)
    assert len(manifest) == manifest.provenance.n_rows_in == 40
    row = rows_of(manifest)["P2_10"]
    assert (row["start"], row["end"], row["duration"]) == (10.0, 15.0, 5.0)
    assert (row["valence"], row["arousal"]) == (4.0, 5.0)
    assert (row["speaker"], row["group"], row["gender"], row["age"]) == ("P2", "p1.p2", "male", 31)
    assert row["path"].endswith("p1.p2.wav")


def test_classes_are_cut_from_valence_or_arousal_and_the_values_stay(root):
    rows = rows_of(prepare(root))
    labels = [rows[f"P1_{start}"]["label"] for start in (0, 5, 10, 15)]
    assert labels == ["negative", "neutral", "positive", "negative"]
    rows = rows_of(prepare(root, labels="arousal"))
    labels = [rows[f"P1_{start}"]["label"] for start in (0, 5, 10, 15)]
    assert labels == ["low", "medium", "high", "low"]
    with pytest.raises(ConfigError, match="Choose one of: valence, arousal"):
        prepare(root, labels="majority")


def test_annotators_are_never_mixed(root):
    assert rows_of(prepare(root))["P1_0"]["valence"] == 1.0
    own = prepare(root, annotator="self")
    assert rows_of(own)["P1_0"]["valence"] == 4.5
    assert own.provenance.label_policy == "valence by self"
    with pytest.raises(CorpusError, match=r"No annotations by 'partner'.*P1\.partner\.csv"):
        prepare(root, annotator="partner")
    with pytest.raises(ConfigError, match="Choose one of: external, partner, self"):
        prepare(root, annotator="me")


def test_each_observers_rating_is_a_vote(root):
    for rater, valence in enumerate((1, 3, 3, 5, 4), start=1):
        write_table(root, f"P1.R{rater}", [(5, 3, valence)])
    rows = rows_of(prepare(root))
    votes = [vote["label"] for vote in rows["P1_0"]["votes"]]
    assert votes == ["negative", "neutral", "neutral", "positive", "positive"]
    assert rows["P1_5"]["votes"] is None
    assert rows_of(prepare(root, annotator="self"))["P1_0"]["votes"] is None


def test_an_observer_whose_table_lies_there_twice_votes_once(root):
    for rater, valence in enumerate((1, 3, 5), start=1):
        write_table(root, f"P1.R{rater}", [(5, 3, valence)])
    copy = root / "emotion_annotations copy"
    shutil.copytree(root / "emotion_annotations", copy)
    votes = [vote["label"] for vote in rows_of(prepare(root))["P1_0"]["votes"]]
    assert votes == ["negative", "neutral", "positive"]
    (changed,) = copy.rglob("P1.R2.csv")
    changed.write_text(f"{HEADER}\n5,3,4,1,2,1,1,1,x\n", encoding="utf-8")
    with pytest.raises(
        CorpusError, match=r"Two tables are named 'P1\.R2\.csv' and differ: '.*copy"
    ):
        prepare(root)


def test_debaters_are_never_apart_because_the_sound_holds_both(root):
    manifest = prepare(root)
    assert manifest.provenance.grouping == "group(debate)"
    assert "the voice in a row may be the partner's" in notes(manifest)
    split = make_split(manifest, "speaker", SplitOptions(seed=1))
    part_of = dict(split.table.select("id", "part").iter_rows())
    for first in (1, 3, 5, 7, 9):
        parts = {part_of[f"P{person}_{s}"] for person in (first, first + 1) for s in (0, 5, 10)}
        assert len(parts) == 1


def test_blank_ratings_odd_times_and_ratings_past_the_end_are_reported(root):
    write_table(root, "P1.external", [("", 3, 3), (2, 3, 3), (10, 3, ""), (15, 3, 6), (20, "", 3)])
    write_table(root, "P2.external", [(25, 3, 3), (30, 3, 3)])
    manifest = prepare(root)
    assert left_out(manifest, "unusable time") == [
        "P1.external.csv, row 1",
        "P1.external.csv, row 2",
    ]
    assert left_out(manifest, "no valence") == ["P1.external.csv, row 3", "P1.external.csv, row 4"]
    assert rows_of(manifest)["P1_15"]["arousal"] is None
    assert left_out(manifest, "no such segment in the audio") == ["P2_25"]
    assert rows_of(manifest)["P2_20"]["end"] == 22.0
    assert n_accounted(manifest) == manifest.provenance.n_rows_in


def test_a_person_without_recording_is_one_row_with_a_count(root):
    (root / "debate_audios" / "p1.p2.wav").unlink()
    manifest = prepare(root)
    assert left_out(manifest, "person without debate recording") == ["P1", "P2"]
    assert {row.detail for row in manifest.provenance.left_out} == {"4 rows"}


def test_a_table_without_ratings_is_refused(root):
    path = write_table(root, "P1.external", RATINGS)
    path.write_text("seconds,arousal\n5,3\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"P1\.external\.csv' has no column valence"):
        prepare(root)
