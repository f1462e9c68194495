"""A picture of a recording: its waveform, where which emotion is heard, and how surely."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from koser.audio.reading import SAMPLING_RATE, iter_blocks
from koser.errors import RunError
from koser.inference.timeline import Timeline
from koser.labels import KOREAN
from koser.reporting.canvas import (
    FAINT_INK,
    FAINT_LINE,
    INK,
    LINE,
    PAPER,
    new_figure,
    set_fonts,
    write_png,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's, then Tol's muted ones: told apart with every kind of colour vision.
_COLOURS = (
    *("#d55e00", "#117733", "#cc79a7", "#e69f00", "#999999", "#0072b2", "#56b4e9"),
    *("#882255", "#44aa99", "#ddcc77", "#332288", "#aa4499"),
)
_N_COLUMNS = 1600  # of the envelope: more than a picture shows
_SIZE = (11.0, 4.6)  # inches


def plot_timeline(timeline: Timeline, path: Path) -> None:
    """Write what `draw_timeline` returns as PNG.

    Raises
    ------
    RunError, AudioError
        If the picture cannot be written, or as `draw_timeline`.
    """
    write_png(draw_timeline(timeline), path)


def draw_timeline(timeline: Timeline) -> Figure:
    """Waveform with a band per segment, and below it the probability of every label.

    Parameters
    ----------
    timeline : Timeline
        Of a file, which is read again for its envelope.

    Raises
    ------
    RunError
        If the timeline is not one of a file.
    AudioError
        If the file cannot be read any more.
    """
    if timeline.path is None:
        raise RunError("The timeline is not one of a file, so there is no waveform to draw.")
    title = Path(timeline.path).name
    n_segments = len(timeline.segments)
    speech = sum(end - start for start, end in timeline.speech)
    subtitle = (
        f"{timeline.duration:.1f} s, 말소리 speech {speech:.1f} s, 구간 segments {n_segments}"
    )
    figure, top = new_figure(_SIZE, title, subtitle, is_synthetic=False)
    grid = figure.add_gridspec(
        2, 1, left=0.07, right=0.86, bottom=0.13, top=top, hspace=0.12, height_ratios=(1.2, 1)
    )
    waveform, curves = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    colours = {
        label: _COLOURS[place % len(_COLOURS)] for place, label in enumerate(timeline.labels)
    }
    _draw_waveform(waveform, timeline, colours)
    _draw_curves(curves, timeline, colours)
    handles, names = curves.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="center left", bbox_to_anchor=(0.87, 0.45), frameon=False, fontsize=9
    )
    set_fonts(figure)
    return figure


def _draw_waveform(axes: Axes, timeline: Timeline, colours: dict[str, str]) -> None:
    times, lows, highs = _envelope(str(timeline.path), timeline.duration)
    axes.fill_between(times, lows, highs, color=INK, linewidth=0, zorder=2)
    for segment in timeline.segments:
        if segment.label is None:
            continue
        band: dict[str, Any] = {"color": colours[segment.label], "alpha": 0.45, "linewidth": 0}
        axes.axvspan(segment.start, segment.end, zorder=1, **band)
    reach = max(1e-3, float(np.abs([lows, highs]).max()))
    axes.set_ylim(-1.08 * reach, 1.08 * reach)
    axes.set_yticks([])
    _style(axes, timeline.duration)
    axes.tick_params(labelbottom=False)
    axes.set_ylabel("파형 waveform", color=FAINT_INK, size=9)


def _draw_curves(axes: Axes, timeline: Timeline, colours: dict[str, str]) -> None:
    for label, colour in colours.items():
        # A line must not run through silence: a gap between cells is one in the curve.
        times: list[float] = []
        values: list[float] = []
        for cell in timeline.cells:
            if times and cell.start > times[-1] + 1e-6:
                times.append(times[-1])
                values.append(np.nan)
            times += [cell.start, cell.end]
            values += [cell.probabilities[label]] * 2
        name = f"{KOREAN[label]} {label}" if label in KOREAN else label
        axes.plot(times, values, color=colour, linewidth=1.6, label=name)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.grid(axis="y", color=FAINT_LINE, linewidth=0.8)
    axes.set_ylabel("확률 probability", color=FAINT_INK, size=9)
    axes.set_xlabel("시간 time (s)", color=FAINT_INK, size=9)
    _style(axes, timeline.duration)


def _style(axes: Axes, duration: float) -> None:
    axes.set_xlim(0, max(duration, 1e-3))
    axes.set_facecolor(PAPER)
    axes.tick_params(colors=FAINT_INK, labelsize=8.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)


def _envelope(path: str, duration: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest and highest sample of each column, read block by block."""
    n_samples = max(1, round(duration * SAMPLING_RATE))
    width = max(1, -(-n_samples // _N_COLUMNS))  # samples of a column
    n_columns = -(-n_samples // width)
    lows, highs = np.zeros(n_columns), np.zeros(n_columns)
    first = 0
    # Blocks of whole columns, so that none is split.
    for block in iter_blocks(path, seconds=width * max(1, 480_000 // width) / SAMPLING_RATE):
        starts = np.arange(0, len(block), width)
        place = first // width
        lows[place : place + len(starts)] = np.minimum.reduceat(block, starts)
        highs[place : place + len(starts)] = np.maximum.reduceat(block, starts)
        first += len(block)
    return (np.arange(n_columns) + 0.5) * width / SAMPLING_RATE, lows, highs
