import json

import numpy as np
import pytest
import soundfile

from fixtures.aihub263 import invent_rows, write_corpus
from fixtures.audits import clean_rows
from fixtures.commands import train
from fixtures.manifests import manifest
from koser.data.splits import SplitOptions, make_split


@pytest.fixture
def corpus(tmp_path):
    """Write a manifest whose rows a test may change first; sentences are nobody's twice."""

    def write(change=lambda rows: None, **options):
        rows = clean_rows(**{"n_speakers": 6, "n_each": 8, "folder": tmp_path / "wav", **options})
        change(rows)
        manifest(rows).write(tmp_path / "m.parquet")
        return rows

    return write


def test_a_clean_corpus_passes_and_leaves_a_page_and_its_numbers(koser, corpus, tmp_path):
    corpus()
    status, out, _ = koser(
        "audit", "m.parquet", "--split", "speaker", "--strict", "--out", "found", "--workers", 1
    )
    assert status == 0, out
    assert "Leaks: pass" in out
    assert "Confounds: pass" in out
    values = json.loads((tmp_path / "found" / "audit.json").read_text("utf-8"))
    assert values["about"]["n"] == 48
    assert values["about"]["with_audio"] is True
    page = (tmp_path / "found" / "audit.html").read_text("utf-8")
    assert '<html lang="ko">' in page
    assert "복사된 음성" in page


def test_strict_refuses_what_without_it_is_only_told(koser, corpus):
    corpus(folder=None)
    command = ["audit", "m.parquet", "--split", "random", "--no-audio"]
    status, out, _ = koser(*command)
    assert (status, "Leaks: WARN" in out) == (0, True)
    assert "speakers (speaker | test utterances | train and val utterances):" in out
    assert koser(*command, "--strict")[0] == 1


def test_a_recording_on_both_sides_is_found_by_the_command(koser, corpus, tmp_path):
    def plant(rows):
        samples, rate = soundfile.read(rows[0]["path"], dtype="float32")
        soundfile.write(tmp_path / "copy.ogg", 0.3 * samples[500:], rate)
        rows[-1]["path"] = str(tmp_path / "copy.ogg")
        rows[-1]["duration"] = (len(samples) - 500) / rate

    rows = corpus(plant)
    status, out, _ = koser(
        "audit", "m.parquet", "--split", "leave_one_speaker_out", "--strict", "--workers", 1
    )
    assert status == 1
    assert "Leaks: FAIL" in out
    assert f"{rows[0]['id']} | " in out


def test_a_confound_that_fails_is_a_violation_and_one_that_warns_is_not(koser, corpus):
    def release_is_label(rows):
        for row in rows:
            row["release"] = row["label"]

    def durations_differ(rows):
        for row in rows:
            row["duration"] = 1.0 + len(row["label"])

    command = ["audit", "m.parquet", "--split", "leave_one_speaker_out", "--no-audio", "--strict"]
    corpus(release_is_label, folder=None)
    status, out, _ = koser(*command)
    assert (status, "Confounds: FAIL" in out) == (1, True)
    corpus(durations_differ, folder=None)
    status, out, _ = koser(*command)
    assert (status, "Confounds: WARN" in out) == (0, True)


def test_unreadable_files_are_a_finding_and_no_error(koser, corpus, tmp_path):
    rows = corpus()
    (tmp_path / "wav" / f"{rows[3]['id']}.wav").write_bytes(b"RIFF")
    status, out, err = koser("audit", "m.parquet", "--strict", "--workers", 1)
    assert (status, err) == (1, "")
    assert "1 of 48 utterances cannot be read" in " ".join(out.replace("│", " ").split())


def test_a_kept_split_is_checked_and_a_strangers_is_refused_in_one_line(koser, corpus, tmp_path):
    corpus(folder=None)
    made = manifest(clean_rows(n_speakers=4, n_each=8))
    make_split(made, "speaker", SplitOptions()).write(tmp_path / "s.parquet")
    status, _, err = koser("audit", "m.parquet", "--split", "s.parquet", "--no-audio")
    assert status == 1
    assert err.startswith("Error: The split 'speaker'")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--report-language", "de"], ["--split", "sideways"]])
def test_what_koser_does_not_know_is_refused_before_the_work(koser, corpus, arguments):
    corpus()
    status, out, err = koser("audit", "m.parquet", *arguments)
    assert (status, out) == (1, "")
    assert err.count("\n") == 1


