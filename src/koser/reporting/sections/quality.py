"""Whether probabilities can be believed, what abstaining buys, and for whom the system works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from koser.reporting import figures
from koser.reporting.language import Phrases
from koser.reporting.sections.tables import Table, make_table
from koser.reporting.svg import Axis, Plot
from koser.reporting.wording import is_raters_own

VOTE_COLUMNS = ("js", "kl", "cross_entropy", "top1_in_set", "accuracy")
# Of long lists of speakers or sessions: the best and the worst.
_MAX_GROUPS = 24


def reliability_plots(calibration: Mapping[str, Any], t: Phrases) -> list[tuple[str, str]]:
    """How often an answer is right, against how sure it was: before and after the temperature.

    Returns
    -------
    list[tuple[str, str]]
        Plots with their titles; a single one where no temperature was fitted.
    """
    shown = [("reliability_before", "before", "second"), ("reliability", "after", "first")]
    if not calibration["n_fitted"]:
        shown = [("reliability", "only", "first")]
    return [
        (
            _reliability(calibration[key], t[f"calibration.{name}"], style, t),
            t[f"calibration.{name}"],
        )
        for key, name, style in shown
    ]


def calibration_table(calibration: Mapping[str, Any], t: Phrases) -> Table | None:
    """Scores of the probabilities before and after the temperature."""
    rows = [
        [
            t[f"calibration.{name}"],
            *(
                figures.score(calibration[name][score], calibration[name]["ci95"][score])
                for score in ("nll", "ece", "adaptive_ece")
            ),
        ]
        for name in (("before", "after") if calibration["n_fitted"] else ("after",))
    ]
    if not calibration["n_fitted"]:
        rows[0][0] = t["calibration.only"]
    heads = ["", t["scores.nll"], t["scores.ece"], t["calibration.adaptive_ece"]]
    return make_table(heads, rows)


def temperature_line(calibration: Mapping[str, Any], t: Phrases) -> str:
    """Which temperature the probabilities have."""
    temperature = calibration["temperature"]
    value = f"{temperature['mean']:.2f}"
    if temperature["min"] < temperature["max"]:
        value += f" ({temperature['min']:.2f}–{temperature['max']:.2f})"
    text: str = t["calibration.temperature"].format(
        value=value, fitted=calibration["n_fitted"], n=calibration["n_trainings"]
    )
    return text


def coverage_plot(selective: Mapping[str, Any], metrics: Mapping[str, Any], t: Phrases) -> str:
    """Errors among the answers that are given, against how many are given."""
    curve = [point for point in selective["curve"] if point["risk"] is not None]
    risks = [point["risk"] for point in curve]
    error_rate = 1 - metrics["accuracy"]
    high = min(1.0, 1.1 * max([*risks, error_rate, 0.05]))
    description = "; ".join(f"{point['coverage']:.0%}: {point['risk']:.1%}" for point in curve[::5])
    plot = Plot(
        t["selective.heading"],
        description,
        Axis(0, 1, t["selective.coverage"], as_percent=True),
        Axis(0, high, t["selective.risk"], as_percent=True),
    )
    plot.line([0, 1], [error_rate, error_rate], "reference")
    plot.line([point["coverage"] for point in curve], risks, "first")
    return plot.render()


def threshold_table(selective: Mapping[str, Any], t: Phrases) -> Table | None:
    """What thresholds that were chosen on val come to on test."""
    rows: list[list[str]] = []
    if all(each["threshold"] is None for each in selective["thresholds"]):
        return None
    for each in selective["thresholds"]:
        name = t[f"selective.aim_{each['aim']}"].format(value=f"{100 * each['wanted']:.0f} %")
        if each["threshold"] is None:
            rows.append([name, t["selective.no_threshold"], figures.MISSING, figures.MISSING])
            continue
        bounds = each["ci95"]
        rows.append(
            [
                name,
                f"{each['threshold']['mean']:.3f}",
                figures.percent(each["coverage"], bounds["coverage"]),
                figures.percent(each["accuracy"], bounds["accuracy"]),
            ]
        )
    heads = ("wanted", "threshold", "coverage", "accuracy")
    return make_table([t[f"selective.{name}"] for name in heads], rows)


def subgroup_tables(subgroups: Mapping[str, Any], t: Phrases) -> list[dict[str, Any]]:
    """Scores by gender, age, duration and the like, a table each, with the gap.

    Parameters
    ----------
    subgroups : Mapping
        Of ``metrics.json``.
    t : Phrases
        The language.
    """
    return [
        {
            "name": t.named("subgroups.columns", column),
            "table": _subgroup_table(each["groups"], t),
            "gap": _gap_line(each["gap"], t),
            "notes": t.notes(each["notes"]),
            "n_unknown": each["n_unknown"],
            "is_long": len(each["groups"]) > _MAX_GROUPS // 2,
        }
        for column, each in subgroups.items()
    ]


def rater_rows(raters: Mapping[str, Any] | None, t: Phrases) -> list[tuple[str, str]]:
    """How far people agree, and how well a person would score."""
    if raters is None:
        return []
    rows = []
    agreement = raters["agreement"]
    if agreement is not None:
        basis = t["raters.basis"].format(n=f"{agreement['n']:,}", k=raters["n_votes"])
        for name in ("fleiss_kappa", "krippendorff_alpha"):
            value = figures.score(agreement[name], agreement["ci95"][name])
            rows.append((t[f"raters.{name}"], f"{value} ({basis})"))
    # A label that a rater helped to decide is no reference for that rater.
    references = (
        ("against_others",) if is_raters_own(raters) else ("against_others", "against_label")
    )
    for name in references:
        human = raters.get(name)
        if human is not None:
            scores = ", ".join(
                f"{t[f'scores.{score}']} {figures.score(human[score], human['ci95'][score])}"
                for score in ("uar", "accuracy")
            )
            rows.append((t[f"raters.{name}"], scores))
    return rows


def rater_notes(raters: Mapping[str, Any] | None) -> list[str]:
    """What belongs beside the raters' agreement; none in runs of earlier versions."""
    return list(((raters or {}).get("agreement") or {}).get("notes", ()))


