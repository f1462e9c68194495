import os

import pytest

from koser.errors import EXTRA_OF_MODULE, KoserError, one_line_errors
from koser.files import replacing, write_atomically


def test_a_file_appears_whole_and_alone(tmp_path):
    write_atomically(tmp_path / "a", "가".encode())
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def fail_half_way():
        with replacing(tmp_path / "a") as partial:
            partial.write_bytes(b"half")
            raise KoserError("half way")

    with pytest.raises(KoserError, match="half way"):
        fail_half_way()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_refusal_is_one_line_on_standard_error_and_status_1(capsys):
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise KoserError("what, why, next")
    assert caught.value.code == 1
    assert capsys.readouterr().err == "Error: what, why, next\n"


def test_a_missing_extra_is_named_with_the_line_that_installs_it(capsys):
    with pytest.raises(SystemExit), one_line_errors():
        raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")
    assert "pip install 'koser[train]'" in capsys.readouterr().err


def test_a_module_that_belongs_to_no_extra_is_a_bug_and_keeps_its_traceback():
    with pytest.raises(ModuleNotFoundError), one_line_errors():
        raise ModuleNotFoundError("No module named 'nonsense'", name="nonsense")


def test_an_interrupt_ends_with_status_130(capsys):
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert "What was finished is kept" in capsys.readouterr().err


def test_extras_are_those_of_the_package():
    import tomllib
    from pathlib import Path

    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    extras = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for module, extra in EXTRA_OF_MODULE.items():
        packages = [line.split(">")[0].replace("-", "_") for line in extras[extra]]
        assert module in packages
