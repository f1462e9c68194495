"""Speaker turns of another tool against counted milliseconds."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.recognizers import LoudnessModel, speech
from koser.errors import ConfigError
from koser.inference.recognizer import Recognizer
from koser.inference.speakers import Turn, read_turns, with_speakers
from koser.inference.timeline import make_timeline
from koser.inference.writers import render_timeline


@pytest.fixture(scope="module")
def timeline():
    return make_timeline(Recognizer(LoudnessModel()), [speech(20)])


@settings(max_examples=50, deadline=None)
@given(
    turns=st.lists(
        st.builds(
            lambda start, length, who: Turn(start / 1000, (start + length) / 1000, who),
            st.integers(0, 20_000),
            st.integers(0, 6_000),
            st.sampled_from("ABC"),
        ),
        max_size=8,
    )
)
def test_a_cell_belongs_to_whoever_speaks_longest_in_it(timeline, turns):
    joined = with_speakers(timeline, turns)
    for before, cell in zip(timeline.cells, joined.cells, strict=True):
        spoken = {}
        for turn in turns:
            shared = min(turn.end, cell.end) - max(turn.start, cell.start)
            if shared > 0:
                spoken[turn.speaker] = spoken.get(turn.speaker, 0) + shared
        longest = max(spoken.values(), default=0)
        if cell.speaker is None:
            assert not spoken
        else:
            assert spoken[cell.speaker] == pytest.approx(longest)
        assert (cell.start, cell.end, cell.label) == (before.start, before.end, before.label)
    # Segments cover the same stretches with the same labels; each is of one speaker.
    for one, other in itertools.pairwise(joined.segments):
        assert one.end <= other.start
    for segment in joined.segments:
        (within,) = [s for s in timeline.segments if s.start <= segment.start < s.end]
        assert segment.label == within.label
        own = [cell for cell in joined.cells if segment.start <= cell.start < segment.end]
        assert {cell.speaker for cell in own} == {segment.speaker}
        assert sum(segment.probabilities.values()) == pytest.approx(1)
    covered = sum(segment.duration for segment in joined.segments)
    assert covered == pytest.approx(sum(segment.duration for segment in timeline.segments))


def test_rttm_is_read_by_recording(tmp_path):
    path = tmp_path / "a.rttm"
    path.write_text(
        "SPKR-INFO call 1 <NA> <NA> <NA> unknown B <NA> <NA>\n"
        "SPEAKER call 1 2.50 1.25 <NA> <NA> B <NA> <NA>\n\n"
        "SPEAKER call 1 0.00 2.00 <NA> <NA> 화자1 <NA> <NA>\n"
        "SPEAKER no_2 1 1.00 1.00 <NA> <NA> C <NA> <NA>\n",
        encoding="utf-8",
    )
    assert read_turns(path, "x/call.wav") == [Turn(0.0, 2.0, "화자1"), Turn(2.5, 3.75, "B")]
    assert read_turns(path, "no 2.flac") == [Turn(1.0, 2.0, "C")]
    with pytest.raises(ConfigError, match="no speaker turns of 'other'; it has those of: call"):
        read_turns(path, "other.wav")


def test_our_own_rttm_is_read_back(timeline, tmp_path):
    (tmp_path / "a.rttm").write_text(render_timeline(timeline, "rttm"), encoding="utf-8")
    turns = read_turns(tmp_path / "a.rttm", "sound")
    assert [turn.speaker for turn in turns] == [segment.label for segment in timeline.segments]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("SPEAKER a 1 x 1 <NA> <NA> B", "is no RTTM"),
        ("SPEAKER a 1 1", "is no RTTM"),
        ("SPEAKER a 1 -1 1 <NA> <NA> B", "lasts 1"),
        ("SPEAKER a 1 nan 1 <NA> <NA> B", "lasts 1"),
    ],
)
def test_damaged_turns_are_refused_with_their_line(tmp_path, line, message):
    (tmp_path / "a.rttm").write_text(f"\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"line 2 .*{message}"):
        read_turns(tmp_path / "a.rttm", "a.wav")


def test_missing_turns_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="Cannot read the speaker turns"):
        read_turns(tmp_path / "none.rttm", "a.wav")
