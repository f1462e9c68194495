"""What a corpus costs to work through: cores, GPUs, disks and requests, from measured speeds.

Speeds come from `benchmarks/output/`, everything else is an assumption with a default that you
replace: `python scripts/sizing.py --seconds 8 --core-hour 0.03`. With `--write docs/scaling.md`
the tables between that page's markers are made anew; a test holds the page to them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

OUTPUT = Path(__file__).resolve().parents[1] / "benchmarks" / "output"
SIZES = (10**5, 10**7, 10**9)
BEGIN, END = "<!-- scripts/sizing.py: begin -->", "<!-- scripts/sizing.py: end -->"


@dataclass(frozen=True)
class Assumptions:
    """What nobody measured; each is an option of the script.

    Attributes
    ----------
    seconds : float
        Of an utterance, on average.
    core_hour, gpu_hour : float
        Price in US dollars of a core, and of a GPU with the cores that feed it.
    cores : int
        Of one machine.
    efficiency : float
        What many machines do, of what as many alone would.
    gpu_speedup : float
        An encoder or Whisper on one GPU, times one core. NOT measured.
    bytes_per_second : float
        Of recorded sound; 16 kHz in 16 bit.
    gb_month : float
        Price of a GB kept for a month.
    get, put : float
        Price of 1,000 requests that read (GET, HEAD), and that write or list.
    """

    seconds: float = 5.0
    core_hour: float = 0.04
    gpu_hour: float = 1.20
    cores: int = 32
    efficiency: float = 0.8
    gpu_speedup: float = 200.0
    bytes_per_second: float = 32_000.0
    gb_month: float = 0.023
    get: float = 0.0004
    put: float = 0.005


@dataclass(frozen=True)
class Job:
    """A command over every utterance.

    Attributes
    ----------
    name : str
        The command.
    speed : float
        Seconds of sound per second of one core.
    source : str
        Where that is measured, or that it is not.
    on_gpu : bool
        Whether a GPU does it faster.
    """

    name: str
    speed: float
    source: str
    on_gpu: bool = False


def read_figures(name: str, pattern: str, folder: Path = OUTPUT) -> list[float] | None:
    """Numbers that `pattern` finds in a benchmark's last output; None if it has not been run.

    Raises
    ------
    SystemExit
        If the output is there and does not hold them.
    """
    file = folder / f"{name}.txt"
    if not file.exists():
        return None
    found = re.search(pattern, file.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f"'{file}' has no line like '{pattern}'. Adapt scripts/sizing.py to it.")
    return [float(number.replace(",", "")) for number in found.groups()]


def measured_jobs(folder: Path = OUTPUT) -> list[Job]:
    """The commands with their speeds per core, from the outputs of 03, 36, 08 and 14."""
    jobs = []
    clips = read_figures("03_extraction", r"^ours +([\d,]+) +([\d.]+) +([\d.]+) ", folder)
    if clips is not None:
        n_clips, seconds, cores = clips
        speed = n_clips * 5.0 / (seconds * cores)  # 03's clips last 5 s
        jobs.append(Job("extract, mfcc", speed, "03"))
    folder_figures = read_figures(
        "36_folder_throughput", r"^predict_folder \(torch\) +[\d,]+ +([\d,]+) +([\d.]+)", folder
    )
    if folder_figures is not None:
        jobs.append(Job("predict, mfcc", folder_figures[0] / folder_figures[1], "36"))
    encoder = read_figures("08_encoder_speed", r"^ours: bucketed.* ([\d.]+)$", folder)
    cores_of_08 = read_figures("08_encoder_speed", r"^machine: (\d+) of", folder)
    if encoder is not None and cores_of_08 is not None:
        speed = encoder[0] / cores_of_08[0]  # a thread on every core
        jobs.append(Job("extract, wav2vec2-base", speed, "08", on_gpu=True))
    whisper = read_figures("14_transcription", r"^koser, short \+ 3 s +([\d.]+) +([\d.]+)", folder)
    if whisper is not None:
        factor, cores = whisper
        jobs.append(Job("transcribe, Whisper-base", 1 / (factor * cores), "14", on_gpu=True))
    else:
        jobs.append(Job("transcribe, Whisper-base", 7.0, "assumed: 14 not run", on_gpu=True))
    return jobs


def kept_bytes(seconds: float) -> dict[str, float]:
    """Bytes that are kept of an utterance of so many seconds, by what they are."""
    n_frames = 1 + int(seconds * 16_000) // 256
    return {
        "features, mfcc": 40 * n_frames * 4.0,  # float32
        "features, wav2vec2-base statistics": 13 * 2 * 768 * 2.0,  # states, mean and sd, float16
        "features, wav2vec2-base trunk": 50 * seconds * 768 * 2.0,  # frames a second, float16
        "transcripts": 150 + 12 * seconds,  # row of SQLite; about 4 Hangul a second, 3 bytes each
        "manifest": 60.0,  # row of Parquet, path included
        "predictions": 100.0,  # row of Parquet: path, label, 7 probabilities
    }


def core_hours(job: Job, n: int, given: Assumptions) -> float:
    """Core-hours of a job over `n` utterances."""
    return n * given.seconds / job.speed / given.efficiency / 3600


def compute_rows(jobs: Sequence[Job], given: Assumptions) -> Iterator[list[str]]:
    """Rows of the table of computing."""
    yield ["command", "x real time, a core", "measured by", "utterances", "core-hours", "US$",
           "machines for a day", "GPU-hours (assumed)", "US$ (assumed)"]  # fmt: skip
    for job in jobs:
        for n in SIZES:
            hours = core_hours(job, n, given)
            gpu = hours / given.gpu_speedup
            yield [
                *(job.name, _number(job.speed), job.source, _power(n), _number(hours)),
                *(_number(hours * given.core_hour), _number(hours / 24 / given.cores)),
                *([_number(gpu), _number(gpu * given.gpu_hour)] if job.on_gpu else ["–", "–"]),
            ]


def storage_rows(given: Assumptions) -> Iterator[list[str]]:
    """Rows of the table of what is kept."""
    yield ["kept", "bytes each", *(f"{_power(n)}, GB" for n in SIZES),
           *(f"{_power(n)}, US$ a month" for n in SIZES)]  # fmt: skip
    sound = {"the sound itself": given.seconds * given.bytes_per_second}
    for name, size in {**sound, **kept_bytes(given.seconds)}.items():
        gigabytes = [n * size / 1e9 for n in SIZES]
        yield [
            *(name, _number(size), *map(_number, gigabytes)),
            *(_number(gb * given.gb_month) for gb in gigabytes),
        ]


def request_rows(given: Assumptions) -> Iterator[list[str]]:
    """Rows of the table of requests: HEAD and GET for each object and pass, 1,000 names a LIST."""
    yield ["requests", *(f"{_power(n)}" for n in SIZES), *(f"{_power(n)}, US$" for n in SIZES)]
    counts = {
        "list a prefix": (1 / 1_000, given.put),
        "one pass over the sound (prepare, extract, predict)": (2.0, given.get),
        "transcribe, which hashes first and hears then": (4.0, given.get),
    }
    for name, (each, price) in counts.items():
        yield [
            *(name, *(_number(n * each) for n in SIZES)),
            *(_number(n * each / 1_000 * price) for n in SIZES),
        ]


def make_tables(given: Assumptions, folder: Path = OUTPUT) -> str:
    """All tables in Markdown, the assumptions first."""
    jobs = measured_jobs(folder)
    told = [["assumption", "value"]]
    told += [[each.name, f"{getattr(given, each.name):g}"] for each in fields(given)]
    tables = (told, compute_rows(jobs, given), storage_rows(given), request_rows(given))
    return "\n\n".join(_markdown(list(rows)) for rows in tables)


def write_tables(page: Path, tables: str) -> None:
    """Put the tables between the markers of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")


def _markdown(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _power(n: int) -> str:
    return f"10^{len(str(n)) - 1}"


def _number(value: float) -> str:
    """Three digits that count, never an exponent."""
    if value >= 100:
        digits = len(str(int(value))) - 3
        return f"{round(value / 10**digits) * 10**digits:,}"
    return f"{value:.3g}" if value >= 0.001 or value == 0 else f"{value:.1g}"


def main() -> None:
    """Print the tables, or write them into a page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for each in fields(Assumptions):
        parser.add_argument(
            f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default
        )
    parser.add_argument("--write", type=Path, help="Page whose tables are made anew.")
    arguments = vars(parser.parse_args())
    page = arguments.pop("write")
    tables = make_tables(Assumptions(**arguments))
    if page is None:
        print(tables)
    else:
        write_tables(page, tables)


if __name__ == "__main__":
    main()
