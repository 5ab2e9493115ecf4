"""A training in progress kept on the disk every few minutes, so that one that was killed goes on to the same end.

A snapshot holds the weights, the optimiser's state, the state of torch's generators and the losses so far: on a CPU the
training that goes on from it gives the same numbers, bit for bit, as one that nobody disturbed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tasks.harness import tensor_file
from tasks.harness.train import Training

MODEL, OPTIMISER, RANDOM, LOSSES = "model/", "optimiser/", "random/", "losses"
GENERATORS = ("cpu", "cuda")

_watchers: list[Callable[[Sequence[float]], None]] = []


@contextmanager
def watch_losses(tell: Callable[[Sequence[float]], None]) -> Iterator[None]:
    """While this lasts, `tell` is given the losses of all steps so far (nats per asked token), of every training here.

    That is where snapshots are kept, after each step (on a GPU each twentieth), and once for a trained model that is kept
    or taken from where it was. Nothing of a training depends on it.
    """
    _watchers.append(tell)
    try:
        yield
    finally:
        _watchers.remove(tell)


def tell_losses(losses: Sequence[float]) -> None:
    """Tell the watchers the losses of all steps so far."""
    for tell in _watchers:
        tell(losses)


class Snapshots:
    """The snapshot at `path` of one training, renewed every `minutes`; what `tasks.harness.train.train` takes as `snapshots`.

    A snapshot that is damaged or does not fit, and a disk that takes none, are told in a warning; the training goes on.
    """

    def __init__(self, path: Path, minutes: float = 5.0) -> None:
        self.path, self.seconds = Path(path), 60.0 * minutes
        self.last, self.told = time.monotonic(), False

    def restore(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> Training | None:
        """Bring model, optimiser and generators to where the snapshot was taken; None where there is none to go on from."""
        found = self.read(model, optimiser, GENERATORS)
        if found is None:
            return None
        so_far, tensors = found
        model.load_state_dict(_below(MODEL, tensors))
        _load(optimiser, _state(tensors, optimiser, self.path))
        _set_generators(_below(RANDOM, tensors))
        return so_far

    def read(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, generators: Collection[str]
    ) -> tuple[Training, dict[str, Tensor]] | None:
        """What the snapshot holds, if it fits; None, the reason told in a warning, where none is that fits.

        `generators` names those whose states may be there; the first of them must.
        """
        self.last = time.monotonic()
        try:
            tensors, facts = tensor_file.read(self.path)
            so_far = Training(*tensor_file.losses(self.path, tensors, facts))
            _state(tensors, optimiser, self.path)
            self._check(model, tensors, facts, generators)
        except FileNotFoundError:
            return None
        except (tensor_file.Damaged, OSError) as error:
            warnings.warn(f"{str(error).rstrip('.')}: the training begins anew.", stacklevel=3)
            return None
        return so_far, tensors

    def _check(
        self, model: nn.Module, tensors: dict[str, Tensor], facts: dict[str, Any], generators: Collection[str]
    ) -> None:
        """All of a snapshot is held against the training before any of it is taken. Raises Damaged."""
        own = {name: tensor.shape for name, tensor in model.state_dict().items()}
        if {name: tensor.shape for name, tensor in _below(MODEL, tensors).items()} != own:
            raise tensor_file.Damaged(f"{self.path} is a snapshot of another model")
        if facts.get("torch") != torch.__version__:
            raise tensor_file.Damaged(f"{self.path} was taken under another version of torch")
        here, found = _generators(torch.cuda.is_available()), _below(RANDOM, tensors)
        for name, state in found.items():
            device = name.rpartition("/")[2]
            fits = name in generators and device in here and state.dtype == torch.uint8
            if not fits or state.shape != here[device].shape:
                raise tensor_file.Damaged(f"{self.path} holds no state of torch's generators")
        if not {name for name in generators if name.endswith("cpu")} <= found.keys():
            raise tensor_file.Damaged(f"{self.path} holds no state of torch's generators")

    def keep(self, model: nn.Module, optimiser: torch.optim.Optimizer, so_far: Training) -> None:
        """Take a snapshot if it is time for one; whoever watches is told the losses."""
        tell_losses(so_far.losses)
        if self.is_due():
            self.write(dict(_of_training(model, optimiser)) | _random(_generators(_on_gpu(model))), so_far)

    def is_due(self) -> bool:
        """Whether it is time for a snapshot."""
        return time.monotonic() - self.last >= self.seconds

    def write(self, tensors: dict[str, Tensor], so_far: Training) -> None:
        """Put a snapshot in the place of the last one; a disk that takes none is told once."""
        tensors = tensors | {LOSSES: torch.tensor(so_far.losses, dtype=torch.float64)}
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


class SharedSnapshots:
    """The snapshots of one training that several processes share (`data_parallel.py`), each of them with one of these.

    There is one file, whole or not at all, as of one process: the first process, which alone has `own`, writes weights and
    averages gathered from all shards and the generators of every process, and reads them for all.
    """

    def __init__(self, own: Snapshots | None = None) -> None:
        self.own, self.rank, self.processes = own, dist.get_rank(), dist.get_world_size()

    def restore(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> Training | None:
        """As `Snapshots.restore`, in every process; None in all of them where the first finds none to go on from."""
        names = [f"{rank}/{device}" for rank in range(self.processes) for device in GENERATORS]
        found = None if self.own is None else self.own.read(model, optimiser, names)
        so_far, tensors = found or (None, {})
        outline = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items() if name != LOSSES}
        told = [(so_far, outline)]
        dist.broadcast_object_list(told, src=0)
        so_far, outline = told[0]
        if so_far is None:
            return None
        parameters = dict(enumerate(parameter for group in optimiser.param_groups for parameter in group["params"]))
        weights, averages, generators = model.state_dict(), {}, {}
        for name, about in outline.items():  # in the order of the first process
            whole = self._received(tensors.get(name), *about, _device(model))
            if name.startswith(MODEL):
                weight = weights[name.removeprefix(MODEL)]
                weight.copy_(_spread_as(weight, whole))
            elif name.startswith(OPTIMISER):
                number, kind = _place(name)
                own = whole.cpu() if whole.dim() == 0 else _spread_as(parameters[number], whole)
                averages.setdefault(number, {})[kind] = own
            else:
                generators[name.removeprefix(RANDOM)] = whole.cpu()
        _load(optimiser, averages)
        _set_generators(_below(f"{self.rank}/", generators))
        return so_far

    def _received(self, mine: Tensor | None, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A tensor that the first process has, in every process."""
        whole = torch.empty(shape, dtype=dtype, device=device) if mine is None else mine.to(device).contiguous()
        if whole.numel():
            dist.broadcast(whole.reshape(-1).view(torch.uint8), src=0)  # bytes: every type can be sent so
        return whole

    def keep(self, model: nn.Module, optimiser: torch.optim.Optimizer, so_far: Training) -> None:
        """As `Snapshots.keep`, in every process; the first one's clock says when."""
        is_due = torch.tensor(int(self.own is not None and self.own.is_due()), device=_device(model))
        dist.broadcast(is_due, src=0)
        if self.own is not None:
            tell_losses(so_far.losses)
        if not is_due:
            return
        tensors, all_states = {}, [{}] * self.processes
        for name, tensor in _of_training(model, optimiser):
            whole = tensor.full_tensor() if _is_spread(tensor) else tensor  # of a shard all processes take part
            if self.own is not None:
                tensors[name] = whole.cpu()
        dist.all_gather_object(all_states, _generators(_on_gpu(model)))
        if self.own is not None:
            for rank, states in enumerate(all_states):
                tensors |= _random({f"{rank}/{device}": state for device, state in states.items()})
            self.own.write(tensors, so_far)


