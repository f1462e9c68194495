"""Lay AI Hub 263 out as ``data/emotions/<label>/*.wav``, with its manifest beside the labels."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from koser.data.arrangement import arrange
from koser.data.corpora import aihub263
from koser.data.corpora.collecting import path_on_disk
from koser.data.summary import summarise
from koser.errors import KoserError

RAW = Path("감정 분류를 위한 대화 음성 데이터셋")


def parse_arguments() -> argparse.Namespace:
    """Read the command line; a mistake in it exits with 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("raw", type=Path, nargs="?", default=RAW, help="folder of CSV files and unpacked zips")
    add("--out", type=Path, default=Path("data/emotions"), help="folder of the label folders")
    add("--labels", choices=["situation", "majority", "soft"], default="situation", help="policy")
    add("--min-votes", type=int, help="with --labels majority: raters that must agree, 1 to 5")
    add("--copy", action="store_true", help="copy the audio where links do not work")
    arguments = parser.parse_args()
    if arguments.min_votes is not None and arguments.labels != "majority":
        parser.error("--min-votes needs --labels majority")
    return arguments


def main() -> int:
    """Prepare, arrange and say where every row went."""
    arguments = parse_arguments()
    try:
        root = path_on_disk(arguments.raw) or arguments.raw
        manifest = aihub263.prepare(root, labels=arguments.labels, min_votes=arguments.min_votes)
        arrange(manifest, arguments.out, copy=arguments.copy)
    except KoserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    for section, name, value in summarise(manifest).rows():
        if section in ("rows", "label", "notes"):
            print(f"{section:<6} {name}: {value}")
    print(f"Arranged in {arguments.out}. Next: python main.py --model mfcc --split speaker")
    return 0


if __name__ == "__main__":
    sys.exit(main())
