"""What every corpus adapter shares: find files, gather rows, account for all of them."""

from __future__ import annotations

import codecs
import filecmp
import json
import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from koser.audio.reading import AudioInfo
from koser.data.corpora.archives import name_packed, nothing_found, still_packed
from koser.data.corpora.probing import probe_all
from koser.data.manifest import LeftOut, Manifest, Provenance, build_table
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import AudioError, AudioFetchError, CorpusError
from koser.labels import ordered_labels
from koser.storage.places import Place, is_url

_GENDERS = {
    **dict.fromkeys(("female", "f", "woman", "여성", "여자", "여"), "female"),
    **dict.fromkeys(("male", "m", "man", "남성", "남자", "남"), "male"),
}

# Seconds that a segment may reach past the end of its file and still be plain rounding.
ROUNDING = 1e-3


class Collector:
    """Rows of one corpus on their way into a manifest.

    An adapter calls `add` or `leave_out` exactly once for every row it reads, then
    `manifest`, which settles repeated ids, probes the audio and proves that no row was lost.

    Parameters
    ----------
    adapter : str
        Name of the adapter.
    root : Place
        The folder or file it reads.
    corpus, language : str or None
        Written into every row that brings none; `language` is an ISO 639-1 code.
    engine : Engine
        Where the audio's headers are read.
    """

    def __init__(
        self,
        adapter: str,
        root: Place,
        *,
        corpus: str,
        language: str | None,
        engine: Engine = SERIAL,
    ) -> None:
        self.adapter = adapter
        self.root = root
        self._engine = engine
        self._constants = {"corpus": unicodedata.normalize("NFC", corpus), "language": language}
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

    def leave_out_copies(self, stem: str, paths: Sequence[Path]) -> Path:
        """Return the first of `paths`; report the others as copies of it.

        For corpora whose files are their rows, such as one unpacked twice.

        Raises
        ------
        CorpusError
            If `paths` do not hold the same bytes.
        """
        if not have_same_bytes(paths):
            where = ", ".join(f"'{path}'" for path in paths)
            raise CorpusError(
                f"{len(paths)} different recordings are named '{stem}': {where}. "
                f"Keep the right one below '{self.root}'."
            )
        for path in paths[1:]:
            self.leave_out(stem, "another copy of the same file", str(path))
        return paths[0]

    def leave_unlisted(self, paths: Iterable[Path]) -> None:
        """Report audio files that no row names."""
        self._unlisted += [str(path) for path in paths]

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
        """Settle repeated ids, probe every row's audio and return the validated manifest.

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
        # A column at once, not a mapping per row: a tenth of the memory.
        table = build_table(self._probed(list(self._with_distinct_ids())))
        if not table.height:
            reasons = Counter(row.reason for row in self._left_out).most_common(3)
            why = "; ".join(f"{count} × {reason}" for reason, count in reasons) or "none was found"
            raise nothing_found(
                f"No usable utterance in '{self.root}' ({n_rows_in} rows read: {why}).",
                self.root,
                f"Check that this is the folder of a '{self.adapter}' corpus.",
            )
        if packed := still_packed(self.root):
            self.note(name_packed(packed))
        provenance = Provenance(
            adapter=self.adapter,
            root=_absolute(self.root),
            labels=tuple(labels) if labels else ordered_labels(table["label"]),
            label_policy=label_policy,
            grouping=grouping,
            n_rows_in=n_rows_in,
            left_out=tuple(self._left_out),
            unlisted=tuple(self._unlisted),
            notes=tuple(self._notes),
            is_synthetic=is_synthetic,
        )
        return Manifest(table, provenance).validate()

    def _with_distinct_ids(self) -> Iterator[dict[str, Any]]:
        labels_of = defaultdict(set)
        for row in self._rows:
            labels_of[row["id"]].add(row["label"])
        seen = set()
        for row in self._rows:
            labels = labels_of[row["id"]]
            if len(labels) > 1:
                self.leave_out(row["id"], "conflicting labels", ", ".join(sorted(labels)))
            elif row["id"] in seen:
                self.leave_out(row["id"], "repeated id", "an earlier row has this id and label")
            else:
                seen.add(row["id"])
                yield row

    def _probed(self, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        n_clipped = 0
        # A recording may hold hundreds of rows.
        paths = list(dict.fromkeys(str(row["path"]) for row in rows))
        probed = dict(zip(paths, probe_all(paths, self._engine), strict=True))
        for row in rows:
            info = probed[str(row["path"])]
            if isinstance(info, AudioError):
                is_here = not isinstance(info, AudioFetchError)
                reason = "unreadable audio" if is_here else "audio that could not be fetched"
                self.leave_out(row["id"], reason, str(info))
                continue
            start, end = _segment(row, info)
            if not 0 <= start < end or start >= info.duration:
                detail = f"{start:g}–{end:g} s of {info.duration:g} s"
                self.leave_out(row["id"], "no such segment in the audio", detail)
                continue
            channel = row.get("channel")
            if channel is not None and not 0 <= channel < info.n_channels:
                detail = f"channel {channel} of {info.n_channels}, from 0"
                self.leave_out(row["id"], "no such channel in the audio", detail)
                continue
            n_clipped += end > info.duration + ROUNDING
            end = min(end, info.duration)
            is_segment = row.get("start") is not None or row.get("end") is not None
            yield {
                **row,
                "path": _absolute(row["path"]),
                "start": start if is_segment else None,
                "end": end if is_segment else None,
                "duration": end - start,
                "sampling_rate": info.sampling_rate,
                "n_channels": info.n_channels,
            }
        if n_clipped:
            self.note(f"{n_clipped} segments reach past the end of their file and end there.")


def _segment(row: dict[str, Any], info: AudioInfo) -> tuple[float, float]:
    start, end = row.get("start"), row.get("end")
    return (0.0 if start is None else start, info.duration if end is None else end)


def _absolute(path: str | Path) -> str:
    # a URL is absolute already, and abspath would squeeze its slashes
    return str(path) if is_url(path) else os.path.abspath(path)


def paths_by_stem(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Paths grouped by file name without suffix, in NFC; order is kept.

    Examples
    --------
    >>> paths_by_stem([Path("a/x.wav"), Path("b/x.wav")])["x"] == [Path("a/x.wav"), Path("b/x.wav")]
    True
    """
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[unicodedata.normalize("NFC", path.stem)].append(path)
    return dict(groups)


