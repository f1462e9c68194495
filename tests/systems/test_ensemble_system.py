"""The ensemble against members trained by hand: what decides its weights, and what may not."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize

from fixtures.text import CREDULOUS
from koser.audio.reading import load
from koser.config import resolve_config
from koser.data.corpora.folder import prepare
from koser.data.manifest import Manifest
from koser.data.splits import SplitOptions, make_split
from koser.errors import ConfigError, RunError, SplitError
from koser.experiment.request import TrainRequest
from koser.experiment.series import resolve_series
from koser.features.text.transcriber import Transcriber
from koser.models.checkpoint import Checkpoint
from koser.systems.ensemble import EnsembleSystem
from koser.systems.ensemble_config import EnsembleConfig
from koser.systems.fused import FusedSystem
from koser.systems.mfcc import MfccSystem
from koser.systems.system import Part, ReadingSystem
from koser.systems.wav2vec2 import Wav2Vec2System

KINDS = {"mfcc": MfccSystem, "wav2vec2": Wav2Vec2System}
# Of six speakers with two clips of each of three labels, the fifth is val and the sixth test.
SPEAKER = np.arange(36) % 12 // 2
PART = Part(*(np.flatnonzero(each) for each in (SPEAKER < 4, SPEAKER == 4, SPEAKER == 5)), seed=3)
QUICK = (
    'members=["mfcc", "wav2vec2"]',
    "inner.n_folds=2",
    *(f"systems.mfcc.{each}" for each in ("train.epochs=6", "cnn.channels=[4, 6]", "speeds=[]")),
    *(f"systems.wav2vec2.{each}" for each in ("train.epochs=6", "speeds=[]")),
)


@pytest.fixture
def manifest(tone_corpus):
    return prepare(tone_corpus(), speaker_pattern=r"(s\d)_")


@pytest.fixture
def configure(encoder_folder):
    def make(*overrides):
        encoder = f'encoder.name="{encoder_folder("wav2vec2")}"'
        return resolve_config(EnsembleConfig, overrides=[*QUICK, encoder, *overrides])

    return make


def extracted(manifest, config, folder):
    return EnsembleSystem.extract(
        manifest, config, train_rows=PART.train, store_root=folder / "store"
    )


def fitted(manifest, config, folder, data=None, part=PART, name="last.pth"):
    data = data or extracted(manifest, config, folder)
    system = EnsembleSystem(manifest.labels, config)
    return system, data, system.fit(data, part, resume_file=folder / name)


@pytest.fixture
def noted(monkeypatch):
    """The parts that each member is trained on, in order; raises at the one that `at` says."""
    parts = []

    class Notes:
        at = None

        def of(self, name):
            return [part for each, part in parts if each == name]

        def clear(self):
            parts.clear()

        def __len__(self):
            return len(parts)

    notes = Notes()
    for name, kind in KINDS.items():
        original = kind.fit

        def fit(self, data, part, *, original=original, name=name, **options):
            if len(parts) == notes.at:
                raise KeyboardInterrupt
            parts.append((name, part))
            return original(self, data, part, **options)

        monkeypatch.setattr(kind, "fit", fit)
    return notes


def test_weights_and_answers_are_those_of_members_trained_by_hand(manifest, configure, tmp_path):
    config = configure()
    system, data, fit = fitted(manifest, config, tmp_path)
    own = Manifest(manifest.table[PART.train.tolist()], manifest.provenance)
    share = len(PART.val) / (len(PART.train) + len(PART.val))
    inner = make_split(own, "kfold", SplitOptions(n_folds=2, val_fraction=share)).parts(own)
    answers, tested, whole = [], [], []
    for name, kind in KINDS.items():
        held_out = []
        for number, parts in enumerate(inner):
            rows = [PART.train[parts == place] for place in range(3)]
            member = kind(manifest.labels, config.of_member(name))
            member.fit(
                data.members[name],
                Part(*rows, seed=3),
                resume_file=tmp_path / f"{name}{number}.pth",
            )
            held_out.append(member.predict_rows(data.members[name], rows[2]))
            tested.append(rows[2])
        answers.append(np.concatenate(held_out))
        member = kind(manifest.labels, config.of_member(name))
        member.fit(data.members[name], PART, resume_file=tmp_path / f"{name}.pth")
        whole.append(member.predict_rows(data.members[name], PART.test))
    targets = data.targets[np.concatenate(tested[:2])]
    logs = np.log(np.stack(answers))

    def log_loss(coefficients):
        scaled = np.tensordot(coefficients, logs, 1)
        return (np.log(np.exp(scaled).sum(axis=1)) - (targets * scaled).sum(axis=1)).mean()

    best = minimize(log_loss, [0.5, 0.5], bounds=[(0, 20)] * 2, options={"ftol": 1e-14}).x
    # SciPy's gradient is numerical, and the optimum is flat.
    np.testing.assert_allclose(list(system._facts["weights"].values()), best / sum(best), atol=2e-3)
    coefficients = np.array(system._pool.weights) / system._pool.temperature
    scaled = np.exp(np.tensordot(coefficients, np.log(np.stack(whole)), 1))
    expected = scaled / scaled.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(system.predict_rows(data, PART.test), expected, atol=1e-9)
    assert fit.best.train_loss == pytest.approx(log_loss(coefficients), abs=1e-6)
    inside = system.inspect_rows(data, PART.test).probabilities
    np.testing.assert_allclose(inside["mfcc only"], whole[0], atol=1e-12)
    np.testing.assert_allclose(inside["simple average"], np.mean(whole, axis=0), atol=1e-12)


def with_texts(manifest, n_scripts=3):
    texts = [f"{'가나다라마바'[row % n_scripts] * 8}" for row in range(len(manifest))]
    table = manifest.table.with_columns(text=np.array(texts, object))
    return Manifest(table.select(manifest.table.columns), manifest.provenance).validate()


@pytest.mark.parametrize(
    ("protocol", "n_inner", "part"),
    [("kfold", 2, PART), ("speaker+script", 4, replace(PART, val=np.zeros(0, np.int64)))],
)
def test_no_inner_training_hears_whom_or_what_it_is_tested_on(
    protocol, n_inner, part, manifest, configure, tmp_path, noted
):
    manifest = with_texts(manifest)
    fitted(manifest, configure(f"inner.protocol={protocol}"), tmp_path, part=part)
    script = manifest.table["text"].to_numpy()
    for name in KINDS:
        *inner, whole = noted.of(name)
        assert len(inner) == n_inner
        assert whole is part
        for each in inner:
            known = np.concatenate([each.train, each.val])
            assert not set(SPEAKER[known]) & set(SPEAKER[each.test])
            if protocol == "speaker+script":
                assert not set(script[known]) & set(script[each.test])
            assert set(known) < set(PART.train), "val and test of the whole have no say"
        tested = np.concatenate([each.test for each in inner])
        np.testing.assert_array_equal(np.sort(tested), PART.train)


def test_a_killed_training_repeats_no_inner_one_and_ends_alike(
    manifest, configure, tmp_path, noted
):
    config = configure()
    whole, data, record = fitted(manifest, config, tmp_path, name="whole.pth")
    assert len(noted) == 6
    noted.clear()
    noted.at = 3
    with pytest.raises(KeyboardInterrupt):
        fitted(manifest, config, tmp_path, data)
    assert len(list(tmp_path.glob("last-*held-out*"))) == 3
    noted.clear()
    noted.at = None
    resumed, _, again = fitted(manifest, config, tmp_path, data)
    assert len(noted) == 3
    assert again.best.train_loss == record.best.train_loss
    rows = np.arange(36)
    np.testing.assert_array_equal(resumed.predict_rows(data, rows), whole.predict_rows(data, rows))
    other = configure("systems.mfcc.train.epochs=7")
    with pytest.raises(RunError, match="a training with other settings"):
        fitted(manifest, other, tmp_path, data)


def test_sound_alone_and_stored_features_give_the_same_after_a_round_trip(
    manifest, configure, tmp_path
):
    system, data, _ = fitted(manifest, configure(), tmp_path)
    system.to_checkpoint({}).write(tmp_path / "model.pth")
    kept = Checkpoint.read(tmp_path / "model.pth")
    loaded = EnsembleSystem.from_checkpoint(kept)
    assert not isinstance(loaded, ReadingSystem)
    waveforms = [load(path) for path in manifest.table["path"][:4]]
    stored = system.predict_rows(data, np.arange(4))
    np.testing.assert_allclose(loaded.predict_waveforms(waveforms), stored, atol=1e-4)
    assert "whisper" not in kept.config
    assert kept.config["encoder"]["fingerprint"]
    assert "encoder" not in kept.config["systems"]["wav2vec2"], "or --encoder would not move it"
    counted = loaded.count_parameters()
    parts = [each.count_parameters() for each in loaded._systems.values()]
    assert counted.trained == sum(each.trained for each in parts) > 0


def test_members_that_read_hear_a_recording_once(
    manifest, configure, tmp_path, whisper_folder, text_folder, monkeypatch
):
    models = [f'whisper.name="{whisper_folder}"', f'text.name="{text_folder()}"']
    models += [f"whisper.{key}={value}" for key, value in CREDULOUS.items()]
    quick = [
        f"systems.{name}.{each}"
        for name in ("multimodal", "fusion")
        for each in ("train.epochs=2", "speeds=[]", "errors.variants=0", "fusion.hidden=[8, 8]")
    ]
    config = resolve_config(
        EnsembleConfig,
        overrides=[
            'members=["multimodal", "fusion"]',
            "inner.n_folds=2",
            f'encoder.name="{configure().encoder.name}"',
            *models,
            *quick,
        ],
    )
    system, data, _ = fitted(manifest, config, tmp_path)
    loaded = EnsembleSystem.from_checkpoint(system.to_checkpoint({}))
    assert isinstance(loaded, ReadingSystem)
    heard = []
    original = FusedSystem.transcribe

    def transcribe(self, waveforms):
        heard.append(len(waveforms))
        return original(self, waveforms)

    monkeypatch.setattr(FusedSystem, "transcribe", transcribe)
    waveforms = [load(path) for path in manifest.table["path"][:3]]
    got = loaded.predict_waveforms(waveforms)
    assert heard == [3]
    np.testing.assert_allclose(got, system.predict_rows(data, np.arange(3)), atol=1e-4)
    silent = loaded.predict_spoken(waveforms, [None] * 3)
    assert np.abs(silent - got).max() > 1e-6, "words count"
    loaded.keep_transcripts(tmp_path / "kept")
    np.testing.assert_array_equal(loaded.predict_waveforms(waveforms), got)
    monkeypatch.setattr(Transcriber, "transcribe", pytest.fail)
    np.testing.assert_array_equal(loaded.predict_waveforms(waveforms), got)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['members=["mfcc"]'], "needs two members or more"),
        (['members=["mfcc", "mffc"]'], "no system is called 'mffc'. Members: mfcc, wav2vec2"),
        (['members=["mfcc", "ensemble"]'], "an ensemble cannot be a member"),
        (['members=["mfcc", "mfcc"]'], "'mfcc' is named twice"),
        (["systems.fusion.train.epochs=1"], "'fusion' is no member. Members: mfcc, wav2vec2"),
        (["systems.mfcc.train.epoch=1"], "unknown key 'train.epoch'"),
        (["systems.mfcc.train.epochs=0"], "train.epochs = 0"),
        (["systems.mfcc.enrolment.k=3"], "'mfcc' cannot be enrolled as a member"),
        (["inner.n_folds=1"], "inner.n_folds = 1"),
        (["whisper.name=x"], "no member has a section 'whisper'"),
    ],
)
def test_what_makes_no_ensemble_is_refused(overrides, message, configure):
    with pytest.raises(ConfigError) as caught:
        configure(*overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_split_settles_what_inner_folds_keep_apart(manifest, configure):
    manifest = with_texts(manifest, n_scripts=6)
    for protocol, expected in (("speaker", "kfold"), ("speaker+script", "speaker+script")):
        split = make_split(manifest, protocol, SplitOptions(val_fraction=0))
        settled = EnsembleSystem.settle(configure(), manifest, split)
        assert settled.inner.protocol == expected


def test_each_of_several_splits_settles_its_own(manifest, tmp_path):
    with_texts(manifest, n_scripts=6).write(tmp_path / "m.parquet")
    request = TrainRequest(
        model="ensemble",
        split="speaker",
        manifest=tmp_path / "m.parquet",
        split_options=SplitOptions(val_fraction=0),
        overrides=QUICK,
    )
    series = resolve_series(request, ["speaker", "speaker+script"])
    assert [each.config.inner.protocol for each in series] == ["kfold", "speaker+script"]


@pytest.mark.parametrize(
    ("n_outer", "val_fraction", "n_folds", "message"),
    [
        (2, 0, 4, r"inner.n_folds = 4: .* of 3 × speaker.* works: --set inner.n_folds=2\.$"),
        # Of the train part's three speakers, an inner fold of two leaves none to train on.
        (
            2,
            0.1,
            2,
            r"inner.n_folds = 2: .* of 2 × speaker.*--val-fraction 0 --set inner.n_folds=2",
        ),
        (3, 0.1, 2, r"inner.n_folds = 2: .* of 3 × speaker.* works: --set inner.n_folds=3\.$"),
    ],
)
def test_inner_folds_that_cannot_be_are_refused_before_the_work_with_what_can(
    n_outer, val_fraction, n_folds, message, manifest, configure
):
    options = SplitOptions(n_folds=n_outer, val_fraction=val_fraction)
    split = make_split(manifest, "kfold", options)
    with pytest.raises(ConfigError, match=message) as caught:
        EnsembleSystem.settle(configure(f"inner.n_folds={n_folds}"), manifest, split)
    works = int(str(caught.value).rstrip(".").rpartition("=")[2])
    if "--val-fraction 0" in str(caught.value):
        split = make_split(manifest, "kfold", SplitOptions(n_folds=n_outer, val_fraction=0))
    settled = EnsembleSystem.settle(configure(f"inner.n_folds={works}"), manifest, split)
    assert settled.inner.n_folds == works


def test_inner_folds_of_one_speaker_or_script_ask_for_more_of_them(manifest, configure):
    few = Manifest(manifest.table.filter(pl.col("speaker") < "s2"), manifest.provenance)
    split = make_split(few, "leave_one_speaker_out", SplitOptions(val_fraction=0))
    with pytest.raises(ConfigError, match=r"of 1 × speaker.*Train on more speakers\.$"):
        EnsembleSystem.settle(configure(), few, split)
    texts = with_texts(manifest)
    split = make_split(texts, "speaker+script", SplitOptions(val_fraction=0))
    with pytest.raises(ConfigError, match=r"Train on more speakers and scripts\.$"):
        EnsembleSystem.settle(configure(), texts, split)


def test_utterances_that_cannot_be_split_again_are_refused_in_one_line(
    manifest, configure, tmp_path
):
    with pytest.raises(SplitError, match=r"16 inner folds \(inner.n_folds\)"):
        fitted(manifest, configure("inner.n_folds=16"), tmp_path)
