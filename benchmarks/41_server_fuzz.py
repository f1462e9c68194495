"""10,000 malformed uploads against the server: no 500, no crash, no growth.

Mutated headers, changed bytes, truncations, splices, random bytes, wrong types and broken forms
(`mutations.py`), to a real process over HTTP. RANDOM weights.
"""

from __future__ import annotations

import http.client
import re
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from measuring import new_parser, print_heading, print_table, print_verdict
from mutations import Upload, iter_uploads, send
from serving import Server, koser_serve, running, write_model

N_CLIENTS = 4
GROWTH_MB = 16.0  # from a fifth of the uploads to all of them


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--uploads", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    uploads = list(iter_uploads(500 if arguments.quick else arguments.uploads, seed=arguments.seed))
    warm = len(uploads) // 5
    with (
        tempfile.TemporaryDirectory() as folder,
        running(koser_serve(write_model(Path(folder) / "run"))) as server,
    ):
        counts, problems = post_all(server, uploads[:warm])
        time.sleep(1)  # connections that were closed are gone
        before = server.memory_mb(), server.n_descriptors()
        more, later = post_all(server, uploads[warm:])
        time.sleep(1)
        after = server.memory_mb(), server.n_descriptors()
        is_alive = server.process.poll() is None and '"ok"' in server.get("/healthz")
        defects = server.defects()
        lost = re.findall(r"koser_decoders_lost_total ([\d.]+)", server.get("/metrics"))
    counts, problems = counts + more, problems + later
    statuses = sorted({status for _, status in counts})
    kinds = sorted({kind for kind, _ in counts})
    print_table(
        [("uploads", *map(str, statuses))]
        + [(kind, *(str(counts[kind, status]) for status in statuses)) for kind in kinds]
    )
    print(f"memory {before[0]:.0f} MB after {warm}, {after[0]:.0f} MB after {len(uploads)}")
    print(
        f"descriptors {before[1]} and {after[1]}; decoders that were replaced: {float(*lost):.0f}"
    )
    for problem in [*problems[:5], *defects[:3]]:
        print(problem)
    print_verdict(f"{len(problems)} answers that are none", "none", is_met=not problems)
    print_verdict("the server answers", "after all of them", is_met=is_alive)
    growth = after[0] - before[0]
    print_verdict(f"{growth:+.1f} MB", f"<= {GROWTH_MB:g} MB", is_met=growth <= GROWTH_MB)
    n_open = after[1] - before[1]
    print_verdict(f"{n_open:+d} descriptors", "<= 0", is_met=n_open <= 0)


def post_all(server: Server, uploads: list[Upload]) -> tuple[Counter[tuple[str, int]], list[str]]:
    """Statuses by kind of upload, and what is wrong with an answer."""

    def post(mine: list[Upload]) -> tuple[Counter[tuple[str, int]], list[str]]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        counts: Counter[tuple[str, int]] = Counter()
        problems = []
        for upload in mine:
            try:
                status, media_type, body = send(connection, upload)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                status, media_type, body = 0, repr(error), b""
            counts[upload.kind.partition(",")[0], status] += 1
            is_known = status == 200 or media_type == "application/problem+json"
            if not is_known or status >= 500:
                problems.append(
                    f"{upload.kind} to {upload.path}: {status} {media_type} {body[:200]!r}"
                )
        connection.close()
        return counts, problems

    with ThreadPoolExecutor(N_CLIENTS) as pool:
        parts = list(pool.map(post, [uploads[i::N_CLIENTS] for i in range(N_CLIENTS)]))
    return sum((part[0] for part in parts), Counter()), [each for part in parts for each in part[1]]


if __name__ == "__main__":
    main()