def _is_spread(tensor: Tensor) -> bool:
    """Whether each process holds a shard of it; the type is not imported for a training of one process."""
    return hasattr(tensor, "full_tensor")


def _spread_as(like: Tensor, whole: Tensor) -> Tensor:
    """The part of a tensor, equal in every process, that belongs here, where `like` is in shards; else all of it."""
    if not _is_spread(like):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


def _of_training(model: nn.Module, optimiser: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Weights and the optimiser's averages, by their names in a snapshot."""
    for name, tensor in model.state_dict().items():
        yield MODEL + name, tensor
    for number, state in optimiser.state_dict()["state"].items():
        yield from ((f"{OPTIMISER}{number}/{kind}", tensor) for kind, tensor in state.items())


def _load(optimiser: torch.optim.Optimizer, state: dict[int, dict[str, Tensor]]) -> None:
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _generators(is_on_gpu: bool) -> dict[str, Tensor]:
    """The states of torch's generators in this process, by their device."""
    return {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if is_on_gpu else {})


def _set_generators(states: dict[str, Tensor]) -> None:
    for device, state in states.items():
        torch.set_rng_state(state) if device == "cpu" else torch.cuda.set_rng_state(state)


def _random(states: dict[str, Tensor]) -> dict[str, Tensor]:
    return {RANDOM + name: state for name, state in states.items()}


def _on_gpu(model: nn.Module) -> bool:
    return any(parameter.is_cuda for parameter in model.parameters())


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _place(name: str) -> tuple[int, str]:
    """The number of the parameter and the kind of an average, from its name in a snapshot that was checked."""
    number, _, kind = name.removeprefix(OPTIMISER).partition("/")
    return int(number), kind


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