def read_bytes(path: Path) -> bytes:
    """The content of an annotation file.

    Raises
    ------
    CorpusError
        If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorpusError(f"Cannot read '{path}': {error.strerror}.") from error


def read_text_beside(audio: Path, suffix: str = ".txt") -> str | None:
    """The text in the file that is called like `audio`; None where there is none."""
    path = audio.with_suffix(suffix)
    if not path.is_file():
        return None
    return " ".join(decode(read_bytes(path), str(path)).split()) or None


def have_same_bytes(paths: Sequence[Path]) -> bool:
    """Whether all of `paths` hold the same bytes, so that any of them may stand for all.

    Raises
    ------
    CorpusError
        If one of several paths cannot be read.
    """
    try:
        return all(filecmp.cmp(paths[0], path, shallow=False) for path in paths[1:])
    except OSError as error:
        raise CorpusError(f"Cannot compare '{error.filename}': {error.strerror}.") from error


def path_on_disk(path: Path) -> Path | None:
    """`path` as the disk spells it, or None where no such file exists.

    Korean names from macOS archives are decomposed (NFD), and a Linux disk does not open
    them by their composed (NFC) name. Each folder may be spelt in its own way: what is unpacked
    keeps its names, wherever it is put.
    """
    if os.path.exists(path):
        return path
    return _spelt(Path(path.anchor), path.parts[bool(path.anchor) :])


def _spelt(folder: Path, parts: Sequence[str]) -> Path | None:
    if not parts:
        return folder
    name, *below = parts
    for spelling in (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)):
        inner = folder / spelling
        if os.path.exists(inner) and (found := _spelt(inner, below)):
            return found
    return None


def decode(content: bytes, name: str) -> str:
    """Text of a Korean file: UTF-8, else cp949; a BOM before either is no text.

    Parameters
    ----------
    content : bytes
        The whole file.
    name : str
        What to call the file in an error.

    Raises
    ------
    CorpusError
        If the bytes are neither.

    Examples
    --------
    >>> decode("감정".encode("cp949"), "a.csv") == decode("감정".encode("utf-8-sig"), "a.csv")
    True
    """
    bare = content.removeprefix(codecs.BOM_UTF8)
    for encoding in ("utf-8", "cp949"):
        try:
            return bare.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise CorpusError(f"'{name}' is neither UTF-8 nor cp949. Save it again as UTF-8.")


def finite_number(text: str) -> float | None:
    """`text` as a finite number, or None where it is none.

    Examples
    --------
    >>> finite_number("1.5"), finite_number("nan"), finite_number("1,000")
    (1.5, None, None)
    """
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def read_json(path: Path) -> Any:
    """The content of a JSON file in UTF-8 (with or without BOM) or cp949.

    Raises
    ------
    CorpusError
        If it cannot be read or is no JSON.
    """
    try:
        return json.loads(decode(read_bytes(path), str(path)))
    except json.JSONDecodeError as error:
        raise CorpusError(f"'{path}' is no sound JSON file: {error}.") from error


def canonical_gender(text: object) -> str | None:
    """``"female"`` or ``"male"`` for the spellings of both that corpora use, else None.

    Examples
    --------
    >>> canonical_gender("여성"), canonical_gender("M"), canonical_gender("")
    ('female', 'male', None)
    """
    return _GENDERS.get(unicodedata.normalize("NFC", str(text)).strip().casefold())


def whole_years(text: object) -> int | None:
    """An age that is given in years; None for a decade such as ``20대`` and for blanks.

    Examples
    --------
    >>> whole_years("31"), whole_years("30~39")
    (31, None)
    """
    found = re.fullmatch(r"(\d{1,3})(?:\.0)?", str(text).strip())
    return int(found[1]) if found else None
