import numpy as np
import pytest
import soundfile

from fixtures.audits import clean_rows
from fixtures.manifests import manifest
from fixtures.speech import COPIES, SAMPLING_RATE, invent_speech
from koser.audio.sound_facts import measure
from koser.data.audit.sharing import Audited
from koser.data.audit.sound import SOUND_CHECKS, Sound, check_sound
from koser.data.splits import SplitOptions, make_split
from koser.features.extraction import clips_of
from koser.features.sound_pass import listen

N_ROWS = 24


@pytest.fixture(scope="module")
def crowd():
    """Rows of six speakers and what is heard of them, before anything is planted."""
    rows = clean_rows(n_speakers=6, n_each=4)
    return rows, [measure(invent_speech(500 + n), SAMPLING_RATE) for n in range(N_ROWS)]


def checks(rows, facts, *, failures=None, split=True):
    made = manifest(rows)
    options = SplitOptions(val_fraction=0.0)
    audited = Audited(made, make_split(made, "speaker", options) if split else None)
    sound = Sound(facts, failures or {})
    return audited, {check.name: check for check in check_sound(audited, sound)}


def test_a_clean_corpus_passes_every_check(crowd):
    _, found = checks(*crowd)
    assert {name: check.verdict for name, check in found.items()} == dict.fromkeys(
        SOUND_CHECKS, "pass"
    )


def _sides(rows):
    """A tested row, one that is learnt from, and another one of these."""
    audited, _ = checks(rows, [None] * N_ROWS)
    ((learnt, tested),) = audited.cross_rows()
    return int(tested[0]), int(learnt[0]), int(learnt[1])


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_on_the_other_side_fails_whatever_was_done_to_it(crowd, kind):
    rows, facts = crowd
    tested, learnt, _ = _sides(rows)
    facts = list(facts)
    facts[learnt] = measure(*COPIES[kind](invent_speech(500 + tested)))
    _, found = checks(rows, facts)
    # FLAC loses nothing but the rounding to 16 bits, of which the original here knows nothing
    check = found["copied_audio"]
    assert (check.verdict, check.facts["n_crossing"], check.facts["n"]) == ("fail", 1, 2)
    assert {check.evidence.rows[0][0], check.evidence.rows[0][3]} == {
        rows[tested]["id"],
        rows[learnt]["id"],
    }
    assert found["same_audio"].verdict == "pass"


def test_equal_samples_fail_across_the_parts_and_warn_within_one(crowd):
    rows, facts = crowd
    tested, learnt, other = _sides(rows)
    across, within = list(facts), list(facts)
    across[learnt] = facts[tested]
    within[other] = facts[learnt]
    _, found = checks(rows, across)
    assert (found["same_audio"].verdict, found["same_audio"].facts["n_crossing"]) == ("fail", 1)
    assert found["copied_audio"].verdict == "pass", "what is equal is not listed twice"
    _, found = checks(rows, within)
    assert (found["same_audio"].verdict, found["same_audio"].finding) == ("warn", "within")
    _, found = checks(rows, within, split=False)
    assert found["same_audio"].verdict == "warn"


def test_a_chain_of_copies_leaks_although_its_ends_were_not_compared(crowd):
    """Two equal ones are learnt from; the tested one is a copy of the first."""
    rows, facts = crowd
    tested, learnt, other = _sides(rows)
    facts = list(facts)
    facts[learnt] = facts[other] = measure(invent_speech(7), SAMPLING_RATE)
    facts[tested] = measure(*COPIES["vorbis"](invent_speech(7)))
    _, found = checks(rows, facts)
    assert found["copied_audio"].verdict == "fail"
    assert found["same_audio"].verdict == "warn"


@pytest.mark.parametrize("kind", ["same", "vorbis"])
def test_copies_with_different_labels_are_conflicts(crowd, kind):
    rows, facts = crowd
    facts = list(facts)
    first, second = 0, next(n for n, row in enumerate(rows) if row["label"] != rows[0]["label"])
    facts[second] = facts[first] if kind == "same" else measure(*COPIES[kind](invent_speech(500)))
    _, found = checks(rows, facts)
    check = found["label_conflicts"]
    assert (check.verdict, check.facts) == ("fail", {"n_sets": 1, "n_conflicts": 1})
    assert check.evidence.rows[0][1] == ", ".join(
        sorted({rows[first]["label"], rows[second]["label"]})
    )
    agreeing = [dict(row) for row in rows]
    agreeing[second]["label"] = agreeing[first]["label"]
    _, found = checks(agreeing, facts)
    assert (found["label_conflicts"].verdict, found["label_conflicts"].finding) == ("pass", "agree")


def test_what_cannot_be_read_fails_and_is_not_compared(crowd):
    rows, facts = crowd
    facts = [None if row == 3 else each for row, each in enumerate(facts)]
    _, found = checks(rows, facts, failures={3: "'x.wav' is broken"})
    check = found["unreadable"]
    assert (check.verdict, check.facts["n"]) == ("fail", 1)
    assert check.evidence.rows == ((rows[3]["id"], "'x.wav' is broken"),)
    measured = Sound(facts, {}).measured()
    assert np.isnan(measured["level"]).tolist() == [row == 3 for row in range(N_ROWS)]


def test_without_listening_nothing_is_called_a_pass(crowd):
    rows, _ = crowd
    made = manifest(rows)
    found = list(check_sound(Audited(made, make_split(made, "speaker")), None))
    assert [(check.name, check.verdict) for check in found] == [
        (name, "not_run") for name in SOUND_CHECKS
    ]


def test_a_file_and_its_flac_are_equal_from_disk_to_verdict(tmp_path):
    rows = clean_rows(n_speakers=3, n_each=4, folder=tmp_path)
    samples, rate = soundfile.read(rows[0]["path"], dtype="int16")
    soundfile.write(tmp_path / "again.flac", samples, rate)
    rows[8]["path"] = str(tmp_path / "again.flac")
    made = manifest(rows)
    heard = listen(clips_of(made.table), tmp_path / "store")
    found = {
        check.name: check
        for check in check_sound(Audited(made, None), Sound(heard.facts, heard.failures))
    }
    assert found["same_audio"].facts["n"] == 2
    assert {found["same_audio"].evidence.rows[0][0], found["same_audio"].evidence.rows[0][3]} == {
        rows[0]["id"],
        rows[8]["id"],
    }
