"""What the commands on pretrained encoders refuse: one line each, and nothing left behind."""

import json
import logging
import shutil
import socket

import huggingface_hub.constants
import huggingface_hub.utils._detect_agent
import huggingface_hub.utils._http
import numpy as np
import pytest
import soundfile

from fixtures.commands import QUICK, train


def refused(koser, tmp_path, *command):
    """The one line that a command is refused with; nothing may be left behind but features."""
    before = sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts)
    status, out, err = koser(*command)
    assert (status, out) == (1, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1, err
    assert sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts) == before
    return err


@pytest.mark.usefixtures("manifest")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bert", "is no speech encoder that koser knows"),
        ("no config", "holds no model that can be loaded"),
        ("no weights", "Give a folder with config.json"),
        ("no front-end", "has no readable preprocessor_config.json"),
        ("damaged", "are damaged, or do not fit"),
    ],
)
def test_a_wrong_encoder_ends_in_one_line_and_leaves_no_run(
    koser, tmp_path, encoder_folder, kind, message
):
    folder = encoder_folder(kind)
    for command in (
        train("wav2vec2", folder, out="runs/new"),
        ["extract", "m.parquet", "--features", "wav2vec2ft", "--encoder", folder],
    ):
        err = refused(koser, tmp_path, *command)
        assert message in err
        assert str(folder) in err


@pytest.mark.usefixtures("manifest")
@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("wav2vec2", ["--encoder", "m.parquet"], "'m.parquet' is a file. Give the folder"),
        ("wav2vec2", ["--encoder", "empty"], "holds no model"),
        ("wav2vec2", ["--encoder", "./gone"], "There is no folder './gone'"),
        ("wav2vec2", ["--store", "m.parquet"], "Cannot open a feature store in 'm.parquet'"),
        ("wav2vec2", ["--out", "m.parquet"], "'m.parquet' is a file. Give a folder for the run"),
        ("wav2vec2", ["--set", "head.layers=4"], "head.layers = 4: the encoder's states are 0 to"),
        ("wav2vec2ft", ["--set", "tune.layers=4"], "tune.layers = 4: the encoder has 3 layers"),
        ("wav2vec2ft", ["--set", "tune.layers=0"], "tune.layers = 0"),
        ("wav2vec2ft", ["--set", "tune.layers=some"], "tune.layers"),
        ("wav2vec2ft", ["--set", "head.layers=4"], "head.layers = 4"),
        ("wav2vec2ft", ["--set", "head.layers=0"], "lies below the trained layers"),
    ],
)
def test_a_wrong_setting_ends_in_one_line_and_leaves_no_run(
    koser, tmp_path, encoder_folder, model, settings, message
):
    (tmp_path / "empty").mkdir()
    assert message in refused(koser, tmp_path, *train(model, encoder_folder("wav2vec2")), *settings)


def test_a_corrected_command_can_be_run_again_as_it_is(koser, manifest, encoder_folder):
    command = train("wav2vec2ft", encoder_folder("wav2vec2"), out="deep/er/run")
    assert koser(*command, "--set", "tune.layers=9")[0] == 1
    status, _, err = koser(*command)
    assert (status, err) == (0, "")


@pytest.mark.usefixtures("manifest")
def test_a_refused_run_keeps_what_an_earlier_training_left(koser, tmp_path, encoder_folder):
    command = train("wav2vec2", encoder_folder("wav2vec2"))
    assert koser(*command)[0] == 0
    (tmp_path / "run" / "report.html").unlink()
    kept = sorted((tmp_path / "run").rglob("*"))
    assert koser(*command, "--resume", "--set", "head.layers=4")[0] == 1
    assert koser(*command, "--resume", "--store", "m.parquet")[0] == 1
    assert sorted((tmp_path / "run").rglob("*")) == kept


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", '{"model_type": "wav2vec2", "hidden_size": "x"}', "holds no model"),
        ("config.json", "[]", "holds no model"),
        ("preprocessor_config.json", "[]", "no readable preprocessor_config.json"),
        ("model.safetensors", "version https://git-lfs.github.com/spec/v1", "damaged"),
        ("model.safetensors", "", "damaged"),
    ],
)
@pytest.mark.usefixtures("manifest")
def test_a_broken_file_of_a_model_ends_in_one_line(
    koser, tmp_path, encoder_folder, name, content, message
):
    shutil.copytree(encoder_folder("wav2vec2"), tmp_path / "copy")
    (tmp_path / "copy" / name).write_text(content, encoding="utf-8")
    assert message in refused(koser, tmp_path, *train("wav2vec2", "copy"))


