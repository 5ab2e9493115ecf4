"""What hangs on parameters alone, computed once for all the tokens that are decoded with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.ops.recording import kept


class Derived:
    """`derived(compute, *parameters)` is `compute(*parameters)`, without a gradient computed again only when one has changed.

    A change is a write that PyTorch counts, an optimiser's or `load_state_dict`'s among them, or other memory; a write through
    `parameter.data` into the same memory is not seen. With gradients, and under autocast, it is computed each time.
    """

    def __init__(self) -> None:
        self._given: tuple[Tensor, ...] = ()
        self._state: tuple = ()
        self._found: Any = None

    def __call__(self, compute: Callable, *parameters: Tensor) -> Any:
        is_mixed = torch.is_autocast_enabled(parameters[0].device.type)
        if torch.is_grad_enabled() or is_mixed or any(parameter.is_inference() for parameter in parameters):
            return compute(*parameters)
        state = tuple((parameter.data_ptr(), parameter._version, parameter.dtype) for parameter in parameters)
        if self._found is None or state != self._state:
            self._found, self._state = compute(*parameters), state
            self._given = tuple(
                parameter.detach() for parameter in parameters
            )  # holds their memory: no other takes its place
        return kept(self._found)

    def __deepcopy__(self, memo: dict) -> Derived:
        """Empty: a copy's parameters lie elsewhere."""
        return Derived()

    def __reduce__(self) -> tuple:
        """Empty, as a copy is."""
        return Derived, ()
