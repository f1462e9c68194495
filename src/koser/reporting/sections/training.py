"""How the trainings went, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from koser.reporting import figures
from koser.reporting.language import Phrases
from koser.reporting.sections.tables import Table, make_table
from koser.reporting.svg import Axis, Plot

# More trainings than these are shown as a band and its mean, not line by line.
_MAX_LINES = 8
_STYLES = ("first", "second", "third")


def learning_curves(history: Mapping[str, Any], t: Phrases) -> list[dict[str, Any]]:
    """Loss and accuracy over the epochs, a plot each with its legend.

    Parameters
    ----------
    history : Mapping
        The content of ``history.json``.
    t : Phrases
        The language.
    """
    trainings = [each["epochs"] for each in history.values()]
    last = max(len(each) for each in trainings)
    losses = _curves(trainings, ("train_loss", "val_loss"))
    high = max(max(value for value in each if value is not None) for _, each in _flat(losses))
    epochs = Axis(1, max(last, 2), t["training.epoch"])
    chosen = [each["best_epoch"] for each in history.values()]
    return [
        _plot("loss", losses, epochs, Axis(0, 1.05 * high, t["training.loss_axis"]), chosen, t),
        _plot(
            "accuracy",
            _curves(trainings, ("train_accuracy", "val_accuracy", "val_uar")),
            epochs,
            Axis(0, 1, t["training.accuracy_axis"], as_percent=True),
            chosen,
            t,
        ),
    ]


def cost_rows(metrics: Mapping[str, Any], t: Phrases) -> list[tuple[str, str]]:
    """What the run cost, as names and values; empty for a run without the record."""
    cost = metrics.get("cost")
    if cost is None:
        return []
    speed = cost["prediction"]
    rows = [
        (
            t["cost.parameters"],
            t["cost.of_which"].format(
                n=figures.parameters(cost),
                trained=figures.magnitude(cost["n_trained_parameters"]),
            ),
        ),
        (
            t["cost.speed"],
            t["cost.speed_basis"].format(
                factor=f"{cost['real_time_factor']:.4f}",
                n=speed["n_clips"],
                seconds=f"{speed['audio_seconds']:.1f}",
                device=speed["device"],
                threads=speed["n_threads"],
            ),
        ),
    ]
    if "train_seconds" in cost:
        rows += [
            (
                t["cost.training"],
                t["cost.trainings"].format(
                    time=figures.span(cost["train_seconds"]), n=cost["n_trainings"]
                ),
            ),
            (t["cost.features"], figures.span(cost["extraction_seconds"])),
            (t["cost.testing"], figures.span(cost["test_seconds"])),
            (t["cost.memory"], figures.megabytes(cost["peak_memory_mb"])),
        ]
        if cost["gpu_peak_memory_mb"] is not None:
            rows.append((t["cost.gpu_memory"], figures.megabytes(cost["gpu_peak_memory_mb"])))
    return rows


def tuning_table(metrics: Mapping[str, Any], t: Phrases) -> Table | None:
    """What was chosen in each fold, and its inner score; None where nothing was."""
    tuning = metrics.get("tuning") or {"folds": ()}
    rows = [
        [
            str(fold["fold"]),
            ", ".join(f"{key} = {_short(value)}" for key, value in fold["settings"].items()),
            figures.score(fold["inner_score"]),
            figures.score(fold["untuned_inner_score"]),
        ]
        for fold in tuning["folds"]
    ]
    heads = ("fold", "settings", "inner_score", "untuned")
    return make_table([t[f"tuning.{head}"] for head in heads], rows, n_text=2)


def tuning_caption(metrics: Mapping[str, Any], t: Phrases) -> str:
    """The budget of the search for settings; blank where there was none."""
    tuning = metrics.get("tuning")
    if tuning is None:
        return ""
    phrase: str = t["tuning.caption"]
    return phrase.format(
        objective={"uar": "UAR", "nll": "NLL"}[tuning["objective"]],
        time=figures.span(tuning["seconds"]),
        **{key: f"{tuning[key]:,}" for key in ("n_trials", "n_inner_folds", "n_trainings")},
        protocol=tuning["inner_protocol"],
    )


def stacking_table(metrics: Mapping[str, Any], t: Phrases) -> Table | None:
    """An ensemble's weights in each training, and what they rest on; None for other systems."""
    stacking = metrics.get("stacking", ())
    rows = [
        [
            str(each["fold"]),
            str(each["seed"]),
            ", ".join(f"{name} {weight:.3f}" for name, weight in each["weights"].items()),
            f"{each['temperature']:.3f}",
            f"{len(each['inner_folds'])} × {each['inner_protocol']}",
            ", ".join(f"{name} {found['nll']:.3f}" for name, found in each["held_out"].items()),
        ]
        for each in stacking
    ]
    heads = ("fold", "seed", "weights", "temperature", "inner", "held_out")
    return make_table([t[f"stacking.{head}"] for head in heads], rows, n_text=3)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _curves(
    trainings: Sequence[Sequence[Mapping[str, Any]]], names: Sequence[str]
) -> dict[str, list[list[float | None]]]:
    """Values of each training by name; those of a missing val part are left out."""
    curves = {name: [[record[name] for record in epochs] for epochs in trainings] for name in names}
    return {
        name: each
        for name, each in curves.items()
        if any(value is not None for values in each for value in values)
    }


def _flat(curves: Mapping[str, list[list[float | None]]]) -> list[tuple[str, list[float | None]]]:
    return [(name, values) for name, each in curves.items() for values in each]


def _plot(
    kind: str,
    curves: Mapping[str, list[list[float | None]]],
    x: Axis,
    y: Axis,
    chosen: Sequence[int],
    t: Phrases,
) -> dict[str, Any]:
    legend = [(style, t[f"training.{name}"]) for style, name in zip(_STYLES, curves, strict=False)]
    ends = "; ".join(
        f"{t[f'training.{name}']}: {fmean(known):.3g}"
        for name, each in curves.items()
        if (known := [values[-1] for values in each if values[-1] is not None])
    )
    plot = Plot(t[f"training.{kind}"], t["training.at_the_end"].format(values=ends), x, y)
    for style, each in zip(_STYLES, curves.values(), strict=False):
        _draw(plot, each, style)
    for epoch in sorted(set(chosen)) if len(set(chosen)) <= _MAX_LINES else ():
        plot.line([epoch, epoch], [y.low, y.high], "reference")
    return {"plot": plot.render(), "legend": [*legend, ("reference", t["training.chosen"])]}


def _draw(plot: Plot, trainings: Sequence[Sequence[float | None]], style: str) -> None:
    longest = max(len(values) for values in trainings)
    epochs = list(range(1, longest + 1))
    if len(trainings) == 1:
        plot.line(epochs, trainings[0], style)
        return
    by_epoch = [
        [value for values in trainings for value in values[at : at + 1] if value is not None]
        for at in range(longest)
    ]
    known = [(epoch, values) for epoch, values in zip(epochs, by_epoch, strict=True) if values]
    if len(trainings) <= _MAX_LINES:
        for values in trainings:
            plot.line(epochs[: len(values)], values, f"thin {style}")
    else:
        plot.band(
            [epoch for epoch, _ in known],
            [min(values) for _, values in known],
            [max(values) for _, values in known],
            style,
        )
    # Of fewer than half, the mean would say who is left, not how training goes.
    kept = [(epoch, values) for epoch, values in known if 2 * len(values) >= len(trainings)]
    plot.line(
        [epoch for epoch, _ in kept],
        [fmean(values) for _, values in kept],
        style,
    )
