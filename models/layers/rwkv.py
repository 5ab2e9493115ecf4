"""What the versions of RWKV share: the token shift and the channel mixing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def token_shift(x: Tensor, last: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """RWKV's shift: the token before each, x [b, t, d] -> [b, t, d], and the last token [b, d], which is the next piece's `last`.

    Before the first token of a text stand zeros.
    """
    before = torch.zeros_like(x[:, 0]) if last is None else last.to(x.dtype)
    return torch.cat([before[:, None], x[:, :-1]], dim=1), x[:, -1].clone()


def embedding_spread(width: int) -> float:
    """Standard deviation of an embedding that is tied to the output, for blocks that add nothing at first.

    The authors' models have an output of their own beside an embedding of at most 1e-4. Tied, one as small would hardly learn;
    2 / width lets a token's own logit begin at 2.
    """
    return 2 / width


class RWKVChannelMixing(nn.Module):
    """RWKV's feed-forward layer: `sigmoid(W_r x_r) * W_v relu(W_k x_k)^2`, and `W_v relu(W_k x_k)^2` without a gate.

    x_k and x_r are each token with a share `mix` of the one before it, `x + mix (shift(x) - x)`, per channel; `mix` [2, d], or
    [1, d] without a gate, is what training begins with. State: the last token [b, d]. W_k is orthogonal times `gain` and both
    others are zero at first, as the authors' trainer makes them. A version that mixes otherwise overrides `mixed`.
    """

    no_weight_decay = ("mix",)

    def __init__(self, width: int, inner: int, mix: Tensor, gain: float = 1.0):
        super().__init__()
        self.mix = nn.Parameter(mix)
        self.key, self.value = nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False)
        self.gate = nn.Linear(width, width, bias=False) if len(mix) == 2 else None
        nn.init.orthogonal_(self.key.weight, gain)
        for closed in (self.value, self.gate):
            if closed is not None:
                nn.init.zeros_(closed.weight)

    def forward(self, x: Tensor, last: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shifted, last = token_shift(x, last)
        mixed = [self.mixed(x, shifted, share.to(x.dtype)) for share in self.mix]
        y = self.value(F.relu(self.key(mixed[0])).square())
        return y if self.gate is None else self.gate(mixed[1]).sigmoid() * y, last

    @staticmethod
    def mixed(x: Tensor, shifted: Tensor, share: Tensor) -> Tensor:
        """Tokens with a share of those before them."""
        return torch.lerp(x, shifted, share)
