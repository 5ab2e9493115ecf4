"""A sound token mixer, and many that break the contract, each in one way."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.kernels.scan import chunked
from models.layers import l2_norm, split_heads


class Sound(nn.Module):
    """Linear attention with a fixed decay: the least mixer that holds the contract."""

    period = 64
    fixed_state = True

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, state=None) -> tuple[Tensor, tuple]:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        decay = torch.full((*q.shape[:3],), -0.05, device=x.device)
        y, matrix = chunked(q, k, v, log_forget=decay, state=None if state is None else state[0])
        return self.out(y.flatten(2)), (matrix,)


class SeesNextToken(Sound):
    def forward(self, x, state=None):
        return super().forward(x + 0.01 * torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1), state)


class SeesMeanOfText(Sound):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y - 0.1 * y.mean(1, keepdim=True), state


class SeesLaterValueOnly(Sound):
    """A leak that no gradient shows."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + 0.1 * (x[:, -1:, :1] > 0), state


class MixesRows(Sound):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + 0.01 * x.mean(0, keepdim=True), state


class MixesRowsOfState(Sound):
    def forward(self, x, state=None):
        if state is not None:
            state = (0.9 * state[0] + 0.1 * state[0].mean(0, keepdim=True),)
        return super().forward(x, state)


class DropsState(Sound):
    def forward(self, x, state=None):
        return super().forward(x, None)


class DropsStateAtPeriod(Sound):
    """Forgets where a piece begins exactly at a period's border."""

    def forward(self, x, state=None):
        place = 0 if state is None else state[1]
        y, (matrix,) = super().forward(x, None if state is None or place % 64 == 0 else state)
        return y, (matrix, place + x.shape[1])


class WritesIntoState(Sound):
    def forward(self, x, state=None):
        if state is not None and not torch.is_grad_enabled():
            y, (matrix,) = super().forward(x, state)
            state[0].copy_(matrix)
            return y, state
        return super().forward(x, state)


class WritesIntoGrowingState(WritesIntoState):
    """A cache extended without a look at who else holds it: its numbers are not compared, only its logits."""

    fixed_state = False


class CountsInState(Sound):
    """Changes the state passed in where no logit shows it."""

    def forward(self, x, state=None):
        y, (matrix,) = super().forward(x, state)
        seen = x.new_zeros(x.shape[0]) if state is None else state[1]
        return y, (matrix, seen.add_(x.shape[1]))


class DetachesState(Sound):
    def forward(self, x, state=None):
        y, (matrix,) = super().forward(x, state)
        return y, (matrix.detach(),)


class KeepsAllInputs(Sound):
    def forward(self, x, state=None):
        y, (matrix,) = super().forward(x, state)
        return y, (matrix, x if state is None else torch.cat([state[1], x], 1))


class KeepsViewOfInputs(Sound):
    """The last input, but as a view that keeps the whole piece alive."""

    def forward(self, x, state=None):
        y, (matrix,) = super().forward(x, state)
        return y, (matrix, x[:, -1:])


class ClaimsNothing(Sound):
    fixed_state = None


class StateWithoutBatch(Sound):
    def forward(self, x, state=None):
        y, (matrix,) = super().forward(x, None if state is None else (state[0].movedim(1, 0),))
        return y, (matrix.movedim(0, 1),)


class StateWithFloat(Sound):
    def forward(self, x, state=None):
        y, (matrix,) = super().forward(x, state)
        return y, (matrix, 0.5)


class UnusedParameter(Sound):
    def __init__(self, width: int, heads: int):
        super().__init__(width, heads)
        self.spare = nn.Parameter(torch.zeros(3))


class ZeroGradient(UnusedParameter):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + 0 * self.spare.sum(), state


class GradientNotANumber(UnusedParameter):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + 0 * self.spare.sum().sqrt(), state


class ExcusedParameter(UnusedParameter):
    no_gradient = {"spare": "kept for a rainy day"}


class ExcusesNothing(Sound):
    no_gradient = {"ghost": "is not there"}


class Noisy(Sound):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + 1e-3 * torch.randn_like(y), state


class HidesParameter(Sound):
    """A drawn number that the state dict does not hold."""

    def __init__(self, width: int, heads: int):
        super().__init__(width, heads)
        self.hidden = torch.rand(1)

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y * (1 + self.hidden.to(y)), state


class WrongInHalf(Sound):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return (y + 1 if torch.is_autocast_enabled("cpu") else y), state


class FailsInHalf(Sound):
    """Mixes the dtypes that autocast gives."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        place = torch.arange(x.shape[1])[None, :, None].expand(x.shape)
        return torch.zeros_like(x).scatter_add(1, place, y), state


class NoMemory(nn.Module):
    period = 1
    fixed_state = True

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, state=None):
        return self.out(x), ()


class NeedsTwoTokens(Sound):
    def forward(self, x, state=None):
        if x.shape[1] == 1:
            raise IndexError("one token is too short")
        return super().forward(x, state)


class TooLarge(Sound):
    def __init__(self, width: int, heads: int):
        super().__init__(width, heads)
        self.spare = nn.Parameter(torch.ones(100_000))


class DecaysByInput(Sound):
    """No fault in itself: a second generation's transition."""

    def forward(self, x, state=None):
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        y, matrix = chunked(q, k, v, log_forget=self._decay(k), state=None if state is None else state[0])
        return self.out(y.flatten(2)), (matrix,)

    def _decay(self, k):
        return -k.square().mean(-1)


class DecaysFaintlyByInput(DecaysByInput):
    """As far from a fixed decay as a thousandth of a logarithm."""

    def _decay(self, k):
        return -0.05 - 1e-3 * k.square().mean(-1)


class Compares(Sound):
    """No fault in itself: a third generation's transition, the delta rule."""

    def forward(self, x, state=None):
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        rate = 0.5 + 0 * k[..., 0]
        y, matrix = chunked(q, l2_norm(k), v, rate=rate, compare=True, state=None if state is None else state[0])
        return self.out(y.flatten(2)), (matrix,)


class ForgetsAtOnce(Sound):
    """Nothing of a state outlives the next token."""

    def forward(self, x, state=None):
        y, _ = super().forward(x, None)
        return y, (x[:, -1:].clone(),)


class FaintlyOffInPieces(Sound):
    """Wrong by a few times the bound wherever a state comes in."""

    def forward(self, x, state=None):
        y, after = super().forward(x, state)
        return (y if state is None else 1.01 * y), after


class IllConditioned(Sound):
    """Right, but float32's last bits grow beyond the bound."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + 0.1 * torch.sin(1e3 * y), state


class CoarseInPieces(Sound):
    """A state handed on in fewer bits than it was computed in."""

    def forward(self, x, state=None):
        y, (matrix,) = super().forward(x, None if state is None else (state[0].to(x.dtype),))
        return y, (matrix.bfloat16(),)
