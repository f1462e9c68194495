import numpy as np
import polars as pl
import pytest

from fixtures.audits import clean_manifest, clean_rows, invent_sentence
from fixtures.manifests import manifest
from koser.data.assignment import TEST, TRAIN
from koser.data.audit.sharing import Audited, check_sharing, check_times, recording_times
from koser.data.splits import SplitOptions, make_split


def audited(rows, protocol="speaker", *, grouping="speaker", **options):
    made = manifest(rows, grouping)
    return Audited(made, make_split(made, protocol, SplitOptions(**options)))


def found(rows, protocol="speaker", **options):
    return {check.name: check for check in check_sharing(audited(rows, protocol, **options))}


def verdicts(rows, protocol="speaker", **options):
    return {name: check.verdict for name, check in found(rows, protocol, **options).items()}


def test_nothing_is_shared_under_a_speaker_split_of_sentences_that_nobody_repeats():
    assert verdicts(clean_rows()) == {
        "speakers": "pass",
        "sessions": "pass",
        "texts": "pass",
        "scripts": "pass",
        "recording_times": "not_run",
        "same_person": "not_run",
    }


def test_shared_speakers_and_sessions_are_counted_and_named_under_a_random_split():
    rows = clean_rows(n_speakers=5)
    checks = found(rows, "random")
    for name, kind in (("speakers", "speaker"), ("sessions", "session")):
        check = checks[name]
        assert (check.verdict, check.finding) == ("warn", "shared")
        assert check.facts["n_shared"] == 5
        parts = audited(rows, "random").parts
        assert check.facts["n_utterances"] == (parts == TEST).sum()
        assert {row[0] for row in check.evidence.rows} == {row[kind] for row in rows}


def test_a_split_that_breaks_its_promise_fails():
    rows = clean_rows(n_speakers=6)
    kept = audited(rows)
    swapped = kept.split.table.with_columns(
        part=pl.when(pl.col("id") == kept.split.ids(0, "train")[0])
        .then(pl.lit("test"))
        .otherwise("part")
    )
    broken = Audited(kept.manifest, _with_table(kept.split, swapped))
    checks = {check.name: check for check in check_sharing(broken)}
    assert (checks["speakers"].verdict, checks["speakers"].finding) == ("fail", "broken_promise")
    assert "although the split keeps speaker apart" in checks["speakers"].summary
    assert checks["sessions"].verdict == "warn", "of sessions the split promises nothing"


def _with_table(split, table):
    from dataclasses import replace

    return replace(split, table=table)


@pytest.mark.parametrize("kind", ["texts", "scripts"])
def test_sentences_of_one_emotion_that_all_read_give_the_labels_away(kind):
    rng = np.random.default_rng(0)
    sentence_of = {label: invent_sentence(rng) for label in ("angry", "neutral")}
    endings = ("", " 요", " 네", " 지")
    rows = [
        {
            "speaker": f"s{speaker}",
            "label": label,
            # equal for the texts; for the scripts nobody says it as anyone else does
            "text": sentence + (f" {endings[repeat]}{speaker}" if kind == "scripts" else ""),
        }
        for speaker in range(8)
        for label, sentence in sentence_of.items()
        for repeat in range(4)
    ]
    check = found(rows)[kind]
    assert (check.verdict, check.finding) == ("warn", "gives_labels_away")
    assert check.facts["uar"] == 1.0
    assert check.facts["n_shared"] == 2
    if kind == "scripts":
        assert found(rows)["texts"].verdict == "pass"


def test_sentences_that_are_read_with_every_emotion_give_nothing_away():
    rng = np.random.default_rng(0)
    sentences = [invent_sentence(rng) for _ in range(3)]
    rows = [
        {"speaker": f"s{speaker}", "label": label, "text": sentence}
        for speaker in range(10)
        for label in ("angry", "neutral", "sadness")
        for sentence in sentences
    ]
    check = found(rows)["scripts"]
    assert (check.verdict, check.finding) == ("pass", "shared_without_use")
    assert check.facts["uar"] == pytest.approx(1 / 3)


def test_speaker_and_script_splits_pass_where_speaker_splits_warn():
    rng = np.random.default_rng(1)
    sentences = {label: [invent_sentence(rng) for _ in range(6)] for label in ("angry", "neutral")}
    rows = [
        {"speaker": f"s{speaker}", "label": label, "text": sentence}
        for speaker in range(10)
        for label, spoken in sentences.items()
        for sentence in spoken
    ]
    assert verdicts(rows, "leave_one_speaker_out")["scripts"] == "warn"
    assert verdicts(rows, "speaker+script", n_folds=3)["scripts"] == "pass"


