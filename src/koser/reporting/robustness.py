"""How scores fall when sound gets worse: a table, a forest, and curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koser.reporting import figures
from koser.reporting.canvas import (
    BLUE,
    FAINT_INK,
    FAINT_LINE,
    GREEN,
    INK,
    LINE,
    VERMILION,
    new_figure,
    set_fonts,
    write_png,
)
from koser.reporting.language import Phrases
from koser.reporting.noted import notes_with_places
from koser.reporting.sections.tables import Table, make_table
from koser.reporting.svg import Axis, ForestRow, forest
from koser.reporting.wording import score_with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = Mapping[str, Any]  # the content of robustness.json

# What shares a panel of the picture, with what is written below it. A level's place is its rank:
# levels are what was tried, and no scale of harm.
_PANELS = (
    (("noise", "babble"), "잡음 Noise (dB SNR)"),
    (("opus", "g711a", "g711u"), "코덱 Codec (kbit/s)"),
    (("clipping",), "클리핑 Clipping (of the peak)"),
    (("speed",), "속도 Speed (×)"),
    (("reverberation",), "잔향 Reverberation (s RT60)"),
)
_COLOURS = (BLUE, VERMILION, GREEN)
_NAMES = {
    "noise": "백색 white",
    "babble": "사람들 babble",
    "opus": "Opus",
    "g711a": "G.711 A-law",
    "g711u": "G.711 µ-law",
}
_PANEL_WIDTH, _PANEL_HEIGHT = 2.7, 3.0  # inches


def robustness_table(values: Values | None, t: Phrases) -> Table | None:
    """Every condition: its UAR, and how far below the clean sound's that is; None without any."""
    if values is None:
        return None
    rows = [[t["robustness.clean"], figures.score(*_uar(values["clean"])), "", "", ""]]
    for each in values["conditions"]:
        difference = each["difference"]
        rows.append(
            [
                condition_name(each, t),
                figures.score(*_uar(each)),
                figures.points(difference["uar"], difference["ci95"]),
                figures.p_value(difference["p_holm"]),
                figures.score(each["ece"]),
            ]
        )
    rows[0][-1] = figures.score(values["clean"]["ece"])
    heads = ("condition", "uar", "difference", "p", "ece")
    return make_table([t[f"robustness.{name}"] for name in heads], rows)


def robustness_forest(values: Values | None, t: Phrases) -> str:
    """UAR under every condition with its interval, and a line at that of clean sound."""
    if values is None:
        return ""
    rows = []
    for each in values["conditions"]:
        low, high = each["ci95"]["uar"] or (None, None)
        text = figures.score(each["uar"])
        rows.append(ForestRow(condition_name(each, t), each["uar"], low, high, text))
    return forest(
        t["robustness.heading"],
        "; ".join(f"{row.name} {row.text}" for row in rows),
        rows,
        Axis(0, 1, "UAR"),
        reference=values["clean"]["uar"],
    )


def robustness_basis(values: Values | None, t: Phrases) -> str:
    """What all numbers have in common, in one line."""
    if values is None:
        return ""
    text: str = t["robustness.basis"].format(
        protocol=values["protocol"]["protocol"],
        hash=values["protocol"]["hash"][:8],
        n=f"{values['n']:,}",
        speakers=figures.count(values["n_speakers"]),
        trainings=values["n_trainings"],
        seeds=", ".join(map(str, values["seeds"])),
        seed=values["seed"],
    )
    return text


def robustness_notes(values: Values | None, t: Phrases) -> list[tuple[str, str]]:
    """What belongs beside the numbers, and beside which condition's; as from `Phrases.notes`."""
    if values is None:
        return []
    # Those of earlier versions do not say which.
    noted = [(condition_name(each, t), each.get("notes", ())) for each in values["conditions"]]
    return t.notes(values["notes"]) + notes_with_places(noted, t)


