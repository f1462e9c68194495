import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.kemdy import (
    segments19,
    segments20,
    table_bytes,
    votes,
    write_kemdy19,
    write_kemdy20,
)
from fixtures.sound import left_out, n_accounted, notes, rows_of, write_sound
from koser.data.corpora import kemdy19, kemdy20
from koser.data.corpora.kemdy_tables import read_rows, without_tags
from koser.errors import ConfigError, CorpusError, LabelError
from koser.labels import canonical_label

SESSIONS = {1: segments19(1), 2: segments19(2)}
TWICE = "listed in the other speaker's table too"


@pytest.fixture
def root19(tmp_path):
    return write_kemdy19(tmp_path, SESSIONS)


@pytest.fixture
def root20(tmp_path):
    return write_kemdy20(tmp_path, {1: segments20(1), 12: segments20(12)})


# KEMDy19


def test_every_segment_comes_once_from_its_own_speakers_table(root19):
    manifest = kemdy19.prepare(root19)
    segments = {segment.id: segment for group in SESSIONS.values() for segment in group}
    tied = {id for id, segment in segments.items() if ";" in segment.total}
    assert set(rows_of(manifest)) == set(segments) - tied
    assert set(left_out(manifest, "tie for first place")) == tied
    # two tables list each of them
    assert manifest.provenance.n_rows_in == 2 * len(segments) == n_accounted(manifest)
    assert sorted(left_out(manifest, TWICE)) == sorted(segments)


def test_the_table_of_the_own_speaker_counts_where_the_two_differ(root19):
    own = SESSIONS[1][0]
    other = [own.but(total="sad", votes=votes(sad=10)), *SESSIONS[1][1:]]
    signals = ("ECG", "E4-EDA", "E4-TEMP")
    table = root19 / "annotation" / "Session01_M_res.csv"
    table.write_bytes(table_bytes(other, signals=signals))
    assert own.id.split("_")[2].startswith("F")
    assert rows_of(kemdy19.prepare(root19))[own.id]["label"] == "happiness"


def test_names_become_speaker_session_part_and_gender(root19):
    rows = rows_of(kemdy19.prepare(root19))
    row = rows["Sess02_script03_M001"]
    assert (row["speaker"], row["session"], row["release"]) == ("Sess02M", "Sess02", "script")
    assert (row["gender"], row["language"], row["corpus"]) == ("male", "ko", "kemdy19")
    assert rows["Sess01_impro01_F001"]["gender"] == "female"
    assert len({row["speaker"] for row in rows.values()}) == 4


def test_votes_valence_and_arousal_arrive(root19):
    row = rows_of(kemdy19.prepare(root19))["Sess01_impro01_F001"]
    assert [vote["label"] for vote in row["votes"]] == ["happiness"] * 7 + ["neutral"] * 3
    assert {vote["intensity"] for vote in row["votes"]} == {None}
    assert (row["valence"], row["arousal"]) == (4.4, 3.7)  # of 7 × (5, 4) and 3 × (3, 3)
    assert (row["start"], row["end"]) == (None, None)


@pytest.mark.parametrize("heading", ["Evaluator", " evaluator "])
def test_raters_of_one_name_are_ten_people_still(tmp_path, heading):
    table = table_bytes(SESSIONS[1], signals=("ECG",)).decode("utf-8-sig")
    path = tmp_path / "Session01_F_res.csv"
    path.write_bytes(re.sub(r"Eval\d\d[FM]", heading, table).encode("utf-8-sig"))
    for row, segment in zip(read_rows(path), SESSIONS[1], strict=True):
        assert [vote.label for vote in row.votes] == [
            canonical_label(label) for label, _, _ in segment.votes
        ]


def test_a_segment_that_its_own_table_lacks_is_reported_not_taken_from_the_other(root19):
    signals = ("ECG", "E4-EDA", "E4-TEMP")
    (root19 / "annotation" / "Session01_F_res.csv").write_bytes(
        table_bytes(SESSIONS[1][1:], signals=signals)
    )
    manifest = kemdy19.prepare(root19)
    lost = SESSIONS[1][0].id
    assert left_out(manifest, "missing from its own speaker's table") == [lost]
    assert lost not in rows_of(manifest)


