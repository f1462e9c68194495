"""Emotions in time on real Korean speech, and what 8-bit weights cost: emotiontts_open_db.

Each speaker is left out once: `mfcc` is trained on the nine others (default settings), then
hears a recording of the tenth: that speaker's 20 sentences one after the other, in random
order, with 0.3 to 1.5 s of faint noise between them. No clip of a recording was trained on.
The sentences were: each belongs to one emotion, so that these figures are about finding
emotions in time, and no estimate of how well unheard sentences are recognised.

Emotion diarization error rate (EDER): the share of a recording that is wrong. Reference
times are those of Silero's detector on each clip alone, so silence at a clip's ends is no
error. Speakers are resampled for the intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inputs import add_corpus_option, real_corpus
from koser.audio.activity import ActivityOptions, find_speech
from koser.audio.reading import SAMPLING_RATE, load
from koser.data.manifest import Manifest
from koser.errors import one_line_errors
from koser.evaluation.diarization import DiarizationError, Stretch, emotion_diarization_error
from koser.evaluation.intervals import cluster_intervals
from koser.experiment.request import TrainRequest
from koser.inference.export import export_model
from koser.inference.recognizer import Recognizer, load_recognizer
from koser.inference.segments import TimelineOptions
from koser.inference.timeline import make_timeline
from measuring import print_heading, print_table, print_verdict
from trials import Trial, new_trial_parser, prepare, run_trial, trial_folders

TARGET_INT8 = 0.02  # of accuracy


@dataclass(frozen=True)
class Recording:
    """One unheard speaker's sentences in a row."""

    model: Path
    clips: list[np.ndarray]
    labels: list[str]
    waveform: np.ndarray
    reference: list[Stretch]

    @property
    def duration(self) -> float:
        """In seconds."""
        return len(self.waveform) / SAMPLING_RATE


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=1)
    add_corpus_option(parser, "emotiontts")
    arguments = parser.parse_args()
    root = real_corpus(arguments, "emotiontts")
    print_heading(__doc__, is_quick=arguments.quick)
    overrides = (*arguments.set, *(["train.epochs=2"] if arguments.quick else []))
    with trial_folders(arguments) as folders:
        manifest = prepare("emotiontts", root, folders)
        request = TrainRequest(
            model="mfcc", split="leave_one_speaker_out", manifest=manifest, overrides=overrides
        )
        trial = run_trial("leave_one_speaker_out", request, folders)
        recordings = recordings_of(Manifest.read(manifest), trial)
        compare_ways(recordings)
        compare_weights(recordings)


def recordings_of(manifest: Manifest, trial: Trial) -> list[Recording]:
    made = []
    for outcome in trial.run.results.outcomes:
        rng = np.random.default_rng(outcome.member.fold)
        rows = rng.permutation(outcome.member.part.test)
        table = manifest.table[rows.tolist()]
        clips = [load(path) for path in table["path"]]
        pieces, reference, position = [], [], 0
        for clip, label in zip(clips, table["label"], strict=True):
            pause = rng.normal(scale=1e-4, size=int(rng.uniform(0.3, 1.5) * SAMPLING_RATE))
            speech = find_speech(clip, ActivityOptions(hangover=10, padding=0.1))
            for start, end in speech or [(0, len(clip))]:
                times = np.array([start, end]) + position + len(pause)
                reference.append((*(times / SAMPLING_RATE).tolist(), label))
            pieces += [pause.astype(np.float32), clip]
            position += len(pause) + len(clip)
        model = trial.run.folder / "parts" / outcome.member.name
        labels = table["label"].to_list()
        made.append(Recording(model, clips, labels, np.concatenate(pieces), reference))
    seconds = sum(recording.duration for recording in made)
    print(f"{len(made)} recordings of {seconds / len(made):.0f} s on average, one per speaker")
    return made


