import json

import numpy as np
import pytest

from fixtures.audits import clean_manifest, clean_rows
from fixtures.manifests import manifest
from koser.data.audit.audit import audit_manifest
from koser.data.audit.results import Evidence
from koser.data.audit.sound import Sound
from koser.data.splits import SplitOptions, make_split
from koser.errors import SplitError
from koser.features.extraction import clips_of
from koser.features.sound_pass import listen


@pytest.mark.parametrize("seed", range(10))
def test_ten_clean_corpora_raise_no_alarm(seed, tmp_path):
    rows = clean_rows(seed, n_speakers=6, n_each=8, folder=tmp_path)
    made = manifest(rows)
    heard = listen(clips_of(made.table), tmp_path / "store")
    split = make_split(made, "leave_one_speaker_out", SplitOptions(seed=seed))
    audit = audit_manifest(made, split, Sound(heard.facts, heard.failures))
    assert (audit.leakage, audit.confounds) == ("pass", "pass")
    assert not audit.is_violated
    # and these were really asked
    assert len([check for check in audit.checks if check.verdict == "pass"]) == 8
    assert len([probe for probe in audit.probes if probe.uar is not None]) >= 8


def test_without_a_split_probes_run_over_folds_of_speakers():
    audit = audit_manifest(clean_manifest())
    assert audit.notes == ("Without a split the probes run over 5 folds of whole speakers.",)
    assert audit.about["protocol"] is None
    assert {probe.n for probe in audit.probes if probe.uar is not None} == {288}


def test_with_one_speaker_there_are_no_probes_and_a_note_says_why():
    audit = audit_manifest(manifest([{"label": "angry", "speaker": "a"}] * 4))
    assert audit.probes == ()
    assert audit.notes[0].startswith("No probes without a split:")
    assert audit.confounds == "not_run"


def test_the_order_of_the_rows_changes_nothing():
    rows = clean_rows()
    for number, row in enumerate(rows):
        row["path"] = f"/x/{row['id']}.wav"
        row["text"] = "우리 모두 같은 문장을 읽었다고 한다" if number < 40 else row["text"]
    made = manifest(rows)
    options = SplitOptions(n_folds=4)
    expected = audit_manifest(made, make_split(made, "kfold", options)).to_dict()
    shuffled = manifest([rows[n] for n in np.random.default_rng(0).permutation(len(rows))])
    assert audit_manifest(shuffled, make_split(shuffled, "kfold", options)).to_dict() == expected


def test_a_split_of_another_manifest_is_refused():
    split = make_split(clean_manifest(n_speakers=5), "speaker")
    with pytest.raises(SplitError, match="does not belong to the manifest"):
        audit_manifest(clean_manifest(), split)


def test_the_audit_is_json():
    made = clean_manifest()
    values = audit_manifest(made, make_split(made, "random")).to_dict()
    again = json.loads(json.dumps(values, allow_nan=False))
    assert again["leakage"] == "warn"
    assert again["about"]["protocol"]["protocol"] == "random"
    assert again["checks"][0]["evidence"]["n_rows"] == 12


def test_evidence_is_capped_and_counted():
    evidence = Evidence.of(("a",), [[n] for n in range(100)])
    assert (len(evidence.rows), evidence.n_rows) == (20, 100)
    assert evidence.rows[0] == ("0",)
