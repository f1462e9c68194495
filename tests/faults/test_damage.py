"""Flipped bits and cut files: what is read is what was written, or nothing is.

Every file is damaged anywhere, as disks and copies do it. The property is the same for all
kinds: koser refuses in one line, or what it reads is equal to what was written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from fixtures.audits import clean_manifest
from fixtures.runs import write_run
from koser.data.manifest import Manifest
from koser.data.splits import Split, make_split
from koser.errors import KoserError, StoreError
from koser.experiment.outputs import kept_files
from koser.features.store import FeatureStore
from koser.features.store_check import check_store
from koser.features.text.cache import CACHE_NAME, TranscriptCache
from koser.features.text.cache_check import check_cache
from koser.features.text.guards import Status, Transcript
from koser.hashes import write_sums
from koser.models.checkpoint import Checkpoint
from koser.reporting.runs import RunFolder

DESCRIPTION = {"extractor": "noise"}
N_ARRAYS = 12
# Where in a file, of its length; which bit; and whether the file ends there.
DAMAGES = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7), st.booleans())
MANY = hypothesis.settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


def damage(path: Path, where: float, bit: int, is_cut: bool) -> None:
    raw = bytearray(path.read_bytes())
    place = int(where * len(raw))
    if is_cut:
        del raw[place:]
    else:
        raw[place] ^= 1 << bit
    path.write_bytes(raw)


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def array(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(3, 5 + number)).astype(np.float32)


def fill(root: Path) -> FeatureStore:
    store = FeatureStore(root, DESCRIPTION)
    with store.writer() as writer:
        for number in range(N_ARRAYS):
            writer.append(key(number), array(number))
    return store


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """One of every file that is kept."""
    root = tmp_path_factory.mktemp("original")
    fill(root / "store")
    cache = TranscriptCache(root / CACHE_NAME, {"model": "tiny"})
    cache.add({key(n): transcript(n) for n in range(N_ARRAYS)})
    cache.close()
    manifest = clean_manifest(n_speakers=4, n_each=8)
    manifest.write(root / "m.parquet")
    make_split(manifest, "speaker").write(root / "s.parquet")
    tensors = {"weight": torch.arange(600.0).reshape(20, 30), "bias": torch.ones(7)}
    checkpoint = Checkpoint("mfcc", ("angry", "neutral"), {"a": 1}, {"seed": 3}, tensors, 1.5)
    checkpoint.write(root / "best_model_mfcc.pth")
    write_run(root / "run")
    write_sums(root / "run", kept_files(root / "run"))
    return root


def transcript(number: int) -> Transcript:
    return Transcript(f"{chr(0xAC00 + number)} {number}", Status.ok, -0.5, 0.1, "short")


@pytest.fixture
def copy(original, tmp_path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        source, target = original / name, tmp_path / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
        return target

    return make


@MANY
@hypothesis.given(DAMAGES, st.sampled_from(["index.bin", "data.bin"]))
def test_a_damaged_store_gives_what_was_written_or_nothing_and_heals(copy, how, name):
    root = copy("store")
    (folder,) = root.iterdir()
    damage(folder / name, *how)
    store = FeatureStore(root, DESCRIPTION)
    for number in range(N_ARRAYS):
        if key(number) in store:
            with suppress(StoreError):
                np.testing.assert_array_equal(store.read(key(number)), array(number))
    before = check_store(folder, repair=True)
    assert before.n_arrays <= N_ARRAYS
    assert check_store(folder).is_sound
    healed = fill(root)
    for number in range(N_ARRAYS):
        np.testing.assert_array_equal(healed.read(key(number)), array(number))
    assert check_store(folder).n_arrays == N_ARRAYS


@MANY
@hypothesis.given(DAMAGES)
def test_what_is_appended_to_a_damaged_store_can_be_read_without_a_repair(copy, how):
    """Records of arrays that were cut off must not come back when the file grows again."""
    root = copy("store")
    (folder,) = root.iterdir()
    where, bit, _ = how
    damage(folder / "data.bin", where, bit, True)
    healed = fill(root)
    for number in range(N_ARRAYS):
        np.testing.assert_array_equal(healed.read(key(number)), array(number))


@MANY
@hypothesis.given(DAMAGES)
def test_a_damaged_transcript_cache_gives_what_was_written_or_nothing(copy, how):
    path = copy(CACHE_NAME)
    damage(path, *how)
    try:
        cache = TranscriptCache(path, {"model": "tiny"})
        found = cache.find([key(number) for number in range(N_ARRAYS)])
        cache.close()
    except StoreError:
        return
    for number in range(N_ARRAYS):
        assert found.get(key(number), transcript(number)) == transcript(number)


def test_a_damaged_transcript_is_found_dropped_and_made_again(copy):
    path = copy(CACHE_NAME)
    raw = path.read_bytes()
    text = transcript(3).text.encode()
    assert raw.count(text) == 1
    path.write_bytes(raw.replace(text, transcript(4).text.encode()))
    assert check_cache(path).n_damaged == 1
    assert key(3) not in TranscriptCache(path, {"model": "tiny"}).find([key(3)])
    check_cache(path, repair=True)
    assert (check_cache(path).n_damaged, check_cache(path).n_transcripts) == (0, N_ARRAYS - 1)


def content(read: Callable[[Path], Any], path: Path) -> Any:
    """What `read` finds; None if it refuses."""
    try:
        return read(path)
    except KoserError:
        return None


def read_manifest(path: Path) -> Any:
    manifest = Manifest.read(path)
    return manifest.table.rows(), manifest.provenance


def read_split(path: Path) -> Any:
    split = Split.read(path)
    return sorted(split.table.rows()), split.describe()


def read_checkpoint(path: Path) -> Any:
    found = Checkpoint.read(path)
    tensors = {name: tensor.numpy().tobytes() for name, tensor in found.state.items()}
    return found.system, found.labels, found.config, found.origin, found.temperature, tensors


READERS = {
    "m.parquet": read_manifest,
    "s.parquet": read_split,
    "best_model_mfcc.pth": read_checkpoint,
}


@pytest.mark.parametrize("name", READERS)
@MANY
@hypothesis.given(how=DAMAGES)
def test_a_damaged_file_is_refused_or_is_still_the_same(copy, original, name, how):
    path = copy(name)
    damage(path, *how)
    found = content(READERS[name], path)
    assert found is None or found == READERS[name](original / name)


def read_run(folder: Path) -> Any:
    run = RunFolder.read(folder)
    data = run.optional_json("data.json")
    return dict(run.description), dict(run.metrics), run.predictions.rows(), data


@pytest.mark.parametrize("name", ["metrics.json", "run.json", "predictions.parquet"])
@MANY
@hypothesis.given(how=DAMAGES)
def test_a_damaged_run_is_refused(copy, name, how):
    folder = copy("run")
    damage(folder / name, *how)
    assert content(read_run, folder) is None


@pytest.mark.parametrize("name", ["m.parquet", "s.parquet", "best_model_mfcc.pth"])
def test_undamaged_files_are_not_refused(copy, name):
    assert content(READERS[name], copy(name)) is not None


def test_an_undamaged_run_is_not_refused(copy):
    assert content(read_run, copy("run")) is not None
