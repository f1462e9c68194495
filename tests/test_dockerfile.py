"""The Dockerfile's own steps, run without Docker: in a folder for `/` and a venv for its Python."""

import fnmatch
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Step:
    name: str
    text: str

    @property
    def words(self):
        """The arguments of an instruction in JSON's form, or the words of one in the shell's."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


def read_steps():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [Step(*line.split(None, 1)) for line in lines if line and not line.startswith("#")]


def steps_of(name):
    return [step for step in read_steps() if step.name == name]


def ignored(path):
    """Whether .dockerignore leaves `path` (relative to the root) out; the last match decides."""
    is_out = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip().removeprefix("!").removeprefix("**/")
        if not pattern or line.startswith("#"):
            continue
        whole = Path(path)
        candidates = [str(each) for each in (whole, *whole.parents)][:-1]
        names = list(whole.parts) if "**/" in line else candidates
        if any(fnmatch.fnmatch(each, pattern) for each in names):
            is_out = not line.startswith("!")
    return is_out


def sources_of(step):
    *sources, target = step.words
    files = []
    for source in sources:
        path = ROOT / source
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        for each in found:
            inner = each.relative_to(path) if path.is_dir() else Path(path.name)
            if each.is_file() and not ignored(str(each.relative_to(ROOT))):
                files.append((each, Path(target) / inner))
    return files


def test_it_is_small_rootless_and_watched():
    (base,) = steps_of("FROM")
    assert base.text.startswith("python:3.")
    assert base.text.endswith("-slim")
    names = [step.name for step in read_steps()]
    assert steps_of("USER")[-1].text not in ("root", "0")
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert not {"ADD", "RUN", "COPY"} & set(names[names.index("USER") :])
    assert steps_of("ENTRYPOINT")[0].words == ["koser", "serve"]
    assert "torch" not in (ROOT / "Dockerfile").read_text(encoding="utf-8").split("FROM")[1]


def test_what_it_copies_is_there_and_nothing_else_gets_in():
    copied = [each for step in steps_of("COPY") for each in sources_of(step)]
    targets = {str(target) for _, target in copied}
    assert {"pyproject.toml", "README.md", "LICENSE"} <= targets
    assert "src/koser/serving/page/index.html" in targets
    assert "src/koser/audio/silero/silero_vad_16k_sequence.onnx" in targets
    assert not any("__pycache__" in target or target.endswith(".pyc") for target in targets)
    for path in (".git/config", "tests/conftest.py", "data/emotions/a.wav", "runs/a", ".venv/x"):
        assert ignored(path)
    for step in steps_of("COPY"):
        for source in step.words[:-1]:
            assert (ROOT / source).exists(), f"COPY names '{source}', which is not there"


def test_the_extras_it_installs_exist_and_the_port_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    install = next(step.text for step in steps_of("RUN") if "pip install" in step.text)
    extras = install.split("'.[")[1].split("]")[0].split(",")
    assert set(extras) <= set(project["project"]["optional-dependencies"])
    port = steps_of("EXPOSE")[0].text
    assert port in steps_of("CMD")[0].words
    assert f":{port}/" in steps_of("HEALTHCHECK")[0].text


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Run every step in order; returns the folder for `/` and the environment."""
    root = tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, "-m", "venv", root / "venv"], check=True)
    tools = root / "tools"
    tools.mkdir()
    # Accounts are made in the image alone: here it is noted which one.
    (tools / "useradd").write_text(f'#!/bin/sh\necho "$@" > {root}/useradd.txt\n')
    (tools / "useradd").chmod(0o755)
    environment = {
        "PATH": f"{tools}:{root / 'venv' / 'bin'}:/usr/bin:/bin",
        "HOME": str(root),
        **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
    }
    folder = root
    for step in read_steps():
        if step.name == "WORKDIR":
            folder = root / step.text.lstrip("/")
            folder.mkdir(parents=True, exist_ok=True)
        elif step.name == "COPY":
            for source, target in sources_of(step):
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / target)
        elif step.name == "RUN":
            done = subprocess.run(
                ["/bin/sh", "-c", step.text], cwd=folder, env=environment,
                capture_output=True, text=True, timeout=550, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{step.text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return root, environment


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An exported model with random weights, and what it says of a sound."""
    from koser.inference.export import export_model
    from koser.inference.recognizer import load_recognizer
    from koser.systems.mfcc import MfccConfig, MfccSystem

    folder = tmp_path_factory.mktemp("model")
    system = MfccSystem(("angry", "neutral", "calm"), MfccConfig())
    system.to_checkpoint({"split": "none"}).write(folder / "best_model_mfcc.pth")
    export_model(folder / "best_model_mfcc.pth", folder / "model.onnx")
    waveform = np.random.default_rng(0).standard_normal(20_000) * 0.1
    soundfile.write(folder / "a.wav", waveform, 16_000, "PCM_16")
    return folder, load_recognizer(folder / "model.onnx").predict_file(folder / "a.wav")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.integration
def test_what_it_installs_serves_a_model_without_torch(built, model):
    root, environment = built
    folder, expected = model
    port = str(free_port())
    command = [*steps_of("ENTRYPOINT")[0].words, *steps_of("CMD")[0].words]
    places = {"/model/model.onnx": str(folder / "model.onnx"), "8000": port}
    process = subprocess.Popen(
        [places.get(word, word) for word in command],
        cwd=root, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    # What Docker would run every 10 s, with the port of this test.
    check = json.loads(steps_of("HEALTHCHECK")[0].text.split("CMD", 1)[1])
    check = [word.replace(":8000/", f":{port}/") for word in check]
    try:
        healths = []
        deadline = time.monotonic() + 60
        while not healths or healths[-1] != 0:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr.read()
            done = subprocess.run(check, env=environment, capture_output=True, check=False)
            healths.append(done.returncode)
            time.sleep(0.1)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/predict",
            data=(folder / "a.wav").read_bytes(),
            headers={"Content-Type": "audio/wav"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            said = json.loads(answer.read())
        assert said["probabilities"] == pytest.approx(dict(expected.probabilities), abs=1e-6)
        maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
        assert "onnxruntime" in maps
        assert "libtorch" not in maps
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        unwell = subprocess.run(check, env=environment, capture_output=True, check=False)
        assert unwell.returncode != 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.integration
def test_its_user_is_made_and_torch_is_not_there(built):
    root, environment = built
    assert (root / "useradd.txt").read_text().split()[-1] == steps_of("USER")[-1].text
    assert "--uid 10001" in (root / "useradd.txt").read_text()
    for module in ("torch", "transformers", "matplotlib"):
        done = subprocess.run(
            ["python", "-c", f"import {module}"], env=environment, capture_output=True, check=False
        )
        assert done.returncode != 0
