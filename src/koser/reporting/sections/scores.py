"""Scores with their intervals and reference levels; recalls; confusions; folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from koser.reporting import figures
from koser.reporting.ablations import ablation_rows
from koser.reporting.language import Phrases
from koser.reporting.sections.tables import Table, make_table
from koser.reporting.svg import Axis, ForestRow, forest
from koser.reporting.wording import human_reference

SCORES = ("uar", "accuracy", "macro_f1", "nll", "ece")
_MOST_CONFUSED = 6


def protocol_line(metrics: Mapping[str, Any], t: Phrases) -> str:
    """What a score rests on, in one line: split, n, speakers, folds, seeds."""
    protocol, kind = metrics["protocol"], metrics["cluster_kind"]
    if metrics["n_speakers"] is None:
        speakers = t["protocol.speakers_unknown"]
    elif kind == "speaker":
        speakers = t["protocol.n_speakers"].format(n=metrics["n_speakers"])
    else:
        speakers = t["protocol.n_groups"].format(
            n=metrics["n_speakers"], kind=t.named("clusters", kind)
        )
    n_folds = protocol["n_folds"]
    return " · ".join(
        [
            t["protocol.split"].format(name=protocol["protocol"]),
            f"n = {metrics['n']:,}",
            speakers,
            t["protocol.folds"].format(n=n_folds) if n_folds > 1 else t["protocol.one_split"],
            t["protocol.seeds"].format(seeds=", ".join(str(seed) for seed in metrics["seeds"])),
        ]
    )


def score_table(metrics: Mapping[str, Any], t: Phrases) -> Table | None:
    """Every score beside what a guesser reaches."""
    references = {
        "uar": t["scores.chance"].format(value=f"{metrics['chance_uar']:.3f}"),
        "accuracy": t["scores.majority"].format(value=figures.score(metrics["majority_accuracy"])),
    }
    found = human_reference(metrics.get("raters"))
    if found is not None:
        against, human = found
        counts = {"n": f"{human['n_votes']:,}", "total": f"{metrics['raters']['n_votes']:,}"}
        for name in ("uar", "accuracy"):
            rater = figures.score(human[name], human["ci95"][name])
            text = t[f"scores.rater_{against}"].format(value=rater, **counts)
            references[name] += f" · {text}"
    over_seeds = metrics["over_seeds"] if len(metrics["seeds"]) > 1 else {}
    rows = []
    for name in SCORES:
        value = figures.score(metrics[name], metrics["ci95"][name])
        over = over_seeds.get(name)
        spread = f"{over['mean']:.3f} ± {over['sd']:.3f}" if over and over["sd"] else ""
        rows.append([t[f"scores.{name}"], value, references.get(name, ""), spread])
    names = [t["scores.score"], t["scores.test"], t["scores.reference"], t["scores.over_seeds"]]
    if not over_seeds:
        rows, names = [row[:3] for row in rows], names[:3]
    return make_table(names, rows)


def ablation_table(metrics: Mapping[str, Any], t: Phrases) -> Table | None:
    """The system without each of its parts; None where it names none."""
    rows = []
    for name, *texts in ablation_rows(metrics):
        rows.append([t.named("ablations.values", name), *texts])
    heads = ("what", "uar", "accuracy", "difference")
    return make_table([t[f"ablations.{head}"] for head in heads], rows)


def gap_table(
    gap: Mapping[str, Any] | None, metrics: Mapping[str, Any], t: Phrases
) -> Table | None:
    """The same system on the same corpus under other protocols; None where it was not tried."""
    if gap is None:
        return None
    own = metrics["protocol"]["hash"]
    rows = []
    for run in gap["runs"]:
        n_speakers = "–" if run["n_speakers"] is None else str(run["n_speakers"])
        scores = [figures.score(run[name], run["ci95"][name]) for name in ("uar", "accuracy")]
        other = run["protocol"]["hash"]
        difference = t["gap.this"] if other == own else _difference(gap["gaps"], own, other)
        rows.append([run["protocol"]["protocol"], str(run["n"]), n_speakers, *scores, difference])
    heads = ("protocol", "n", "speakers", "uar", "accuracy", "difference")
    return make_table([t[f"gap.{head}"] for head in heads], rows)


def _difference(gaps: Sequence[Mapping[str, Any]], own: str, other: str) -> str:
    """How much higher the UAR is under this run's protocol than under another."""
    for gap in gaps:
        if set(gap["split_hashes"]) == {own, other} and gap["uar"] is not None:
            sign = 1 if gap["split_hashes"][0] == own else -1
            bounds = sorted(sign * bound for bound in gap["ci95"]["uar"] or ())
            interval = f" [{bounds[0]:+.3f}, {bounds[1]:+.3f}]" if bounds else ""
            return f"{sign * gap['uar']:+.3f}{interval}"
    return figures.MISSING


