"""A synthetic Korean corpus to try koser on: offline, free to use, and no human speech.

``scripts/make_demo_corpus.py`` made it; its own README says how and under which
terms. Scores on it show that the software works and nothing about people.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

TABLE_NAME = "utterances.csv"  # columns: id, path (relative to the folder), label, speaker, ...


def corpus_folder() -> Path:
    """Where the installed package keeps the corpus: FLAC files, `TABLE_NAME` and a README.

    Examples
    --------
    >>> (corpus_folder() / TABLE_NAME).is_file()
    True
    """
    return Path(str(resources.files("koser.demo") / "corpus"))
