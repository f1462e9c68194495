"""The pictures: everything that must be readable is in them, and they are whole files."""

import importlib.util
import logging
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.font_manager import findfont
from matplotlib.text import Text
from PIL import Image

from koser.errors import LabelError, RunError, describe_missing_module
from koser.labels import EMOTIONS, KOREAN
from koser.reporting import canvas
from koser.reporting.plots import (
    draw_confusion_matrix,
    draw_training_history,
    plot_confusion_matrix,
    plot_training_history,
)
from koser.reporting.wording import SYNTHETIC

SUBTITLE = "UAR .612 [.540, .683] (split speaker, n = 8826, 16 × group(age×gender))"
HEADER = {"title": "mfcc_speaker", "subtitle": SUBTITLE}


@dataclass(frozen=True)
class EpochRecord:
    epoch: int
    train_loss: float
    val_loss: float | None
    train_accuracy: float
    val_accuracy: float | None
    val_uar: float | None


def make_history(n_epochs, seed=0, has_val=True):
    rng = np.random.default_rng(seed)
    return [
        EpochRecord(
            epoch,
            train_loss=2 / epoch + rng.random() / 10,
            val_loss=2.2 / epoch + rng.random() / 10 if has_val else None,
            train_accuracy=1 - 1 / (epoch + 1),
            val_accuracy=0.8 - 1 / (epoch + 1) + rng.random() / 10 if has_val else None,
            val_uar=0.7 - 1 / (epoch + 1) + rng.random() / 10 if has_val else None,
        )
        for epoch in range(1, n_epochs + 1)
    ]


def make_confusion(n_classes, seed=0):
    return np.random.default_rng(seed).integers(0, 20_000, size=(n_classes, n_classes))


def texts_of(figure):
    figure.canvas.draw()  # ticks get their labels
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible()]


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.fixture(autouse=True)
def _every_glyph_exists(caplog):
    """A character without a glyph, or a font that is not found, fails the test."""
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "matplotlib"):
        warnings.simplefilter("error")
        yield
    assert not caplog.messages


@pytest.mark.parametrize("n_classes", [2, 4, 7, 8, 10])
def test_a_confusion_matrix_holds_every_label_count_and_percentage(n_classes):
    labels = [*EMOTIONS, "calm", "boredom", "embarrassment"][:n_classes]
    confusion = make_confusion(n_classes)
    figure = draw_confusion_matrix(confusion, labels=labels, **HEADER)
    texts = texts_of(figure)
    names = [f"{KOREAN[label]}\n{label}" if label in KOREAN else label for label in labels]
    matrix = figure.axes[0]
    assert [tick.get_text() for tick in matrix.get_xticklabels()] == names
    for row, name in enumerate(names):
        n_true = confusion[row].sum()
        assert matrix.get_yticklabels()[row].get_text() == f"{name}\nn = {n_true:,}"
    cells = {text.get_position(): text.get_text() for text in matrix.texts}
    for row in range(n_classes):
        for column in range(n_classes):
            count = confusion[row, column]
            in_cell = {
                text for (x, y), text in cells.items() if round(x) == column and round(y) == row
            }
            assert in_cell == {f"{count:,}", f"{100 * count / confusion[row].sum():.1f} %"}
    assert "혼동 행렬 Confusion matrix · mfcc_speaker" in texts
    assert {"예측 라벨 Predicted label", "실제 라벨 Reference label"} <= set(texts)


def test_rows_of_the_picture_are_references_and_run_downwards():
    confusion = np.array([[90, 10], [0, 50]])
    figure = draw_confusion_matrix(confusion, labels=["angry", "fear"], **HEADER)
    matrix = figure.axes[0]
    assert matrix.yaxis_inverted()
    np.testing.assert_allclose(matrix.images[0].get_array(), [[0.9, 0.1], [0, 1]])


