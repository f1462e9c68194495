"""How often an audit of a clean corpus raises an alarm, and that it sees what is planted.

Clean corpora are the tests': 12 speakers of 24 utterances, every label equally often with each,
and releases, ages, genders, durations, order and sentences that know nothing of the labels;
without sound. Each leak is planted in ten of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from inputs import REPOSITORY
from koser.data.audit.audit import audit_manifest
from koser.data.audit.results import Audit
from koser.data.splits import SplitOptions, make_split
from measuring import new_parser, print_heading, print_table, print_verdict

sys.path.insert(0, str(REPOSITORY / "tests"))  # the tests' invented corpora

N_CLEAN, N_PLANTED = 500, 10
TARGET_ALARMS = 0.02  # of the audits; a probe may be wrong once in a thousand times

Rows = list[dict[str, Any]]


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n_clean, n_planted = (20, 2) if arguments.quick else (N_CLEAN, N_PLANTED)
    alarms = [run(seed) for seed in range(n_clean)]
    n_alarms = sum(audit.leakage == "warn" or audit.confounds != "pass" for audit in alarms)
    wrong = [p.name for audit in alarms for p in audit.probes if p.verdict in ("warn", "fail")]
    wrong += [c.name for audit in alarms for c in audit.checks if c.verdict in ("warn", "fail")]
    print(f"alarms of {n_clean} clean corpora: {n_alarms} ({', '.join(wrong) or 'none'})")
    rows, n_missed = [("planted", "noticed", "of")], 0
    for name, (plant, is_noticed, protocol) in PLANTS.items():
        seen = sum(is_noticed(run(1000 + seed, plant, protocol)) for seed in range(n_planted))
        n_missed += n_planted - seen
        rows.append((name, str(seen), str(n_planted)))
    print_table(rows)
    print_verdict(
        f"audits with a false alarm: {n_alarms / n_clean:.1%}",
        f"<= {TARGET_ALARMS:.0%}",
        is_met=n_alarms / n_clean <= TARGET_ALARMS,
    )
    print_verdict(f"planted leaks missed: {n_missed}", "none", is_met=n_missed == 0)


def run(
    seed: int, plant: Callable[[Rows], None] | None = None, protocol: str = "leave_one_speaker_out"
) -> Audit:
    from fixtures.audits import clean_rows
    from fixtures.manifests import manifest

    rows = clean_rows(seed)
    if plant is not None:
        plant(rows)
    made = manifest(rows)
    return audit_manifest(made, make_split(made, protocol, SplitOptions(seed=seed)))


def script_of_label(rows: Rows) -> None:
    said = {"angry": "그만 좀 하라니까", "neutral": "물 한 잔 주세요", "sadness": "보고 싶구나"}
    for number, row in enumerate(rows):
        row["text"] = said.get(row["label"], "정말 잘됐다 축하해") + ("", "요", " 응")[number % 3]


def release_of_label(rows: Rows) -> None:
    for row in rows:
        row["release"] = row["label"]


def late_labels(rows: Rows) -> None:
    """As in AI Hub 263: two labels occur in one release only."""
    for number, row in enumerate(rows):
        is_late = row["label"] in ("happiness", "sadness") or number % 3 == 0
        row["release"] = "late" if is_late else "early"


def slow_label(rows: Rows) -> None:
    for row in rows:
        row["duration"] *= 1.6 if row["label"] == "sadness" else 1.0


def blocks_of_labels(rows: Rows) -> None:
    rows.sort(key=lambda row: (row["speaker"], row["label"]))
    for number, row in enumerate(rows):
        row["path"] = f"/x/{number:05d}.wav"


def words_of_label(rows: Rows) -> None:
    for row in rows:
        row["text"] += {"angry": " 젠장", "happiness": " 야호", "neutral": ""}.get(
            row["label"], " 흑흑"
        )


def nothing(rows: Rows) -> None:
    pass


def probe(name: str) -> Callable[[Audit], bool]:
    return lambda audit: any(
        each.name == name and each.verdict in ("warn", "fail") for each in audit.probes
    )


def check(name: str) -> Callable[[Audit], bool]:
    return lambda audit: any(
        each.name == name and each.verdict in ("warn", "fail") for each in audit.checks
    )


_LOSO = "leave_one_speaker_out"
PLANTS: dict[str, tuple[Callable[[Rows], None], Callable[[Audit], bool], str]] = {
    "paraphrased scripts of one label": (script_of_label, check("scripts"), _LOSO),
    "speakers on both sides": (nothing, check("speakers"), "random"),
    "sessions on both sides": (nothing, check("sessions"), "random"),
    "a release per label": (release_of_label, probe("release"), _LOSO),
    "two labels in one release": (late_labels, probe("release"), _LOSO),
    "one label slower": (slow_label, probe("duration"), _LOSO),
    "files in blocks of labels": (blocks_of_labels, probe("file_order"), _LOSO),
    "a word per label": (words_of_label, probe("text"), _LOSO),
}

if __name__ == "__main__":
    main()
