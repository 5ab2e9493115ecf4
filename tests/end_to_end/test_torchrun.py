"""`torchrun bench.py run`: two machines, played by this one, measure what a cell does that starts its processes itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from results.rows import store as record
from schema.places import ROOT
from tests.support.tiny_runs import DRIVER, Runs

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]


def torchrun(runs: Runs, *flags: str) -> list[tuple[int, str]]:
    """The exit code and the words of each of two machines' torchrun."""
    script = runs.results / "driver.py"
    script.write_text(f"if __name__ == '__main__':\n    {DRIVER}\n")  # a cell's process imports it again
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = ["--master-addr", "127.0.0.1", "--master-port", str(free.getsockname()[1])]
    command = [str(script), str(runs.results), "run", "tiny", "--cache", str(runs.cache), *flags]
    machines = [
        subprocess.Popen(
            [*TORCHRUN, *where, "--node-rank", str(rank), *command],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [machine.communicate(timeout=300)[0] for machine in machines]
    return [(machine.returncode, words) for machine, words in zip(machines, said, strict=True)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_machines_give_the_rows_of_two_processes(tmp_path):
    small = {"steps": 4, "rates": "learning_rate = 1e-3", "batch_tokens": 480}
    here, there = (Runs(tmp_path / name, **small) for name in ("here", "there"))
    here.finish("--parallel", "ddp", "--processes", "2")
    ended = torchrun(there, "--parallel", "ddp")
    assert [code for code, _ in ended] == [0, 0], ended
    assert there.numbers() == here.numbers()
    assert {row["status"] for row in record.read(there.rows)} == {"ok"}
    assert "cells measured" in ended[0][1] and "cells measured" not in ended[1][1]


@pytest.mark.slow
def test_what_torchrun_cannot_do_is_refused_in_a_sentence(tmp_path):
    runs = Runs(tmp_path, steps=2)
    (code, words), _ = torchrun(runs)
    assert (
        code and "torchrun started 2 processes, which train each cell together: add --parallel ddp or fsdp2." in words
    )
    (code, words), _ = torchrun(runs, "--parallel", "ddp", "--workers", "2")
    assert code and "leave out --launcher and --workers" in words
