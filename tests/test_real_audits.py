"""Audits and canaries of real corpora, through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

CORPORA = Path(__file__).resolve().parents[1] / ".." / "shared" / "corpora"


@pytest.fixture
def koser(tmp_path):
    """Call the command in an empty folder; returns its exit status."""

    def call(*arguments):
        environment = {**os.environ, "KOSER_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "koser", *map(str, arguments)]
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
        )
        assert "Traceback" not in result.stderr
        return result.returncode

    return call


@pytest.fixture
def audit(koser, tmp_path):
    """Audit a prepared corpus; returns the exit status and the content of ``audit.json``."""

    def call(corpus, folder, *arguments):
        assert koser("prepare", corpus, CORPORA / folder, "--out", "m.parquet") == 0
        status = koser("audit", "m.parquet", "--out", "found", "--strict", *arguments)
        return status, json.loads((tmp_path / "found" / "audit.json").read_text("utf-8"))

    return call


def by_name(values, kind="checks"):
    return {each["name"]: each for each in values[kind]}


def test_the_script_leak_of_emotiontts_is_seen_where_speakers_alone_are_left_out(audit):
    status, values = audit("emotiontts", "emotiontts_open_db", "--split", "leave_one_speaker_out")
    checks = by_name(values)
    assert (status, checks["speakers"]["verdict"]) == (1, "pass")
    assert (checks["scripts"]["verdict"], checks["scripts"]["finding"]) == (
        "warn",
        "gives_labels_away",
    )
    assert checks["scripts"]["facts"]["uar"] > 0.95
    assert by_name(values, "probes")["text"]["uar"] > 0.95


def test_emotiontts_passes_where_speaker_and_script_are_left_out(audit):
    status, values = audit(
        "emotiontts", "emotiontts_open_db", "--split", "speaker+script", "--folds", 5
    )
    assert (status, values["leakage"]) == (0, "pass")
    checks = by_name(values)
    assert checks["scripts"]["finding"] == checks["texts"]["finding"] == "none_shared"
    assert checks["copied_audio"]["verdict"] == "pass"


def test_the_pair_of_equal_files_of_ravdess_is_found_and_nothing_else_is_a_copy(audit):
    status, values = audit("ravdess", "ravdess", "--split", "fixed:ravdess")
    checks = by_name(values)
    equal = checks["same_audio"]
    assert (status, equal["verdict"], equal["facts"]["n"]) == (1, "warn", 2)
    (pair,) = equal["evidence"]["rows"]
    assert {pair[0][-2:], pair[3][-2:]} == {"07"}
    assert checks["copied_audio"]["verdict"] == "pass"
    # two sentences, each with every emotion
    assert checks["scripts"]["finding"] == "shared_without_use"


def test_the_mfcc_pipeline_passes_its_canaries_on_real_speech(koser, tmp_path):
    assert koser("prepare", "emotiontts", CORPORA / "emotiontts_open_db", "--out", "m.parquet") == 0
    status = koser(
        "train", "--model", "mfcc", "--manifest", "m.parquet", "--split", "speaker",
        "--out", "run", "--canaries", "--set", "train.epochs=10", "--set", "speeds=[]",
    )  # fmt: skip
    values = json.loads((tmp_path / "run" / "canaries.json").read_text("utf-8"))
    assert (status, values["verdict"]) == (0, "pass")