def compare_ways(recordings: list[Recording]) -> None:
    """The timeline with several settings, between what knows nothing and what knows where."""
    whole = TimelineOptions()
    settings = {
        f"defaults: window {whole.window:g} s, hop {whole.hop:g} s": whole,
        "window 2 s, hop 0.5 s": TimelineOptions(window=2.0, hop=0.5),
        "window 4 s, hop 0.5 s": TimelineOptions(hop=0.5),
        "window 8 s, hop 1 s": TimelineOptions(window=8.0),
        "window 4 s without overlap": TimelineOptions(hop=4.0),
        "hang-over 0.8 s": TimelineOptions(activity=ActivityOptions(hangover=0.8)),
        "everything taken for speech": TimelineOptions(activity=ActivityOptions(kind="off")),
    }
    rows = [("", "EDER", "95 % interval", "false alarm", "missed", "confusion")]
    rows.append(row("nothing is ever heard", [error(each, []) for each in recordings]))
    rows.append(row("borders known, each clip alone", [error_of_clips(r) for r in recordings]))
    for name, options in settings.items():
        rows.append(row(name, [error_of_timeline(each, options) for each in recordings]))
    print_table(rows)


def error(recording: Recording, found: list[Stretch]) -> DiarizationError:
    duration = recording.duration
    return emotion_diarization_error(recording.reference, found, duration=duration)


def error_of_clips(recording: Recording) -> DiarizationError:
    predictions = answers(load_recognizer(recording.model), recording)
    borders = [stretch[:2] for stretch in recording.reference]
    found = [(*times, label) for times, label in zip(borders, predictions, strict=True)]
    return error(recording, found)


def error_of_timeline(recording: Recording, options: TimelineOptions) -> DiarizationError:
    timeline = make_timeline(load_recognizer(recording.model), [recording.waveform], options)
    return error(recording, [(each.start, each.end, each.label) for each in timeline.segments])


def row(name: str, errors: list[DiarizationError]) -> tuple[str, ...]:
    total = sum(errors[1:], errors[0])
    sums = np.array([[each.rate * each.duration, each.duration] for each in errors])
    found = cluster_intervals(
        sums, lambda some: some[:, :1] / some[:, 1:], weights=sums[:, 1:], scales=["loss"]
    )
    # What is the same for every speaker, as hearing nothing is, has no interval.
    interval = "" if np.isnan(found.low[0]) else f"{found.low[0]:.3f}–{found.high[0]:.3f}"
    shares = (total.false_alarm, total.missed, total.confusion)
    return (
        name,
        f"{total.rate:.3f}",
        interval,
        *(f"{each / total.duration:.3f}" for each in shares),
    )


def compare_weights(recordings: list[Recording]) -> None:
    """The same clips through the checkpoint, its ONNX file, and the one with 8-bit weights."""
    right: dict[str, list[bool]] = {"checkpoint": [], "ONNX": [], "ONNX, 8 bit": []}
    same: dict[str, list[bool]] = {name: [] for name in right}
    sizes = {}
    for recording in recordings:
        plain, small = recording.model / "a.onnx", recording.model / "b.onnx"
        sizes["ONNX"] = export_model(recording.model, plain).n_bytes
        sizes["ONNX, 8 bit"] = export_model(recording.model, small, int8=True).n_bytes
        models = dict(zip(right, (recording.model, plain, small), strict=True))
        trained = answers(load_recognizer(recording.model), recording)
        for name, model in models.items():
            found = answers(load_recognizer(model), recording)
            right[name] += [a == b for a, b in zip(found, recording.labels, strict=True)]
            same[name] += [a == b for a, b in zip(found, trained, strict=True)]
    rows = [("clip by clip", "n", "accuracy", "same answer", "MB")]
    for name, each in right.items():
        size = f"{sizes[name] / 1e6:.1f}" if name in sizes else ""
        agreement = f"{np.mean(same[name]):.3f}"
        rows.append((name, f"{len(each)}", f"{np.mean(each):.3f}", agreement, size))
    print_table(rows)
    loss = float(np.mean(right["checkpoint"]) - np.mean(right["ONNX, 8 bit"]))
    print_verdict(
        f"8-bit weights cost {loss:+.3f} of accuracy",
        f"<= {TARGET_INT8:g}",
        is_met=loss <= TARGET_INT8,
    )


def answers(recognizer: Recognizer, recording: Recording) -> list[str | None]:
    rows = recognizer.predict_waveforms(recording.clips)
    return [recognizer.choose(each) for each in rows]


if __name__ == "__main__":
    with one_line_errors():
        main()
