"""Pictures of a run: training history and confusion matrix, in Korean and English.

Every `plot_…` writes what the `draw_…` of the same name returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from koser.errors import LabelError, RunError
from koser.labels import KOREAN
from koser.reporting.canvas import (
    BLUE,
    FAINT_INK,
    FAINT_LINE,
    GREEN,
    INK,
    LINE,
    PAPER,
    VERMILION,
    new_figure,
    set_fonts,
    write_png,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# One record per epoch, with these attributes or keys: epoch, train_loss, val_loss,
# train_accuracy, val_accuracy, val_uar. Those of a missing val part are None.
History = Sequence[Any]  # Any: the training layer's own class, or a row read from JSON

_MANY_EPOCHS = 40  # from here on, dots on every epoch hide the line


@dataclass(frozen=True)
class _Curve:
    """One quantity over the epochs of one panel."""

    name: str
    legend: str
    colour: str
    line_style: str = "-"
    scale: float = 1.0


_LOSSES = (
    _Curve("train_loss", "학습 train", BLUE),
    _Curve("val_loss", "검증 validation", VERMILION),
)
_ACCURACIES = (
    _Curve("train_accuracy", "학습 정확도 train accuracy", BLUE, scale=100),
    _Curve("val_accuracy", "검증 정확도 val accuracy", VERMILION, scale=100),
    _Curve("val_uar", "검증 UAR val UAR", GREEN, line_style="--", scale=100),
)


def plot_training_history(
    history: History | Mapping[str, History],
    path: Path,
    *,
    title: str,
    subtitle: str,
    chosen_epoch: int | Mapping[str, int] | None = None,
    is_synthetic: bool = False,
) -> None:
    """Write `draw_training_history` to a PNG file 1,725 pixels wide.

    Parameters
    ----------
    path : Path
        The file. A reader sees the old one or the whole new one.
    history, title, subtitle, chosen_epoch, is_synthetic
        As in `draw_training_history`.

    Raises
    ------
    RunError
        If there is no epoch to draw, or `path` cannot be written.
    """
    figure = draw_training_history(
        history,
        title=title,
        subtitle=subtitle,
        chosen_epoch=chosen_epoch,
        is_synthetic=is_synthetic,
    )
    write_png(figure, path)


def draw_training_history(
    history: History | Mapping[str, History],
    *,
    title: str,
    subtitle: str,
    chosen_epoch: int | Mapping[str, int] | None = None,
    is_synthetic: bool = False,
) -> Figure:
    """Loss and accuracy over the epochs, one panel each.

    Several trainings are thin lines with their mean in bold, which is drawn as long as at
    least half of them go on.

    Parameters
    ----------
    history : Sequence or Mapping[str, Sequence]
        One record per epoch (see `History`), of one training or of several by name.
        Accuracies are in [0, 1].
    title, subtitle : str
        What was trained; what the test score is and rests on.
    chosen_epoch : int or Mapping[str, int], optional
        Epoch whose weights were kept, for each training that has a history. It is marked.
    is_synthetic : bool
        Whether to mark the figure as made from synthetic speech.

    Returns
    -------
    Figure
        To be saved or looked into.

    Raises
    ------
    RunError
        If there is no epoch to draw, or a chosen epoch is not in its history.
    """
    histories = history if isinstance(history, Mapping) else {"": history}
    chosen = {"": chosen_epoch} if isinstance(chosen_epoch, int) else dict(chosen_epoch or {})
    if not histories or not all(len(each) for each in histories.values()):
        raise RunError(
            "A training history has no epochs, so there is nothing to draw. "
            "Draw it after the first epoch."
        )
    for name, epoch in chosen.items():
        if epoch not in [_value(record, "epoch") for record in histories.get(name, ())]:
            raise RunError(
                f"Chosen epoch {epoch} of training '{name}' is not in its history. "
                f"Give an epoch that was run (they count from 1), under the history's name."
            )
    figure, top = new_figure(
        (11.5, 5.5), f"학습 곡선 Training history · {title}", subtitle, is_synthetic
    )
    losses, accuracies = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.065, right=0.985, bottom=0.21, top=top - 0.04, wspace=0.2)
    _draw_panel(losses, _LOSSES, histories, chosen)
    losses.update_datalim([(1, 0)])
    losses.autoscale_view()
    losses.set_ylim(bottom=0)
    losses.set_ylabel("손실 Loss (nats)")
    _draw_panel(accuracies, _ACCURACIES, histories, chosen)
    accuracies.set_ylim(0, 102)
    accuracies.yaxis.set_major_formatter("{x:.0f} %")
    accuracies.set_ylabel("정확도 Accuracy · UAR")
    set_fonts(figure)
    return figure


def plot_confusion_matrix(
    confusion: np.ndarray,
    path: Path,
    *,
    labels: Sequence[str],
    title: str,
    subtitle: str,
    is_synthetic: bool = False,
) -> None:
    """Write `draw_confusion_matrix` to a PNG file whose size grows with the labels.

    Parameters
    ----------
    path : Path
        The file. A reader sees the old one or the whole new one.
    confusion, labels, title, subtitle, is_synthetic
        As in `draw_confusion_matrix`.

    Raises
    ------
    LabelError
        If `confusion` is not a matrix of counts with a row and column per label.
    RunError
        If `path` cannot be written.
    """
    figure = draw_confusion_matrix(
        confusion, labels=labels, title=title, subtitle=subtitle, is_synthetic=is_synthetic
    )
    write_png(figure, path)


def draw_confusion_matrix(
    confusion: np.ndarray,
    *,
    labels: Sequence[str],
    title: str,
    subtitle: str,
    is_synthetic: bool = False,
) -> Figure:
    """Confusion matrix: what each label was recognised as, in percent and in counts.

    Parameters
    ----------
    confusion : np.ndarray [shape=(n_classes, n_classes)]
        Counts; rows are references, columns predictions.
    labels : Sequence[str]
        Names of rows and columns.
    title, subtitle : str
        Which system; what the score is and rests on.
    is_synthetic : bool
        Whether to mark the figure as made from synthetic speech.

    Returns
    -------
    Figure
        To be saved or looked into.

    Raises
    ------
    LabelError
        If `confusion` is not a matrix of counts with a row and column per label.
    """
    counts = np.asarray(confusion)
    n_classes = len(labels)
    if counts.shape != (n_classes, n_classes) or (counts < 0).any():
        raise LabelError(
            f"A confusion matrix of {n_classes} labels holds {n_classes} × {n_classes} counts, "
            f"not values of shape {counts.shape} from {counts.min(initial=0)}."
        )
    n_true = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, n_true, out=np.full(counts.shape, np.nan), where=n_true > 0)
    grid = 0.88 * n_classes  # inches; so are the margins around it
    margin_left, margin_right, margin_bottom = 1.45, 1.3, 0.95
    width = max(margin_left + grid + margin_right, 7.2)
    figure, _ = new_figure(
        (width, margin_bottom + grid + 0.12),
        f"혼동 행렬 Confusion matrix · {title}",
        subtitle,
        is_synthetic,
    )
    height = figure.get_figheight()
    left = margin_left + (width - margin_left - grid - margin_right) / 2
    bottom, grid_height = margin_bottom / height, grid / height
    axes = figure.add_axes((left / width, bottom, grid / width, grid_height))
    scale = figure.add_axes(((left + grid + 0.18) / width, bottom, 0.16 / width, grid_height))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_facecolor(FAINT_LINE)  # shows where a label has no utterances to share out
    _label_matrix(axes, labels, n_true[:, 0])
    _write_cells(axes, counts, shares, image.to_rgba(np.ma.masked_invalid(shares)))
    bar = figure.colorbar(image, cax=scale, ticks=[0, 0.25, 0.5, 0.75, 1], format="{x:.0%}")
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=0, labelcolor=FAINT_INK)
    bar.set_label("실제 라벨 중 비율\nShare of the reference label", size=8.5, color=FAINT_INK)
    set_fonts(figure)
    return figure


def _draw_panel(
    axes: Axes,
    curves: Sequence[_Curve],
    histories: Mapping[str, History],
    chosen: Mapping[str, int],
) -> None:
    from matplotlib.ticker import MaxNLocator

    n_trainings = len(histories)
    for curve in curves:
        table = _values_by_epoch(histories, curve)
        if np.isnan(table).all():
            continue
        style: dict[str, Any] = {"color": curve.colour, "linestyle": curve.line_style}
        epochs = np.arange(1, table.shape[1] + 1)
        if n_trainings == 1:
            marker = "o" if len(epochs) < _MANY_EPOCHS else ""
            axes.plot(
                epochs,
                table[0],
                linewidth=2,
                marker=marker,
                markersize=4,
                label=curve.legend,
                **style,
            )
            continue
        # The more lines, the paler each: together they stay behind their mean.
        alpha = max(0.15, 0.6 / n_trainings**0.4)
        axes.plot(epochs, table.T, linewidth=0.7, alpha=alpha, **style)
        # Of fewer than half, the mean would say who is left, not how training goes.
        is_shown = np.isfinite(table).sum(axis=0) * 2 >= n_trainings
        mean = np.nanmean(table[:, is_shown], axis=0)
        axes.plot(epochs[is_shown], mean, linewidth=2.8, label=curve.legend, **style)
    if n_trainings > 1:
        note = f"굵은 선: {n_trainings}개 학습의 평균  Bold: mean of {n_trainings} trainings"
        axes.set_title(note, loc="left", size=9, color=FAINT_INK)
    if chosen:
        _mark_chosen(axes, list(chosen.values()), is_single=n_trainings == 1)
    last = max(_value(record, "epoch") for each in histories.values() for record in each)
    axes.set_xlim(0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("에포크 Epoch")
    axes.grid(color=FAINT_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(color=LINE, labelcolor=FAINT_INK)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False, columnspacing=1.5
    )


def _mark_chosen(axes: Axes, epochs: Sequence[int], *, is_single: bool) -> None:
    """A triangle on the axis per kept epoch; of a single training also a line upwards."""
    label = "선택된 에포크 chosen epoch"
    if is_single:
        label += f" ({epochs[0]})"
        axes.axvline(epochs[0], color=INK, linewidth=1, linestyle=":", zorder=1)
    axes.plot(
        epochs,
        np.full(len(epochs), 0.018),
        transform=axes.get_xaxis_transform(),
        color=INK,
        marker="^",
        markersize=7,
        alpha=1 if is_single else 0.45,
        linestyle="none",
        label=label,
    )


def _values_by_epoch(histories: Mapping[str, History], curve: _Curve) -> np.ndarray:
    """Values [n_trainings, n_epochs]; NaN where there are none or a training has stopped."""
    last = max(_value(record, "epoch") for each in histories.values() for record in each)
    table = np.full((len(histories), last), np.nan)
    for row, each in enumerate(histories.values()):
        for record in each:
            value = _value(record, curve.name)
            if value is not None:
                table[row, _value(record, "epoch") - 1] = curve.scale * value
    return table


def _value(record: Any, name: str) -> Any:  # Any: see `History`
    return record[name] if isinstance(record, Mapping) else getattr(record, name)


def _label_matrix(axes: Axes, labels: Sequence[str], n_true: np.ndarray) -> None:
    names = [f"{KOREAN[label]}\n{label}" if label in KOREAN else label for label in labels]
    # Names as long as "embarrassment" must not run into their neighbours.
    size = min(10, 110 / max(len(label) for label in labels))
    places = np.arange(len(labels))
    axes.set_xticks(places, names, size=size)
    axes.set_yticks(
        places,
        [f"{name}\nn = {n:,}" for name, n in zip(names, n_true.tolist(), strict=True)],
        size=size,
    )
    axes.set_xlabel("예측 라벨 Predicted label", size=11, labelpad=8)
    axes.set_ylabel("실제 라벨 Reference label", size=11, labelpad=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(places[1:] - 0.5, minor=True)
    axes.set_yticks(places[1:] - 0.5, minor=True)
    axes.grid(which="minor", color=PAPER, linewidth=2)
    axes.tick_params(which="minor", length=0)


def _write_cells(axes: Axes, counts: np.ndarray, shares: np.ndarray, colours: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        percent = f"{share:.1%}".replace("%", " %") if np.isfinite(share) else "–"
        style: dict[str, Any] = {
            "color": _ink_on(colours[row, column]) if count else FAINT_INK,
            "ha": "center",
            "va": "center",
        }
        axes.text(column, row - 0.1, percent, size=12.5, **style)
        axes.text(column, row + 0.24, f"{count:,}", size=9, **style)


def _ink_on(colour: np.ndarray) -> str:
    """White or dark text for a background `colour` (r, g, b, a).

    White wherever its contrast ratio reaches WCAG 2.2's 3:1 for large text, else dark,
    which then has at least 5:1. Where both would pass, on mid blue, thin dark strokes are
    the harder ones to read.
    """
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    luminance = float(linear[:3] @ [0.2126, 0.7152, 0.0722])
    return PAPER if 1.05 / (luminance + 0.05) >= 3 else INK