def test_an_ai_hub_folder_is_audited_by_its_groups_and_object_ids(koser, tmp_path):
    rows = invent_rows((24, 24, 24))
    write_corpus(tmp_path / "raw", rows, seconds=0.5)
    koser("prepare", "aihub263", tmp_path / "raw", "--out", "m.parquet")
    status, _, err = koser(
        "audit", "m.parquet", "--split", "speaker", "--out", "found", "--workers", 1
    )
    assert (status, err) == (0, "")
    values = json.loads((tmp_path / "found" / "audit.json").read_text("utf-8"))
    checks = {check["name"]: check for check in values["checks"]}
    assert checks["groups"]["verdict"] == "pass"
    assert checks["recording_times"]["finding"] == "apart"
    assert checks["same_person"]["finding"] == "no_birthdays"
    tables = {table["name"]: table for table in values["tables"]}
    release = tables["release"]
    happiness = release["counts"][release["labels"].index("happiness")]
    assert np.count_nonzero(happiness) == 1, "only the last release has happiness"
    assert koser("audit", "m.parquet", "--split", "random", "--no-audio", "--out", "random")[0] == 0
    values = json.loads((tmp_path / "random" / "audit.json").read_text("utf-8"))
    checks = {check["name"]: check for check in values["checks"]}
    assert checks["recording_times"]["verdict"] == "warn"


def test_a_run_keeps_its_audit_and_shows_probes_beside_its_score(koser, tone_corpus, tmp_path):
    koser("prepare", "folder", tone_corpus(), "--speaker-pattern", r"(s\d)_", "--out", "m.parquet")
    quick = ["--set", "train.epochs=2", "--set", "cnn.channels=[4, 6]", "--workers", 1]
    status, out, err = koser(
        "train", "--model", "mfcc", "--manifest", "m.parquet", "--split", "speaker",
        "--out", "run", "--canaries", *quick,
    )  # fmt: skip
    assert status == 0, err
    assert "Without the voice: metadata alone UAR" in out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))
    assert [probe["name"] for probe in metrics["probes"]] == ["metadata", "text"]
    assert "level" in metrics["probes"][0]["note"]
    audit = json.loads((tmp_path / "run" / "audit.json").read_text("utf-8"))
    assert audit["about"]["protocol"]["hash"] == metrics["protocol"]["hash"]
    canaries = json.loads((tmp_path / "run" / "canaries.json").read_text("utf-8"))
    assert canaries["verdict"] == "pass"
    assert "알아볼 것이 없는 데서" in (tmp_path / "run" / "report.html").read_text("utf-8")
    assert [each["name"] for each in canaries["canaries"]] == [
        "permuted_labels", "noise", "invariance",
    ]  # fmt: skip


def test_a_failed_canary_ends_the_command_with_status_1(koser, tone_corpus, monkeypatch):
    from koser.systems.mfcc import MfccSystem

    # a system that answers with what its data say is right
    monkeypatch.setattr(MfccSystem, "predict_rows", lambda self, data, rows: data.targets[rows])
    corpus = tone_corpus()
    koser("prepare", "folder", corpus, "--speaker-pattern", r"(s\d)_", "--out", "m.parquet")
    status, out, _ = koser(
        "train", "--model", "mfcc", "--manifest", "m.parquet", "--split", "leave_one_speaker_out",
        "--out", "run", "--canaries", "--workers", 1, "--set", "train.epochs=1",
        "--set", "speeds=[]", "--set", "cnn.channels=[4, 6]",
    )  # fmt: skip
    assert status == 1
    assert "FAIL" in out
    assert "the pipeline knows the answers" in " ".join(out.replace("│", " ").split())


@pytest.mark.parametrize("model", ["wav2vec2", "wav2vec2ft"])
def test_systems_on_an_encoder_pass_their_canaries(
    model, koser, tone_corpus, encoder_folder, tmp_path
):
    koser("prepare", "folder", tone_corpus(), "--speaker-pattern", r"(s\d)_", "--out", "m.parquet")
    status, out, err = koser(*train(model, encoder_folder("wav2vec2"), "--canaries"))
    assert status == 0, out + err
    values = json.loads((tmp_path / "run" / "canaries.json").read_text("utf-8"))
    assert [each["verdict"] for each in values["canaries"]] == ["pass"] * 3
    invariance = values["canaries"][2]["facts"]
    # half precision rounds what is stored; what is computed is the same
    assert invariance["probability_difference"] < 1e-3
    if model == "wav2vec2":
        assert invariance["feature_difference"] is not None
