"""What is written is read back: by Praat's and our own readers, the same times and labels."""

import csv
import io
import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from praatio import textgrid

from koser.errors import ConfigError
from koser.inference.segments import Segment
from koser.inference.timeline import Timeline
from koser.inference.writers import (
    TIMELINE_FORMATS,
    UNSURE,
    check_format,
    file_names,
    render_timeline,
    render_timelines,
)

LABELS = ("angry", "슬픔", 'a "b" <c> & --> d\n e')


@st.composite
def timelines(draw):
    milliseconds = sorted(draw(st.sets(st.integers(0, 40_000_000), min_size=2, max_size=12)))
    segments = []
    for start, end in itertools.pairwise(milliseconds):
        if draw(st.booleans()):
            label = draw(st.sampled_from([*LABELS, None]))
            shares = draw(st.lists(st.floats(0.001, 1), min_size=3, max_size=3))
            total = sum(shares)
            probabilities = dict(zip(LABELS, [share / total for share in shares], strict=True))
            segments.append(Segment(start / 1000, end / 1000, label, probabilities))
    duration = (milliseconds[-1] + draw(st.integers(0, 1000))) / 1000
    return Timeline(tuple(segments), tuple(segments), ((0.0, 1.0),), duration, LABELS, "가 나.wav")


def expected_rows(timeline):
    """Start, end, and the label on one line."""
    return [
        (each.start, each.end, UNSURE if each.label is None else " ".join(each.label.split()))
        for each in timeline.segments
    ]


def seconds_of(clock):
    hours, minutes, seconds = re.split("[:]", clock.replace(",", "."))
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


@settings(max_examples=40, deadline=None)
@given(timeline=timelines())
def test_json_holds_everything(timeline):
    (values,) = json.loads(render_timeline(timeline, "json"))
    assert [Segment(**_without(each, "confidence")) for each in values["segments"]] == list(
        timeline.segments
    )
    assert values["labels"] == list(LABELS)
    assert values["duration"] == timeline.duration
    assert len(values["cells"]) == len(timeline.cells)
    assert "슬픔" in render_timeline(timeline, "json")


def _without(values, key):
    return {name: value for name, value in values.items() if name != key}


@settings(max_examples=40, deadline=None)
@given(timeline=timelines())
def test_csv_has_one_row_per_segment(timeline):
    rows = list(csv.DictReader(io.StringIO(render_timeline(timeline, "csv"), newline="")))
    for row, segment in zip(rows, timeline.segments, strict=True):
        assert (row["path"], row["label"]) == ("가 나.wav", segment.label or "")
        assert (float(row["start"]), float(row["end"])) == (segment.start, segment.end)
        assert {label: float(row[label]) for label in LABELS} == segment.probabilities


@settings(max_examples=40, deadline=None)
@given(timeline=timelines())
def test_rttm_has_ten_fields_that_say_when_and_what(timeline):
    lines = render_timeline(timeline, "rttm").splitlines()
    for line, (start, end, label) in zip(lines, expected_rows(timeline), strict=True):
        fields = line.split()
        assert len(fields) == 10
        assert fields[:3] == ["SPEAKER", "가_나", "1"]
        assert float(fields[3]) == pytest.approx(start, abs=5e-4)
        assert float(fields[3]) + float(fields[4]) == pytest.approx(end, abs=1.1e-3)
        assert fields[7] == label.replace(" ", "_")


