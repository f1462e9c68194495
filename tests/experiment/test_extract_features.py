"""Features ahead of training, and the settings that an encoder is named in."""

from pathlib import Path

import numpy as np
import pytest

from koser.config import Config
from koser.data.corpora.folder import prepare
from koser.data.stored import StoredManifest
from koser.engines.local import LocalEngine
from koser.errors import ConfigError
from koser.experiment import extraction, request
from koser.experiment.extraction import extract_features
from koser.experiment.request import TrainRequest, resolve_settings
from koser.experiment.run import run_experiment
from koser.features.store_check import largest_difference
from koser.systems.mfcc import MfccConfig


class EncoderOptions(Config):
    name: str = "some/encoder"
    layer: int = 0


class SpeechConfig(Config):
    encoder: EncoderOptions = EncoderOptions()


class SpeechSystem:
    config_class = SpeechConfig


@pytest.fixture
def speech(monkeypatch):
    """A system that has an encoder section, under the name ``speech``."""
    real = request.system_class
    monkeypatch.setattr(request, "SYSTEM_NAMES", ("mfcc", "speech"))
    monkeypatch.setattr(
        request, "system_class", lambda name: SpeechSystem if name == "speech" else real(name)
    )


@pytest.mark.usefixtures("speech")
class TestEncoder:
    @pytest.mark.parametrize("name", ["facebook/wav2vec2-base-960h", "42", "true", '모델 "ü"'])
    def test_a_hub_id_is_taken_as_it_is(self, name):
        assert resolve_settings("speech", encoder=name).encoder.name == name

    def test_a_folder_is_made_absolute(self, tmp_path, monkeypatch):
        (tmp_path / "models" / "mine").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        for given in ("models/mine", "./models/mine/", str(tmp_path / "models" / "mine")):
            named = resolve_settings("speech", encoder=given).encoder.name
            assert named == str((tmp_path / "models" / "mine").resolve())
        # Only what exists is a folder.
        assert resolve_settings("speech", encoder="models/other").encoder.name == "models/other"

    def test_it_goes_before_the_file_and_leaves_the_rest(self, tmp_path):
        file = tmp_path / "c.toml"
        file.write_text('[encoder]\nname = "a/b"\nlayer = 3\n', encoding="utf-8")
        settings = resolve_settings("speech", file=file, encoder="c/d")
        assert (settings.encoder.name, settings.encoder.layer) == ("c/d", 3)
        assert resolve_settings("speech", file=file).encoder.name == "a/b"

    def test_naming_it_twice_is_refused(self):
        with pytest.raises(ConfigError, match=r"--encoder a/b and --set encoder\.name=… name"):
            resolve_settings("speech", overrides=["encoder.name = c/d"], encoder="a/b")
        settings = resolve_settings("speech", overrides=["encoder.layer=2"], encoder="a/b")
        assert settings.encoder.layer == 2

    def test_a_system_without_one_names_those_that_have_one(self):
        match = "System 'mfcc' has no encoder, so --encoder a/b .* have one: speech\\."
        with pytest.raises(ConfigError, match=match):
            resolve_settings("mfcc", encoder="a/b")

    def test_a_request_passes_it_on(self, tmp_path):
        with pytest.raises(ConfigError, match="System 'mfcc' has no encoder"):
            TrainRequest("mfcc", "random", manifest=tmp_path, encoder="a/b").resolve()


@pytest.fixture
def manifest(tone_corpus):
    return prepare(tone_corpus(n_speakers=4), speaker_pattern=r"(s\d)_")


@pytest.fixture
def stored(manifest, tmp_path):
    manifest.write(tmp_path / "m.parquet")
    return StoredManifest.open(tmp_path / "m.parquet")


def test_an_extraction_says_what_it_made_and_where_it_lies(manifest, stored, tmp_path):
    store, seen = tmp_path / "store", []
    made = extract_features(
        "mfcc", stored, MfccConfig(), store_root=store, progress=lambda *each: seen.append(each)
    )
    assert (made.n_clips, made.n_failed) == (24, 0)
    assert made.audio_seconds == pytest.approx(manifest.table["duration"].sum())
    assert made.speed == pytest.approx(made.audio_seconds / made.seconds)
    assert seen[-1] == (72, 72)  # at three speeds
    on_disk = sum(path.stat().st_size for path in store.glob("*/*"))
    assert made.store_bytes == made.added_bytes == on_disk > 100_000

    again = extract_features("mfcc", stored, MfccConfig(), store_root=store)
    assert (again.store_bytes, again.added_bytes) == (on_disk, 0)


def test_windows_make_the_same_features(stored, tmp_path, monkeypatch):
    extract_features("mfcc", stored, MfccConfig(), store_root=tmp_path / "one")
    seen = []
    monkeypatch.setattr(extraction, "WINDOW_ROWS", 7)
    extract_features(
        "mfcc",
        stored,
        MfccConfig(),
        store_root=tmp_path / "windows",
        engine=LocalEngine(2),
        progress=lambda *each: seen.append(each),
    )
    assert seen == sorted(seen)
    assert seen[-1] == (72, 72)
    assert largest_difference(tmp_path / "one", tmp_path / "windows") == 0.0
    sizes = [
        sorted(path.stat().st_size for path in (tmp_path / name).glob("*/data.bin"))
        for name in ("one", "windows")
    ]
    assert sizes[0] == sizes[1]


def test_an_unreadable_file_is_reported_and_keeps_no_front_end_from_the_others(
    manifest, stored, tmp_path, monkeypatch
):
    monkeypatch.setattr(extraction, "WINDOW_ROWS", 7)
    bad = manifest.table["path"][9]
    Path(bad).write_bytes(b"no sound")
    told = []
    made = extract_features(
        "mfcc",
        stored,
        MfccConfig(),
        store_root=tmp_path / "store",
        on_failure=lambda *each: told.append(each),
    )
    assert made.n_failed == 1
    ((identifier, reason),) = told
    assert identifier == manifest.table["id"][9]
    assert bad in reason
    indexes = [path.stat().st_size for path in (tmp_path / "store").glob("mfcc-*/index.bin")]
    assert indexes == [23 * 44] * 3  # every other utterance, at three speeds


def test_training_needs_nothing_more_than_was_extracted(manifest, tmp_path):
    manifest.write(tmp_path / "m.parquet")
    quick = ("train.epochs=1", "cnn.channels=[4, 6]", "cnn.hidden_size=8")
    experiment = TrainRequest(
        "mfcc", "speaker", manifest=tmp_path / "m.parquet", overrides=quick
    ).resolve()
    store = tmp_path / "store"
    stored = StoredManifest.open(tmp_path / "m.parquet")
    extract_features("mfcc", stored, experiment.config, store_root=store)
    before = {path: path.stat().st_size for path in store.glob("*/*.bin")}
    run_experiment(experiment, tmp_path / "run", store_root=store)
    # what its audit heard is no feature that it trains on
    after = [path for path in store.glob("*/*.bin") if "sound-facts" not in str(path)]
    assert {path: path.stat().st_size for path in after} == before
    assert np.prod(list(before.values())) > 0