def test_soft_labels_settle_ties_and_keep_the_distribution(root19):
    manifest = kemdy19.prepare(root19, labels="soft")
    assert manifest.labels == ("angry", "happiness", "neutral", "sadness")
    rows = rows_of(manifest)
    assert len(rows) == 32
    tied = rows["Sess01_impro01_F004"]
    assert tied["label"] == "happiness"  # before neutral in koser's order
    assert tied["distribution"] == [0, 0.5, 0.5, 0]
    assert rows["Sess01_impro01_F003"]["distribution"] == [0.6, 0, 0, 0.4]


def test_min_votes_leaves_out_what_fewer_raters_chose(root19):
    manifest = kemdy19.prepare(root19, min_votes=7)
    assert manifest.provenance.label_policy == "majority (at least 7 votes)"
    weak = left_out(manifest, "fewer than 7 votes for one label")
    assert {name[-3:] for name in weak} == {"003"}
    with pytest.raises(ConfigError, match="outside 1–10"):
        kemdy19.prepare(root19, min_votes=11)
    with pytest.raises(ConfigError, match="Choose one of: majority, soft"):
        kemdy19.prepare(root19, labels="situation")


def test_a_label_that_is_not_the_plurality_is_kept_and_counted(tmp_path):
    segments = [SESSIONS[1][0].but(total="sad"), *SESSIONS[1][1:]]
    manifest = kemdy19.prepare(write_kemdy19(tmp_path, {1: segments}))
    assert rows_of(manifest)[segments[0].id]["label"] == "sadness"
    assert "1 labels are not the plurality" in notes(manifest)


def test_orphans_of_both_kinds_are_listed(tmp_path):
    silent = SESSIONS[1][0].id
    root = write_kemdy19(tmp_path, SESSIONS, silent=[silent])
    stray = write_sound(root / "wav" / "Session01" / "Sess01_impro01" / "Sess01_impro01_F099.wav")
    manifest = kemdy19.prepare(root)
    assert left_out(manifest, "no audio file") == [silent]
    assert manifest.provenance.unlisted == (str(stray),)


def test_a_row_without_label_votes_or_ratings_is_reported_or_null(tmp_path):
    blank = SESSIONS[1][0].but(total="", votes=())
    thin = SESSIONS[1][1].but(votes=votes(neutral=3))
    root = write_kemdy19(tmp_path, {1: [blank, thin, *SESSIONS[1][2:]]})
    manifest = kemdy19.prepare(root)
    assert left_out(manifest, "no label") == [blank.id]
    assert "1 rows have not 10 votes" in notes(manifest)
    assert left_out(kemdy19.prepare(root, labels="soft"), "no votes") == [blank.id]


def test_an_unknown_label_is_an_error_that_counts_its_rows(tmp_path):
    segments = [segment.but(total="bored") for segment in SESSIONS[1][:2]]
    with pytest.raises(LabelError, match=r"KEMDy19 does not have: 'boredom' \(4 rows\)"):
        kemdy19.prepare(write_kemdy19(tmp_path, {1: segments}))


@pytest.mark.parametrize("n_headers", [0, 1])
def test_a_table_without_its_two_header_rows_is_refused(root19, n_headers):
    table = root19 / "annotation" / "Session01_F_res.csv"
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:n_headers] + lines[2:]))
    with pytest.raises(CorpusError, match="no two header rows with 'Segment ID'"):
        kemdy19.prepare(root19)


def test_two_tables_of_one_name_or_none_are_refused(root19, tmp_path):
    copy = root19 / "again" / "Session01_F_res.csv"
    copy.parent.mkdir()
    copy.write_bytes((root19 / "annotation" / copy.name).read_bytes())
    with pytest.raises(
        CorpusError, match=r"Two annotation tables are named 'Session01_F_res\.csv'"
    ):
        kemdy19.prepare(root19)
    with pytest.raises(CorpusError, match=r"No annotation table of KEMDy19.*SessionNN_F_res\.csv"):
        kemdy19.prepare(root19 / "wav")


# KEMDy20


def test_people_topics_and_the_typo_of_disgust_are_read(root20):
    manifest = kemdy20.prepare(root20)
    assert manifest.labels == ("disgust", "neutral", "surprise")
    row = rows_of(manifest)["Sess12_script06_User024M_002"]
    assert (row["label"], row["speaker"], row["session"]) == ("disgust", "User024M", "Sess12")
    assert (row["release"], row["gender"]) == ("script06", "male")
    assert n_accounted(manifest) == manifest.provenance.n_rows_in == 32
    assert {name[-3:] for name in left_out(manifest, "tie for first place")} == {"004"}


