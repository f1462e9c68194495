"""A finished run's models on degraded sound: each on the test part that it has not learnt from.

Sound is degraded in memory and goes straight to the model, never through the feature store:
what is stored under a clip's address is what the clip sounds like. Only what Whisper hears is
kept, by the samples themselves: in noise it takes longer than all else, and systems share it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from koser.audio.degradation import N_TALKERS, Degradation, degrade, draw_at
from koser.audio.reading import Clip, load_clip
from koser.data.assignment import TEST, TRAIN
from koser.data.manifest import Manifest
from koser.data.splits import Split
from koser.engines.local import available_cores, iter_map
from koser.errors import RunError
from koser.experiment.members import Member
from koser.features.threads import torch_threads
from koser.inference.batches import MICRO_BATCH
from koser.inference.recognizer import load_recognizer
from koser.models.checkpoint import load_tensors, save_tensors
from koser.reporting.runs import RunFolder
from koser.systems.system import Part
from koser.training.devices import choose_device

# Told how many trainings of a run are done, and of how many.
OnTraining = Callable[[int, int], None]


@dataclass(frozen=True)
class Ask:
    """What every training of a run is asked.

    Attributes
    ----------
    run : Path
        The run folder.
    model : str
        Name of its system.
    ids : tuple[str, ...]
    clips : tuple[Clip, ...]
        The utterances of its manifest.
    degradations : tuple[Degradation, ...]
        What happens to the sound; the clean one is always heard too, and first.
    seed : int
        Of all draws.
    folder : Path
        Where the answers of each training are kept until all are there.
    places : dict[str, str]
        Where pretrained models are now, as `load_recognizer` takes them.
    store_root : Path
        Folder of the stores, for transcripts.
    n_threads : int
        Of torch.
    """

    run: Path
    model: str
    ids: tuple[str, ...]
    clips: tuple[Clip, ...]
    degradations: tuple[Degradation, ...]
    seed: int
    folder: Path
    places: dict[str, Any]  # strings, by the parameters of `load_recognizer`
    store_root: Path
    n_threads: int = 1

    def __call__(self, member: Member) -> np.ndarray:
        """Probabilities [shape=(1 + n_degradations, n_test, n_labels)], the clean ones first."""
        path, asked = self.folder / f"{member.name}.pth", self._describe(member)
        if path.exists():
            kept = load_tensors(path)
            if kept["asked"] == asked:
                answers: np.ndarray = kept["probabilities"].numpy()
                return answers
        with torch_threads(self.n_threads):
            answers = self._answer(member)
        save_tensors({"asked": asked, "probabilities": torch.from_numpy(answers)}, path)
        return answers

    def _answer(self, member: Member) -> np.ndarray:
        recognizer = load_recognizer(member_model(self.run, self.model, member), **self.places)
        recognizer.keep_transcripts(self.store_root)
        rows = member.part.test
        shape = (1 + len(self.degradations), len(rows), len(recognizer.labels))
        answers = np.zeros(shape)
        for first in range(0, len(rows), MICRO_BATCH):
            batch = rows[first : first + MICRO_BATCH].tolist()
            place = slice(first, first + len(batch))
            sounds = [load_clip(self.clips[row]) for row in batch]
            answers[0, place] = recognizer.predict_waveforms(sounds)
            for number, each in enumerate(self.degradations, start=1):
                worse = [
                    self._degrade(sound, each, member, row)
                    for sound, row in zip(sounds, batch, strict=True)
                ]
                answers[number, place] = recognizer.predict_waveforms(worse)
        return answers

    def _degrade(
        self, sound: np.ndarray, degradation: Degradation, member: Member, row: int
    ) -> np.ndarray:
        rng, talkers = draw_at(self.seed, degradation.kind, self.ids[row]), []
        if degradation.kind == "babble":
            train = member.part.train
            chosen = rng.choice(train, size=min(N_TALKERS, len(train)), replace=False)
            talkers = [load_clip(self.clips[other]) for other in chosen.tolist()]
        return degrade(sound, degradation, rng, talkers)

    def _describe(self, member: Member) -> str:
        """What answers that were kept must be to, to be taken."""
        return json.dumps(
            [
                self.seed,
                [asdict(each) for each in self.degradations],
                [asdict(self.clips[row]) for row in member.part.test.tolist()],
                member_model(self.run, self.model, member).stat().st_mtime_ns,
            ]
        )


def members_of_run(run: RunFolder, manifest: Manifest) -> list[Member]:
    """The trainings of a finished run, as rows of its manifest.

    Raises
    ------
    SplitError
        If the run was not trained on exactly these utterances.
    RunError
        If the models of its trainings are not in the folder.
    """
    parts = Split.read(run.folder / "split.parquet").parts(manifest)
    members = [
        Member(
            each["fold"],
            Part(
                np.flatnonzero(parts[each["fold"]] == TRAIN),
                np.zeros(0, np.int64),
                np.flatnonzero(parts[each["fold"]] == TEST),
                each["seed"],
            ),
        )
        for each in run.metrics["folds"]
    ]
    lost = [each for each in members if not member_model(run.folder, run.model, each).is_file()]
    if lost or not members:
        raise RunError(
            f"'{run.folder}' lacks the models of {len(lost)} of its {len(members)} trainings "
            f"(parts/*/best_model_{run.model}.pth): an utterance can only be tested by a model "
            f"that has not learnt from it. Give the whole folder that koser train left."
        )
    return members


def member_model(run: Path, model: str, member: Member) -> Path:
    """The checkpoint of one training of a run."""
    return run / "parts" / member.name / f"best_model_{model}.pth"


def answer_all(
    ask: Ask, members: list[Member], *, n_workers: int, on_training: OnTraining | None = None
) -> list[np.ndarray]:
    """What every training answers, in order; what was answered before a kill is read back.

    Raises
    ------
    AudioError
        If a file cannot be read.
    CheckpointError, EncoderError
        If a model cannot be loaded.
    """
    ask.folder.mkdir(parents=True, exist_ok=True)
    # One model at a time has a GPU.
    on_gpu = choose_device("auto").type == "cuda"
    processes = 1 if on_gpu else min(n_workers, len(members))
    ask = replace(ask, n_threads=max(1, available_cores() // processes))
    answers = []
    for each in iter_map(partial(_itself, ask), members, n_workers=processes):
        answers.append(each)
        if on_training is not None:
            on_training(len(answers), len(members))
    return answers


def _itself(ask: Ask) -> Ask:
    return ask
