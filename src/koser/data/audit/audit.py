"""The whole audit of a manifest, under a split or alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from koser.data.audit.probes import Probed, run_probes
from koser.data.audit.results import Audit
from koser.data.audit.sharing import Audited, check_sharing
from koser.data.audit.sound import Sound, check_sound
from koser.data.audit.tables import label_tables
from koser.data.manifest import Manifest
from koser.data.splits import Split, SplitOptions, make_split
from koser.errors import SplitError

N_PROBE_FOLDS = 5


def audit_manifest(
    manifest: Manifest, split: Split | None = None, sound: Sound | None = None
) -> Audit:
    """Look for leaks and confounds.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    split : Split, optional
        Whose parts should share nothing. Without it only what concerns the corpus as a whole
        is checked, and the probes run over five folds of whole speakers.
    sound : Sound, optional
        What was heard of the utterances; without it the checks of sound are not run.

    Returns
    -------
    Audit
        Nothing in it depends on the order of the rows.

    Raises
    ------
    SplitError
        If `split` is not one of `manifest`.
    """
    notes: list[str] = []
    audited = Audited(manifest, split)
    measured = {} if sound is None else sound.measured()
    checks = (*check_sharing(audited), *check_sound(audited, sound))
    parts = audited.parts
    if parts is None:
        parts = _folds_for_probes(manifest, notes)
    probes = () if parts is None else run_probes(Probed.of(manifest, parts), measured)
    return Audit(
        checks=checks,
        probes=probes,
        tables=tuple(label_tables(manifest)),
        about=_about(manifest, split),
        notes=tuple(notes),
    )


def _folds_for_probes(manifest: Manifest, notes: list[str]) -> np.ndarray | None:
    """Folds of whole speakers, or of utterances where too few are known."""
    try:
        options = SplitOptions(n_folds=N_PROBE_FOLDS, val_fraction=0.0)
        n_groups = N_PROBE_FOLDS
        if manifest.grouping_column is not None:
            n_groups = manifest.table[manifest.grouping_column].n_unique()
            options = SplitOptions(n_folds=min(N_PROBE_FOLDS, n_groups), val_fraction=0.0)
        split = make_split(manifest, "kfold", options)
    except SplitError as error:
        notes.append(f"No probes without a split: {error}")
        return None
    notes.append(
        f"Without a split the probes run over {split.n_folds} folds of whole "
        f"{split.grouping.partition('(')[0]}s."
    )
    parts: np.ndarray = split.parts(manifest)
    return parts


def _about(manifest: Manifest, split: Split | None) -> dict[str, Any]:
    provenance = manifest.provenance
    return {
        "adapter": provenance.adapter,
        "corpus": sorted(manifest.table["corpus"].unique()),
        "n": len(manifest),
        "labels": list(manifest.labels),
        "label_policy": provenance.label_policy,
        "grouping": provenance.grouping,
        "is_synthetic": provenance.is_synthetic,
        "protocol": None if split is None else split.describe(),
    }