@settings(max_examples=40, deadline=None)
@given(timeline=timelines(), format=st.sampled_from(["srt", "vtt"]))
def test_subtitles_have_one_cue_per_segment(timeline, format):
    text = render_timeline(timeline, format)
    blocks = [block for block in text.split("\n\n") if block.strip()]
    if format == "vtt":
        assert blocks.pop(0) == "WEBVTT" or text == "WEBVTT\n"
    for number, (block, row) in enumerate(zip(blocks, expected_rows(timeline), strict=True), 1):
        lines = block.strip().split("\n")
        if format == "srt":
            assert lines.pop(0) == str(number)
        times, caption = lines
        start, end = times.split(" --> ")
        mark = "," if format == "srt" else "."
        assert re.fullmatch(rf"\d\d+:\d\d:\d\d{re.escape(mark)}\d\d\d", start)
        assert (seconds_of(start), seconds_of(end)) == pytest.approx(row[:2], abs=5e-4)
        if format == "vtt":
            assert "<" not in caption
            assert "-->" not in caption
            caption = caption.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        label, percent = caption.rsplit(" ", 1)
        assert label == row[2].replace("-->", "->")
        assert re.fullmatch(r"\d+%", percent)


@settings(max_examples=40, deadline=None)
@given(timeline=timelines())
def test_audacity_labels_are_three_columns(timeline):
    lines = render_timeline(timeline, "audacity").splitlines()
    for line, row in zip(lines, expected_rows(timeline), strict=True):
        start, end, label = line.split("\t")
        assert (float(start), float(end)) == pytest.approx(row[:2], abs=1e-6)
        assert label == row[2].replace("-->", "->")


@settings(max_examples=40, deadline=None)
@given(timeline=timelines(), has_speakers=st.booleans())
def test_praat_reads_the_textgrid(tmp_path_factory, timeline, has_speakers):
    if has_speakers:
        segments = [Segment(**{**vars(each), "speaker": "화자 1"}) for each in timeline.segments]
        timeline = Timeline(**{**vars(timeline), "segments": tuple(segments)})
    path = tmp_path_factory.mktemp("praat") / "a.TextGrid"
    path.write_text(render_timeline(timeline, "textgrid"), encoding="utf-8")
    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True, reportingMode="error")
    assert grid.maxTimestamp == timeline.duration
    emotions = grid.getTier("emotion")
    told = [(each.start, each.end, each.label) for each in emotions.entries if each.label]
    assert told == [(a, b, label.replace("-->", "->")) for a, b, label in expected_rows(timeline)]
    # Praat refuses a tier with holes.
    borders = [0.0, *(each.end for each in emotions.entries)]
    assert [each.start for each in emotions.entries] == borders[:-1]
    assert borders[-1] == timeline.duration
    has_tier = has_speakers and bool(timeline.segments)
    assert grid.tierNames == (("emotion", "speaker") if has_tier else ("emotion",))


def test_a_table_is_for_people():
    segment = Segment(1.5, 3661.25, None, {"angry": 0.4, "calm": 0.35, "sad": 0.25}, "B")
    timeline = Timeline((segment,), (), (), 4000.0, ("angry", "calm", "sad"), "call.wav")
    lines = render_timeline(timeline, "table").splitlines()
    assert lines == [
        "call.wav: 01:06:40.000",
        "  00:00:01.500 – 01:01:01.250  unsure  0.400  B",
    ]


def test_formats_that_name_recordings_take_several():
    one, two = (Timeline((), (), (), 1.0, ("a", "b"), name) for name in ("x/1.wav", "y/2.wav"))
    assert [each["path"] for each in json.loads(render_timelines([one, two], "json"))] == [
        "x/1.wav",
        "y/2.wav",
    ]
    assert "no speech" in render_timelines([one, two], "table")
    with pytest.raises(ConfigError, match="is of one recording, not of 2"):
        render_timelines([one, two], "srt")
    assert file_names([one, two], "textgrid") == ["1.TextGrid", "2.TextGrid"]
    with pytest.raises(ConfigError, match=r"Several recordings would be written to 1\.vtt"):
        file_names([one, Timeline(**{**vars(two), "path": "y/1.wav"})], "vtt")


def test_a_format_is_refused_before_the_work():
    for format in TIMELINE_FORMATS:
        check_format(format, n_recordings=1)
        check_format(format, n_recordings=3, is_folder=True)
    with pytest.raises(ConfigError, match="Formats: table, json"):
        check_format("xml", n_recordings=1)
