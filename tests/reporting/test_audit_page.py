import re

import numpy as np
import pytest

from fixtures.audits import clean_manifest, clean_rows
from fixtures.manifests import manifest
from fixtures.speech import SAMPLING_RATE, invent_speech
from koser.audio.sound_facts import measure
from koser.data.audit.audit import audit_manifest
from koser.data.audit.sharing import Audited
from koser.data.audit.sound import Sound
from koser.data.splits import SplitOptions, make_split
from koser.experiment.speaker_hint import Likeness, _judge
from koser.reporting.audit_page import audit_context, write_audit_page
from koser.reporting.language import LANGUAGES, load_phrases

N_AUDITS = 11


def audit_all():
    """Audits that come to every kind of finding."""
    rows = clean_rows(n_speakers=6, n_each=8)
    facts = [measure(invent_speech(n, seconds=1), SAMPLING_RATE) for n in range(len(rows))]
    yield audit_manifest(manifest(rows), None, Sound(facts, {}))
    said = {"angry": "그만 좀 하라니까", "neutral": "물 한 잔 주세요", "sadness": "보고 싶구나"}
    shared = [{**row, "text": said.get(row["label"], "정말 잘됐다 축하해")} for row in rows]
    made = manifest(shared)
    yield audit_manifest(made, make_split(made, "random"))
    same = manifest([{**row, "text": "모두가 읽는 같은 문장이다 정말로"} for row in rows])
    quiet = measure(0.2 * invent_speech(1, seconds=1), SAMPLING_RATE)
    split = make_split(same, "leave_one_speaker_out", SplitOptions(val_fraction=0.0))
    yield audit_manifest(same, split, Sound([*facts[:-1], facts[0]], {}))
    yield audit_manifest(same, split, Sound([*facts[:-2], quiet, None], {47: "'x' is broken"}))
    yield audit_manifest(same, None, Sound([facts[0], *facts[:-1]], {}))
    yield audit_manifest(manifest([{"label": "angry", "speaker": "a"}] * 3))
    nobody = manifest([{"label": label} for label in ("angry", "neutral") * 20], None)
    yield audit_manifest(nobody, make_split(nobody, "random"))
    groups = [
        {**row, "id": f"{1_600_000_000 + 60 * n:08x}c0ffee1234{n:06x}", "group": row["speaker"],
         "speaker": None}
        for n, row in enumerate(rows)
    ]  # fmt: skip
    grouped = manifest(groups, "group(age×gender)")
    yield audit_manifest(grouped, make_split(grouped, "speaker"))
    yield audit_manifest(grouped, make_split(grouped, "random"))
    older = [{**row, "age": 20 + int(row["group"][1:]), "gender": "female"} for row in groups]
    yearly = manifest(older, "group(age×gender)")
    yield audit_manifest(yearly, make_split(yearly, "speaker"))
    nowhere = manifest([{**row, "release": None} for row in groups], "group(age×gender)")
    yield audit_manifest(nowhere, make_split(nowhere, "speaker"))


@pytest.fixture(scope="module")
def audits():
    return [audit.to_dict() for audit in audit_all()]


def test_all_kinds_of_findings_are_among_the_audits_of_this_test(audits):
    assert len(audits) == N_AUDITS
    found = {(check["name"], check["finding"]) for audit in audits for check in audit["checks"]}
    assert {
        ("speakers", "shared"), ("speakers", "none_shared"), ("speakers", "no_split"),
        ("speakers", "unknown"), ("scripts", "gives_labels_away"),
        ("scripts", "shared_without_use"), ("recording_times", "near"),
        ("recording_times", "apart"), ("recording_times", "no_times"),
        ("same_person", "birthdays"), ("same_person", "needs_encoder"),
        ("same_person", "no_birthdays"), ("same_person", "unknown"),
        ("unreadable", "unreadable"), ("unreadable", "all_read"), ("same_audio", "crossing"),
        ("same_audio", "within"), ("copied_audio", "crossing"), ("label_conflicts", "no_copies"),
    } <= found  # fmt: skip


@pytest.mark.parametrize("number", range(N_AUDITS))
def test_every_sentence_of_an_audit_is_said_in_korean_on_a_korean_page(audits, number):
    t = load_phrases("ko")
    sentences = [check["summary"] for check in audits[number]["checks"]]
    sentences += [note for note in audits[number]["notes"] if "No probes" not in note]
    for probe in audits[number]["probes"]:
        sentences += filter(None, probe["note"].split("; "))
    assert [text for text, language in t.notes(sentences) if language == "en"] == []


def test_hints_of_voices_are_said_in_korean():
    names, audited = tuple("abcde"), Audited(clean_manifest(), None)
    alike = np.full((5, 5), 0.1)
    alike[0, 1] = alike[1, 0] = 0.9
    np.fill_diagonal(alike, np.nan)
    for within in (0.5, 0.95):
        check = _judge(audited, Likeness(names, np.full(5, within), alike), "speaker", "x/enc")
        ((text, language),) = load_phrases("ko").notes([check.summary])
        assert language == ""
        assert "단서" in text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("number", range(N_AUDITS))
def test_the_page_needs_nothing_but_itself(audits, tmp_path, language, number):
    write_audit_page(audits[number], tmp_path / "audit.html", language)
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert f'<html lang="{language}">' in page
    assert not re.search(r'(?:src|href)="(?!#|data:)|url\(|@import', page)
    assert "{" + "n}" not in page, "a place that was not filled"


def test_what_comes_from_data_is_escaped(tmp_path):
    rows = clean_rows(n_speakers=4, n_each=8)
    for row in rows:
        row["speaker"] += "<script>alert(1)</script>"
        row["release"] = "<b>r</b>" if row["label"] == "angry" else "other"
    made = manifest(rows)
    write_audit_page(
        audit_manifest(made, make_split(made, "random")).to_dict(), tmp_path / "a.html", "en"
    )
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<b>r</b>" not in page


def test_counts_of_labels_and_probes_are_those_of_the_audit(audits):
    context = audit_context(audits[0], load_phrases("en"))
    release = next(table for table in audits[0]["tables"] if table["name"] == "release")
    shown = next(each for each in context["audit_tables"] if "release" in each["caption"])
    assert [row[1:] for row in shown["grid"].rows] == [
        tuple(f"{count:,}" for count in counts) for counts in release["counts"]
    ]
    duration = next(probe for probe in audits[0]["probes"] if probe["name"] == "duration")
    row = next(row for row in context["audit_probe_table"].rows if row[0] == "Duration")
    assert row[3].startswith(f"{duration['uar']:.3f} [")
