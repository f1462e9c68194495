"""Notes of several things beside each other, said once each with what they are about."""

import re

import numpy as np
import polars as pl

from fixtures.runs import LABELS, write_run
from koser.reporting.ablations import ablation_notes
from koser.reporting.comparison import compare_runs
from koser.reporting.comparison_tables import as_markdown, comparison_notes
from koser.reporting.language import load_phrases
from koser.reporting.noted import notes_with_places
from koser.reporting.robustness import robustness_notes

EN, KO = load_phrases("en"), load_phrases("ko")
WIDE = "Only 4 clusters: the intervals are wide."
ALIKE = "The systems score alike in every speaker: there is no difference to test."


def differ_on(n):
    clusters = "1 cluster" if n == 1 else f"{n} clusters"
    return (
        f"The systems differ on {clusters} (speaker) only: no permutation test can reach "
        f"p < {2 / 2**n:g}."
    )


def test_what_all_share_is_bare_and_what_some_have_names_them():
    noted = [("a", [WIDE, differ_on(1)]), ("b", [WIDE]), ("c", [WIDE, ALIKE, differ_on(1)])]
    assert notes_with_places(noted, EN) == [
        (WIDE, ""), (f"a; c: {differ_on(1)}", ""), (f"c: {ALIKE}", "")
    ]  # fmt: skip
    in_korean = notes_with_places(noted, KO)
    assert all(language == "" for _, language in in_korean)
    assert in_korean[1][0].startswith("a; c: 두 시스템이 다르게 답한 묶음(화자)이 1개뿐이어서")
    assert notes_with_places([("a", [ALIKE])], EN) == [(ALIKE, "")]
    assert notes_with_places([], EN) == []


def test_a_note_on_a_test_of_many_names_its_pair(tmp_path):
    """Of four systems, the second answers otherwise for one speaker, the third for two."""
    folders = [write_run(tmp_path / f"r{n}", model="mfcc", config={"n": n}) for n in range(4)]
    for n, folder in enumerate(folders):
        table = pl.read_parquet(folder / "predictions.parquet").with_columns(predicted="label")
        wrong = np.isin(table["cluster"].to_numpy(), [["s0"], ["s0"], ["s1", "s2"], ["s3"]][n])
        other = {label: LABELS[place - 1] for place, label in enumerate(LABELS)}
        is_worse = pl.Series(wrong & (n > 0))
        table = table.with_columns(
            predicted=pl.when(is_worse).then(pl.col("label").replace(other)).otherwise("label")
        )
        table.write_parquet(folder / "predictions.parquet")
    comparison = compare_runs(folders)
    notes = [text for text, _ in comparison_notes(comparison, EN)]
    of_tests = [text for text in notes if "differ on" in text]
    titles = [row.title for row in comparison.rows]
    assert of_tests == [
        f"{titles[1]} − {titles[0]}; {titles[3]} − {titles[0]}: {differ_on(1)}",
        f"{titles[2]} − {titles[0]}; {titles[3]} − {titles[1]}: {differ_on(2)}",
        f"{titles[2]} − {titles[1]}; {titles[3]} − {titles[2]}: {differ_on(3)}",
    ]
    assert as_markdown(comparison, KO).count("순열 검정도") == 3
    for pair in comparison.pairs:
        (said,) = [note for note in pair.notes if "differ on" in note]
        name = f"{pair.first} − {pair.second}"
        assert [name in text for text in of_tests if text.endswith(said)] == [True]
    assert not any(re.search(r"differ on 1 clusters", text) for text in notes)


def test_notes_of_conditions_name_them_and_those_of_earlier_versions_stay():
    conditions = [
        {"kind": "noise", "level": 20.0, "unit": "dB", "notes": [differ_on(2)]},
        {"kind": "noise", "level": 5.0, "unit": "dB", "notes": []},
        {"kind": "opus", "level": 6.0, "unit": "kbit/s", "notes": [differ_on(2)]},
    ]
    values = {"conditions": conditions, "notes": [WIDE]}
    (shared, _), (named, _) = robustness_notes(values, EN)
    assert shared == WIDE
    names = named.removesuffix(f": {differ_on(2)}").split("; ")
    assert [name.split(", ")[1] for name in names] == ["20 dB", "6 kbit/s"]
    old = {"conditions": [{"kind": "noise", "level": 5.0, "unit": "dB"}], "notes": [WIDE, ALIKE]}
    assert robustness_notes(old, EN) == [(WIDE, ""), (ALIKE, "")]
    assert robustness_notes(None, EN) == []


def test_a_difference_from_an_ablation_says_why_it_has_no_interval():
    flat = (
        "No interval of UAR: the same in every cluster (speaker), which says nothing about others."
    )
    parts = {
        "text only": {"difference": {"uar": 0.0, "ci95": {"uar": None}, "notes": [WIDE, flat]}},
        "audio only": {"difference": {"uar": 0.1, "ci95": {"uar": None}}},
    }
    metrics = {"ablations": parts, "notes": [WIDE]}
    assert ablation_notes(metrics, EN) == [(f"text only: {flat}", "")]
    ((said, language),) = ablation_notes(metrics, KO)
    assert said.startswith(KO["ablations.values"]["text only"])
    assert language == ""
    assert ablation_notes({"notes": []}, EN) == []
