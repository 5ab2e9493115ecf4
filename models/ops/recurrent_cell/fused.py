"""torch's own LSTM and GRU where they compute the same and are the faster: cuDNN's on a CUDA device, oneDNN's LSTM on a CPU.

On a CPU the LSTM is oneDNN's for float32 alone, 2 to 6 times as fast as the loop by hand; the GRU is a loop of torch's under
automatic differentiation there, half as fast as ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.ops.recurrent_cell.cells import Inputs

LEAST = 2  # tokens on a CPU: a single one is sooner done by hand than handed over


def covers(cell: str, given: Inputs) -> bool:
    """True if torch's own form computes this cell and is the faster."""
    if cell not in ("lstm", "gru") or given.weight is None or given.peephole is not None or len(given.recurrent) > 1:
        return False
    if given.x.device.type == "cuda":
        return torch.backends.cudnn.is_acceptable(given.x)
    usable = given.x.device.type == "cpu" and given.x.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return cell == "lstm" and usable and torch.backends.mkldnn.enabled and given.x.shape[1] >= LEAST


def run(cell: str, given: Inputs) -> tuple[Tensor, Tensor]:
    """y [b, t, d] and the last state [b, s, d]; the second bias, which torch has, is the GRU's b_n or nothing."""
    bias = given.weight.new_zeros(len(given.weight)) if given.bias is None else given.bias
    inner = torch.zeros_like(bias)
    if given.candidate_bias is not None:
        inner = torch.cat([inner[: -len(given.candidate_bias)], given.candidate_bias])
    weights = [given.weight, given.recurrent[0], bias, inner]
    state = [part[None].contiguous() for part in given.state.unbind(1)]
    # One layer with biases, without dropout, in one direction, batch first.
    settings = True, 1, 0.0, torch.is_grad_enabled(), False, True
    if cell == "lstm":
        y, *last = torch._VF.lstm(given.x, state, weights, *settings)
    else:
        y, *last = torch._VF.gru(given.x, state[0], weights, *settings)
    return y, torch.stack([part[0] for part in last], 1)
