"""The package's modules may import only from the layers below their own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import koser

SOURCE = Path(koser.__file__).parent
LAYERS = [
    {"errors", "config", "labels", "files", "hashes", "runtime", "storage"},
    {"audio", "evaluation", "engines", "demo"},
    {"data"},
    {"features"},
    {"models"},
    {"training"},
    {"systems"},
    {"inference"},
    {"reporting"},
    {"experiment", "serving", "sharing"},
    {"doctor"},
    {"terminal"},
    {"cli", "__main__"},
]
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}
# A third party with one home (STYLE: each heavy one has exactly one).
HOMES = {
    "matplotlib": {"reporting"},
    "koreanize_matplotlib": {"reporting"},
    "jinja2": {"reporting"},
    "soundfile": {"audio"},
    "soxr": {"audio"},
    "av": {"audio"},
    "fsspec": {"storage"},
    "typer": {"cli"},
    "rich": {"terminal"},
    "fastapi": {"serving"},
    "starlette": {"serving"},
    "uvicorn": {"serving"},
    "prometheus_client": {"serving"},
    "safetensors": {"features", "models"},
    "huggingface_hub": {"features", "sharing"},
    "transformers": {"features"},
    "peft": {"models"},
    "swift_f0": {"features"},
    "faster_whisper": {"features"},
    "ctranslate2": {"features"},
    "tokenizers": {"features"},
    "torch": {"features", "models", "training", "systems", "experiment"},
    "onnxruntime": {"runtime", "inference"},  # where it runs models, and where it shrinks them
    "onnx": {"inference"},
    "optuna": {"experiment"},
    "ray": {"engines"},
    "pyarrow": {"engines"},
}
# Within a layer, these may use those.
WITHIN = {
    ("config", "errors"),
    ("config", "files"),
    ("hashes", "files"),
    ("labels", "errors"),
    ("runtime", "errors"),
    ("storage", "errors"),
    ("storage", "files"),
    ("__main__", "cli"),
}


def violations(path: Path, tree: ast.AST) -> list[str]:
    part = path.relative_to(SOURCE).with_suffix("").parts[0]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            root, *rest = name.split(".")
            if root in HOMES and part not in HOMES[root]:
                found.append(f"{path}:{node.lineno} imports {root}, whose home is {HOMES[root]}")
            # koser itself holds only the version and lazily loaded names.
            if root != "koser" or not rest or rest[0] not in HEIGHT:
                continue
            other = rest[0]
            if other != part and (part, other) not in WITHIN and HEIGHT[other] >= HEIGHT[part]:
                found.append(f"{path}:{node.lineno} imports {name}, which is not below {part}")
    return found


def test_every_module_imports_only_from_lower_layers():
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.parent == SOURCE and path.stem == "__init__":
            continue
        found += violations(path, ast.parse(path.read_text(encoding="utf-8")))
    assert found == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("evaluation/metrics.py", "from koser.data.manifest import Manifest"),
        ("evaluation/metrics.py", "import torch"),
        ("data/splits.py", "import koser.systems.mfcc"),
        ("engines/local.py", "from koser.features import store"),
        ("inference/bulk.py", "import ray.data"),
    ],
)
def test_an_import_from_above_is_found(module, line):
    assert len(violations(SOURCE / module, ast.parse(line))) == 1


def test_every_module_has_a_layer():
    names = {path.relative_to(SOURCE).with_suffix("").parts[0] for path in SOURCE.rglob("*.py")}
    assert names - {"__init__"} == set(HEIGHT)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import koser", {"torch", "polars", "matplotlib", "numpy", "fsspec"}),
        ("import koser.cli", {"torch", "polars", "matplotlib", "numpy", "fsspec"}),
        ("import koser.inference.output, koser.data.manifest", {"torch", "fsspec", "s3fs"}),
        ("import koser.data.splits, koser.data.summary", {"torch", "matplotlib"}),
        ("import koser.serving.running", {"torch", "polars", "matplotlib", "transformers"}),
        ("import koser.serving.decoder", {"torch", "polars", "fastapi", "onnxruntime"}),
        ("import koser.terminal", {"torch", "matplotlib"}),
        ("import koser.data.audit.audit", {"torch", "matplotlib"}),
        ("import koser.data.releases", {"torch", "matplotlib"}),
        ("import koser.evaluation.scoring", {"torch", "polars", "matplotlib"}),
    ],
)
def test_what_an_import_must_not_load(code, absent):
    check = f"{code}; import sys; print(*sorted({absent!r} & set(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert output.stdout.split() == []
