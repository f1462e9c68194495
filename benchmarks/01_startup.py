"""Start-up: `koser --help`, and what `import koser` loads.

Wall time of whole processes, in turns. The plain way is what a command costs that
imports torch at its top before it reads its arguments.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

from measuring import new_parser, print_heading, print_table, print_verdict, time_in_turns

TARGET = 0.3  # seconds


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    koser = str(Path(sys.executable).with_name("koser"))
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "plain: python -c 'import torch'": [sys.executable, "-c", "import torch"],
        "ours: koser --help": [koser, "--help"],
    }
    n_rounds = 3 if arguments.quick else 10
    for command in commands.values():
        run(command)  # once before, so that all files are in the page cache
    timings = time_in_turns(
        {name: partial(run, command) for name, command in commands.items()},
        n_rounds=n_rounds,
    )
    print_table(
        [(f"median of {n_rounds}", "seconds", "cores")]
        + [(name, f"{each.seconds:.3f}", f"{each.cores:.1f}") for name, each in timings.items()]
    )
    _, plain, ours = (each.seconds for each in timings.values())
    print(f"ratio {plain / ours:.1f}")
    print_verdict(f"koser --help in {ours:.3f} s", f"< {TARGET} s", is_met=ours < TARGET)
    for module in ("koser", "koser.cli"):
        code = f"import {module}, sys; print('torch' in sys.modules)"
        loads_torch = run([sys.executable, "-c", code]) != "False"
        found = "loads torch" if loads_torch else "loads no torch"
        print_verdict(f"import {module} {found}", "no torch", is_met=not loads_torch)


def run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
