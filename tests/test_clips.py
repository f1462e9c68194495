"""Whoever loads a clip hears all that the clip says: its part and its channel."""

import ast
from pathlib import Path

import numpy as np
import pytest
import soundfile

import koser
from koser.audio.reading import Clip, load_clip

SOURCE = Path(koser.__file__).parent
HOME = SOURCE / "audio" / "reading.py"


def own_loads(tree):
    """Calls ``load(…, start=clip.start, …)``, which would have to remember the rest as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and any(
            isinstance(keyword.value, ast.Attribute)
            and keyword.arg == keyword.value.attr == "start"
            for keyword in node.keywords
        ):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name == "load":
                yield node.lineno


def test_every_module_leaves_the_loading_of_clips_to_one_function():
    found = [
        f"{path}:{line}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path != HOME
        for line in own_loads(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []
    assert list(own_loads(ast.parse(HOME.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("channel", [None, 0, 1])
@pytest.mark.parametrize(("start", "end"), [(None, None), (0.25, 0.5)])
def test_a_clip_is_its_part_and_its_channel(tmp_path, channel, start, end):
    path = tmp_path / "a.wav"
    stereo = np.random.default_rng(0).uniform(-0.5, 0.5, (16_000, 2)).astype(np.float32)
    soundfile.write(path, stereo, 16_000, subtype="FLOAT")
    heard = load_clip(Clip(str(path), start, end, channel))
    part = stereo[4_000:8_000] if start else stereo
    expected = part.mean(axis=1) if channel is None else part[:, channel]
    np.testing.assert_allclose(heard, expected, atol=1e-6)
