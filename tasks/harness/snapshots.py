"""A training in progress kept on the disk every few minutes, so that one that was killed goes on to the same end.

A snapshot holds the weights, the optimiser's state, the state of torch's generators and the losses so far: on a CPU the
training that goes on from it gives the same numbers, bit for bit, as one that nobody disturbed.
"""

from __future__ import annotations

import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tasks.harness import curve, tensor_file
from tasks.harness.train import Training

MODEL, OPTIMISER, RANDOM, LOSSES = "model/", "optimiser/", "random/", "losses"


class Snapshots:
    """The snapshot at `path` of one training, renewed every `minutes`; what `tasks.harness.train.train` takes as `snapshots`.

    A snapshot that is damaged or does not fit, and a disk that takes none, are told in a warning; the training goes on.
    """

    def __init__(self, path: Path, minutes: float = 5.0) -> None:
        self.path, self.seconds = Path(path), 60.0 * minutes
        self.last, self.told = time.monotonic(), False

    def restore(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> Training | None:
        """Bring model, optimiser and generators to where the snapshot was taken; None where there is none to go on from."""
        self.last = time.monotonic()
        try:
            tensors, facts = tensor_file.read(self.path)
            so_far = Training(*tensor_file.losses(self.path, tensors, facts))
            state = _state(tensors, optimiser, self.path)
            self._check(model, tensors, facts)
        except FileNotFoundError:
            return None
        except (tensor_file.Damaged, OSError) as error:
            warnings.warn(f"{str(error).rstrip('.')}: the training begins anew.", stacklevel=2)
            return None
        model.load_state_dict(_below(MODEL, tensors))
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        for device, generator in _below(RANDOM, tensors).items():
            torch.set_rng_state(generator) if device == "cpu" else torch.cuda.set_rng_state(generator)
        return so_far

    def _check(self, model: nn.Module, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """All of a snapshot is held against the training before any of it is taken. Raises Damaged."""
        own = {name: tensor.shape for name, tensor in model.state_dict().items()}
        if {name: tensor.shape for name, tensor in _below(MODEL, tensors).items()} != own:
            raise tensor_file.Damaged(f"{self.path} is a snapshot of another model")
        if facts.get("torch") != torch.__version__:
            raise tensor_file.Damaged(f"{self.path} was taken under another version of torch")
        current = {"cpu": torch.get_rng_state()} | (
            {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
        )
        for device, generator in _below(RANDOM, tensors).items():
            fits = device in current and generator.dtype == torch.uint8 and generator.shape == current[device].shape
            if not fits:
                raise tensor_file.Damaged(f"{self.path} holds no state of torch's generators")

    def keep(self, model: nn.Module, optimiser: torch.optim.Optimizer, so_far: Training) -> None:
        """Take a snapshot if it is time for one; whoever watches is told the losses."""
        curve.told(so_far.losses)
        if time.monotonic() - self.last < self.seconds:
            return
        tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
        for number, state in optimiser.state_dict()["state"].items():
            tensors |= {f"{OPTIMISER}{number}/{kind}": tensor for kind, tensor in state.items()}
        tensors |= {RANDOM + "cpu": torch.get_rng_state(), LOSSES: torch.tensor(so_far.losses, dtype=torch.float64)}
        if any(parameter.is_cuda for parameter in model.parameters()):
            tensors[RANDOM + "cuda"] = torch.cuda.get_rng_state()
        facts = {"tokens": so_far.tokens, "seconds": so_far.seconds, "torch": torch.__version__}
        try:
            tensor_file.write(self.path, tensors, facts)
        except OSError as error:
            if not self.told:
                warnings.warn(f"No snapshot of the training could be kept: {error}. It goes on.", stacklevel=2)
            self.told = True
        self.last = time.monotonic()

    def remove(self) -> None:
        """Delete the snapshot: the training has ended."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _state(tensors: dict[str, Tensor], optimiser: torch.optim.Optimizer, path: Path) -> dict[int, dict[str, Tensor]]:
    """The optimiser's averages by the number of their parameter. Raises Damaged for those of other parameters."""
    shapes = [parameter.shape for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(OPTIMISER, tensors).items():
        number, _, kind = name.partition("/")
        known = number.isascii() and number.isdigit() and len(number) < 10 and int(number) < len(shapes)
        if not known or tensor.shape not in (shapes[int(number)], torch.Size(())):
            raise tensor_file.Damaged(f"{path} holds the averages of another model's optimiser")
        state.setdefault(int(number), {})[kind] = tensor
    return state
