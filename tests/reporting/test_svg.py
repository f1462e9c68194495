"""Plots: everything is inside the picture, at the right place, and text stays text."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koser.reporting.svg import Axis, ForestRow, Plot, forest

values = st.floats(-1e6, 1e6)


@given(values, st.floats(1e-3, 1e6))
def test_ticks_are_round_few_and_inside(low, span):
    axis = Axis(low, low + span, "x")
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in ticks)
    step = ticks[1] - ticks[0]
    assert float(f"{step:.1e}".partition("e")[0]) in (1, 2, 2.5, 5)


def test_a_point_is_where_the_axes_say():
    plot = Plot("a", "b", Axis(0, 10, "x"), Axis(0, 1, "y"))
    plot.points([0, 5, 10], [0, 0.5, 1], "first", ["<n>"] * 3)
    tree = ElementTree.fromstring(plot.render())
    circles = [each for each in tree if each.tag == "circle"]
    x = [float(each.get("cx")) for each in circles]
    y = [float(each.get("cy")) for each in circles]
    assert x[1] == pytest.approx((x[0] + x[2]) / 2, abs=0.1)
    assert y[0] > y[1] > y[2]
    assert circles[0][0].text == "<n>"


def test_a_missing_value_interrupts_a_line():
    plot = Plot("a", "b", Axis(1, 5, "x"), Axis(0, 1, "y"))
    plot.line([1, 2, 3, 4, 5], [0.1, 0.2, None, 0.4, 0.5], "first")
    lines = re.findall(r'points="([^"]*)"', plot.render())
    assert [len(line.split()) for line in lines] == [2, 2]


@given(st.lists(st.tuples(values, values, values), min_size=1, max_size=5))
def test_a_forest_holds_every_interval_within_its_picture(triples):
    rows = [ForestRow("<b>&", *sorted(t)[1:2], min(t), max(t), "x < y") for t in triples]
    tree = ElementTree.fromstring(forest("t", "d", rows, Axis(-1, 1, "x"), reference=0.0))
    width, height = (float(part) for part in tree.get("viewBox").split()[2:])
    for each in tree:
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= float(each.get(name, 0)) <= width
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(each.get(name, 0)) <= height
    assert sum(each.tag == "circle" for each in tree) == len(triples)
    assert any(each.text == "<b>&" for each in tree)


@pytest.mark.parametrize(
    "name", ["multimodal (whisper-base-ct2, multilingual-e5-small)", "가" * 40]
)
def test_a_long_name_is_shortened_to_what_fits_left_of_the_plot(name):
    row = ForestRow(name, 0.5, 0.4, 0.6, "0.500")
    picture = forest("title", "what", [row], Axis(0, 1, "UAR"))
    (x, shown) = re.search(r'x="([\d.]+)"[^>]*text-anchor="end">([^<]*)<', picture).groups()
    start, end = shown.split("…")
    assert start
    assert name.startswith(start)
    assert end
    assert name.endswith(end)
    width = sum(14 if ord(letter) >= 0x1100 else 7 for letter in shown)
    assert 0 < width <= float(x) + 7
    short = forest("title", "what", [ForestRow("mfcc", 0.5, 0.4, 0.6, "")], Axis(0, 1, "UAR"))
    assert ">mfcc<" in short