def test_both_spellings_of_disgust_are_one_vote(root20):
    row = rows_of(kemdy20.prepare(root20, labels="soft"))["Sess01_script01_User001F_004"]
    assert row["label"] == "angry"
    assert sum(vote["label"] == "disgust" for vote in row["votes"]) == 5


def test_texts_in_cp949_lose_their_marks_and_nothing_else(root20):
    manifest = kemdy20.prepare(root20)
    texts = {row["text"] for row in rows_of(manifest).values()}
    assert texts == {"그래서 어제 갔어", "우산을 두고 왔네", "그 화분 참 크다"}
    assert "Marks of noise and breath" in notes(manifest)


def test_a_text_that_cannot_be_read_costs_no_utterance(root20):
    texts = sorted(root20.rglob("*.txt"))
    texts[0].write_bytes(b"\xff\xfe\xb0\xff")
    texts[1].unlink()
    manifest = kemdy20.prepare(root20, labels="soft")
    rows = rows_of(manifest)
    assert [rows[path.stem]["text"] for path in texts[:2]] == [None, None]
    assert all(rows[path.stem]["text"] for path in texts[2:])
    assert "2 rows have no text: their .txt is missing" in notes(manifest)


def test_an_id_that_names_no_person_is_reported_with_its_line(tmp_path):
    segments = [segments20(1)[0].but(id="summary"), *segments20(1)[1:]]
    manifest = kemdy20.prepare(write_kemdy20(tmp_path, {1: segments}))
    assert left_out(manifest, "no segment id") == ["summary"]


@pytest.mark.parametrize(
    ("text", "bare", "n_tags"),
    [
        ("/o그래서 갔어n/", "그래서 갔어", 2),
        ("A/S 센터에 3/4쯤 갔어", "A/S 센터에 3/4쯤 갔어", 0),
        ("\\c \\n", None, 2),
        ("\\c\\n/o 응 n/l/b/", "응", 6),
        ("", None, 0),
    ],
)
def test_marks_stand_at_words_but_fractions_and_abbreviations_are_none(text, bare, n_tags):
    assert without_tags(text) == (bare, n_tags)


@given(words=st.lists(st.text("가나다라마바사아 abcxyz12,.?!", min_size=1, max_size=6), max_size=6))
def test_plain_words_are_never_taken_for_marks(words):
    text = " ".join(" ".join(words).split())
    assert without_tags(text) == (text or None, 0)


@given(
    words=st.lists(st.sampled_from(["그래서", "갔어", "응", "3시에"]), max_size=5),
    marks=st.lists(st.sampled_from(["/o", "/l", "\\c", "\\n", "n/", "c\\"]), max_size=5),
    seed=st.randoms(use_true_random=False),
)
def test_marks_are_taken_out_wherever_they_stand(words, marks, seed):
    mixed = words + marks
    order = sorted(range(len(mixed)), key=lambda place: (seed.random(), place))
    text = " ".join(mixed[place] for place in order)
    kept = [mixed[place] for place in order if place < len(words)]
    assert without_tags(text) == (" ".join(kept) or None, len(marks))


@given(
    total=st.sampled_from(["neutral", "happy", "disqust", "angry;sad", ""]),
    rated=st.lists(
        st.tuples(
            st.sampled_from(["neutral", "happy", "disgust", "disqust", "fear", ""]),
            st.integers(1, 5),
            st.integers(1, 5),
        ),
        min_size=10,
        max_size=10,
    ),
    n_signals=st.integers(0, 3),
)
def test_a_table_is_read_as_it_was_written_whatever_signals_it_has(
    tmp_path_factory, total, rated, n_signals
):
    segment = segments20(1)[0].but(total=total, votes=tuple(rated))
    path = tmp_path_factory.mktemp("table") / "Sess01_eval.csv"
    path.write_bytes(table_bytes([segment], signals=("ECG", "E4-EDA", "E4-TEMP")[:n_signals]))
    (row,) = read_rows(path)
    assert row.segment_id == segment.id
    assert list(row.totals) == sorted({canonical_label(part) for part in total.split(";") if part})
    named = [canonical_label(label) for label, _, _ in rated if label]
    assert [vote.label for vote in row.votes] == named
    assert row.valence == pytest.approx(sum(value for _, value, _ in rated) / 10, abs=0.05)
    assert row.arousal == pytest.approx(sum(value for _, _, value in rated) / 10, abs=0.05)
