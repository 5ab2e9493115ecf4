"""How long the report of fifty made-up models in nine families takes: `python -m tests.support.time_of_a_report`.

Prints seconds of the processor; with `--beside PATH` also those of another checkout, each in a process of its own, and the ratio.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support import synthetic

HERE = Path(__file__).resolve().parents[2]
CODE = (
    "import json, pathlib, sys, tempfile, time; sys.path.insert(0, sys.argv[1]); "
    "from results.report import report; rows = json.load(open(sys.argv[2])); begun = time.process_time(); "
    "report.report(rows, pathlib.Path(tempfile.mkdtemp(dir=sys.argv[3])), title='Made up'); "
    "print(time.process_time() - begun)"
)


def seconds(root: Path, rows: Path, folder: str) -> float:
    """The processor's seconds for the report of these rows by the code of a checkout."""
    command = [sys.executable, "-c", CODE, str(root), str(rows), folder]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", type=Path, help="another checkout, timed in turn with this one")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.json")
        rows.write_text(json.dumps(synthetic.comparison(tuple(synthetic.FIFTY))))
        begun = time.perf_counter()
        ours = seconds(HERE, rows, folder)
        print(f"here: {ours:.1f} s of the processor, {time.perf_counter() - begun:.1f} s by the clock")
        if asked.beside:
            theirs = seconds(asked.beside.resolve(), rows, folder)
            print(f"{asked.beside}: {theirs:.1f} s of the processor; ratio {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
