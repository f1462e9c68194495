"""Take a trained model elsewhere and get it back: a folder, or a Hugging Face repository."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koser.errors import CheckpointError
from koser.models.checkpoint import Checkpoint, find_checkpoint
from koser.models.shared import (
    CONFIG,
    HASHED,
    METRICS,
    ONNX,
    check_files,
    is_shared,
    read_shared,
    write_shared,
)
from koser.reporting.wording import SYNTHETIC, headline

CARD = "README.md"
_HUB = "hf:"


@dataclass(frozen=True)
class Shared:
    """A model that was pushed or pulled.

    Attributes
    ----------
    place : str
        Where it is now: a folder, or the address of a commit.
    files : tuple[str, ...]
        What it consists of.
    notes : tuple[str, ...]
        What its new users should know.
    """

    place: str
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


def push(
    run: Path, destination: str, *, encoder: str | None = None, is_public: bool = False
) -> Shared:
    """Write a run's model where others can pull it.

    Parameters
    ----------
    run : Path
        A run folder, or a ``.pth`` from one. Its ``model.onnx``, ``metrics.json`` and
        ``README.md`` go along, if they are there.
    destination : str
        A folder, new or made by an earlier push; or ``hf:OWNER/NAME``, with ``@BRANCH`` if
        wanted.
    encoder : str, optional
        What the pretrained encoder is called elsewhere: a hub id instead of a local folder.
    is_public : bool
        Of a repository that does not exist yet.

    Raises
    ------
    CheckpointError
        If there is no model, or it cannot be written there.
    """
    path = find_checkpoint(run)
    checkpoint = Checkpoint.read(path)
    if encoder is not None:
        checkpoint = checkpoint.with_encoder(encoder)
    with _staging(None if destination.startswith(_HUB) else Path(destination)) as staged:
        for name in (ONNX, METRICS, CARD):
            if (path.parent / name).is_file():
                shutil.copyfile(path.parent / name, staged / name)
        write_shared(checkpoint, staged)
        if not (staged / CARD).is_file():
            (staged / CARD).write_text(_card(checkpoint, staged), encoding="utf-8")
        files = tuple(sorted(each.name for each in staged.iterdir()))
        if destination.startswith(_HUB):
            place = _upload(staged, destination, is_public=is_public)
        else:
            place = str(_move(staged, Path(destination)))
    return Shared(place, files, _notes(checkpoint))


def pull(source: str, out: Path) -> Shared:
    """Copy a shared model into a folder that `koser.load_recognizer` loads.

    Parameters
    ----------
    source : str
        A folder that `push` made, or ``hf:OWNER/NAME``, with ``@REVISION`` if wanted.
    out : Path
        The folder, new or pulled earlier.

    Raises
    ------
    CheckpointError
        If there is no such model, or it is not as it was pushed.
    """
    with _staging(out) as staged:
        if source.startswith(_HUB):
            _download(source, staged)
        else:
            _copy(Path(source), staged)
        check_files(staged)
        checkpoint = read_shared(staged)
        files = tuple(sorted(each.name for each in staged.iterdir()))
        _move(staged, out)
    return Shared(str(out), files, _notes(checkpoint))


@contextmanager
def _staging(target: Path | None) -> Iterator[Path]:
    """A folder beside `target`, so that it can take its place at once."""
    parent = None if target is None else target.resolve().parent
    try:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".koser-", dir=parent))
    except OSError as error:
        raise CheckpointError(f"Cannot write beside '{target}': {error.strerror}.") from error
    try:
        yield folder
    except OSError as error:
        raise CheckpointError(
            f"Cannot read or write '{error.filename or target}': {error.strerror or error}."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(staged: Path, target: Path) -> Path:
    if target.exists():
        if not target.is_dir() or (any(target.iterdir()) and not is_shared(target)):
            raise CheckpointError(
                f"'{target}' exists and is no shared model. Give a folder that does not exist yet."
            )
        # Its old content vanishes with the staging folder's name; a reader sees one or the other.
        old = staged.with_name(f"{staged.name}.old")
        os.rename(target, old)
        os.rename(staged, target)
        shutil.rmtree(old)
    else:
        os.rename(staged, target)
    target.chmod(0o755)  # mkdtemp's folders are for their owner alone
    return target


def _copy(source: Path, staged: Path) -> None:
    if not is_shared(source):
        raise CheckpointError(
            f"'{source}' is no shared model: {CONFIG} or the weights are missing. "
            f"Give a folder that koser push made, or hf:OWNER/NAME."
        )
    for name in (CONFIG, CARD, *HASHED):
        if (source / name).is_file():
            shutil.copyfile(source / name, staged / name)


def _upload(staged: Path, destination: str, *, is_public: bool) -> str:
    from huggingface_hub import HfApi

    repository, revision = _repository(destination)
    api = HfApi(library_name="koser")
    try:
        api.create_repo(repository, private=not is_public, repo_type="model", exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=staged,
            repo_type="model",
            revision=revision,
            commit_message="koser push",
            # What an earlier push left and this one does not have.
            delete_patterns=[CONFIG, CARD, *HASHED],
        )
    except (OSError, ValueError) as error:
        raise _hub_error(destination, error) from error
    return str(commit)


def _download(source: str, staged: Path) -> None:
    from huggingface_hub import HfApi

    repository, revision = _repository(source)
    try:
        HfApi(library_name="koser").snapshot_download(
            repository,
            repo_type="model",
            revision=revision,
            local_dir=staged,
            allow_patterns=[CONFIG, CARD, *HASHED],
        )
    except (OSError, ValueError) as error:
        raise _hub_error(source, error) from error
    shutil.rmtree(staged / ".cache", ignore_errors=True)


def _repository(address: str) -> tuple[str, str | None]:
    repository, _, revision = address.removeprefix(_HUB).partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise CheckpointError(f"'{address}' is no hf:OWNER/NAME, with @REVISION if wanted.")
    return repository, revision or None


def _hub_error(address: str, error: Exception) -> CheckpointError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return CheckpointError(
        f"The Hugging Face hub does not do that with '{address}': {lines[0].rstrip('.')}. "
        f"Check the name, the network, and that you are logged in: hf auth login"
    )


def _notes(checkpoint: Checkpoint) -> tuple[str, ...]:
    notes = []
    if checkpoint.origin.get("is_synthetic"):
        notes.append(f"{SYNTHETIC}: what this model says of real speech means nothing.")
    name = checkpoint.config.get("encoder", {}).get("name")
    if name is not None:
        where = "a folder of the machine it was trained on" if Path(name).is_absolute() else "it"
        notes.append(
            f"Its pretrained encoder is not part of it: '{name}' is loaded ({where}), or what "
            f"--encoder names."
        )
    return tuple(notes)


def _card(checkpoint: Checkpoint, staged: Path) -> str:
    """A model card for a run that has none."""
    origin = checkpoint.origin
    lines = [
        "---",
        "library_name: koser",
        "pipeline_tag: audio-classification",
        "language: ko",
        "tags: [speech-emotion-recognition, koser]",
        "---",
        "",
        f"# {checkpoint.system}: {', '.join(checkpoint.labels)}",
        "",
        "```bash",
        "koser pull hf:OWNER/NAME --out model",
        "koser predict model call.wav",
        "```",
        "",
    ]
    metrics: dict[str, Any] = {}
    if (staged / METRICS).is_file():
        metrics = json.loads((staged / METRICS).read_text(encoding="utf-8"))
    if metrics:
        lines += [*headline(metrics).splitlines(), "", "Brackets are 95 % intervals.", ""]
    else:
        lines += ["No scores were kept with this model.", ""]
    if origin.get("is_synthetic"):
        lines += [f"{SYNTHETIC}: what it says of real speech means nothing.", ""]
    lines += [
        "The licence of the corpus it was trained on decides what it may be used for; "
        "ask before you pass it on.",
        "",
    ]
    return "\n".join(lines)
