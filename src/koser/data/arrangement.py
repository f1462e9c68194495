"""A manifest laid out as folders: ``<label>/<id>.wav``, with the manifest beside them.

The folder is what ``--data`` reads. What koser put there it knows from a ledger, which is
written before anything is touched: a run that was killed is finished by the next one, and
a file that koser did not make is never overwritten or deleted.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from koser.audio.listing import audio_files
from koser.data.corpora import folder as folder_adapter
from koser.data.manifest import Manifest
from koser.errors import ManifestError

MANIFEST_NAME = "manifest.parquet"

_LEDGER_NAME = ".arranged.json"  # relative path -> "link", "copy" or `_EITHER`
_EITHER = "link or copy"  # while one is being replaced by the other
_AGAIN = "Run preprocess.py again"


def arrange(manifest: Manifest, out: Path, *, copy: bool = False) -> Manifest:
    """Lay the audio of `manifest` out by label.

    A second run with the same manifest changes nothing; with another, it moves, adds and
    removes what differs. Files that koser did not make stay.

    Parameters
    ----------
    manifest : Manifest
        Its audio are local files. Ids become file names, with ``/`` as ``__``.
    out : Path
        Folder of the label folders; made if it does not exist.
    copy : bool
        Whether to copy the audio. Otherwise symbolic links point to it.

    Returns
    -------
    Manifest
        The same, with the paths of the arranged files; also written to `out`.

    Raises
    ------
    ManifestError
        If two ids give one file name, audio is missing, a file that koser did not make is
        in the way, or the file system refuses to link, copy or delete.
    """
    sources = _sources_by_name(manifest, out)
    kind = "copy" if copy else "link"
    place = _copy if copy else _link
    ledger = _read_ledger(out)
    foreign = [name for name in sources if not _is_ours(out / name, ledger.get(name))]
    if foreign:
        raise ManifestError(
            f"{len(foreign)} files in '{out}' are in the way and were not made by koser, such as "
            f"{', '.join(foreign[:3])}. Move them away or choose another folder."
        )
    try:
        for label_folder in {os.path.dirname(name) for name in sources}:
            (out / label_folder).mkdir(parents=True, exist_ok=True)
        changing = {name for name in sources if ledger.get(name, kind) != kind}
        planned = dict.fromkeys(sources, kind) | ledger | dict.fromkeys(changing, _EITHER)
        _write_ledger(out, planned)
        for name, source in sources.items():
            place(source, out / name)
        _remove(out, {name: ledger[name] for name in ledger.keys() - sources.keys()})
        paths = [os.path.abspath(out / name) for name in sources]
        table = manifest.table.with_columns(pl.Series("path", paths, pl.String))
        arranged = Manifest(table, manifest.provenance).validate()
        if not _is_written(arranged, out / MANIFEST_NAME):
            arranged.write(out / MANIFEST_NAME)
        _write_ledger(out, dict.fromkeys(sources, kind))
    except OSError as error:
        raise ManifestError(
            f"Cannot arrange '{error.filename or out}': {error.strerror}. No audio is lost; "
            f"remove the cause and run it again."
        ) from error
    return arranged


def load_arranged(folder: Path) -> Manifest:
    """Read a folder of label folders, with its manifest where it has one.

    The folder may have been moved since it was arranged.

    Parameters
    ----------
    folder : Path
        What `arrange` made, or anyone's ``<label>/*.wav`` (then nothing is known about
        speakers; see `koser.data.corpora.folder`).

    Returns
    -------
    Manifest
        Its paths are below `folder`.

    Raises
    ------
    ManifestError
        If the manifest names audio that is not in the folder of its label, or the label
        folders hold audio that it does not name.
    CorpusError
        If there is no folder, or no manifest and no audio.
    """
    if not (folder / MANIFEST_NAME).is_file():
        if (folder / _LEDGER_NAME).is_file():
            raise ManifestError(f"'{folder}' was not finished. {_AGAIN}.")
        return folder_adapter.prepare(folder)
    manifest = Manifest.read(folder / MANIFEST_NAME)
    names = _names(manifest)
    # a disk or an archive may have decomposed Hangul in names
    there = {
        unicodedata.normalize("NFC", os.path.relpath(path, folder)): path
        for path in audio_files(folder)
        if path.exists()
    }
    missing = sorted(set(names) - there.keys())
    if missing:
        raise ManifestError(
            f"{len(missing)} of the {len(names)} audio files that '{folder / MANIFEST_NAME}' names "
            f"are not where it says, such as {', '.join(missing[:3])}. {_AGAIN}."
        )
    foreign = sorted(there.keys() - set(names))
    if foreign:
        raise ManifestError(
            f"'{folder}' holds {len(foreign)} audio files that its {MANIFEST_NAME} does not name, "
            f"such as {', '.join(foreign[:3])}. Move them away; or delete {MANIFEST_NAME} and "
            f"{_LEDGER_NAME} to use the folders alone, without speakers."
        )
    paths = [os.path.abspath(there[name]) for name in names]
    table = manifest.table.with_columns(pl.Series("path", paths, pl.String))
    return Manifest(table, manifest.provenance)


def _names(manifest: Manifest) -> list[str]:
    """``<label>/<id><suffix>`` of every utterance, in the order of the rows."""
    columns = manifest.table.select("label", "id", "path").iter_rows()
    return [
        f"{_file_name(label)}/{_file_name(identifier)}{os.path.splitext(path)[1]}"
        for label, identifier, path in columns
    ]


def _file_name(text: str) -> str:
    # one name, in this folder and not hidden, whatever a table calls its utterances
    name = text.replace("/", "__")
    return f"_{name[1:]}" if name.startswith(".") else name


def _sources_by_name(manifest: Manifest, out: Path) -> dict[str, str]:
    names = _names(manifest)
    sources = dict(zip(names, manifest.table["path"].to_list(), strict=True))
    if len(sources) < len(names):
        repeated = [name for name, count in Counter(names).items() if count > 1]
        raise ManifestError(
            f"Different ids would share one file: {', '.join(repeated[:3])}. "
            f"Rename the utterances: '/' in an id becomes '__'."
        )
    inside = os.path.abspath(out) + os.sep
    if any(source.startswith(inside) for source in sources.values()):
        raise ManifestError(
            f"The manifest's audio lies in '{out}' itself, arranged already. "
            f"Arrange the manifest of the raw corpus, or choose another folder."
        )
    missing = [source for source in sources.values() if not os.path.isfile(source)]
    if missing:
        raise ManifestError(
            f"{len(missing)} audio files of the manifest are gone or not local, such as "
            f"{', '.join(missing[:3])}. Prepare the corpus again."
        )
    return sources


def _is_ours(path: Path, kind: str | None) -> bool:
    """Whether `path` is free, or what the ledger says koser made there."""
    if not os.path.lexists(path):
        return True
    if kind == _EITHER:
        return True
    return kind == ("link" if path.is_symlink() else "copy")


def _link(source: str, target: Path) -> None:
    if target.is_symlink() and os.readlink(target) == source:
        return
    partial = _partial(target)
    try:
        os.symlink(source, partial)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        raise ManifestError(
            f"The file system of '{target.parent}' has no symbolic links ({error.strerror}). "
            f"Copy the audio instead: --copy"
        ) from error
    os.replace(partial, target)


def _copy(source: str, target: Path) -> None:
    if target.is_file() and not target.is_symlink():
        there, wanted = target.stat(), os.stat(source)
        if (there.st_size, there.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns):
            return
    partial = _partial(target)
    shutil.copy2(source, partial)  # with the time of change, which the check above compares
    os.replace(partial, target)


def _partial(target: Path) -> Path:
    """A hidden name beside `target`, free to be written: what a killed run left is removed."""
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    return partial


def _remove(out: Path, ledger: Mapping[str, str]) -> None:
    for name, kind in ledger.items():
        path = out / name
        if _is_ours(path, kind):
            path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _partial(path)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


def _is_written(manifest: Manifest, path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        written = Manifest.read(path)
    except ManifestError:
        return False
    return written.provenance == manifest.provenance and written.table.equals(manifest.table)


def _read_ledger(out: Path) -> dict[str, str]:
    path = out / _LEDGER_NAME
    try:
        ledger: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ManifestError(
            f"'{path}', which says what koser put there, cannot be read: {error}. "
            f"Choose another folder, or delete '{out}' if all of it came from koser."
        ) from error
    return ledger


def _write_ledger(out: Path, ledger: Mapping[str, str]) -> None:
    text = json.dumps(ledger, ensure_ascii=False, sort_keys=True)
    path = out / _LEDGER_NAME
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    partial = _partial(path)
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
