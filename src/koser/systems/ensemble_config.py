"""Which systems an ensemble has, and the settings of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from koser.config import Config, build_config, merge_into
from koser.features.speech.loading import EncoderOptions
from koser.features.text.encoder import TextOptions
from koser.features.text.whisper import WhisperOptions
from koser.systems import SYSTEM_NAMES, system_class
from koser.training.options import Target

NAME = "ensemble"
# Sections that all members have in common where they have them at all.
SHARED = ("encoder", "whisper", "text")


class InnerOptions(Config):
    """How a training's own utterances are split again, for the members to be tested on."""

    n_folds: int = Field(3, ge=2)  # of speakers in speaker+script
    n_script_folds: int | None = Field(None, ge=2)  # as many as n_folds if None
    # Set by the split of the run: an inner fold keeps apart what the outer one does.
    protocol: Literal["kfold", "speaker+script", "session"] = "kfold"
    seed: int = Field(42, ge=0, lt=2**32)


class EnsembleTrain(Config):
    """What the trainings of all members have in common; the rest each has of its own."""

    target: Target = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class EnsembleConfig(Config):
    """All settings of the system."""

    members: tuple[str, ...] = ("wav2vec2", "fusion")
    # By member: its settings, where they are not its defaults.
    systems: dict[str, dict[str, Any]] = Field(default_factory=dict)
    inner: InnerOptions = InnerOptions()
    train: EnsembleTrain = EnsembleTrain()
    encoder: EncoderOptions = EncoderOptions()
    whisper: WhisperOptions = WhisperOptions()
    text: TextOptions = TextOptions()

    @field_validator("members")
    @classmethod
    def _are_systems(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        possible = [name for name in SYSTEM_NAMES if name != NAME]
        for name in members:
            if name == NAME:
                raise ValueError("an ensemble cannot be a member of one. Name its members instead")
            if name not in possible:
                raise ValueError(f"no system is called '{name}'. Members: {', '.join(possible)}")
            if members.count(name) > 1:
                raise ValueError(f"'{name}' is named twice. Name every member once")
        if len(members) < 2:
            raise ValueError(f"an ensemble needs two members or more, of {', '.join(possible)}")
        return members

    @field_validator("systems")
    @classmethod
    def _are_settings(
        cls, systems: dict[str, dict[str, Any]], info: ValidationInfo
    ) -> dict[str, dict[str, Any]]:
        members = info.data.get("members", ())
        for name, settings in systems.items():
            if members and name not in members:
                raise ValueError(f"'{name}' is no member. Members: {', '.join(members)}")
            if settings.get("enrolment", {}).get("k") is not None:
                raise ValueError(
                    f"'{name}' cannot be enrolled as a member: the split holds nothing out for it"
                )
            if members:
                build_config(system_class(name).config_class, settings)
        return systems

    @field_validator(*SHARED)
    @classmethod
    def _is_used(cls, options: Config, info: ValidationInfo) -> Config:
        members = info.data.get("members", ())
        having = [system_class(each).config_class.model_fields for each in members]
        if members and options != type(options)() and not any(info.field_name in e for e in having):
            raise ValueError(
                f"no member has a section '{info.field_name}', so it would change nothing. "
                f"Members: {', '.join(members)}"
            )
        return options

    @model_serializer(mode="wrap")
    def _without_unused(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What no member has is no part of what was tried: a run would name a model in vain."""
        values: dict[str, Any] = serialize(self)
        having = [system_class(each).config_class.model_fields for each in self.members]
        unused = [key for key in SHARED if not any(key in fields for fields in having)]
        return {key: value for key, value in values.items() if key not in unused}

    def of_member(self, name: str) -> Any:  # an instance of the member's `config_class`
        """The whole configuration of a member: what is shared, then its own."""
        kind = system_class(name).config_class
        shared = self.model_dump(mode="json", include={*SHARED, "train"})
        values = {key: shared[key] for key in shared if key in kind.model_fields}
        merge_into(values, self.systems.get(name, {}))
        return build_config(kind, values)

    def trained(self, members: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """As a checkpoint keeps it, with the whole configuration of each trained member.

        Parameters
        ----------
        members : Mapping
            By name, the configurations that members' own checkpoints have.

        Returns
        -------
        dict
            What all have in common stands where `--encoder` and its like move it; a section that
            no member has is left out.
        """
        values = self.model_dump(mode="json")
        for key in SHARED:
            found = [member[key] for member in members.values() if key in member]
            values.pop(key, None)
            if found:
                values[key] = found[0]
        values["systems"] = {
            name: {
                key: value
                for key, value in member.items()
                if key not in SHARED or value != values[key]
            }
            for name, member in members.items()
        }
        return values
