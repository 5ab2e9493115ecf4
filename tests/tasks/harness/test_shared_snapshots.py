"""Processes that share a training and are killed in its middle go on to the weights of a training that nobody disturbed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from schema.places import ROOT
from schema.terms import PARALLEL
from tasks.harness import data_parallel, tensor_file
from tasks.harness.snapshots import SharedSnapshots, Snapshots
from tasks.harness.train import optimiser
from tests.support import group_of_two

pytestmark = [
    pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed"),
    pytest.mark.slow,  # two groups of processes are started, one of them to be killed
]

DIES_AT = 3  # of 5 steps, when three are in the snapshot


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The snapshots of trainings whose processes were stopped, the last time killed, while they drew the fourth batch."""
    folder = tmp_path_factory.mktemp("killed")
    paths = {kind: str(folder / f"{kind}.safetensors") for kind in PARALLEL}
    script = (
        "from tasks.harness import data_parallel\nfrom tests.support import group_of_two\n"
        f"paths = {paths!r}\n"
        f"with data_parallel.rank_zero('ddp', 2, 'cpu', group_of_two.killed, (paths, {DIES_AT})) as group:\n"
        f"    group_of_two.killed(group, paths, {DIES_AT})"
    )
    run = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300)
    assert run.returncode == -signal.SIGKILL
    return paths


@pytest.fixture(scope="module")
def trained(killed):
    copies = {
        kind: shutil.copy(path, f"{path}.copy") for kind, path in killed.items()
    }  # going on, each takes further ones
    with data_parallel.rank_zero("ddp", 2, "cpu", group_of_two.undisturbed_and_resumed, (copies,)) as group:
        return group_of_two.undisturbed_and_resumed(group, copies)


def test_the_snapshot_holds_whole_weights_and_the_generators_of_both(killed):
    whole = group_of_two.Dropping().state_dict()
    for path in killed.values():
        tensors, facts = tensor_file.read(path)
        assert len(tensors["losses"]) == DIES_AT and facts["tokens"] == DIES_AT * 240
        assert {name: tensors[f"model/{name}"].shape for name in whole} == {name: w.shape for name, w in whole.items()}
        assert not torch.equal(tensors["random/0/cpu"], tensors["random/1/cpu"])


@pytest.mark.parametrize("kind", PARALLEL)
def test_two_killed_processes_go_on_to_the_same_losses_and_weights(trained, kind):
    (model, log), (again, other) = trained[kind]
    assert (other.losses, other.tokens) == (log.losses, log.tokens)
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in model.state_dict().items())


@pytest.fixture
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_snapshot_of_more_processes_is_told_and_passed_over(killed, one_process):
    model = group_of_two.Dropping()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.warns(UserWarning, match="generators: the training begins anew"):
        assert SharedSnapshots(Snapshots(killed["ddp"])).restore(model, optimiser(model, 1e-3)) is None
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
