"""Load a Whisper for CTranslate2: by size, by hub id or from a folder of either format."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from koser.config import Config
from koser.engines.local import available_cores
from koser.errors import EncoderError
from koser.features.pretrained import (
    UNREADABLE,
    Source,
    check_fingerprint,
    explain,
    load_local_first,
    silence_libraries,
)
from koser.features.store import cache_folder
from koser.files import replacing_folder

logger = logging.getLogger(__name__)

_FILES = "config.json, model.bin, tokenizer.json and vocabulary.* (or a folder of transformers)"
_ORIGINAL = "openai/whisper-"
# Raised when what koser does with a model changes what it says.
_VERSION = 1


class WhisperOptions(Config):
    """Which Whisper, how much silence it hears, and when its words are not believed."""

    # A size (tiny … large-v3), a hub id, or a folder: CTranslate2's, or one of transformers,
    # which is converted once.
    name: str = "small"
    revision: str = "main"  # of the hub; a commit's hash pins it for good
    # ISO 639-1. Empty: the manifest's, and Korean where it has none.
    language: str = ""
    # "short": the encoder hears the clip and some seconds of silence. "full": 30 s, as published.
    context: Literal["short", "full"] = "short"
    silence_seconds: float = Field(3.0, ge=1)  # at least; less than 2 makes it loop
    beam_size: int = Field(5, gt=0)  # 1 for greedy decoding
    # Sound in one batch, silence included. 0: 240 on a CPU, 480 on a GPU.
    batch_seconds: float = Field(0.0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_type: str = "auto"  # of CTranslate2; float32 on a CPU, float16 on a GPU
    n_threads: int = Field(0, ge=0)  # of a CPU; 0 for as many as are free
    # Guards. A transcript that trips one is decoded anew in full context; if that one trips
    # it too, it counts as none.
    min_speech_seconds: float = Field(0.1, ge=0)  # less of it, by voice activity: silence
    max_compression: float = Field(2.4, gt=0)  # ratio of a text's bytes to its zlib's: a loop
    min_logprob: float = -1.0  # mean over tokens, in nats
    max_no_speech: float = Field(0.6, ge=0, le=1)  # with a low log-probability: hallucination
    max_tokens_per_second: float = Field(20.0, gt=0)  # of the clip; a longer text is a loop
    # The hash of weights and vocabulary that it must have; empty for any.
    fingerprint: str = ""


@dataclass(frozen=True, eq=False)
class LoadedWhisper:
    """A Whisper in memory, and what it is.

    Attributes
    ----------
    model : ctranslate2.models.Whisper
        On its device.
    tokenizer : tokenizers.Tokenizer
        Its vocabulary.
    options : WhisperOptions
        What was asked for, with its fingerprint, and nothing left to "auto".
    """

    model: Any = field(repr=False)  # CTranslate2 is not typed
    tokenizer: Any = field(repr=False)
    options: WhisperOptions

    @property
    def n_mels(self) -> int:
        """Mel bands that it takes."""
        n_mels: int = self.model.n_mels
        return n_mels

    @property
    def n_workers(self) -> int:
        """Batches that it decodes at once."""
        n_workers: int = self.model.num_workers
        return n_workers


@dataclass(frozen=True)
class WhisperFolder:
    """A Whisper on the disk, not loaded.

    Attributes
    ----------
    path : Path
        Its folder, in CTranslate2's format.
    options : WhisperOptions
        What was asked for, with its fingerprint, and nothing left to "auto".
    """

    path: Path
    options: WhisperOptions

    def describe(self, language: str) -> dict[str, object]:
        """What a transcript depends on beside the sound; where the model lies does not count."""
        left_out = {"name", "revision", "device", "n_threads", "batch_seconds", "language"}
        settings = self.options.model_dump(mode="json", exclude=left_out)
        return {"koser": _VERSION, **settings, "language": language}

    def load(self) -> LoadedWhisper:
        """Load it.

        Raises
        ------
        EncoderError
            If it is damaged, or there is not enough memory.
        """
        import ctranslate2
        import tokenizers

        options = self.options
        n_threads = options.n_threads or available_cores()
        n_workers = 1 if options.device == "cuda" else workers_for(n_threads)
        logger.info(
            "loading Whisper %s (%s on %s)", options.name, options.compute_type, options.device
        )
        try:
            model = ctranslate2.models.Whisper(
                str(self.path),
                device=options.device,
                compute_type=options.compute_type,
                inter_threads=n_workers,
                intra_threads=n_threads // n_workers,
            )
            tokenizer = tokenizers.Tokenizer.from_file(str(self.path / "tokenizer.json"))
        except Exception as error:  # tokenizers raises nothing more special
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EncoderError(
                f"Whisper '{options.name}' cannot be loaded ({first.rstrip('.')}). Download or "
                f"convert it again, or give a smaller one (--whisper)."
            ) from error
        return LoadedWhisper(model, tokenizer, options)


def workers_for(n_threads: int) -> int:
    """Batches that are decoded at once on so many threads.

    A decoder's step is too small to be shared among threads: two batches with a thread each
    are decoded before one batch after the other with two. The encoder makes good use of four.
    """
    return max(min(n_threads, 2), n_threads // 4)


def find_whisper(options: WhisperOptions) -> WhisperFolder:
    """Find a Whisper, download or convert it if need be, and say which one it is.

    Parameters
    ----------
    options : WhisperOptions
        Which one.

    Raises
    ------
    EncoderError
        If there is none, it is no Whisper, or not the one of `options.fingerprint`.
    """
    source = Source(options.name, options.revision, "--whisper", "Whisper", _FILES)
    folder = load_local_first(source, lambda local: _find(source, local_files_only=local))
    if not (folder / "model.bin").is_file():
        folder = _convert(source, folder)
    if not (folder / "tokenizer.json").is_file():
        raise EncoderError(
            f"'{options.name}' has no tokenizer.json. Save the model's fast tokenizer beside it."
        )
    found = _fingerprint(folder)
    check_fingerprint(source, wanted=options.fingerprint, found=found)
    device = _choose_device(options)
    chosen = {
        "fingerprint": found,
        "device": device,
        "compute_type": _choose_type(options.compute_type, device),
    }
    return WhisperFolder(folder, options.model_copy(update=chosen))


def _find(source: Source, *, local_files_only: bool) -> Path:
    """The folder that a name means, from the hub if it is none."""
    import faster_whisper
    from huggingface_hub import snapshot_download

    if Path(source.name).is_dir():
        return Path(source.name)
    # OpenAI's own are on the hub for CTranslate2 too, converted from the same weights.
    name = source.name.removeprefix(_ORIGINAL)
    sizes = faster_whisper.available_models()
    if "/" not in name and name not in sizes:
        raise EncoderError(
            f"No Whisper is called '{source.name}'. Give a size ({', '.join(sizes)}), a hub id or "
            f"a folder."
        )
    where: dict[str, Any] = {"revision": source.revision, "local_files_only": local_files_only}
    try:
        folder = Path(faster_whisper.download_model(name, **where))
        if not (folder / "model.bin").is_file():
            wanted = ["*.json", "*.txt", "*.safetensors"]
            folder = Path(snapshot_download(name, allow_patterns=wanted, **where))
        return folder
    except UNREADABLE as error:
        raise EncoderError(explain(source, error)) from error


def _convert(source: Source, folder: Path) -> Path:
    """A folder of transformers in CTranslate2's format, kept in the cache."""
    config = _read_config(source, folder)
    if config.get("model_type") != "whisper":
        raise EncoderError(
            f"'{source.name}' is no Whisper: its config.json says '{config.get('model_type')}'. "
            f"Give a folder with {_FILES}."
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise EncoderError(f"'{source.name}' has neither model.bin nor model.safetensors.")
    digest = _hash_files([folder / "config.json", *weights])
    converted = cache_folder() / "whisper" / digest
    if converted.is_dir():
        return converted
    from ctranslate2.converters import TransformersConverter
    from safetensors import SafetensorError

    silence_libraries()  # the converter loads the model with transformers
    logger.info("converting %s for CTranslate2, once", source.name)
    extra = [
        name for name in ("tokenizer.json", "preprocessor_config.json") if (folder / name).is_file()
    ]
    try:
        converter = TransformersConverter(str(folder), copy_files=extra, load_as_float16=True)
        with replacing_folder(converted) as partial:
            converter.convert(str(partial), quantization="float16")
    except (*UNREADABLE, RuntimeError, SafetensorError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EncoderError(
            f"'{source.name}' cannot be converted for CTranslate2 ({first.rstrip('.')}). Save the "
            f"whole model again, or convert it with ct2-transformers-converter."
        ) from error
    return converted


def _read_config(source: Source, folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return dict(values)
    except UNREADABLE as error:
        raise EncoderError(explain(source, error)) from error


def _choose_device(options: WhisperOptions) -> str:
    import ctranslate2

    has_gpu = ctranslate2.get_cuda_device_count() > 0
    if options.device == "cuda" and not has_gpu:
        raise EncoderError(
            "CTranslate2 sees no CUDA device. Transcribe with --set whisper.device=cpu."
        )
    return "cuda" if has_gpu and options.device != "cpu" else "cpu"


def _choose_type(wanted: str, device: str) -> str:
    import ctranslate2

    supported = ctranslate2.get_supported_compute_types(device)
    if wanted == "auto":
        return "float16" if device == "cuda" and "float16" in supported else "float32"
    if wanted not in supported:
        raise EncoderError(
            f"whisper.compute_type = {wanted}: this {device} computes in "
            f"{', '.join(sorted(supported))}. Give one of these."
        )
    return wanted


def _fingerprint(folder: Path) -> str:
    names = ("config.json", "model.bin", "tokenizer.json", "preprocessor_config.json")
    return _hash_files([folder / name for name in names if (folder / name).is_file()])


def _hash_files(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(f"{path.name} {path.stat().st_size}".encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
