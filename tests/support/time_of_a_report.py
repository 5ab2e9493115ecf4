"""How long the report of fifty made-up models in nine families takes: `python -m tests.support.time_of_a_report`.

Prints seconds of the processor; with `--beside PATH` also those of another checkout, each in a process of its own, and the ratio.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support import synthetic

HERE = Path(__file__).resolve().parents[2]
CODE = (
    "import json, os, pathlib, sys, tempfile; sys.path.insert(0, sys.argv[1]); "
    "from results.report import report; rows = json.load(open(sys.argv[2])); begun = os.times(); "
    "report.report(rows, pathlib.Path(tempfile.mkdtemp(dir=sys.argv[3])), title='Made up'); ended = os.times(); "
    "print(sum(ended[:4]) - sum(begun[:4]), ended.elapsed - begun.elapsed)"  # of its own processes too
)


def seconds(root: Path, rows: Path, folder: str) -> tuple[float, float]:
    """Seconds of the processors, and by the clock, for the report of these rows by the code of a checkout."""
    command = [sys.executable, "-c", CODE, str(root), str(rows), folder]
    busy, clock = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout.split()
    return float(busy), float(clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", type=Path, help="another checkout, timed in turn with this one")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.json")
        rows.write_text(json.dumps(synthetic.comparison(tuple(synthetic.FIFTY))))
        ours = seconds(HERE, rows, folder)
        print(f"here: {ours[0]:.1f} s of the processors, {ours[1]:.1f} s by the clock")
        if asked.beside:
            theirs = seconds(asked.beside.resolve(), rows, folder)
            print(f"{asked.beside}: {theirs[0]:.1f} s and {theirs[1]:.1f} s; ", end="")
            print(f"ratios {theirs[0] / ours[0]:.2f} and {theirs[1] / ours[1]:.2f}")


if __name__ == "__main__":
    main()
