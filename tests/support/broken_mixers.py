"""A sound token mixer, and many that break the contract, each in one way."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from models.language_model import Block, LanguageModel, Size
from models.layers import l2_norm, split_heads
from models.ops.scan.chunked import chunked
from models.ops.scan.recurrence import recurrence


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

    def forward(self, x, state=None):
        y, (matrix,) = super().forward(x, None if state is None else state[:1])
        return y, (matrix, x if state is None else torch.cat([state[1], x], 1))


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


class ClaimsToGrow(Sound):
    """A fixed state that is declared as growing."""

    fixed_state = False


class DropsStateLate(Sound):
    """Forgets at a cut behind token 512, which two periods do not reach."""

    def forward(self, x, state=None):
        place = 0 if state is None else state[1]
        y, (matrix,) = super().forward(x, None if state is None or place > 512 else state)
        return y, (matrix, place + x.shape[1])


class DropsStateInEval(Sound):
    def forward(self, x, state=None):
        return super().forward(x, state if self.training else None)


class SeesNextTokenInEval(Sound):
    def forward(self, x, state=None):
        following = torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)
        return super().forward(x if self.training else x + 0.01 * following, state)


def law_of_sound(mixer: Sound, x: Tensor, state=None) -> tuple[Tensor, tuple]:
    """Sound's law, token by token."""
    q, k, v = (split_heads(part, mixer.heads) for part in mixer.qkv(x).chunk(3, dim=-1))
    decay = torch.full((*q.shape[:3],), -0.05, dtype=x.dtype)
    y, matrix = recurrence(q, k, v, log_forget=decay, state=None if state is None else state[0])
    return mixer.out(y.flatten(2)), (matrix,)


class SoundWithReference(Sound):
    """No fault: its fast form is its reference recurrence."""

    reference = staticmethod(law_of_sound)

    def forward(self, x, state=None):
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        decay = torch.full((*q.shape[:3],), -0.05, dtype=x.dtype, device=x.device)
        y, matrix = chunked(q, k, v, log_forget=decay, state=None if state is None else state[0])
        return self.out(y.flatten(2)), (matrix,)


class DecaysTwiceEvery16(Sound):
    """Consistent in any pieces, causal, bounded: only the reference recurrence knows that no token decays twice."""

    reference = staticmethod(law_of_sound)

    def forward(self, x, state=None):
        matrix, place = (None, 0) if state is None else state
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        places = torch.arange(place, place + x.shape[1], device=x.device)
        decay = torch.where(places % 16 == 15, -0.1, -0.05).to(x.dtype)[None, :, None].expand(q.shape[:3])
        y, matrix = chunked(q, k, v, log_forget=decay, state=matrix)
        return self.out(y.flatten(2)), (matrix, place + x.shape[1])


class _Louder(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        return 1.01 * dy


class GradientOffTheLaw(SoundWithReference):
    """The recurrence's outputs, with a backward pass by hand that is off."""

    def forward(self, x, state=None):
        y, state = super().forward(_Louder.apply(x), state)
        return y, state


class DetachesAtBorders(Sound):
    """No fault in itself: gradients stop where a segment of 64 ends."""

    detaches = "at the border of each segment"

    def forward(self, x, state=None):
        matrix, place = (None, 0) if state is None else state
        ys = []
        while x.shape[1]:
            step = min(64 - place % 64, x.shape[1])
            y, (matrix,) = super().forward(x[:, :step], None if matrix is None else (matrix,))
            ys.append(y)
            x, place = x[:, step:], place + step
            matrix = self.border(matrix) if place % 64 == 0 else matrix
        return torch.cat(ys, 1), (matrix, place)

    def border(self, matrix):
        return matrix.detach()


class DetachesUnsaid(DetachesAtBorders):
    detaches = False


class DetachesAndForgets(DetachesAtBorders):
    """Says that only gradients stop, and keeps nothing either."""

    def border(self, matrix):
        return torch.zeros_like(matrix)


class Turns(nn.Module):
    """No fault in itself: a memory of complex numbers, each turned and decayed by itself."""

    period = 1
    fixed_state = True

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.into, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x, state=None):
        u = self.into(x)
        u = u.to(torch.promote_types(u.dtype, torch.float32))
        turn = torch.exp(self.logarithm(u))
        h = torch.zeros_like(turn[:, 0]) if state is None else state[0]
        ys = []
        for t in range(x.shape[1]):
            h = turn[:, t] * h + u[:, t]
            ys.append(h.real)
        return self.out(torch.stack(ys, 1).to(x.dtype)), (h,)

    def logarithm(self, u):
        return torch.complex(torch.full_like(u, -0.05), torch.full_like(u, 0.3))


class TurnsByInput(Turns):
    def logarithm(self, u):
        return torch.complex(-0.05 - 0.1 * u.square(), torch.full_like(u, 0.3))


class LooksIntoComplexRows(Turns):
    """Rows meet in the complex state alone."""

    def forward(self, x, state=None):
        y, (h,) = super().forward(x, state)
        return y, (0.9 * h + 0.1 * h.mean(0, keepdim=True),)


class ExceptedCompares(Compares):
    family_exception = "compares by a rate that is never learned"


class Whole(LanguageModel):
    """A sound language model."""

    fixed_state = True

    def __init__(self, size: Size, feed: int):
        super().__init__(size, [Block(size.width, Sound(size.width, size.heads), feed) for _ in range(size.depth)])


class StumblesOverNothing(Whole):
    def forward(self, tokens, state=None):
        if not tokens.shape[1]:
            raise IndexError("an empty piece has no last token")
        return super().forward(tokens, state)


class ForgetsOverNothing(Whole):
    def forward(self, tokens, state=None):
        logits, state = super().forward(tokens, state)
        return logits, state if tokens.shape[1] else None


class StumblesOverDoubles(Whole):
    def forward(self, tokens, state=None):
        if any(getattr(leaf, "dtype", None) == torch.float64 for leaf in tree_leaves(state)):
            raise RuntimeError("expected scalar type Float but found Double")
        return super().forward(tokens, state)


class BlindToDoubles(Whole):
    """A state of another dtype counts as none, without a word."""

    def forward(self, tokens, state=None):
        odd = any(getattr(leaf, "dtype", None) == torch.float64 for leaf in tree_leaves(state))
        return super().forward(tokens, None if odd else state)
