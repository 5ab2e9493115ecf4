"""Two processes that train one model: the numbers of one process, and ends that are told and leave nobody behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from models.language_model import Size, build
from schema.places import ROOT
from schema.terms import PARALLEL
from tasks.harness import data_parallel
from tasks.harness.processes import units
from tests.support import group_of_two
from tests.support.group_of_two import MODELS, Uneven

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")


@pytest.fixture(scope="module")
def trained():
    names = list(MODELS)
    with data_parallel.rank_zero("ddp", 2, "cpu", group_of_two.together, (names,)) as group:
        return group_of_two.together(group, names)


@pytest.mark.parametrize("kind", PARALLEL)
@pytest.mark.parametrize("name", MODELS)
def test_two_processes_give_the_losses_and_weights_of_one(trained, name, kind):
    (alone, one), (model, two) = group_of_two.alone(name), trained[name, kind]
    assert two.losses == pytest.approx(one.losses, abs=1e-5)
    assert two.tokens == one.tokens
    assert type(model) is type(alone)
    weights = model.state_dict()
    assert weights.keys() == alone.state_dict().keys()
    for key, wanted in alone.state_dict().items():
        assert type(weights[key]) is torch.Tensor
        assert torch.allclose(weights[key], wanted, rtol=0, atol=1e-5), key
    assert one.losses[0] != one.losses[-1]


def test_another_process_that_fails_gives_its_reason():
    with pytest.raises(RuntimeError, match="process 1 of 2: MemoryError: out of memory on purpose"):
        with data_parallel.rank_zero("ddp", 2, "cpu", group_of_two.fail):
            dist.all_reduce(torch.zeros(1))


def test_another_process_that_dies_is_told():
    with pytest.raises(RuntimeError, match=r"process 1 of 2 died \(signal 9\)"):
        with data_parallel.rank_zero("ddp", 2, "cpu", group_of_two.die):
            dist.all_reduce(torch.zeros(1))


def test_a_failure_here_is_raised_as_it_is_and_ends_the_others(tmp_path):
    note = tmp_path / "pid"
    with pytest.raises(FloatingPointError, match="diverged"):
        with data_parallel.rank_zero("ddp", 2, "cpu", group_of_two.linger, (str(note),)):
            pid = _pid(note)
            raise FloatingPointError("diverged")
    assert not _alive(pid)
    assert not dist.is_initialized()


@pytest.mark.slow
def test_the_others_end_with_a_rank_0_that_is_killed(tmp_path):
    note = tmp_path / "pid"
    script = (
        "import time\nfrom tasks.harness import data_parallel\nfrom tests.support import group_of_two\n"
        f"with data_parallel.rank_zero('ddp', 2, 'cpu', group_of_two.linger, ({str(note)!r},)): time.sleep(600)"
    )
    first = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)})
    pid = _pid(note)
    first.send_signal(signal.SIGKILL)
    first.wait()
    end = time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("kind", "processes", "device", "what"),
    [
        ("zero", 2, "cpu", "unknown; choose one of ddp, fsdp2"),
        ("ddp", 0, "cpu", "at least one process"),
        ("fsdp2", 1000, "cuda", "install one that has|lower --processes"),
    ],
)
def test_impossible_process_groups_are_refused(kind, processes, device, what):
    with pytest.raises(ValueError, match=what):
        data_parallel.check(kind, processes, device)


def test_torchrun_says_how_many_processes_there_are(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    data_parallel.check("ddp", 2, "cpu")
    with pytest.raises(ValueError, match="torchrun started 2 processes and 3 were asked for; leave --processes out"):
        data_parallel.check("ddp", 3, "cpu")


def test_rows_that_cannot_be_shared_are_refused():
    data_parallel.check_rows(Uneven(), 0, 240, 2)
    with pytest.raises(ValueError, match="6 rows cannot be shared evenly by 4 processes"):
        data_parallel.check_rows(Uneven(), 0, 240, 4)
    batch, nobody = Uneven().training(0, 3, 0.0, 240), data_parallel.ProcessGroup("ddp", 8, 0, "cpu")
    with pytest.raises(ValueError, match="5 rows gives 8 processes no row each"):
        data_parallel._share(nobody, torch.nn.Identity(), 0, batch)


def test_blocks_of_a_users_model_are_gathered_one_after_another():
    linears = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(3))
    nested = torch.nn.ModuleList(torch.nn.ModuleDict({"inner": linears}) for _ in range(2))
    mixed = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.ReLU()])
    model = torch.nn.ModuleDict({"layers": nested, "mixed": mixed})
    assert units.repeated_blocks(model) == list(nested)
    assert units.repeated_blocks(group_of_two.fresh("transformer"))[0].__class__.__name__ == "Block"


def test_a_model_that_passes_by_its_blocks_is_gathered_by_their_parts():
    plain, passing = (build(name, Size(32, 16, 2, 2), match=False) for name in ("retnet", "hgrn2"))
    assert units.units(plain, "cpu") == list(plain.blocks)
    named = {module: name for name, module in passing.named_modules()}
    found = [named[unit] for unit in units.units(passing, "cpu")]
    assert found == [f"blocks.{i}.{part}" for i in (0, 1) for part in ("mixer_norm", "mixer", "feed_norm", "feed")]


def test_weights_that_are_not_gathered_are_told_of():
    with pytest.raises(RuntimeError, match="cannot train this model: .* use --parallel ddp, or call the module"):
        with units.outside_forward():
            raise RuntimeError("aten.mul.Tensor got mixed torch.Tensor and DTensor, need to convert")


def test_a_model_without_repeated_blocks_is_told_of():
    with pytest.warns(UserWarning, match="Sequential has no list of repeated blocks .* hold its blocks in one"):
        assert units.units(torch.nn.Sequential(torch.nn.Linear(2, 2)), "cpu") == []


def _pid(note: Path) -> int:
    end = time.monotonic() + 60
    while not (note.exists() and note.read_text()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return int(note.read_text())


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
