"""Whoever loads a clip hears all that the clip says: its part and its channel."""

import ast
from pathlib import Path

import pytest

import koser

SOURCE = Path(koser.__file__).parent


def partial_loads(tree):
    """Calls ``load(clip.path, start=clip.start, …)`` that leave something of the clip out."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        named = {keyword.arg for keyword in node.keywords}
        is_of_a_clip = any(
            isinstance(keyword.value, ast.Attribute)
            and keyword.arg == keyword.value.attr == "start"
            for keyword in node.keywords
        )
        if node.func.id == "load" and is_of_a_clip and not {"end", "channel"} <= named:
            yield node.lineno


def test_no_module_loads_a_clip_without_its_end_or_channel():
    found = [
        f"{path}:{line}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line in partial_loads(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("call", "n_found"),
    [
        ("load(clip.path, start=clip.start, end=clip.end)", 1),
        ("load(job.clip.path, start=job.clip.start, channel=job.clip.channel)", 1),
        ("load(clip.path, start=clip.start, end=clip.end, channel=clip.channel)", 0),
        ("load(path, start=0.5, end=1.0)", 0),
    ],
)
def test_a_load_that_forgets_something_is_found(call, n_found):
    assert len(list(partial_loads(ast.parse(call)))) == n_found
