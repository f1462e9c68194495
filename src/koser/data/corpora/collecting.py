"""What every corpus adapter shares: gather rows, probe their audio, account for all of them."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from koser.audio.reading import probe
from koser.data.manifest import LeftOut, Manifest, Provenance, build_table
from koser.errors import AudioError, CorpusError
from koser.labels import ordered_labels

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


class Collector:
    """Rows of one corpus on their way into a manifest.

    An adapter calls `add` or `leave_out` exactly once for every row it reads, then
    `manifest`, which probes the audio and proves that no row was lost.

    Parameters
    ----------
    adapter : str
        Name of the adapter.
    root : Path
        The folder or file it reads.
    corpus, language : str or None
        Written into every row; `language` is an ISO 639-1 code.
    """

    def __init__(self, adapter: str, root: Path, *, corpus: str, language: str | None) -> None:
        self.adapter = adapter
        self.root = root
        self._constants = {"corpus": corpus, "language": language}
        self._rows: list[dict[str, Any]] = []
        self._left_out: list[LeftOut] = []
        self._unlisted: list[str] = []
        self._notes: list[str] = []

    def add(self, **fields: Any) -> None:
        """Keep a row; `fields` are columns of the manifest's schema (checked at the end)."""
        text = {
            key: unicodedata.normalize("NFC", value)
            for key, value in fields.items()
            if isinstance(value, str) and key != "path"
        }
        self._rows.append({**self._constants, **fields, **text})

    def leave_out(self, source: str, reason: str, detail: str = "") -> None:
        """Report a row that cannot be kept."""
        self._left_out.append(LeftOut(source, reason, detail))

    def leave_unlisted(self, path: Path) -> None:
        """Report an audio file that no row names."""
        self._unlisted.append(str(path))

    def note(self, sentence: str) -> None:
        """Say something a reader of the manifest should know."""
        self._notes.append(sentence)

    def manifest(
        self,
        *,
        label_policy: str,
        grouping: str | None,
        labels: Sequence[str] | None = None,
        is_synthetic: bool = False,
    ) -> Manifest:
        """Probe every row's audio and return the validated manifest.

        Parameters
        ----------
        label_policy : str
            How the labels were chosen.
        grouping : str or None
            What stands for a speaker; see `Provenance.grouping`.
        labels : Sequence[str], optional
            All classes; by default those that occur, in koser's order.
        is_synthetic : bool
            Whether the speech was made by a machine.

        Raises
        ------
        CorpusError
            If no row is left.
        ManifestError
            If the rows contradict each other.
        """
        n_rows_in = len(self._rows) + len(self._left_out)
        rows = list(self._probed())
        if not rows:
            reasons = Counter(row.reason for row in self._left_out).most_common(3)
            why = "; ".join(f"{count} × {reason}" for reason, count in reasons) or "none was found"
            raise CorpusError(
                f"No usable utterance in '{self.root}' ({n_rows_in} rows read: {why}). "
                f"Check that this is the folder of a '{self.adapter}' corpus."
            )
        provenance = Provenance(
            adapter=self.adapter,
            root=os.path.abspath(self.root),
            labels=tuple(labels) if labels else ordered_labels(row["label"] for row in rows),
            label_policy=label_policy,
            grouping=grouping,
            n_rows_in=n_rows_in,
            left_out=tuple(self._left_out),
            unlisted=tuple(self._unlisted),
            notes=tuple(self._notes),
            is_synthetic=is_synthetic,
        )
        return Manifest(build_table(rows), provenance).validate()

    def _probed(self) -> Iterable[dict[str, Any]]:
        for row in self._rows:
            try:
                info = probe(row["path"])
            except AudioError as error:
                self.leave_out(row["id"], "unreadable audio", str(error))
                continue
            start, end = row.get("start"), row.get("end")
            duration = info.duration if start is None or end is None else end - start
            yield {
                **row,
                "path": os.path.abspath(row["path"]),
                "duration": duration,
                "sampling_rate": info.sampling_rate,
                "n_channels": info.n_channels,
            }


def audio_files(root: Path) -> list[Path]:
    """Every audio file below `root`, sorted by name, so that no order depends on the disk.

    Hidden files are passed over: macOS leaves ``._name.wav`` resource forks behind.

    Raises
    ------
    CorpusError
        If `root` is not a folder.
    """
    if not root.is_dir():
        raise CorpusError(f"No folder at '{root}'. Give the folder that holds the corpus.")
    found = []
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(folder, name)
            for name in names
            if name.lower().endswith(AUDIO_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)
