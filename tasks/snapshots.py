"""A training in progress kept on the disk every few minutes, so that one that was killed goes on to the same end.

A snapshot holds the weights, the optimiser's state, the state of torch's generators and the losses so far: on a CPU the
training that goes on from it gives the same numbers, bit for bit, as one that nobody disturbed.
"""

from __future__ import annotations

import time
import warnings
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from tasks import tensor_file
from tasks.train import Training

MODEL, OPTIMISER, RANDOM, LOSSES = "model/", "optimiser/", "random/", "losses"


class Snapshots:
    """The snapshot at `path` of one training, renewed every `minutes`; what `tasks.train.train` takes as `snapshots`.

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
        except FileNotFoundError:
            return None
        except (tensor_file.Damaged, OSError) as error:
            warnings.warn(f"{error}: the training begins anew.", stacklevel=2)
            return None
        weights = _below(MODEL, tensors)
        own = model.state_dict()
        if {name: tensor.shape for name, tensor in weights.items()} != {name: t.shape for name, t in own.items()}:
            warnings.warn(f"{self.path} is a snapshot of another model: the training begins anew.", stacklevel=2)
            return None
        model.load_state_dict(weights)
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below(OPTIMISER, tensors).items():
            number, _, kind = name.partition("/")
            state.setdefault(int(number), {})[kind] = tensor
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        for device, generator in _below(RANDOM, tensors).items():
            torch.set_rng_state(generator) if device == "cpu" else torch.cuda.set_rng_state(generator)
        return Training(tensors[LOSSES].tolist(), facts["tokens"], facts["seconds"])

    def keep(self, model: nn.Module, optimiser: torch.optim.Optimizer, so_far: Training) -> None:
        """Take a snapshot if it is time for one."""
        if time.monotonic() - self.last < self.seconds:
            return
        tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
        for number, state in optimiser.state_dict()["state"].items():
            tensors |= {f"{OPTIMISER}{number}/{kind}": tensor for kind, tensor in state.items()}
        tensors |= {RANDOM + "cpu": torch.get_rng_state(), LOSSES: torch.tensor(so_far.losses, dtype=torch.float64)}
        if any(parameter.is_cuda for parameter in model.parameters()):
            tensors[RANDOM + "cuda"] = torch.cuda.get_rng_state()
        try:
            tensor_file.write(self.path, tensors, {"tokens": so_far.tokens, "seconds": so_far.seconds})
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
