"""The server under 32 clients: micro-batches against one at a time, and the plain way.

Clips of demo speech, as WAV, posted on open connections by one process; RANDOM weights: speed
only. The plain way is `plain_server.py`.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from measuring import new_parser, print_heading, print_table, print_verdict
from serving import Server, ask, koser_serve, running, wav_uploads, write_model

N_CLIENTS = 32
TARGET = 3.0  # times as many requests per second


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load on each server")
    parser.add_argument("--shortest", type=float, default=0.5, help="clip, in seconds")
    parser.add_argument("--longest", type=float, default=3.0, help="clip, in seconds")
    parser.add_argument("--model", type=Path, help="another one: a run folder or .onnx")
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    seconds = 4.0 if arguments.quick else arguments.seconds
    uploads = wav_uploads(100, shortest=arguments.shortest, longest=arguments.longest)
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or write_model(Path(folder) / "run")
        plain = str(Path(__file__).with_name("plain_server.py"))
        servers = {
            "plain: a thread per request": [sys.executable, plain, str(model)],
            "ours, one clip at a time": koser_serve(model, "max_batch=1"),
            "ours": koser_serve(model),
        }
        loads, rows = {}, [("", "per s", "p50 ms", "p99 ms", "errors", "CPU ms each", "batch")]
        for name, command in servers.items():
            with running(command) as server:
                ask(server.port, uploads, n_clients=N_CLIENTS, seconds=min(2.0, seconds))
                before = server.cpu_seconds()
                load = ask(server.port, uploads, n_clients=N_CLIENTS, seconds=seconds)
                cpu = 1000 * (server.cpu_seconds() - before) / len(load.latencies)
                size = "" if name.startswith("plain") else f"{mean_batch(server):.1f}"
            loads[name] = load
            rows.append(
                (
                    name,
                    f"{load.per_second:,.0f}",
                    f"{load.percentile(0.5):.0f}",
                    f"{load.percentile(0.99):.0f}",
                    str(load.n_errors),
                    f"{cpu:.2f}",
                    size,
                )
            )
    n_clips = f"clips of {arguments.shortest:g} to {arguments.longest:g} s"
    print(f"{N_CLIENTS} clients for {seconds:g} s each, {n_clips}")
    print_table(rows)
    ours = loads["ours"]
    for name, load in loads.items():
        if name != "ours":
            ratio = ours.per_second / load.per_second
            print_verdict(f"{ratio:.1f} x {name}", f">= {TARGET:g} x", is_met=ratio >= TARGET)
    print_verdict(f"{ours.n_errors} errors", "none", is_met=ours.n_errors == 0)


def mean_batch(server: Server) -> float:
    """Clips computed together, on average."""
    text = server.get("/metrics")
    n_clips, n_batches = (
        float(re.findall(rf"koser_batch_clips_{name} ([\d.e+]+)", text)[0])
        for name in ("sum", "count")
    )
    return n_clips / n_batches


if __name__ == "__main__":
    main()
