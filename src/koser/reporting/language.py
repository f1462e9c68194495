"""The languages of reports: every phrase stands in ``phrases/<language>.toml``.

Both files have the same keys, and a test holds that. Sentences that koser's evaluation
writes beside its numbers are English; a file may say how to put them in its language.
"""

from __future__ import annotations

import re
import string
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

    def said(self, text: str, section: str | None = None) -> str:
        """What koser says in English, in this language where the file says how.

        Parameters
        ----------
        text : str
            A sentence, or a name.
        section : str, optional
            The section that may have it as a name.
        """
        if self.language == "en":
            return text
        if section is not None and text in self[section]:
            return str(self[section][text])
        return self._translated(text) or text

    def enumerated(self, names: str, section: str) -> str:
        """Names in a row, each as `said`, such as ``'a', 'b' and 'c'`` or ``speaker+script``."""
        if self.language == "en":
            return names
        parts = re.split(r"(, |[+'])", names.replace(" and ", ", "))
        return "".join(self.said(part, section) for part in parts)

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
                return _Filler(self).vformat(note["text"], match.groups(""), {})
        # A note of one of several corpora begins with the corpus.
        about = re.fullmatch(r"(\S+): (.*)", sentence)
        rest = None if about is None else self._translated(about[2])
        return None if about is None or rest is None else f"{about[1]}: {rest}"

    def _listed(self, values: str) -> str:
        """What stands in a sentence's place, each part in this language where the file says how."""
        # What is in parentheses may hold a semicolon of its own.
        return "; ".join(self.said(each) for each in re.split(r"(?<=\)); ", values))


class _Filler(string.Formatter):
    """Fills the places of a sentence; what follows a colon is the section of a place's names."""

    def __init__(self, phrases: Phrases) -> None:
        self._phrases = phrases

    def format_field(self, value: str, format_spec: str) -> str:
        if format_spec:
            return self._phrases.enumerated(value, format_spec)
        return self._phrases._listed(value)


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