@pytest.mark.usefixtures("manifest")
def test_the_front_end_of_another_model_is_refused(koser, tmp_path, encoder_folder):
    for kind, other in (("wav2vec2", "whisper"), ("whisper", "wav2vec2")):
        shutil.copytree(encoder_folder(kind), tmp_path / kind)
        name = "preprocessor_config.json"
        shutil.copy(encoder_folder(other) / name, tmp_path / kind / name)
        err = refused(koser, tmp_path, *train("wav2vec2", kind))
        assert "is of another kind of model" in err


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty cache of the hub, and a network that cannot be reached; returns what was asked."""
    asked = []

    def unreachable(host, *_args, **_kwargs):
        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    # The client asks once a process what programs it may run in, whatever is loaded.
    known = {"standardEnvVars": [], "harnesses": {}}
    monkeypatch.setattr(huggingface_hub.utils._detect_agent, "_registry", known)
    cache = tmp_path / "hub"
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    return asked


@pytest.mark.usefixtures("manifest")
def test_an_unreachable_hub_ends_in_one_line_without_the_clients_own(koser, tmp_path, hub):
    spoken = []
    handler = logging.Handler()
    handler.emit = spoken.append
    logging.getLogger("huggingface_hub").addHandler(handler)
    try:
        err = refused(koser, tmp_path, *train("wav2vec2", "invented-lab/invented"))
    finally:
        logging.getLogger("huggingface_hub").removeHandler(handler)
    assert "The model hub cannot be reached and 'invented-lab/invented' is not in its cache" in err
    assert "huggingface.co" in hub
    assert not spoken


@pytest.mark.usefixtures("manifest")
def test_a_downloaded_encoder_is_used_without_asking_the_hub(koser, tmp_path, encoder_folder, hub):
    folder = tmp_path / "hub" / "models--invented-lab--invented"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40, encoding="ascii")
    shutil.copytree(encoder_folder("wav2vec2"), folder / "snapshots" / ("0" * 40))
    status, _, err = koser(*train("wav2vec2", "invented-lab/invented"))
    assert (status, err) == (0, "")
    assert not hub


@pytest.mark.usefixtures("manifest")
def test_an_unreadable_file_among_good_ones_is_named_and_the_others_are_kept(
    koser, tmp_path, encoder_folder, n_encoded
):
    wav = sorted((tmp_path / "tones").rglob("*.wav"))[3]
    content = wav.read_bytes()
    wav.write_bytes(b"no sound")
    err = refused(koser, tmp_path, *train("wav2vec2", encoder_folder("wav2vec2")))
    assert "1 of 15 audio files cannot be read" in err
    assert str(wav) in err
    assert sum(n_encoded) == 14
    wav.write_bytes(content)
    assert koser(*train("wav2vec2", encoder_folder("wav2vec2")))[0] == 0
    assert sum(n_encoded) < 15 + 2 * 15  # the plain ones are there


@pytest.fixture
def odd_clips(tmp_path):
    """Clips of 20 ms, of silence, and in stereo at 44.1 kHz from five speakers; one of 65 s."""
    rng = np.random.default_rng(0)
    for speaker in range(5):
        for label in ("angry", "neutral"):
            folder = tmp_path / "odd" / label
            folder.mkdir(parents=True, exist_ok=True)
            name = str(folder / f"s{speaker}_{{}}.wav")
            soundfile.write(name.format("short"), 0.1 * rng.normal(size=320), 16_000)
            soundfile.write(name.format("silent"), np.zeros(8000), 16_000)
            soundfile.write(name.format("stereo"), 0.1 * rng.normal(size=(22_050, 2)), 44_100)
    soundfile.write(name.format("long"), 0.1 * rng.normal(size=65 * 16_000), 16_000)
    return tmp_path / "odd"


@pytest.mark.parametrize("kind", ["wav2vec2", "whisper"])
def test_odd_sound_is_trained_on_and_recognised(koser, tmp_path, encoder_folder, odd_clips, kind):
    status, _, err = koser(
        "prepare", "folder", odd_clips, "--speaker-pattern", r"(s\d)_", "--out", "m.parquet"
    )
    assert status == 0, err
    for model in QUICK:
        status, _, err = koser(*train(model, encoder_folder(kind), out=model))
        # Ten clips of silence are ten copies, and the audit says so.
        assert status == 0
        assert all(line.startswith("Note: The audit of the data") for line in err.splitlines())
        status, out, err = koser("predict", model, odd_clips, "--format", "json")
        assert (status, err) == (0, "")
        predictions = json.loads(out)
        assert len(predictions) == 31
        got = np.array([list(each["probabilities"].values()) for each in predictions])
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got.sum(1), 1.0, atol=1e-6)
        # Silence is silence, whatever it was batched with.
        silent = [
            row for row, each in zip(got, predictions, strict=True) if "silent" in each["path"]
        ]
        assert len(silent) == 10
        np.testing.assert_allclose(silent, [silent[0]] * 10, atol=1e-4)