def test_without_a_split_or_without_knowledge_nothing_is_called_a_pass():
    rows = [{"label": label} for label in ("angry", "neutral") * 4]
    made = manifest(rows, None)
    alone = {check.name: check for check in check_sharing(Audited(made, None))}
    assert {check.verdict for check in alone.values()} == {"not_run"}
    assert alone["speakers"].finding == "unknown"
    known = {check.name: check.finding for check in check_sharing(Audited(clean_manifest(), None))}
    assert known["speakers"] == known["scripts"] == "no_split"


def test_utterances_of_one_recording_on_both_sides_are_found():
    rows = [
        {
            "speaker": f"s{number % 2}",
            "label": ("angry", "neutral")[number % 4 // 2],
            "path": f"/talk{number // 8}.wav",
            "start": 2.0 * (number % 8),
            "end": 2.0 * (number % 8) + 2.0,
        }
        for number in range(16)
    ]
    check = found(rows, val_fraction=0.0)["recordings"]
    assert (check.verdict, check.facts["n_shared"]) == ("warn", 2)


def object_ids(times):
    return [f"{time:08x}c0ffee1234{number:06x}" for number, time in enumerate(times)]


def test_recording_times_are_read_from_object_ids_alone():
    assert recording_times(pl.Series(object_ids([5, 1_600_000_000]))).tolist() == [5, 1_600_000_000]
    assert recording_times(pl.Series(["x/" + object_ids([7])[0]])).tolist() == [7]
    assert recording_times(pl.Series([*object_ids([5]), "neo00001"])) is None


def test_recordings_of_one_person_minutes_apart_are_near_and_of_two_are_not():
    """Against a loop over all pairs."""
    rng = np.random.default_rng(0)
    times = rng.integers(0, 40_000, 120)
    people = rng.integers(4, size=120)
    labels = np.array(["angry", "neutral"])[rng.integers(2, size=120)]
    rows = [
        {"id": name, "label": label, "speaker": f"s{person}"}
        for name, label, person in zip(object_ids(times), labels.tolist(), people, strict=True)
    ]
    under = audited(rows, "random")
    check = check_times(under)
    (part,) = under.parts
    learnt, tested = np.flatnonzero(part != TEST), np.flatnonzero(part == TEST)
    near = np.abs(times[tested][:, None] - times[learnt]) <= 600
    same = people[tested][:, None] == people[learnt]
    assert check.facts["n_same"] == (near & same).any(axis=1).sum()
    assert check.facts["n_any"] == near.any(axis=1).sum()
    assert 0 < check.facts["n_same"] < check.facts["n_any"]
    assert check.verdict == "warn"
    apart = check_times(audited(rows, "speaker"))
    assert (apart.verdict, apart.finding) == ("pass", "apart")


def test_a_birthday_between_releases_makes_two_groups_of_one_person_a_question():
    def group(gender, age, release, count=8):
        return [
            {
                "label": ("angry", "neutral")[number % 2],
                "group": f"{age}-{gender}",
                "gender": gender,
                "age": age,
                "release": release,
            }
            for number in range(count)
        ]

    rows = [
        *group("female", 24, "first"),
        *group("female", 25, "second"),
        *group("male", 25, "second"),
        *group("female", 31, "first"),
        *group("female", 33, "second"),
    ]
    made = manifest(rows, "group(age×gender)")
    split = make_split(made, "leave_one_speaker_out", SplitOptions(val_fraction=0.0))
    checks = {check.name: check for check in check_sharing(Audited(made, split))}
    check = checks["same_person"]
    assert (check.verdict, check.finding) == ("not_run", "birthdays")
    assert set(check.evidence.rows) == {("24-female", "25-female"), ("25-female", "24-female")}
    assert checks["groups"].verdict == "pass"
    apart = [row for row in rows if row["group"] != "25-female"]
    check = {each.name: each for each in check_sharing(_grouped(apart))}["same_person"]
    assert (check.verdict, check.finding) == ("pass", "no_birthdays")
    unknown = [{**row, "release": None} for row in rows]
    check = {each.name: each for each in check_sharing(_grouped(unknown))}["same_person"]
    assert (check.verdict, check.finding) == ("not_run", "unknown")


def _grouped(rows):
    made = manifest(rows, "group(age×gender)")
    return Audited(made, make_split(made, "leave_one_speaker_out", SplitOptions(val_fraction=0.0)))


def test_left_out_utterances_share_nothing():
    rows = clean_rows(n_speakers=4)
    kept = audited(rows, val_fraction=0.0)
    (part,) = kept.parts
    moved = kept.split.ids(0, "train")[0]
    table = kept.split.table.with_columns(
        part=pl.when(pl.col("id") == moved).then(pl.lit("left_out")).otherwise("part")
    )
    twin = manifest([{**row, "text": "같은 말을 하는 사람들이 있다"} for row in rows])
    split = _with_table(kept.split, table)
    (learnt, _), *_ = Audited(twin, split).cross_rows()
    assert len(learnt) == (part == TRAIN).sum() - 1
