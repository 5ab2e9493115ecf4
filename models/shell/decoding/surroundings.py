"""What a recorded step hangs on beside tokens and state."""

from __future__ import annotations

from itertools import chain
from operator import attrgetter, is_, itemgetter
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

_INNER = frozenset(vars(nn.Module()))  # what every module holds
_VERSION = attrgetter("_version")


class Surroundings:
    """The numbers of weights and buffers, and all that a model's modules hold.

    Looked at before every token, so all of a table is taken at once, and most is found the same by being the same object.
    """

    def __init__(self, model: nn.Module):
        modules = list(model.modules())
        self._own = [(itemgetter(*own, "training"), vars(m)) for m in modules if (own := _own_names(m))]
        tables = [table for m in modules for table in (m._parameters, m._buffers, m._modules)]
        self._full = [table for table in tables if table]
        self._sizes = [*map(vars, modules), *self._full]
        hooks = [hooks for m in modules for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        self._empty = [table for table in tables if not table] + hooks  # asked all at once whether they still are
        self._tensors = [*model.parameters(), *model.buffers()]
        self._before, self._parts_before = self._now(), self._parts()

    def are_the_same(self) -> bool:
        try:
            return (
                not any(self._empty)
                and self._now() == self._before
                and all(map(is_, self._parts(), self._parts_before))
                and not _has_any_global_hook()
            )
        except (KeyError, RuntimeError, TypeError, ValueError):  # gone, or arrays that are not the same object
            return False

    def _parts(self) -> list[Any]:
        """Weights, buffers and modules; as many as before where the tables' sizes are the same."""
        return [*chain.from_iterable(map(dict.values, self._full))]

    def _now(self) -> tuple[list, ...]:
        return (
            [get(table) for get, table in self._own],
            [*map(len, self._sizes)],
            [*map(Tensor.data_ptr, self._tensors)],
            [*map(_VERSION, self._tensors)],
        )


def _own_names(module: nn.Module) -> list[str]:
    return [name for name in vars(module) if name not in _INNER]
