"""How much a bad transcript hurts, with and without errors and gaps simulated in training.

emotiontts, Whisper-base and multilingual-e5-small (REAL), speaker and sentence left out.
Tested on transcripts to which errors are added, and on none at all.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from encoders import real_text_model, real_whisper_ct2
from inputs import add_corpus_option, real_corpus
from koser.config import resolve_config
from koser.data.manifest import Manifest
from koser.data.splits import SplitOptions, make_split
from koser.errors import one_line_errors
from koser.evaluation.scoring import evaluate
from koser.features.text.corruption import corrupt
from koser.features.text.embedding import embed_texts, text_keys
from koser.features.text.encoder import TextExtractor, load_text_encoder
from koser.systems.fused_data import FusedData
from koser.systems.multimodal import MultimodalConfig, MultimodalSystem
from koser.systems.system import Part
from measuring import print_heading, print_table
from trials import new_trial_parser, prepare, trial_folders

WAYS = {
    "plain": ("errors.variants=0", "withheld.text=0", "withheld.audio=0"),
    "gaps": ("errors.variants=0",),
    "errors": ("withheld.text=0", "withheld.audio=0"),
    "both (default)": (),
}
RATES = (0.0, 0.1, 0.3)


def main() -> None:
    parser = new_trial_parser(__doc__, n_seeds=1)
    add_corpus_option(parser, "emotiontts")
    parser.add_argument("--whisper", help="folder or size; Whisper-base if not given")
    parser.add_argument("--text-model", help="hub id or folder; multilingual-e5-small if not given")
    arguments = parser.parse_args()
    root = real_corpus(arguments, "emotiontts")
    print_heading(__doc__, is_quick=arguments.quick)
    shape = (2, 2) if arguments.quick else (10, 5)
    models = [
        f'whisper.name="{real_whisper_ct2(arguments.whisper)}"',
        *real_text_model(arguments.text_model),
        *arguments.set,
    ]
    if arguments.quick:
        models.append("train.epochs=2")
    with trial_folders(arguments) as folders:
        manifest = Manifest.read(prepare("emotiontts", root, folders))
        options = SplitOptions(n_folds=shape[0], n_script_folds=shape[1], val_fraction=0.0)
        parts = parts_of(manifest, options)
        rows = [("trained with", *(f"+{100 * rate:g} % errors" for rate in RATES), "no text")]
        for way, settings in WAYS.items():
            config = resolve_config(MultimodalConfig, overrides=[*models, *settings])
            data = MultimodalSystem.extract(
                manifest, config, train_rows=np.arange(len(manifest)), store_root=folders.store
            )
            tested = [spoiled(data, config, rate, folders.store) for rate in RATES]
            silent = replace(data, transcript_keys=np.full_like(data.transcript_keys, b""))
            rows.append((way, *scores(manifest, config, data, [*tested, silent], parts)))
            print(f"{way}: done", flush=True)
    print_table(rows)


def parts_of(manifest: Manifest, options: SplitOptions) -> list[Part]:
    """The folds as rows of the manifest."""
    row_of = {name: row for row, name in enumerate(manifest.table["id"])}
    split = make_split(manifest, "speaker+script", options)
    return [
        Part(
            *(
                np.sort(np.array([row_of[name] for name in split.ids(fold, part)], np.int64))
                for part in ("train", "val", "test")
            ),
            seed=42,
        )
        for fold in range(split.n_folds)
    ]


def spoiled(data: FusedData, config: MultimodalConfig, rate: float, store: Path) -> FusedData:
    """The same utterances with worse transcripts than any variant that training has seen."""
    texts = [
        None if text is None else corrupt(text, rate, variant=99).strip() or None
        for text in data.transcriptions
    ]
    extractor = TextExtractor(load_text_encoder(config.text), keep=config.fusion.takes)
    embed_texts(texts, extractor, store)
    keys = data.transcript_keys.copy()
    keys[0] = text_keys(texts)
    return replace(data, transcript_keys=keys)


def scores(
    manifest: Manifest,
    config: MultimodalConfig,
    data: FusedData,
    tested: list[FusedData],
    parts: list[Part],
) -> list[str]:
    """UAR with its interval on each of the tested texts."""
    found = [np.zeros((len(manifest), len(manifest.labels))) for _ in tested]
    for part in parts:
        system = MultimodalSystem(manifest.labels, config)
        with tempfile.TemporaryDirectory() as folder:
            system.fit(data, part, resume_file=Path(folder) / "last.pth")
        for probabilities, other in zip(found, tested, strict=True):
            probabilities[part.test] = system.predict_rows(other, part.test)
    cells = []
    for probabilities in found:
        evaluation = evaluate(
            manifest.table["label"].to_numpy(),
            probabilities,
            labels=manifest.labels,
            clusters=manifest.table["speaker"].to_numpy(),
            cluster_kind="speaker",
        )
        uar = evaluation.scores["uar"]
        cells.append(f"{uar.value:.3f} [{uar.low:.3f}, {uar.high:.3f}]")
    return cells


if __name__ == "__main__":
    with one_line_errors():
        main()