def vote_table(votes: Mapping[str, Any] | None, t: Phrases) -> Table | None:
    """How close the system comes to the raters' distributions: all, and by their agreement.

    Parameters
    ----------
    votes : Mapping or None
        Of ``metrics.json``.
    t : Phrases
        The language.
    """
    if votes is None:
        return None
    levels = [(t["votes.levels"][each["level"]], each) for each in votes["levels"]]
    rows = [
        [
            name,
            figures.count(each["n"]),
            figures.count(each["n_speakers"]),
            *(
                figures.score(each[score], each["ci95"].get(score)) if score in each else ""
                for score in VOTE_COLUMNS
            ),
        ]
        for name, each in [(t["votes.all"], votes), *levels]
    ]
    if votes.get("prior"):
        prior = votes["prior"]
        values = [
            figures.score(prior[score], prior["ci95"].get(score)) if score in prior else ""
            for score in VOTE_COLUMNS
        ]
        rows.append([t["votes.prior"], "", "", *values])
    heads = ("level", "n", "n_speakers", *VOTE_COLUMNS)
    return make_table([t[f"votes.{name}"] for name in heads], rows)


def vote_line(votes: Mapping[str, Any] | None, t: Phrases) -> str:
    """What the scores against votes leave out; blank without votes."""
    if votes is None:
        return ""
    counts = {key: f"{votes[key]:,}" for key in ("n_tied", "n_without_votes", "n_votes_outside")}
    text: str = t["votes.counted"].format(**counts)
    return text


def probe_table(metrics: Mapping[str, Any], t: Phrases) -> Table | None:
    """What metadata or text alone reach under the same split, beside the system itself."""
    rows = [
        [
            t["audit.probes"][probe["name"]],
            figures.score(probe["uar"], None if probe["low"] is None else _bounds(probe)),
        ]
        for probe in metrics.get("probes", ())
        if probe["uar"] is not None
    ]
    if rows:
        own = figures.score(metrics["uar"], metrics["ci95"]["uar"])
        rows = [
            [t["probes.system"], own],
            *rows,
            [t["probes.chance"], figures.score(metrics["chance_uar"])],
        ]
    return make_table([t["probes.what"], "UAR [95 %]"], rows)


def _bounds(probe: Mapping[str, Any]) -> list[float]:
    return [probe["low"], probe["high"]]


def _reliability(bins: Sequence[Mapping[str, Any]], title: str, style: str, t: Phrases) -> str:
    points = [each for each in bins if each["n"]]
    description = "; ".join(
        f"{each['confidence']:.2f}: {each['accuracy']:.2f} (n = {each['n']})" for each in points
    )
    plot = Plot(
        title,
        description,
        Axis(0, 1, t["calibration.confidence"], as_percent=True),
        Axis(0, 1, t["calibration.accuracy"], as_percent=True),
    )
    plot.line([0, 1], [0, 1], "reference")
    for each in points:
        if each["ci95"] is not None:
            plot.line([each["confidence"]] * 2, each["ci95"], f"thin {style}")
    confidences = [each["confidence"] for each in points]
    accuracies = [each["accuracy"] for each in points]
    plot.line(confidences, accuracies, style)
    tips = [f"n = {each['n']:,}" for each in points]
    plot.points(confidences, accuracies, style, tips)
    return plot.render()


def _subgroup_table(groups: Sequence[Mapping[str, Any]], t: Phrases) -> Table | None:
    rows = [
        [
            t.named("subgroups.values", group["name"]),
            f"{group['n']:,}",
            figures.count(group["n_speakers"]),
            figures.score(group["uar"], group["ci95"]["uar"]),
            figures.score(group["accuracy"], group["ci95"]["accuracy"]),
        ]
        for group in groups
    ]
    heads = ("group", "n", "n_speakers", "uar", "accuracy")
    return make_table([t[f"subgroups.{name}"] for name in heads], rows)


def _gap_line(gap: Mapping[str, Any], t: Phrases) -> str:
    parts = []
    for name in ("uar", "accuracy"):
        found = gap.get(name)
        if found is not None:
            parts.append(
                t["subgroups.gap"].format(
                    score=t[f"subgroups.{name}_gap"],
                    best=t.named("subgroups.values", found["best"]),
                    worst=t.named("subgroups.values", found["worst"]),
                    value=figures.points(found["value"], found["ci95"]),
                )
            )
    return " ".join(parts)
