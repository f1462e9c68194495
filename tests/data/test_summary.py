import numpy as np
import pytest

from fixtures.aihub263 import invent_rows, write_corpus
from koser.data.corpora.aihub263 import prepare
from koser.data.manifest import LeftOut, Manifest, Provenance, build_table
from koser.data.summary import summarise
from koser.evaluation.agreement import fleiss_kappa


def manifest(rows, **provenance):
    fields = {
        "adapter": "test",
        "root": "/",
        "labels": ("angry", "fear", "sadness"),
        "label_policy": "invented",
        "grouping": "speaker",
        "n_rows_in": len(rows) + len(provenance.get("left_out", ())),
    }
    constants = {"path": "/a.wav", "sampling_rate": 16_000, "n_channels": 1, "corpus": "test"}
    table = build_table({"id": str(n), **constants, **row} for n, row in enumerate(rows))
    return Manifest(table, Provenance(**(fields | provenance))).validate()


ROWS = [
    {"label": "fear", "duration": 2.0, "speaker": "b", "gender": "female", "release": "1"},
    {"label": "fear", "duration": 5.0, "speaker": "b", "gender": "female", "release": "1"},
    {"label": "angry", "duration": 8.0, "speaker": "a", "n_channels": 2, "release": "2"},
    {"label": "fear", "duration": 9.0, "speaker": "c", "gender": "male", "release": "2"},
]


def test_everything_is_counted():
    left_out = (LeftOut("x", "tie"), LeftOut("y", "no audio file"), LeftOut("z", "tie"))
    summary = summarise(manifest(ROWS, left_out=left_out, unlisted=("u.wav",), notes=("One.",)))
    assert (summary.n_rows_in, summary.n_utterances, summary.n_unlisted) == (7, 4, 1)
    assert list(summary.left_out.items()) == [("tie", 2), ("no audio file", 1)]
    assert list(summary.per_label.items()) == [("angry", 1), ("fear", 3), ("sadness", 0)]
    assert list(summary.per_group.items()) == [("b", 2), ("a", 1), ("c", 1)]
    assert summary.per_release == {"1": 2, "2": 2}
    assert summary.per_gender == {"female": 2, "male": 1}
    assert summary.formats == {"16000 Hz, 1 channel": 3, "16000 Hz, 2 channels": 1}
    assert summary.durations.hours == pytest.approx(24 / 3600)
    assert summary.durations.mean == pytest.approx(6)
    assert (summary.durations.shortest, summary.durations.longest) == (2, 9)
    assert summary.durations.share_long == pytest.approx(0.5)  # 5.0 s is not longer than 5 s
    assert summary.agreement == ()
    assert summary.notes == ("One.",)


def test_a_summary_does_not_depend_on_the_order_of_rows():
    assert summarise(manifest(ROWS)) == summarise(manifest(ROWS[::-1]))


def test_without_speakers_nothing_is_said_to_stand_for_them():
    summary = summarise(manifest(ROWS, grouping=None))
    assert summary.per_group == {}
    assert ("speakers", "number", "unknown") in list(summary.rows())


def test_rows_are_contiguous_sections_of_text_with_the_numbers_in_them():
    rows = list(summarise(manifest(ROWS, is_synthetic=True, notes=("One.",))).rows())
    sections = [section for section, _, _ in rows]
    starts = [s for s, before in zip(sections, [None, *sections], strict=False) if s != before]
    assert len(starts) == len(set(sections))
    assert ("corpus", "speech", "SYNTHETIC: made by a machine") in rows
    assert ("label", "fear", "3 (75.0%)") in rows
    assert ("duration", "longer than 5 s", "50.0%") in rows
    assert ("notes", "1", "One.") in rows


def test_agreement_is_over_all_and_per_release(tmp_path):
    rows = invent_rows((30, 30, 42))
    summary = summarise(prepare(write_corpus(tmp_path, rows)))
    assert [each.part for each in summary.agreement] == ["all", "4차년도", "5차년도", "5차년도_2차"]
    names = {"anger": "angry", "sad": "sadness"}
    heard = [
        [names.get(label.lower(), label.lower()) for label, _ in row.votes] for row in rows[:30]
    ]
    labels = sorted({label for row in heard for label in row})
    counts = np.array([[row.count(label) for label in labels] for row in heard])
    first = summary.agreement[1]
    assert first.kappa == pytest.approx(fleiss_kappa(counts), abs=1e-12)
    assert (first.n_utterances, first.n_raters) == (30, 5)


def test_agreement_rests_on_the_rows_with_all_votes_and_may_be_undefined(tmp_path):
    rows = invent_rows()
    votes = rows[0].votes
    changed = [rows[0].but(votes=(*votes[:4], ("", ""))), *rows[1:14]]
    summary = summarise(prepare(write_corpus(tmp_path / "a", changed)))
    assert (summary.agreement[0].n_utterances, summary.agreement[0].n_raters) == (13, 5)
    alike = [row.but(votes=(("Anger", 1),) * 5) for row in rows[:14]]
    summary = summarise(prepare(write_corpus(tmp_path / "b", alike)))
    assert summary.agreement[0].kappa is None
    assert any(value.startswith("undefined (14") for _, _, value in summary.rows())
