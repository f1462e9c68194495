"""Notes that hold for some of the things beside each other: each said once, and of which."""

from __future__ import annotations

from collections.abc import Sequence

from koser.reporting.language import Phrases

# What a note is about, as it is called in the table, and the notes.
About = tuple[str, Sequence[str]]


def shared_notes(noted: Sequence[Sequence[str]]) -> list[str]:
    """Those that all have, in the order of the first."""
    return [note for note in noted[0] if all(note in each for each in noted)] if noted else []


def notes_with_places(noted: Sequence[About], t: Phrases) -> list[tuple[str, str]]:
    """Every sentence once, after the names of those that have it; bare where all have it.

    Parameters
    ----------
    noted : Sequence[tuple[str, Sequence[str]]]
        Runs, pairs or conditions, each with its notes.
    t : Phrases
        The language.

    Returns
    -------
    list[tuple[str, str]]
        As from `Phrases.notes`; what all share comes first.
    """
    shared = shared_notes([notes for _, notes in noted])
    places: dict[str, list[str]] = {}
    for name, notes in noted:
        for note in notes:
            if note not in shared:
                places.setdefault(note, []).append(name)
    found = t.notes(dict.fromkeys(shared))
    for note, names in places.items():
        ((text, language),) = t.notes([note])
        found.append((f"{'; '.join(dict.fromkeys(names))}: {text}", language))
    return found
