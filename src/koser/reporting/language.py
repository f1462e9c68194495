"""The languages of reports: every phrase stands in ``phrases/<language>.toml``.

Both files have the same keys, and a test holds that. Sentences that koser's evaluation
writes beside its numbers are English; a file may say how to put them in its language.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal, get_args

from koser.errors import ConfigError
from koser.labels import KOREAN

Language = Literal["ko", "en"]
LANGUAGES: tuple[Language, ...] = get_args(Language)


@dataclass(frozen=True)
class Phrases:
    """What a report says, in one language.

    Attributes
    ----------
    language : {'ko', 'en'}
        Which.
    values : Mapping
        Nested phrases by section and name; some have places in braces.
    """

    language: Language
    values: Mapping[str, Any] = field(repr=False)

    def __getitem__(self, key: str) -> Any:  # a phrase, or the phrases of a section
        """The phrase at a dotted key.

        Raises
        ------
        KeyError
            If there is none.
        """
        value: Any = self.values
        for part in key.split("."):
            value = value[part]
        return value

    def label(self, label: str) -> str:
        """An emotion's name; in Korean beside its own, where there is one."""
        if self.language == "ko" and label in KOREAN:
            return f"{KOREAN[label]} ({label})"
        return label

    def named(self, section: str, name: str) -> str:
        """The phrase for a value of the data, such as a part's name; else the name itself."""
        phrase: str = self[section].get(name, name)
        return phrase

    def notes(self, sentences: Iterable[str]) -> list[tuple[str, str]]:
        """Sentences in this language where the file says how, and ``"en"`` beside the others.

        Parameters
        ----------
        sentences : Iterable[str]
            English sentences from koser's results.

        Returns
        -------
        list[tuple[str, str]]
            Each sentence, and the language it is in if that is not this one.
        """
        return [self._note(sentence) for sentence in sentences]

    def _note(self, sentence: str) -> tuple[str, str]:
        if self.language == "en":
            return sentence, ""
        text = self._translated(sentence)
        return (sentence, "en") if text is None else (text, "")

    def _translated(self, sentence: str) -> str | None:
        for note in self["sentences"]:
            match = re.fullmatch(note["english"], sentence)
            if match:
                return str(note["text"].format(*map(self._listed, match.groups(""))))
        # A note of one of several corpora begins with the corpus.
        about = re.fullmatch(r"(\S+): (.*)", sentence)
        rest = None if about is None else self._translated(about[2])
        return None if about is None or rest is None else f"{about[1]}: {rest}"

    def _listed(self, values: str) -> str:
        """What stands in a sentence's place, each part in this language where the file says how."""
        # What is in parentheses may hold a semicolon of its own.
        return "; ".join(self._translated(each) or each for each in re.split(r"(?<=\)); ", values))


def load_phrases(language: str) -> Phrases:
    """The phrases of a language.

    Raises
    ------
    ConfigError
        If koser does not speak it.
    """
    if language not in LANGUAGES:
        raise ConfigError(
            f"No report in the language '{language}'. Languages: {', '.join(LANGUAGES)}."
        )
    file = resources.files("koser.reporting") / "phrases" / f"{language}.toml"
    return Phrases(language, tomllib.loads(file.read_text(encoding="utf-8")))
