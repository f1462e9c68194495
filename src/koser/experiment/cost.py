"""What a run costs: time, memory, parameters, and how fast its model recognises."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from koser.audio.reading import SAMPLING_RATE, Clip, load_clip
from koser.features.threads import torch_threads
from koser.models.checkpoint import Checkpoint
from koser.systems import system_class
from koser.systems.system import System
from koser.training.devices import choose_device

# Enough clips for a stable mean; few enough seconds that no run is held up.
_MAX_CLIPS = 16
_MAX_SECONDS = 10.0
# Parameters of `load_recognizer`, and what configurations call the pretrained model.
PARTS = {"encoder": "encoder", "whisper": "whisper", "text_model": "text"}


@dataclass(frozen=True)
class Memory:
    """The most memory that was in use at once, in MB (10^6 bytes).

    Attributes
    ----------
    process : float
        Resident memory of the process, libraries included.
    gpu : float or None
        Allocated on the GPU; None without one.
    """

    process: float
    gpu: float | None


def forget_peak() -> None:
    """Let `peak_memory` count from now on, where the system can do that."""
    with suppress(OSError):  # only Linux has it; elsewhere the peak is that of the process's life
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> Memory:
    """The most memory this process has used since `forget_peak`."""
    gpu = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return Memory(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, gpu)
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return Memory(int(fields["VmHWM"].split()[0]) * 1024 / 1e6, gpu)


def measure_model(
    checkpoint_file: Path, clips: Sequence[Clip], *, places: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Parameters of a trained model, and how fast it recognises clip by clip.

    Parameters
    ----------
    checkpoint_file : Path
        The model.
    clips : Sequence[Clip]
        Tested utterances; the first few are recognised, from the waveform on. Reading and
        decoding the file does not count.
    places : Mapping[str, str], optional
        Where its pretrained models are now, as `load_recognizer` calls them, if they were moved.

    Returns
    -------
    dict
        JSON values: ``n_parameters``, ``n_trained_parameters``, ``parameters_beside`` (a model
        that these leave out), ``real_time_factor`` (seconds of computing per second of
        sound; below 1 is faster than speech), and under ``prediction`` what that rests on.

    Raises
    ------
    KoserError
        If the model or a clip cannot be read.
    """
    checkpoint = Checkpoint.read(checkpoint_file)
    for name, place in (places or {}).items():
        checkpoint = checkpoint.with_model(PARTS[name], place)
    system = system_class(checkpoint.system).from_checkpoint(checkpoint)
    counted = system.count_parameters()
    with torch_threads(system.n_threads):
        timed = _time_clips(system, clips)
        n_threads = torch.get_num_threads()
    audio_seconds, seconds = np.sum(timed, axis=0).tolist()
    device = choose_device(system.device)
    on_gpu = device.type == "cuda"
    return {
        "n_parameters": counted.total,
        "n_trained_parameters": counted.trained,
        "parameters_beside": counted.beside,
        "real_time_factor": seconds / audio_seconds,
        "prediction": {
            "n_clips": len(timed),
            "audio_seconds": audio_seconds,
            "seconds": seconds,
            "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
            "n_threads": n_threads,
        },
    }


def _time_clips(system: System, clips: Sequence[Clip]) -> list[tuple[float, float]]:
    """Seconds of sound and of computing of the first `clips`."""
    timed: list[tuple[float, float]] = []
    # The first one twice: what is loaded at first use is no part of the speed.
    for clip in (clips[0], *clips[:_MAX_CLIPS]):
        waveform = load_clip(clip)
        started = time.perf_counter()
        system.predict_waveforms([waveform])
        timed.append((len(waveform) / SAMPLING_RATE, time.perf_counter() - started))
        if len(timed) > 1 and sum(seconds for _, seconds in timed) > _MAX_SECONDS:
            break
    return timed[1:]
