"""Manifests and splits: whether they are what was written, and the sound is still there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from koser.data.manifest import Manifest
from koser.data.splits import Split
from koser.doctor.findings import Diagnosis, Finding, fail, note, ok, warn
from koser.errors import ManifestError, SplitError

_SHOWN = 5


def examine_manifest(path: Path) -> Diagnosis:
    """Check a manifest, and that every file that it names can be opened."""
    try:
        manifest = Manifest.read(path)
    except ManifestError as error:
        broken = fail("manifest", str(error), "Make it again: koser prepare")
        return Diagnosis("manifest", str(path), (broken,))
    return Diagnosis("manifest", str(path), tuple(_of_manifest(manifest)))


def examine_split(path: Path) -> Diagnosis:
    """Check that a split is the one that was written."""
    try:
        split = Split.read(path)
    except SplitError as error:
        finding = fail("split", str(error), "Make it again: koser split")
    else:
        finding = ok("split", f"{split.protocol}, {split.n_folds} folds, its hash {split.hash}")
    return Diagnosis("split", str(path), (finding,))


def _of_manifest(manifest: Manifest) -> Iterator[Finding]:
    n_left_out = len(manifest.provenance.left_out)
    yield ok("manifest", f"{len(manifest):,} utterances, {n_left_out:,} rows left out")
    paths = manifest.table["path"].unique(maintain_order=True).to_list()
    remote = [path for path in paths if "://" in path]
    if remote:
        yield note("sound", f"{len(remote):,} of {len(paths):,} are elsewhere: not looked at")
    local = [path for path in paths if "://" not in path]
    missing = [path for path in local if not os.path.isfile(path)]
    absent = set(missing)
    closed = [path for path in local if path not in absent and not os.access(path, os.R_OK)]
    for wrong, what, way_out in (
        (missing, "are missing", "Put the corpus back, or prepare it where it is now."),
        (closed, "cannot be read", "Ask their owner for the right to read them."),
    ):
        if wrong:
            first = ", ".join(wrong[:_SHOWN])
            told = f"{len(wrong):,} of {len(local):,} files {what}, the first: {first}"
            yield fail("sound", told, way_out)
    if not (missing or closed or remote):
        yield ok("sound", f"all {len(local):,} files are there and can be read")
    if manifest.provenance.is_synthetic:
        yield warn("sound", "it is synthetic", "Scores on it say nothing about people.")
