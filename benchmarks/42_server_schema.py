"""schemathesis over the server's OpenAPI: what it says is what it does, and no 500.

All of schemathesis' checks but one: that whatever bytes the schema allows are accepted. A schema
cannot say which bytes are sound. RANDOM weights.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import new_parser, print_heading, print_verdict
from serving import koser_serve, running, write_model

HERE = Path(__file__).parent
GROWTH_MB = 16.0


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--examples", type=int, default=1_000, help="for each operation")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n_examples = 30 if arguments.quick else arguments.examples
    with (
        tempfile.TemporaryDirectory() as folder,
        running(koser_serve(write_model(Path(folder) / "run"))) as server,
    ):
        # Twice as many before: the largest batch, an explanation's, comes sooner or later, and
        # buffers then have their size. A leak would go on growing.
        for earlier in (1, 0):
            check(server.port, n_examples, arguments.seed + earlier)
        before = server.memory_mb()
        done = check(server.port, n_examples, arguments.seed + 2)
        after = server.memory_mb()
        counted = server.get("/metrics")
    print(re.sub(r"\x1b\[\d+m", "", done.stdout)[-700:].strip())
    accepted = re.findall(
        r'koser_requests_total\{route="(/v1/[^"]*)",status="200"\} ([\d.e+]+)', counted
    )
    print("answered with 200:", ", ".join(f"{route} {float(n):.0f}" for route, n in accepted))
    defects = re.findall(r'koser_requests_total\{route="[^"]*",status="5(?!03)\d\d"\}.*', counted)
    print_verdict(f"schemathesis ends with {done.returncode}", "0", is_met=done.returncode == 0)
    print_verdict(f"{len(defects)} routes with a 500", "none", is_met=not defects)
    growth = after - before
    print_verdict(f"{growth:+.1f} MB", f"<= {GROWTH_MB:g} MB", is_met=growth <= GROWTH_MB)


def check(port: int, n_examples: int, seed: int) -> subprocess.CompletedProcess[str]:
    """Let schemathesis generate requests from the schema and check the answers."""
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"]
    options = ["--url", address, "--checks", "all", "--exclude-checks", "positive_data_acceptance"]
    sizes = ["--max-examples", str(n_examples), "--seed", str(seed), "--generation-database=none"]
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [*command, *options, *sizes, "--suppress-health-check=all", "--no-color"],
            cwd=folder,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "schema_hooks", "PYTHONPATH": path()},
            capture_output=True,
            text=True,
            check=False,
        )


def path() -> str:
    """Where schemathesis finds `schema_hooks`, beside what is there already."""
    return os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])


if __name__ == "__main__":
    main()
