"""EmoDB (Berlin): German acted emotional speech in seven emotions.

Source
    Burkhardt, Paeschke, Rolfes, Sendlmeier & Weiss, "A Database of German Emotional
    Speech", Interspeech 2005.
Size
    535 utterances of 10 speakers, ten sentences each read in every emotion; 16 kHz, mono.
Labels
    The seven of koser without surprise, and boredom. File names are ``SSTTTEv.wav``:
    speaker, sentence, German initial of the emotion, version.
"""

from __future__ import annotations

import re
from pathlib import Path

from koser.audio.listing import audio_files
from koser.data.corpora.collecting import Collector, paths_by_stem
from koser.data.corpora.survey import Survey
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL

EMOTIONS = {
    "W": "angry",  # Wut
    "L": "boredom",  # Langeweile
    "E": "disgust",  # Ekel
    "A": "fear",  # Angst
    "F": "happiness",  # Freude
    "T": "sadness",  # Trauer
    "N": "neutral",
}

# Speaker -> gender and age in years.
SPEAKERS = {
    "03": ("male", 31),
    "08": ("female", 34),
    "09": ("female", 21),
    "10": ("male", 32),
    "11": ("male", 26),
    "12": ("male", 30),
    "13": ("female", 32),
    "14": ("female", 35),
    "15": ("male", 25),
    "16": ("female", 31),
}

# The ten sentences: all speakers read them in all emotions.
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}

_NAME = re.compile(r"(\d\d)([ab]\d\d)([A-Z])([a-z])")


def recognise(survey: Survey) -> str | None:
    """Say why `survey` looks like this corpus; None if it does not."""
    found = survey.matching(
        lambda name: (
            (match := _NAME.fullmatch(name.rpartition(".")[0]))
            and match[1] in SPEAKERS
            and match[2] in SENTENCES
        )
    )
    return f"files named like {found[0]}" if found else None


def prepare(root: Path, *, engine: Engine = SERIAL) -> Manifest:
    """Read the utterances below `root`.

    Parameters
    ----------
    root : Path
        The ``wav`` folder, or any folder above.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        One row per utterance.

    Raises
    ------
    CorpusError
        If no utterance is found or two files of one name differ.
    """
    collector = Collector("emodb", root, corpus="emodb", language="de", engine=engine)
    for stem, paths in paths_by_stem(audio_files(root)).items():
        name = _NAME.fullmatch(stem)
        if name is None:
            collector.leave_unlisted(paths)
            continue
        path = collector.leave_out_copies(stem, paths)
        speaker, sentence, emotion, _ = name.groups()
        if emotion not in EMOTIONS:
            collector.leave_out(stem, "unknown emotion letter", emotion)
            continue
        gender, age = SPEAKERS.get(speaker, (None, None))
        collector.add(
            id=stem,
            path=str(path),
            label=EMOTIONS[emotion],
            speaker=speaker,
            gender=gender,
            age=age,
            text=SENTENCES.get(sentence),
        )
    return collector.manifest(label_policy="scripted emotion", grouping="speaker")