def recall_plot(metrics: Mapping[str, Any], t: Phrases) -> str:
    """Recall of each label with its interval, against chance."""
    n_true = [sum(row) for row in metrics["confusion"]]
    rows = []
    for label, n in zip(metrics["labels"], n_true, strict=True):
        value, bounds = metrics["recall"][label], metrics["ci95"]["recall"][label]
        low, high = bounds or (None, None)
        text = f"{figures.score(value)} (n = {n:,})" if n else t["scores.absent"]
        rows.append(ForestRow(t.label(label), value, low, high, text))
    return forest(
        t["scores.recalls"],
        "; ".join(f"{row.name} {row.text}" for row in rows),
        rows,
        Axis(0, 1, t["scores.recall"], as_percent=True),
        reference=metrics["chance_uar"],
    )


def confusion_matrix(metrics: Mapping[str, Any], t: Phrases) -> dict[str, Any]:
    """Counts and row shares, as the template's macro takes them."""
    rows = []
    for place, (label, counts) in enumerate(
        zip(metrics["labels"], metrics["confusion"], strict=True)
    ):
        n = sum(counts)
        cells = [
            {
                "count": f"{cell:,}",
                "share": f"{cell / n:.3f}" if n else "0",
                "percent": f"{cell / n:.1%}".replace("%", " %") if n else figures.MISSING,
                "is_right": column == place,
            }
            for column, cell in enumerate(counts)
        ]
        rows.append({"name": t.label(label), "n": f"{n:,}", "cells": cells})
    return {"labels": [t.label(label) for label in metrics["labels"]], "rows": rows}


def most_confused(metrics: Mapping[str, Any], t: Phrases) -> Table | None:
    """The most frequent mistakes, by their share of the reference label."""
    labels, found = metrics["labels"], []
    for true, counts in zip(labels, metrics["confusion"], strict=True):
        for predicted, n in zip(labels, counts, strict=True):
            if n and predicted != true:
                found.append((n / sum(counts), n, true, predicted))
    found.sort(reverse=True)
    rows = [
        [f"{t.label(true)} → {t.label(predicted)}", f"{n:,}", f"{share:.1%}".replace("%", " %")]
        for share, n, true, predicted in found[:_MOST_CONFUSED]
    ]
    return make_table([t["confusion.mistake"], t["confusion.n"], t["confusion.share"]], rows)


def fold_table(metrics: Mapping[str, Any], t: Phrases) -> Table | None:
    """Every training of a cross-validation or of several seeds; None for a single one."""
    folds = metrics.get("folds", ())
    if len(folds) < 2:
        return None
    rows = [
        [
            f"{fold['fold']} / {fold['seed']}",
            *(f"{fold[key]:,}" for key in ("n_train", "n_val", "n_test")),
            figures.score(fold["accuracy"]),
            figures.score(fold["uar"]),
            figures.score(fold["best_val_uar"]),
            f"{fold['best_epoch']} / {fold['n_epochs']}",
        ]
        for fold in folds
    ]
    heads = ("fold", "train", "val", "test", "accuracy", "uar", "val_uar", "epoch")
    return make_table([t[f"folds.{name}"] for name in heads], rows)
