import tomllib
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from koser.config import Config, build_config, known_keys, resolve_config, write_toml
from koser.errors import ConfigError


class TrainConfig(Config):
    epochs: int = Field(30, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    milestones: tuple[int, ...] = ()
    device: str | None = None


class RunConfig(Config):
    name: str = "run"
    policy: Literal["situation", "majority"] = "situation"
    is_weighted: bool = True
    train: TrainConfig = TrainConfig()


def test_defaults_stand_where_nothing_else_is_said():
    assert resolve_config(RunConfig) == RunConfig()


def test_overrides_win_over_the_file_and_the_file_over_the_base(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('name = "실험"\n[train]\nepochs = 2\nlearning_rate = 0.5\n', encoding="utf-8")
    base = {"name": "base", "is_weighted": False, "train": {"epochs": 1, "device": "cpu"}}
    config = resolve_config(
        RunConfig, file=file, overrides=["train.epochs=3", "train.epochs = 4"], base=base
    )
    assert config.name == "실험"
    assert config.is_weighted is False
    assert config.train == TrainConfig(epochs=4, learning_rate=0.5, device="cpu")
    assert base["train"] == {"epochs": 1, "device": "cpu"}


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.learning_rate=1e-4", {"learning_rate": 1e-4}),
        ("train.milestones=[1, 2]", {"milestones": (1, 2)}),
        ("train.device=cuda:0", {"device": "cuda:0"}),
        ('train.device="a=b"', {"device": "a=b"}),
        ("train.device=a=b", {"device": "a=b"}),
    ],
)
def test_an_override_is_read_as_toml_and_else_as_text(override, value):
    assert resolve_config(RunConfig, overrides=[override]).train == TrainConfig(**value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "is no KEY=VALUE"),
        ("=3", "is no KEY=VALUE"),
        (
            "train.epoch=3",
            r"unknown key 'train\.epoch' \(known: name, policy, is_weighted, train\.epochs",
        ),
        ("epochs=3", "unknown key 'epochs'"),
        ("train.epochs=0", r"train\.epochs = 0: .*greater than or equal to 1"),
        ("train.epochs=many", r"train\.epochs = 'many'"),
        ("train.learning_rate=nan", r"train\.learning_rate = nan"),
        ("train.learning_rate=inf", r"train\.learning_rate = inf"),
        ("policy=soft", "policy = 'soft'.*'situation' or 'majority'"),
        ("train=3", "train = 3"),
    ],
)
def test_an_override_that_changes_nothing_or_too_much_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        resolve_config(RunConfig, overrides=[override])


def test_all_problems_are_told_in_one_line():
    with pytest.raises(ConfigError) as caught:
        build_config(RunConfig, {"train": {"epochs": 0, "lr": 1}})
    message = str(caught.value)
    assert "train.epochs = 0" in message
    assert "unknown key 'train.lr'" in message
    assert "\n" not in message


def test_a_file_that_is_missing_or_no_toml_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No configuration file at"):
        resolve_config(RunConfig, file=tmp_path / "none.toml")
    for content in (b"name = ", "name = '감정'".encode("cp949")):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(ConfigError, match="is not a TOML file"):
            resolve_config(RunConfig, file=tmp_path / "bad.toml")


def test_a_config_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().name = "other"


def test_known_keys_are_dotted_and_in_order_of_declaration():
    assert known_keys(RunConfig) == [
        "name",
        "policy",
        "is_weighted",
        "train.epochs",
        "train.learning_rate",
        "train.milestones",
        "train.device",
    ]


# TOML forbids control characters in strings; none of koser's settings holds one
names = st.text(st.characters(exclude_categories=["C"]))


@given(
    name=names,
    is_weighted=st.booleans(),
    epochs=st.integers(1, 10**6),
    learning_rate=st.floats(1e-12, 1e12),
    milestones=st.lists(st.integers(0, 99)).map(tuple),
    device=st.none() | names,
)
def test_a_written_config_reads_back_equal(tmp_path_factory, name, is_weighted, **train):
    config = RunConfig(name=name, is_weighted=is_weighted, train=TrainConfig(**train))
    path = tmp_path_factory.getbasetemp() / "config.toml"
    write_toml(config, path)
    assert resolve_config(RunConfig, file=path) == config


def test_a_written_config_is_toml_that_a_korean_reader_can_read(tmp_path):
    path = tmp_path / "config.toml"
    write_toml(RunConfig(name="감정"), path)
    text = path.read_text(encoding="utf-8")
    assert 'name = "감정"' in text
    assert tomllib.loads(text)["train"]["epochs"] == 30
