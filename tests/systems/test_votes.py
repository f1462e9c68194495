"""Every system learns from the votes of (SIMULATED) raters, and hears several corpora equally."""

import numpy as np
import polars as pl
import pytest
import soundfile

from fixtures.raters import simulate_votes
from fixtures.text import CREDULOUS
from koser.config import resolve_config
from koser.data.corpora.folder import prepare
from koser.data.manifest import Manifest
from koser.data.raters import rater_shares
from koser.systems import SYSTEM_NAMES, system_class
from koser.systems.system import Part

ROWS = np.arange(18)


@pytest.fixture
def rated(tone_corpus):
    """Tones as two corpora, with votes."""
    made = prepare(tone_corpus(n_speakers=6, n_each=1), speaker_pattern=r"(s\d)_")
    table = made.table.with_columns(
        corpus=pl.when(pl.col("speaker") < "s2").then(pl.lit("a")).otherwise(pl.lit("b"))
    )
    return simulate_votes(Manifest(table, made.provenance), agreement=0.5)


@pytest.fixture
def settings(encoder_folder, whisper_folder, text_folder):
    def of(name):
        short = ["train.epochs=1", "train.target=votes", "train.balance=corpus", "speeds=[]"]
        encoder = [f'encoder.name="{encoder_folder("wav2vec2")}"']
        return short + {
            "mfcc": ["cnn.channels=[4]", "cnn.hidden_size=8"],
            "wav2vec2": encoder,
            "wav2vec2ft": [*encoder, "tune.layers=1", "probe_epochs=1"],
            "multimodal": [
                *(f"whisper.{key}={value}" for key, value in CREDULOUS.items()),
                f'whisper.name="{whisper_folder}"', f'text.name="{text_folder()}"',
                "fusion.width=8", "fusion.hidden=[8, 8]", "errors.variants=0",
            ],
            "prosody": [],
            "fusion": [
                *encoder,
                *(f"whisper.{key}={value}" for key, value in CREDULOUS.items()),
                f'whisper.name="{whisper_folder}"', f'text.name="{text_folder()}"',
                "fusion.width=8", "fusion.hidden=[8, 8]", "errors.variants=0",
            ],
        }[name]  # fmt: skip

    return of


# An ensemble learns as its members do.
@pytest.mark.parametrize("name", [name for name in SYSTEM_NAMES if name != "ensemble"])
def test_every_system_trains_on_the_shares_of_the_votes(name, rated, settings, tmp_path):
    kind = system_class(name)
    config = resolve_config(kind.config_class, overrides=settings(name))
    data = kind.extract(rated, config, train_rows=ROWS, store_root=tmp_path / "store")
    np.testing.assert_allclose(data.targets, rater_shares(rated), atol=1e-7)
    assert data.origins.names == ("a", "b")
    part = Part(ROWS[:12], ROWS[:0], ROWS[12:], seed=0)
    fit = kind(rated.labels, config).fit(data, part, resume_file=tmp_path / "last.pth")
    # No answer comes closer to the votes than they are to themselves.
    shares = rater_shares(rated)[:12]
    own = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)
    assert fit.history[0].train_loss > own.mean() - 0.1


def test_a_normalised_corpus_may_be_moved_and_nothing_changes(rated, tmp_path):
    """Louder recordings of one corpus: its own train statistics take the gain away."""
    kind = system_class("mfcc")
    overrides = [
        "train.epochs=1", "speeds=[]", "cnn.channels=[4]", "cnn.hidden_size=8", "crop_seconds=0",
    ]  # fmt: skip
    part = Part(np.arange(0, 18, 2), ROWS[:0], np.arange(1, 18, 2), seed=0)
    probabilities = {}
    for normalise in ("all", "corpus"):
        config = resolve_config(
            kind.config_class, overrides=[*overrides, f"corpora.normalise={normalise}"]
        )
        for loudness in ("plain", "quiet"):
            folder = tmp_path / loudness
            manifest = rated if loudness == "plain" else quieter(rated, folder)
            data = kind.extract(manifest, config, train_rows=part.train, store_root=folder / "s")
            system = kind(manifest.labels, config)
            system.fit(data, part, resume_file=tmp_path / f"{normalise}-{loudness}.pth")
            probabilities[normalise, loudness] = system.predict_rows(data, part.test)
    moved = {
        normalise: np.abs(
            probabilities[normalise, "plain"] - probabilities[normalise, "quiet"]
        ).max()
        for normalise in ("all", "corpus")
    }
    assert moved["corpus"] < 0.2 * moved["all"]


def quieter(manifest, folder):
    """Corpus b at a twentieth of its level."""
    folder.mkdir(exist_ok=True)
    paths = []
    for row in manifest.table.iter_rows(named=True):
        waveform, rate = soundfile.read(row["path"])
        path = folder / f"{row['id'].replace('/', '-')}.wav"
        soundfile.write(path, waveform * (0.05 if row["corpus"] == "b" else 1), rate, "FLOAT")
        paths.append(str(path))
    table = manifest.table.with_columns(path=pl.Series(paths))
    return Manifest(table, manifest.provenance)
