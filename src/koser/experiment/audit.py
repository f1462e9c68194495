"""An audit as a user asks for it: the manifest, the sound, the voices, and the files left."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from koser import __version__
from koser.data.audit.audit import audit_manifest
from koser.data.audit.results import Audit
from koser.data.audit.sharing import Audited
from koser.data.audit.sound import Sound
from koser.data.manifest import Manifest
from koser.data.splits import Split
from koser.errors import RunError
from koser.features.extraction import Progress, clips_of
from koser.features.sound_pass import listen
from koser.files import write_json

logger = logging.getLogger(__name__)

BASELINES = ("metadata", "text")


@dataclass(frozen=True)
class AuditOptions:
    """How an audit is carried out.

    Attributes
    ----------
    with_audio : bool
        Whether every file is listened to.
    encoder : str or None
        Hub id or folder of a speech encoder that compares voices.
    store_root : Path
        Folder of the feature stores, where what was heard is kept.
    n_workers : int
        Processes; the result does not depend on it.
    on_clip : Progress, optional
        Told of every clip that was listened to.
    """

    store_root: Path
    with_audio: bool = True
    encoder: str | None = None
    n_workers: int = 1
    on_clip: Progress | None = None


def run_audit(manifest: Manifest, split: Split | None, options: AuditOptions) -> Audit:
    """Listen, compare, check and probe.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    split : Split or None
        Who plays which part.
    options : AuditOptions
        What is looked at.

    Raises
    ------
    KoserError
        If the split is not the manifest's, or the encoder cannot be used. Files that cannot
        be read are a finding, not an error.
    """
    started = time.perf_counter()
    if split is not None:
        split.check(manifest)
    sound = None
    if options.with_audio:
        heard = listen(
            clips_of(manifest.table),
            options.store_root,
            n_workers=options.n_workers,
            progress=options.on_clip,
        )
        sound = Sound(heard.facts, heard.failures)
    audit = audit_manifest(manifest, split, sound)
    if options.encoder is not None:
        # Here and not above: without an encoder an audit needs no torch.
        from koser.experiment.speaker_hint import check_voices

        voices = check_voices(
            Audited(manifest, split),
            options.encoder,
            store_root=options.store_root,
            n_workers=options.n_workers,
        )
        checks = tuple(voices if each.name == voices.name else each for each in audit.checks)
        audit = replace(audit, checks=checks)
    about = {
        **audit.about,
        "with_audio": options.with_audio,
        "encoder": options.encoder,
        "seconds": round(time.perf_counter() - started, 1),
        "koser": __version__,
    }
    return replace(audit, about=about)


def write_audit(audit: Audit, folder: Path, language: str) -> dict[str, Any]:
    """Leave ``audit.json`` and ``audit.html`` in `folder`.

    Parameters
    ----------
    audit : Audit
        What was found.
    folder : Path
        Made if it does not exist.
    language : {'ko', 'en'}
        Of the page.

    Returns
    -------
    dict
        The content of ``audit.json``.

    Raises
    ------
    RunError
        If the folder cannot be written to.
    ConfigError
        If koser does not speak the language.
    """
    from koser.reporting.audit_page import write_audit_page  # jinja2 is an extra

    values = audit.to_dict()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(values, folder / "audit.json")
        write_audit_page(values, folder / "audit.html", language)
    except OSError as error:
        raise RunError(f"Cannot write the audit to '{folder}': {error.strerror}.") from error
    return values


def audit_run(
    manifest: Manifest, split: Split, folder: Path, *, store_root: Path, n_workers: int = 1
) -> None:
    """Leave ``audit.json`` in a run folder; warn of what fails before hours are spent on it.

    Parameters
    ----------
    manifest, split, store_root, n_workers
        As in `run_audit`.
    folder : Path
        The run folder.
    """
    audit = run_audit(manifest, split, AuditOptions(store_root, n_workers=n_workers))
    for check in audit.checks:
        if check.verdict == "fail":
            logger.warning("The audit of the data fails: %s", check.summary)
    write_json(audit.to_dict(), folder / "audit.json")


def baselines_of(folder: Path) -> list[dict[str, Any]]:
    """What stands beside a run's scores: its audit's probes of metadata and of text alone."""
    values = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    return [probe for probe in values["probes"] if probe["name"] in BASELINES]