def test_a_label_without_references_has_no_percentages():
    figure = draw_confusion_matrix(np.array([[3, 1], [0, 0]]), labels=["angry", "fear"], **HEADER)
    assert texts_of(figure).count("–") == 2
    assert "n = 0" in figure.axes[0].get_yticklabels()[1].get_text()


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgba(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("percent", range(0, 101, 5))
def test_text_in_every_cell_contrasts_with_its_colour(percent):
    confusion = np.array([[percent, 100 - percent], [1, 1]])
    matrix = draw_confusion_matrix(confusion, labels=["angry", "fear"], **HEADER).axes[0]
    image = matrix.images[0]
    background = image.to_rgba(image.get_array())[0, 0]
    inks = {text.get_color() for text in matrix.texts if text.get_position()[0] == 0}
    for ink in {text.get_color() for text in matrix.texts[:2]}:
        assert ink in inks
        lighter, darker = sorted([luminance(ink), luminance(background)], reverse=True)
        # WCAG 2.2: 3:1 is the least for large text.
        assert (lighter + 0.05) / (darker + 0.05) >= 3


def test_a_training_history_shows_losses_accuracies_and_uar_of_every_epoch():
    history = make_history(12)
    figure = draw_training_history(history, chosen_epoch=9, **HEADER)
    losses, accuracies = figure.axes
    lines = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    for legend, name, scale in [
        ("학습 train", "train_loss", 1),
        ("검증 validation", "val_loss", 1),
        ("학습 정확도 train accuracy", "train_accuracy", 100),
        ("검증 정확도 val accuracy", "val_accuracy", 100),
        ("검증 UAR val UAR", "val_uar", 100),
    ]:
        epochs, values = lines[legend].get_data()
        assert list(epochs) == list(range(1, 13))
        np.testing.assert_allclose(values, [scale * getattr(each, name) for each in history])
    for axes in (losses, accuracies):
        assert legend_of(axes)[-1] == "선택된 에포크 chosen epoch (9)"
        assert 9 in axes.lines[-1].get_xdata()
    texts = texts_of(figure)
    assert "학습 곡선 Training history · mfcc_speaker" in texts
    assert {"손실 Loss (nats)", "정확도 Accuracy · UAR", "에포크 Epoch"} <= set(texts)


def test_records_may_be_rows_read_from_json():
    records = [vars(record) for record in make_history(3)]
    figure = draw_training_history(records, **HEADER)
    np.testing.assert_allclose(
        figure.axes[0].lines[0].get_ydata(), [record["train_loss"] for record in records]
    )


def test_without_a_val_part_only_the_train_part_is_drawn():
    figure = draw_training_history(make_history(5, has_val=False), chosen_epoch=5, **HEADER)
    chosen = "선택된 에포크 chosen epoch (5)"
    assert legend_of(figure.axes[0]) == ["학습 train", chosen]
    assert legend_of(figure.axes[1]) == ["학습 정확도 train accuracy", chosen]


@pytest.mark.parametrize("n_epochs", [1, 2, 9, 34, 60])
def test_every_epoch_has_its_place_and_ticks_are_whole_numbers(n_epochs):
    figure = draw_training_history(make_history(n_epochs), **HEADER)
    figure.canvas.draw()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert low < 1 <= n_epochs < high
        ticks = [text.get_text() for text in axes.get_xticklabels()]
        assert ticks
        assert all(tick.isdecimal() for tick in ticks)
    # The highest loss is a visible dot below the top, which autoscaling around a single
    # epoch would not leave room for.
    low, high = figure.axes[0].get_ylim()
    highest = max(max(each.train_loss, each.val_loss) for each in make_history(n_epochs))
    assert low == 0
    assert high > 1.03 * highest


def test_several_trainings_are_thin_lines_behind_the_mean_of_those_that_go_on():
    histories = {f"fold {i}": make_history(n, seed=i) for i, n in enumerate([4, 6, 6, 8])}
    chosen = dict(zip(histories, [3, 5, 5, 8], strict=True))
    figure = draw_training_history(histories, chosen_epoch=chosen, **HEADER)
    lines = figure.axes[1].lines
    (mean,) = (line for line in lines if line.get_label() == "검증 UAR val UAR")
    thin = [line for line in lines if line.get_color() == mean.get_color() and line is not mean]
    assert len(thin) == 4
    assert all(line.get_linewidth() < mean.get_linewidth() / 2 for line in thin)
    epochs, values = mean.get_data()
    assert list(epochs) == [1, 2, 3, 4, 5, 6]  # at 7 one of four is left
    fifth = [100 * each[4].val_uar for each in histories.values() if len(each) > 4]
    assert values[4] == pytest.approx(np.mean(fifth))
    assert sorted(lines[-1].get_xdata()) == [3, 5, 5, 8]
    assert "Bold: mean of 4 trainings" in figure.axes[0].get_title(loc="left")


def test_only_synthetic_data_are_marked_as_such():
    confusion = make_confusion(2)
    for is_synthetic in (True, False):
        marks = {"is_synthetic": is_synthetic, **HEADER}
        matrix = draw_confusion_matrix(confusion, labels=["angry", "fear"], **marks)
        history = draw_training_history(make_history(2), **marks)
        for figure in (matrix, history):
            assert (SYNTHETIC in texts_of(figure)) is is_synthetic


@pytest.mark.parametrize("n_classes", [4, 8])
def test_the_header_fits_and_overlaps_nothing(n_classes):
    labels = [*EMOTIONS, "calm"][:n_classes]
    figure = draw_confusion_matrix(
        make_confusion(n_classes),
        labels=labels,
        title="multimodal_speaker",
        subtitle=f"{SUBTITLE} {'긴 설명과 long words ' * 12}",
        is_synthetic=True,
    )
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    assert max(box.x1 for box in boxes) < figure.bbox.x1
    assert max(box.y1 for box in boxes) < figure.bbox.y1
    for above, below in zip(boxes, [*boxes[1:], figure.axes[0].get_window_extent()], strict=True):
        assert above.y0 > below.y1


@pytest.mark.parametrize("n_folds", [1, 59])
def test_a_training_history_is_a_png_of_150_dots_per_inch(tmp_path, n_folds):
    path = tmp_path / "runs" / "training_history_mfcc_speaker.png"
    histories = {f"fold {i:02}": make_history(20, seed=i) for i in range(n_folds)}
    plot_training_history(histories, path, **HEADER)
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        assert image.width == 1725
        assert 800 < image.height < 1000
    assert os.listdir(path.parent) == [path.name]


def test_a_confusion_matrix_is_a_png_that_grows_with_its_labels(tmp_path):
    sizes = []
    for n_classes in (4, 8):
        path = tmp_path / f"{n_classes}.png"
        labels = [*EMOTIONS, "calm"][:n_classes]
        plot_confusion_matrix(make_confusion(n_classes), path, labels=labels, **HEADER)
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
            sizes.append(image.size)
    assert sizes[1][0] > sizes[0][0]
    assert sizes[1][1] - sizes[0][1] > 4 * 100


def test_an_old_picture_survives_a_failure_to_write_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "confusion_matrix.png"
    path.write_bytes(b"old")

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RunError, match=r"Cannot write the picture .* disk full"):
        plot_confusion_matrix(make_confusion(2), path, labels=["angry", "fear"], **HEADER)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    "confusion", [np.ones((2, 2)), np.ones(3), np.full((3, 3), -1), np.empty((0, 0))]
)
def test_what_is_no_confusion_matrix_of_the_labels_is_refused(confusion):
    with pytest.raises(LabelError, match="of 3 labels holds 3 × 3 counts"):
        draw_confusion_matrix(confusion, labels=["angry", "fear", "calm"], **HEADER)


