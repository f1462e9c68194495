"""Networks that start from trained ones: what they keep, and what they are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fixtures.recognizers import mfcc_checkpoint
from fixtures.speech_systems import LABELS, speech_system
from koser.config import resolve_config
from koser.errors import CheckpointError, ConfigError
from koser.models.checkpoint import trained_state
from koser.systems import system_class
from koser.systems.speech import head_outputs
from koser.systems.starting import Start, check_start

CNN = ("cnn.channels=[4, 6]", "cnn.hidden_size=8")
OUTPUTS = {"classifier.weight": 0, "classifier.bias": 0}
HEADS = {
    "a linear head": ("statistics", ()),
    "a hidden layer": ("statistics", ("head.hidden=6",)),
    "attention": ("frames", ()),
    "last layers": ("last layers", ()),
    "adapters": ("last layers", ("tune.lora_rank=2",)),
    "all layers": ("all layers", ()),
}


def started(checkpoint):
    return Start(checkpoint, {"model": "before", "corpus": ["x"]})


def waveforms():
    rng = np.random.default_rng(0)
    return [0.1 * rng.standard_normal(n, dtype=np.float32) for n in (9_000, 14_000)]


def logits_of(system):
    return np.log(system.predict_waveforms(waveforms()))


def differences(logits, labels):
    """Logits of `labels` against those of the first of them: softmax leaves nothing else."""
    columns = [list(labels).index(label) for label in LABELS[:2]]
    return logits[:, columns[0]] - logits[:, columns[1]]


@pytest.mark.parametrize(
    "labels",
    [LABELS, LABELS[::-1], ("fear", *LABELS), (LABELS[1], "fear", LABELS[0])],
    ids=["same", "other order", "one more", "one other"],
)
def test_an_mfcc_network_answers_as_before_where_labels_are_known(labels):
    checkpoint = mfcc_checkpoint()
    kind = system_class("mfcc")
    before = kind.from_checkpoint(checkpoint)
    system = kind(labels, before.config)
    started(checkpoint).put_into(system.network, labels, OUTPUTS)
    expected = differences(logits_of(before), LABELS)
    np.testing.assert_allclose(differences(logits_of(system), labels), expected, atol=1e-4)
    if set(labels) == set(LABELS):
        columns = [labels.index(label) for label in LABELS]
        np.testing.assert_allclose(
            system.predict_waveforms(waveforms())[:, columns],
            before.predict_waveforms(waveforms()),
            atol=1e-6,
        )


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", ["wav2vec2", "wavlm", "whisper"])
def test_a_network_on_an_encoder_answers_as_before_where_labels_are_known(
    head, kind, encoder_folder
):
    variant, overrides = HEADS[head]
    before = speech_system(variant, encoder_folder(kind), overrides=overrides)
    with torch.no_grad():  # other than pretrained: what is kept would not show otherwise
        for parameter in before._network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn(parameter.shape))
    labels = (LABELS[1], "fear", LABELS[0])
    after = speech_system(variant, encoder_folder(kind), labels=labels, overrides=overrides)
    assert not np.allclose(
        differences(logits_of(after), labels), differences(logits_of(before), LABELS), atol=1e-3
    )
    start = started(before.to_checkpoint({}))
    start.put_into(after._network, labels, head_outputs(after._network.classifier))
    np.testing.assert_allclose(
        differences(logits_of(after), labels), differences(logits_of(before), LABELS), atol=1e-4
    )


def test_the_output_of_a_new_label_is_that_of_a_new_network():
    checkpoint = mfcc_checkpoint()
    system = system_class("mfcc")((*LABELS, "fear"), resolve_config(
        system_class("mfcc").config_class, overrides=CNN))  # fmt: skip
    own = trained_state(system.network)["classifier.weight"].clone()
    started(checkpoint).put_into(system.network, system.labels, OUTPUTS)
    weight = trained_state(system.network)["classifier.weight"]
    torch.testing.assert_close(weight[3], own[3])
    torch.testing.assert_close(weight[:3], checkpoint.state["classifier.weight"])


def configured(name, *overrides):
    return resolve_config(system_class(name).config_class, overrides=overrides)


def test_other_systems_and_other_settings_are_refused():
    start = started(mfcc_checkpoint())
    check_start(start, "mfcc", configured("mfcc", *CNN, "train.epochs=3", "cnn.dropout=0.1"))
    with pytest.raises(ConfigError, match=r"cnn.channels = \[4, 6\], and this training has"):
        check_start(start, "mfcc", configured("mfcc", "cnn.hidden_size=8"))
    with pytest.raises(ConfigError, match="was trained with mfcc = "):
        check_start(start, "mfcc", configured("mfcc", *CNN, "mfcc.hop_length=200"))
    with pytest.raises(CheckpointError, match="is a model of 'mfcc', and 'wav2vec2' is to be"):
        check_start(start, "wav2vec2", configured("wav2vec2"))
    with pytest.raises(ConfigError, match="'multimodal' cannot start from a trained model"):
        check_start(start, "multimodal", configured("multimodal"))


@pytest.mark.parametrize("now", [(), ("enrolment.k=3",)])
def test_a_model_with_enrolment_is_refused_for_that_and_one_that_hears_nobody_is_not(now):
    checkpoint = mfcc_checkpoint()

    def start(k):
        enrolled = {**checkpoint.config, "enrolment": {"k": k, "pool": 10, "seed": 42}}
        return started(replace(checkpoint, config=enrolled))

    with pytest.raises(ConfigError, match=r"trained with enrolment \(enrolment.k = 3\).*without"):
        check_start(start(3), "mfcc", configured("mfcc", *CNN, *now))
    check_start(start(0), "mfcc", configured("mfcc", *CNN, *now))


def test_weights_of_another_size_are_refused_whatever_was_checked():
    system = system_class("mfcc")(LABELS, configured("mfcc"))
    with pytest.raises(CheckpointError, match="The weights are of another network"):
        started(mfcc_checkpoint()).put_into(system.network, LABELS, OUTPUTS)


def test_a_start_binds_the_encoder_to_the_one_it_knows(encoder_folder):
    before = speech_system("statistics", encoder_folder("wav2vec2"))
    start = started(before.to_checkpoint({}))
    bound = check_start(
        start, "wav2vec2", configured("wav2vec2", "encoder.window_seconds=8",
                                      'head.pooling="mean+std"')
    )  # fmt: skip
    assert bound.encoder.fingerprint == before.config.encoder.fingerprint != ""
