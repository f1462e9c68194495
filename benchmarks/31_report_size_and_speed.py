"""How long a report and a comparison take, and how large they are, for many predictions.

Invented predictions: 44,000 utterances of 60 speakers under seven labels, as many as AI Hub
263 has, in a cross-validation of 60 folds with its learning curves; and five such runs
compared. The scores mean nothing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from koser.errors import one_line_errors
from koser.files import write_json
from koser.labels import EMOTIONS
from koser.reporting.comparison import compare_runs
from koser.reporting.comparison_page import write_comparison
from koser.reporting.report import write_report
from measuring import memory_mb, new_parser, print_heading, print_table, print_verdict

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fixtures.runs import write_run

N_SYSTEMS, N_FOLDS, N_EPOCHS = 5, 60, 40


def main() -> None:
    parser = new_parser(__doc__)
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n = 2_000 if arguments.quick else 44_000
    ids = [f"u{number:06d}" for number in range(n)]
    clusters = [f"s{number % 60:02d}" for number in range(n)]
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as temporary:
        folders = [
            write_run(
                Path(temporary) / f"system{number}",
                accuracy=0.4 + 0.05 * number,
                seed=number,
                labels=EMOTIONS,
                ids=ids,
                clusters=clusters,
            )
            for number in range(N_SYSTEMS)
        ]
        write_json(_history(), folders[0] / "history.json")
        started = time.perf_counter()
        report = write_report(folders[0])
        report_seconds = time.perf_counter() - started
        started = time.perf_counter()
        comparison = compare_runs(folders)
        write_comparison(comparison, Path(temporary) / "c.html")
        comparison_seconds = time.perf_counter() - started
        rows = [
            ("what", "seconds", "MB"),
            ("report", f"{report_seconds:.1f}", f"{report.stat().st_size / 1e6:.2f}"),
            (
                f"comparison of {N_SYSTEMS}",
                f"{comparison_seconds:.1f}",
                f"{(Path(temporary) / 'c.html').stat().st_size / 1e6:.2f}",
            ),
        ]
        print_table(rows)
        print(f"peak memory: {memory_mb('VmHWM'):.0f} MB")
        is_met = report_seconds < 10 and comparison_seconds < 60
        figure = f"report {report_seconds:.1f} s, comparison {comparison_seconds:.1f} s"
        print_verdict(figure, "< 10 s and < 60 s", is_met=is_met)


def _history() -> dict[str, object]:
    rng = np.random.default_rng(0)

    def epochs() -> list[dict[str, float]]:
        names = ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "val_uar")
        return [
            {"epoch": epoch, **{name: float(rng.random()) for name in names}}
            for epoch in range(1, N_EPOCHS + 1)
        ]

    return {
        f"seed42-fold{fold:02d}": {"best_epoch": N_EPOCHS, "epochs": epochs()}
        for fold in range(N_FOLDS)
    }


if __name__ == "__main__":
    with one_line_errors():
        main()