@pytest.mark.parametrize("history", [[], {}, {"a": make_history(2), "b": []}])
def test_a_history_without_epochs_is_refused(history):
    with pytest.raises(RunError, match="no epochs"):
        draw_training_history(history, **HEADER)


@pytest.mark.parametrize("chosen", [0, 4, {"fold 1": 1}])
def test_a_chosen_epoch_that_was_not_run_is_refused(chosen):
    with pytest.raises(RunError, match="is not in its history"):
        draw_training_history(make_history(3), chosen_epoch=chosen, **HEADER)


def test_all_text_is_in_the_korean_font_and_headings_in_its_bold_cut():
    figure = draw_training_history(make_history(34), **HEADER)
    figure.canvas.draw()
    files = {
        text.get_text(): Path(findfont(text.get_fontproperties())).name
        for text in figure.findobj(Text)
        if text.get_text()
    }
    title = "학습 곡선 Training history · mfcc_speaker"
    assert files.pop(title) == "NanumGothicExtraBold.ttf"
    assert set(files.values()) == {"NanumGothic.ttf"}


def test_a_missing_font_package_says_what_to_install(monkeypatch):
    canvas._register_fonts.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError) as caught:
        draw_training_history(make_history(2), **HEADER)
    assert "pip install 'koser[train]'" in describe_missing_module(caught.value)


def test_drawing_leaves_matplotlib_as_it_was():
    program = """
import sys
import koser.reporting.plots as plots
assert "matplotlib" not in sys.modules, "imported before anything is drawn"
import matplotlib
before = matplotlib.rcParams.copy()
plots.draw_confusion_matrix([[1]], labels=["angry"], title="", subtitle="")
assert matplotlib.rcParams.copy() == before, "settings changed"
assert "matplotlib.pyplot" not in sys.modules, "pyplot imported"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