def condition_name(condition: Mapping[str, Any], t: Phrases) -> str:
    """A kind and its level with its unit."""
    return f"{t['robustness.kinds'][condition['kind']]}, {condition['level']:g} {condition['unit']}"


def plot_robustness(values: Values, path: Path) -> None:
    """Write a PNG: a panel for each family of degradations, over their levels.

    Parameters
    ----------
    values : Mapping
        The content of ``robustness.json``.
    path : Path
        The file. A reader sees the old one or the whole new one.

    Raises
    ------
    RunError
        If `path` cannot be written.
    """
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for each in values["conditions"]:
        by_kind.setdefault(each["kind"], []).append(each)
    panels = [
        (present, title)
        for kinds, title in _PANELS
        if (present := [kind for kind in kinds if kind in by_kind])
    ]
    clean = score_with_interval(values["clean"], "uar")
    protocol = values["protocol"]
    subtitle = (
        f"UAR, 95 % intervals; clean {clean}; {protocol['protocol']} "
        f"(split {protocol['hash'][:8]}), n = {values['n']}, speakers "
        f"{figures.count(values['n_speakers'])}, seeds {', '.join(map(str, values['seeds']))}; "
        f"each utterance by a model that has not learnt from it. Dashed: clean; dotted: chance."
    )
    size = (max(2, len(panels)) * _PANEL_WIDTH, _PANEL_HEIGHT)
    title = f"{values['title']}: 음질과 UAR Robustness"
    figure, top = new_figure(size, title, subtitle, values["is_synthetic"])
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for place, ((kinds, title), each) in enumerate(zip(panels, axes, strict=True)):
        _draw_panel(each, values, [by_kind[kind] for kind in kinds], is_first=place == 0)
        each.set_xlabel(title, color=INK, size=9.5)
    figure.subplots_adjust(
        left=0.75 / size[0], right=1 - 0.15 / size[0], top=top - 0.02, bottom=0.18, wspace=0.08
    )
    set_fonts(figure)
    write_png(figure, path)


def _draw_panel(
    axes: Axes, values: Values, curves: Sequence[Sequence[Mapping[str, Any]]], *, is_first: bool
) -> None:
    levels = list(dict.fromkeys(each["level"] for curve in curves for each in curve))
    if curves[0][0]["kind"] == "opus":
        levels.sort(reverse=True)  # those of G.711 too
    for place, curve in enumerate(curves):
        # Intervals of several curves beside each other.
        shift = 0.08 * (place - (len(curves) - 1) / 2)
        xs = [levels.index(each["level"]) + shift for each in curve]
        ys = [each["uar"] for each in curve]
        bounds = [each["ci95"]["uar"] or (y, y) for each, y in zip(curve, ys, strict=True)]
        errors = [
            [y - low for y, (low, _) in zip(ys, bounds, strict=True)],
            [high - y for y, (_, high) in zip(ys, bounds, strict=True)],
        ]
        name = _NAMES.get(curve[0]["kind"], "")
        axes.errorbar(
            xs, ys, errors, fmt="o-", color=_COLOURS[place], markersize=4, lw=1.6, label=name
        )
    axes.axhline(values["clean"]["uar"], color=INK, lw=1, ls="--")
    axes.axhline(values["chance_uar"], color=FAINT_INK, lw=1, ls=":")
    axes.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    axes.set_xlim(-0.4, len(levels) - 0.6)
    axes.set_ylim(0, 1)
    axes.grid(axis="y", color=FAINT_LINE)
    axes.tick_params(colors=FAINT_INK, labelsize=8.5, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    if is_first:
        axes.set_ylabel("UAR", color=INK, size=9.5)
    if len(curves) > 1:
        axes.legend(fontsize=8.5, labelcolor=INK, loc="lower left", edgecolor="none")


def _uar(scores: Mapping[str, Any]) -> tuple[float | None, Sequence[float] | None]:
    return scores["uar"], scores["ci95"]["uar"]
