"""Feature stores and the transcript cache: what of them can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from koser.doctor.findings import Diagnosis, Finding, fail, note, ok
from koser.errors import StoreError
from koser.features.store_check import StoreState, check_store, stores_below
from koser.features.text.cache import CACHE_NAME
from koser.features.text.cache_check import CacheState, check_cache


def examine_stores(root: Path, *, repair: bool = False) -> Diagnosis:
    """Check every array and transcript below a folder.

    Parameters
    ----------
    root : Path
        Folder of stores, one store, or a transcript cache.
    repair : bool
        Drop what is damaged.
    """
    caches = [root] if root.is_file() else [path for path in [root / CACHE_NAME] if path.exists()]
    findings: list[Finding] = []
    for folder in stores_below(root):
        try:
            findings += _of_store(check_store(folder, repair=repair), is_repaired=repair)
        except StoreError as error:
            findings.append(fail(folder.name, str(error), "See the line itself."))
    for path in caches:
        try:
            findings += _of_cache(check_cache(path, repair=repair), is_repaired=repair)
        except StoreError as error:
            findings.append(fail(path.name, str(error), "See the line itself."))
    if not findings:
        findings.append(note("stores", "there is none yet"))
    return Diagnosis("store", str(root), tuple(findings))


def _of_store(state: StoreState, *, is_repaired: bool) -> Iterator[Finding]:
    name = state.folder.name
    damage = {
        "damaged arrays": state.n_damaged_arrays,
        "damaged index records": state.n_damaged_records,
        "records without data": state.n_without_data,
        "duplicate keys": state.n_duplicates,
    }
    told = ", ".join(f"{n:,} {what}" for what, n in damage.items() if n)
    if state.is_sound:
        yield ok(name, f"{state.n_arrays:,} arrays, every checksum holds")
    elif is_repaired:
        yield note(
            name,
            f"{told}: dropped, {state.n_arrays:,} arrays are left",
            f"{state.n_lost:,} are extracted anew by the next command that needs them.",
        )
    else:
        yield fail(
            name,
            f"{told}; {state.n_arrays:,} arrays are whole",
            f"Run: koser doctor {quote(str(state.folder))} --repair. What is dropped is extracted "
            f"anew.",
        )
    if state.index_tail_bytes or state.data_tail_bytes:
        n_bytes = state.index_tail_bytes + state.data_tail_bytes
        yield note(name, f"{n_bytes:,} bytes that a killed writer left; the next one cuts them off")
    if state.unused_bytes:
        yield note(
            name,
            f"{state.unused_bytes:,} bytes of dropped arrays are not used",
            "Remove the folder to get them back; everything in it is then extracted anew.",
        )


def _of_cache(state: CacheState, *, is_repaired: bool) -> Iterator[Finding]:
    whole = f"{state.n_transcripts:,} transcripts"
    if state.n_damaged and is_repaired:
        yield note("transcripts", f"{state.n_damaged:,} damaged: dropped, {whole} are left")
    elif state.n_damaged:
        yield fail(
            "transcripts",
            f"{state.n_damaged:,} damaged; {whole} are whole",
            f"Run: koser doctor {quote(str(state.path))} --repair. They are made again.",
        )
    else:
        yield ok("transcripts", f"{whole}, {state.n_unchecked:,} of them without a checksum")
    if state.n_failures:
        yield note("transcripts", f"{state.n_failures:,} clips failed and are tried again")
