"""The cross-corpus table: for the terminal, as Markdown, as CSV, and as a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from koser.errors import RunError
from koser.files import write_atomically, write_json
from koser.reporting import figures, markdown
from koser.reporting.language import Language, Phrases, load_phrases
from koser.reporting.pages import render_page
from koser.reporting.sections.tables import Table, make_table
from koser.reporting.svg import Axis, ForestRow, forest
from koser.reporting.wording import SYNTHETIC

_CSV = (
    *("run", "model", "trained_on", "corpus", "is_within", "protocol", "n_folds", "seeds"),
    *("uar", "uar_low", "uar_high", "accuracy", "accuracy_low", "accuracy_high"),
    *("macro_f1", "n", "n_speakers", "cluster_kind", "n_left_out", "labels", "chance_uar"),
)


def matrix_table(matrix: Mapping[str, Any], t: Phrases) -> Table | None:
    """Runs down, corpora across: UAR with its interval, n and speakers; within-corpus marked.

    Parameters
    ----------
    matrix : Mapping
        The content of ``matrix.json``.
    t : Phrases
        The language.
    """
    heads = [t["matrix.run"], t["matrix.trained_on"]]
    heads += [t["matrix.tested_on"].format(corpus=each["corpus"]) for each in matrix["corpora"]]
    rows = []
    for run in matrix["runs"]:
        cells = [cell for cell in matrix["cells"] if cell["run"] == run["run"]]
        texts = [_cell_text(cell, run, t) for cell in cells]
        rows.append([run["title"], ", ".join(run["trained_on"]), *texts])
    return make_table(heads, rows, n_text=2)


def protocol_rows(matrix: Mapping[str, Any], t: Phrases) -> list[tuple[str, str]]:
    """Under which protocol each run was trained, and tested on its own corpus."""
    return [
        (
            run["run"],
            t["matrix.protocol"].format(
                model=run["title"],
                corpora=", ".join(run["trained_on"]),
                protocol=run["protocol"],
                grouping=t.enumerated(run["grouping"], "clusters"),
                folds=run["n_folds"],
                seeds=", ".join(map(str, run["seeds"])),
                hash=run["split_hash"][:8],
            ),
        )
        for run in matrix["runs"]
    ]


def basis(matrix: Mapping[str, Any], t: Phrases) -> str:
    """What all cells have in common, in one line."""
    text: str = t["matrix.basis"].format(
        labels=", ".join(t.label(label) for label in matrix["labels"]),
        chance=f"{matrix['chance_uar']:.3f}",
    )
    return text


def cell_notes(matrix: Mapping[str, Any], t: Phrases) -> list[tuple[str, str]]:
    """Notes on the whole, then those of single cells with where they belong; each once.

    Each comes with its language, as from `Phrases.notes`.
    """
    notes = t.notes(matrix["notes"])
    for cell in matrix["cells"]:
        where = t["matrix.note"].format(run=cell["run"], corpus=cell["corpus"])
        notes += [(f"{where}: {note}", language) for note, language in t.notes(cell["notes"])]
    return list(dict.fromkeys(notes))


def as_markdown(matrix: Mapping[str, Any], t: Phrases) -> str:
    """Table, protocols and notes as Markdown."""
    table = matrix_table(matrix, t)
    lines = [f"**{SYNTHETIC}**", ""] if matrix["is_synthetic"] else []
    lines += [markdown.escaped(basis(matrix, t)), ""]
    if table is not None:
        lines += [markdown.table([name for name, _ in table.head], table.rows, n_text=2), ""]
    lines += [
        f"- {markdown.escaped(name)}: {markdown.escaped(text)}"
        for name, text in protocol_rows(matrix, t)
    ]
    lines += [f"- {markdown.escaped(note)}" for note, _ in cell_notes(matrix, t)]
    return "\n".join(lines) + "\n"


def as_csv(matrix: Mapping[str, Any]) -> str:
    """One row per cell with plain numbers; empty where unknown."""
    runs = {run["run"]: run for run in matrix["runs"]}
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, _CSV, lineterminator="\n")
    writer.writeheader()
    for cell in matrix["cells"]:
        run = runs[cell["run"]]
        values = {key: cell.get(key, run.get(key)) for key in _CSV}
        values |= {
            "model": run["title"],
            "trained_on": "+".join(run["trained_on"]),
            "seeds": " ".join(map(str, run["seeds"])),
            "labels": " ".join(matrix["labels"]),
            "chance_uar": matrix["chance_uar"],
        }
        for name in ("uar", "accuracy"):
            bounds = cell["ci95"][name] or (None, None)
            values[f"{name}_low"], values[f"{name}_high"] = bounds
        writer.writerow({key: "" if value is None else value for key, value in values.items()})
    return buffer.getvalue()


def write_matrix(
    matrix: Mapping[str, Any], folder: Path, *, language: Language = "ko"
) -> list[Path]:
    """Write ``matrix.json``, ``.csv``, ``.md`` and ``.html`` into `folder`.

    Returns
    -------
    list[Path]
        What was written.

    Raises
    ------
    RunError
        If `folder` cannot be written to.
    """
    t = load_phrases(language)
    texts = {
        "matrix.csv": as_csv(matrix),
        "matrix.md": as_markdown(matrix, t),
        "matrix.html": render_page("matrix.html.jinja", t, _context(matrix, t)),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(dict(matrix), folder / "matrix.json")
        for name, text in texts.items():
            write_atomically(folder / name, text.encode())
    except OSError as error:
        raise RunError(f"Cannot write the matrix to '{folder}': {error.strerror}.") from error
    return [folder / name for name in ("matrix.json", *texts)]


def _cell_text(cell: Mapping[str, Any], run: Mapping[str, Any], t: Phrases) -> str:
    speakers = "?" if cell["n_speakers"] is None else str(cell["n_speakers"])
    text = t["matrix.cell"].format(
        uar=figures.score(cell["uar"], cell["ci95"]["uar"]), n=f"{cell['n']:,}", speakers=speakers
    )
    if cell["is_within"]:
        text += " · " + t["matrix.within"].format(protocol=run["protocol"])
    return str(text)


def _context(matrix: Mapping[str, Any], t: Phrases) -> dict[str, Any]:
    return {
        "synthetic": SYNTHETIC if matrix["is_synthetic"] else "",
        "basis": basis(matrix, t),
        "table": matrix_table(matrix, t),
        "forest": _forest(matrix, matrix["cells"], t),
        "protocols": protocol_rows(matrix, t),
        "corpora": _corpus_table(matrix, t),
        "notes": cell_notes(matrix, t),
    }


def _forest(matrix: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], t: Phrases) -> str:
    """Every cell's UAR with its interval, against chance."""
    titles = {
        run["run"]: f"{run['title']}: {', '.join(run['trained_on'])}" for run in matrix["runs"]
    }
    rows = []
    for cell in cells:
        low, high = cell["ci95"]["uar"] or (None, None)
        mark = f" ({t['matrix.within_short']})" if cell["is_within"] else ""
        name = f"{titles[cell['run']]} → {cell['corpus']}{mark}"
        rows.append(ForestRow(name, cell["uar"], low, high, figures.score(cell["uar"])))
    return forest(
        t["matrix.heading"],
        "; ".join(f"{row.name} {row.text}" for row in rows),
        rows,
        Axis(0, 1, "UAR", as_percent=True),
        reference=matrix["chance_uar"],
    )


def _corpus_table(matrix: Mapping[str, Any], t: Phrases) -> Table | None:
    rows = [
        [
            each["corpus"],
            f"{each['n']:,}",
            figures.count(each["n_speakers"]),
            f"{each['n_left_out']:,}",
            ", ".join(f"{t.label(label)} {n:,}" for label, n in each["per_label"].items()),
        ]
        for each in matrix["corpora"]
    ]
    heads = ("corpus", "n", "n_speakers", "n_left_out", "labels")
    return make_table([t[f"matrix.{name}"] for name in heads], rows)
