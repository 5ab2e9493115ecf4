"""Processes that a launcher started: called to each training, they give the numbers of one process, and outlive a failure."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from schema.places import ROOT
from tasks.harness.processes import torchrun, torchrun_says
from tasks.harness.processes.rank_zero import rank_zero
from tests.support import group_of_two

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")

FOLLOW = "from tasks.harness.processes import torchrun; torchrun.follow()"


@pytest.fixture
def follower(monkeypatch):
    """The second of two processes, in whose environment this one is the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**told, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    environment = {**os.environ, "RANK": "1", "LOCAL_RANK": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", FOLLOW], env=environment)
    yield process
    process.kill()
    process.wait()


def test_a_process_that_fails_is_told_and_follows_the_next_call(follower):
    name = "gated-deltanet"
    with torchrun.leading():
        with pytest.raises(RuntimeError, match="process 1 of 2: MemoryError: out of memory on purpose"):
            with rank_zero("ddp", 2, "cpu", group_of_two.fail):
                dist.all_reduce(torch.zeros(1))
        with rank_zero("ddp", 2, "cpu", group_of_two.together, ([name],)) as group:
            trained = group_of_two.together(group, [name])
    assert follower.wait(60) == 0
    _, alone = group_of_two.alone(name)
    for kind in ("ddp", "fsdp2"):
        assert trained[name, kind][1].losses == pytest.approx(alone.losses, abs=1e-5)


def test_the_first_process_that_raises_leaves_the_others_to_the_next_call(follower):
    with torchrun.leading():
        with pytest.raises(FloatingPointError, match="diverged"):
            with rank_zero("ddp", 2, "cpu", group_of_two.summed):
                raise FloatingPointError("diverged")
        with rank_zero("ddp", 2, "cpu", group_of_two.summed):
            assert group_of_two.summed() == 2
    assert follower.wait(60) == 0


def test_nobody_leads_where_nobody_was_started(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with torchrun.leading():
        pass


@pytest.mark.parametrize(
    ("told", "what"),
    [
        (
            {"WORLD_SIZE": "2"},
            "RANK and MASTER_ADDR and MASTER_PORT are not set: start it with torchrun, or unset WORLD_SIZE",
        ),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two' in the environment is no whole number"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "h", "MASTER_PORT": "x"},
            "MASTER_PORT='x' in the environment",
        ),
    ],
)
def test_an_environment_that_says_half_is_refused(monkeypatch, told, what):
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=what):
        torchrun_says.check()
