"""What is printed, where the terminal itself matters."""

import io
import logging

import pytest
from rich.console import Console

from koser import terminal
from koser.experiment.extraction import Extraction


@pytest.fixture
def screen(monkeypatch):
    """A terminal of 60 columns in place of standard error."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=60, highlight=False)
    monkeypatch.setattr(terminal, "_progress_console", console)
    return file


def test_a_note_stands_on_a_line_of_its_own_above_the_bars(screen):
    with terminal.notes_shown(), terminal.progress_bars() as listeners:
        listeners.on_clip(1, 10)
        for _ in range(2):
            logging.getLogger("koser.features").warning("a note of [one] path '/x/[/y]'")
        listeners.on_clip(2, 10)
    lines = [line for line in screen.getvalue().splitlines() if "Note" in line]
    assert len(lines) == 1
    assert lines[0].endswith("Note: a note of [one] path '/x/[/y]'")
    # What was drawn before the note was erased first: nothing is left on its line.
    assert "features" not in lines[0].rpartition("\x1b[2K")[2]


def test_notes_are_shown_without_bars_and_only_warnings_are(screen):
    with terminal.notes_shown(), terminal.progress_bars(quiet=True):
        logging.getLogger("koser.features").warning("seen")
        logging.getLogger("koser.features").info("not seen")
    logging.getLogger("koser.features").warning("too late")
    assert screen.getvalue() == "Note: seen\n"


@pytest.mark.parametrize(
    ("n_bytes", "added", "taken", "store"),
    [
        (3_200_000_000, 1_500_000, "100.0 s: 36.0 × real time", "(3.20 GB, 1.5 MB new)"),
        (3_200_000, 0, "100.0 s: everything was there", "(3.2 MB, nothing new)"),
    ],
)
def test_an_extraction_says_how_fast_it_was_unless_nothing_was_made(
    capsys, tmp_path, n_bytes, added, taken, store
):
    terminal.print_extraction(Extraction(1234, 0, 3600.0, 100.0, tmp_path, n_bytes, added))
    out = " ".join(capsys.readouterr().out.split())
    assert "clips 1,234" in out
    assert f"taken {taken}" in out
    assert store in out


def test_the_table_of_a_series_fits_80_columns_with_groups_for_speakers(capsys, tmp_path):
    run = {
        "n": 12_345,
        "n_speakers": 59,
        "cluster_kind": "group(age×gender)",
        "seeds": [42, 43, 44],
        "uar": 0.5,
        "accuracy": 0.6,
        "ci95": {"uar": [0.4, 0.6], "accuracy": [0.5, 0.7]},
        "protocol": {"protocol": "random"},
    }
    unknown = {**run, "n_speakers": None, "ci95": {"uar": None, "accuracy": None}}
    values = {"model": "mfcc", "is_synthetic": True, "runs": [run, unknown], "gaps": []}
    terminal.print_gaps(values, tmp_path)
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines()[:-1])
    for text in ("SYNTHETIC", "seeds 42, 43, 44", "0.500 [0.400, 0.600]", "unknown", "12345"):
        assert text in out
