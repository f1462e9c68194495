"""The installation: Python, packages, sound, GPU, disk and threads.

Packages are imported in processes of their own: one that ends its process, as a library
built for another processor does, is a finding like any other.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from koser import __version__
from koser.audio.support import sound_support
from koser.doctor.findings import Diagnosis, Finding, fail, note, ok, warn
from koser.engines.local import available_cores
from koser.errors import EXTRA_OF_MODULE
from koser.features.store import cache_folder

_CORE = ("numpy", "soundfile", "soxr", "polars", "pydantic", "typer", "rich")
# Do not load beside a torch that they were not built for, and break what imports them on sight.
_TROUBLE = ("torchaudio", "torchcodec")
_OLDEST = (3, 11)
_LITTLE_SPACE = 2**30  # bytes
_IMPORT_SECONDS = 120.0


def examine_installation() -> Diagnosis:
    """Check what koser needs of the machine; takes as long as importing every extra once."""
    findings = (
        _python(),
        *_packages(),
        *_troublemakers(),
        *_sound(),
        _gpu(),
        *_disk(),
        _threads(),
    )
    return Diagnosis("installation", "", findings)


def _python() -> Finding:
    what = f"koser {__version__}, Python {platform.python_version()} on {platform.platform()}"
    if sys.version_info < _OLDEST:
        return fail("Python", what, "Use Python 3.11 or newer.")
    return ok("Python", what)


def _packages() -> Iterator[Finding]:
    modules = [*_CORE, *EXTRA_OF_MODULE]
    present = [name for name in modules if find_spec(name) is not None]
    with ThreadPoolExecutor(available_cores()) as pool:
        problems = dict(zip(present, pool.map(_import_problem, present), strict=True))
    for name in modules:
        extra = EXTRA_OF_MODULE.get(name)
        install = f"Run: pip install 'koser[{extra}]'" if extra else "Run: pip install koser"
        if name not in problems and extra is None:
            yield fail(name, "not installed", install)
        elif name not in problems:
            yield note(name, "not installed", install)
        elif problems[name]:
            yield fail(name, f"{_version_of(name)} is installed and does not load: "
                       f"{problems[name]}", f"{install} --force-reinstall")  # fmt: skip
        else:
            yield ok(name, _version_of(name))


def _import_problem(name: str) -> str:
    """Why a module cannot be imported; empty if it can."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_IMPORT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"importing it takes over {_IMPORT_SECONDS:g} s"
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"its import ends Python with signal {-done.returncode}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"status {done.returncode}"


def _version_of(name: str) -> str:
    try:
        return version(name.replace("_", "-"))
    except PackageNotFoundError:
        return "a version that it does not tell"


def _troublemakers() -> Iterator[Finding]:
    for name in _TROUBLE:
        if find_spec(name) is not None:
            yield warn(
                name,
                f"{_version_of(name)} is installed; koser does not use it, and transformers loads "
                f"it on sight",
                f"If encoders fail to load, run: pip uninstall {name}",
            )


def _sound() -> Iterator[Finding]:
    found = sound_support()
    if found.missing:
        missing = ", ".join(found.missing)
        yield warn(
            "libsndfile",
            f"{found.version}, without {missing}",
            "Run: pip install --force-reinstall soundfile, whose wheels bring a complete one.",
        )
    else:
        yield ok("libsndfile", f"{found.version}: WAV, FLAC, OGG, MP3 and others")
    if not found.has_av:
        yield note("M4A, MP4, WebM", "cannot be read", "Run: pip install 'koser[av]'")
    if found.ffmpeg is None:
        told = "not found; koser does not need it, messages on odd files name it"
        yield note("ffmpeg", told)


def _gpu() -> Finding:
    if find_spec("torch") is None:
        return note("GPU", "not looked for: torch is not installed")
    code = (
        "import torch; n = torch.cuda.device_count(); "
        "print(torch.version.cuda, n, *[torch.cuda.get_device_name(i) for i in range(n)], sep='|')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return fail("GPU", "asking torch for it failed", "Run: python -c 'import torch'")
    built_for, n, *names = lines[-1].split("|")
    if int(n):
        return ok("GPU", f"{', '.join(names)}; torch is built for CUDA {built_for}")
    if built_for != "None":
        return warn("GPU", f"none, but torch is built for CUDA {built_for}", "Run: nvidia-smi")
    if shutil.which("nvidia-smi"):
        told = "there is one, but this torch is built without CUDA"
        return warn("GPU", told, "Run: pip install --force-reinstall torch")
    return note("GPU", "none; torch is built for processors alone")


def _disk() -> Iterator[Finding]:
    folder = cache_folder()
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield fail(
            "cache",
            f"'{folder}' cannot be written to",
            "Set KOSER_CACHE to a folder of yours, or give --store.",
        )
        return
    free = shutil.disk_usage(existing).free
    told = f"'{folder}' can be written to, {free / 1e9:,.1f} GB are free"
    if free < _LITTLE_SPACE:
        yield warn("cache", told, "Free some space, or set KOSER_CACHE to another disk.")
    else:
        yield ok("cache", told)


def _threads() -> Finding:
    n_cores, limit = available_cores(), os.environ.get("OMP_NUM_THREADS")
    told = f"{n_cores} of {os.cpu_count()} cores may be used"
    if limit:
        return note("threads", f"{told}; OMP_NUM_THREADS={limit} limits torch to as many threads")
    return ok("threads", told)
