"""What a block leaves changed in torch, numpy, this project or the process is put back, and named."""

from __future__ import annotations

import os
import random
import signal
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from schema import surroundings
from tasks.harness import evaluate, train


def no_loss(*_, **__):
    return torch.zeros(())


def hook(*_):
    return None


CHANGES = {
    "the default dtype": lambda: torch.set_default_dtype(torch.float64),
    "the default device": lambda: torch.set_default_device("meta"),
    "the number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "whether gradients are taken": lambda: torch.set_grad_enabled(False),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "the flushing of denormal numbers": lambda: torch.set_flush_denormal(True),
    "numpy's errors": lambda: np.seterr(all="ignore"),
    "torch.backends.mkldnn.enabled": lambda: setattr(torch.backends.mkldnn, "enabled", False),
    "hooks of every module": lambda: torch.nn.modules.module.register_module_forward_hook(hook),
    "torch.nn.functional.cross_entropy": lambda: setattr(F, "cross_entropy", no_loss),
    "torch.softmax": lambda: setattr(torch, "softmax", no_loss),
    "torch.Tensor.softmax": lambda: setattr(torch.Tensor, "softmax", no_loss),  # inherited: hidden, not replaced
    "torch.nn.modules.linear.Linear.forward": lambda: setattr(torch.nn.Linear, "forward", no_loss),
    "torch.nn.modules.linear.Linear.__call__": lambda: setattr(torch.nn.Linear, "__call__", no_loss),
    "torch.optim.adamw.AdamW.step": lambda: setattr(torch.optim.AdamW, "step", no_loss),
    "tasks.harness.evaluate.PIECE": lambda: setattr(evaluate, "PIECE", 3),
    "tasks.harness.train.len": lambda: setattr(train, "len", no_loss),
    "the working folder": lambda: os.chdir("/"),
    "handlers of signals": lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    "the recursion limit": lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 1),
}


def test_every_change_is_put_back_and_named():
    outer = surroundings.Surroundings()
    try:
        with surroundings.kept() as changed:
            for change in CHANGES.values():
                change()
        assert set(changed) == set(CHANGES) and len(changed) == len(CHANGES)
    finally:
        assert outer.put_back() == []


def test_generators_paths_filters_and_environment_are_put_back_without_a_word(monkeypatch):
    monkeypatch.setenv("MINE", "before")
    drawn = [], []
    for found in drawn:
        with surroundings.kept() as changed:
            found += [torch.rand(()).item(), np.random.rand(), random.random()]
            os.environ |= {"MINE": "after", "OMP_NUM_THREADS": "7"}
            sys.path.insert(0, "/mine")
            warnings.filterwarnings("ignore", category=FutureWarning)
        assert changed == []
    assert drawn[0] == drawn[1] and os.environ["MINE"] == "before" and os.environ["OMP_NUM_THREADS"] == "1"
    assert "/mine" not in sys.path and not any(entry[2] is FutureWarning for entry in warnings.filters)


def test_what_raises_is_put_back_too():
    with pytest.raises(SystemExit), surroundings.kept():
        torch.set_default_dtype(torch.float64)
        raise SystemExit(0)
    assert torch.get_default_dtype() == torch.float32


def test_what_torch_does_to_itself_is_no_change():
    with surroundings.kept() as changed:
        layer = torch.nn.Linear(2, 2)
        optimiser = torch.optim.AdamW(layer.parameters())
        layer(torch.ones(1, 2)).sum().backward()
        optimiser.step()
        torch.manual_seed(3)
    assert changed == []
