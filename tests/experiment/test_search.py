import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koser.errors import ConfigError
from koser.experiment.search import SearchSpace, Trial
from koser.systems.ensemble_config import EnsembleConfig
from koser.systems.mfcc import MfccConfig

SPACE = """
speeds = [[], [0.9, 1.1]]
[train]
learning_rate = {low = 1e-4, high = 1e-2, log = true}
epochs = {low = 10, high = 60, step = 10}
[cnn]
dropout = [0.2, 0.4]
"""


@pytest.fixture
def space(tmp_path):
    (tmp_path / "space.toml").write_text(SPACE, encoding="utf-8")
    return SearchSpace.read(tmp_path / "space.toml", MfccConfig)


def is_inside(proposed):
    return (
        proposed["speeds"] in ([], [0.9, 1.1])
        and 1e-4 <= proposed["train.learning_rate"] <= 1e-2
        and proposed["train.epochs"] in range(10, 61, 10)
        and isinstance(proposed["train.epochs"], int)
        and proposed["cnn.dropout"] in (0.2, 0.4)
    )


def propose(space, trials, seed=(42, 0)):
    given = space.settings_of(MfccConfig())
    proposal = space.propose(trials, first=given, direction="maximize", seed=seed)
    return None if proposal is None else proposal.settings


@settings(max_examples=25, deadline=None)
@given(scores=st.lists(st.floats(0, 1), max_size=12), seed=st.integers(0, 2**31))
def test_what_is_proposed_lies_within_the_space_and_is_a_configuration(scores, seed):
    space = SearchSpace(
        {
            "speeds": [[], [0.9, 1.1]],
            "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "train.epochs": {"low": 10, "high": 60, "step": 10},
            "cnn.dropout": [0.2, 0.4],
        }
    )
    trials = []
    for score in scores:
        trials.append(Trial(propose(space, trials, (seed, 0)), "complete", (score,)))
    proposed = propose(space, trials, (seed, 0))
    assert is_inside(proposed)
    config = space.configure(MfccConfig(), proposed)
    assert config.speeds == tuple(proposed["speeds"])
    assert config.train.epochs == proposed["train.epochs"]
    assert space.settings_of(config) == proposed


def test_the_configuration_as_given_is_tried_first(space):
    assert propose(space, []) == {
        "speeds": [0.9, 1.1],
        "train.learning_rate": 4e-3,
        "train.epochs": 60,
        "cnn.dropout": 0.4,
    }


def test_a_configuration_outside_of_the_space_is_not(tmp_path):
    space = SearchSpace({"train.epochs": [2, 3], "cnn.dropout": [0.1]})
    assert not space.contains(space.settings_of(MfccConfig()))
    assert propose(space, [])["train.epochs"] in (2, 3)


def test_a_proposal_follows_from_the_trials_alone_whenever_it_is_asked_for(space):
    trials = []
    for number in range(8):
        trials.append(Trial(propose(space, trials), "complete", (0.1 * number,)))
    again = [propose(space, trials[:number]) for number in range(8)]
    assert again == [trial.settings for trial in trials]
    assert propose(space, trials, seed=(43, 0)) != propose(space, trials, seed=(42, 0))


def test_nothing_is_proposed_twice_and_a_space_that_is_used_up_says_so():
    space = SearchSpace({"train.epochs": [1, 2, 3], "cnn.dropout": [0.1, 0.2]})
    trials = []
    while (proposed := propose(space, trials)) is not None:
        trials.append(Trial(proposed, "complete", (0.5,)))
    tried = {(trial.settings["train.epochs"], trial.settings["cnn.dropout"]) for trial in trials}
    assert len(tried) == len(trials) == 6


def test_the_search_moves_to_where_scores_are_high():
    space = SearchSpace({"train.learning_rate": {"low": 0.0, "high": 1.0}})
    trials = []
    for _ in range(40):
        at = space.propose(trials, first={"train.learning_rate": 9}, direction="maximize", seed=[0])
        value = at.settings["train.learning_rate"]
        trials.append(Trial(at.settings, "complete", (-((value - 0.7) ** 2),)))
    late = [abs(trial.settings["train.learning_rate"] - 0.7) for trial in trials[-10:]]
    early = [abs(trial.settings["train.learning_rate"] - 0.7) for trial in trials[:10]]
    assert sum(late) < sum(early) / 2


def test_what_is_behind_the_others_half_way_is_hopeless():
    space = SearchSpace({"train.epochs": {"low": 1, "high": 100}})
    trials = [
        Trial({"train.epochs": epochs}, "complete", (0.5, 0.6 + epochs / 1000))
        for epochs in range(1, 8)
    ]
    first = {"train.epochs": 1}
    bad = space.propose(trials, first=first, direction="maximize", seed=[0])
    assert bad.is_hopeless(0, 0.4)
    good = space.propose(trials, first=first, direction="maximize", seed=[0])
    assert not good.is_hopeless(0, 0.55)
    assert not good.is_hopeless(1, 0.61)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("[train", "not a TOML file"),
        ("[train]\nepoch = [1, 2]", "names 'train.epoch', which the system does not have"),
        ("[train]\nepochs = []", "train.epochs = \\[\\] is no range"),
        ("[train]\nepochs = 20", "train.epochs = 20 is no range"),
        ("[train]\nepochs = {low = 3, high = 1}", "The range of train.epochs is none"),
        ("[train]\nlearning_rate = {low = 1e-4, high = inf}", "bounds must be finite"),
        ("[train]\nepochs = {low = 1, high = 3, logs = 1}", "train.epochs = .* is no range"),
    ],
)
def test_a_space_that_is_none_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "space.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as error:
        SearchSpace.read(tmp_path / "space.toml", MfccConfig)
    assert "\n" not in str(error.value)


def test_a_missing_space_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"Cannot read the space .*none.toml"):
        SearchSpace.read(tmp_path / "none.toml", MfccConfig)


def test_a_section_that_no_member_has_is_refused_in_one_line(tmp_path):
    (tmp_path / "space.toml").write_text("whisper.beam_size = [1, 2]", encoding="utf-8")
    space = SearchSpace.read(tmp_path / "space.toml", EnsembleConfig)
    with pytest.raises(ConfigError, match=r"names 'whisper.beam_size'.*no member has it"):
        space.settings_of(EnsembleConfig(members=("prosody", "mfcc")))
