"""MambaMixer: selective state spaces over tokens and over channels, each reading a weighted sum of all earlier layers.

Behrouz, Santacatterina, Zabih 2024, arXiv 2403.19888, read causally; y_Tok^(0) = y_Ch^(0) = the embedding:

    x_Tok^(l) = sum_{i<l}  alpha_{l,i} y_Tok^(i) + sum_{i<l} beta_{l,i} y_Ch^(i),    y_Tok^(l) = TokenMixer(x_Tok^(l))
    x_Ch^(l)  = sum_{i<=l} theta_{l,i} y_Tok^(i) + sum_{i<l} gamma_{l,i} y_Ch^(i),   y_Ch^(l) = ChannelMixer(x_Ch^(l))

TokenMixer is a Mamba block over the text. ChannelMixer cuts the width of each token, by itself, into `groups` pieces and runs a
small Mamba block over them in both directions, summed: over channels it may look ahead, over time it sees one token. The model
reads the last y_Ch.

There is no code of the authors. Choices where the paper is silent: the weights of the sums start at 1 for the newest term
(y_Ch of the layer before, y_Tok of this one) and 0 elsewhere; each block has a norm before it and its own residual, so that it
starts as the ordinary residual network; the channel mixer's input vectors are the pieces, its weights the same at every token.
For images the paper scans tokens both ways; a language model must not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models import registry
from models.law import Law
from models.layers import RMSNorm, linear_flops
from models.ops.channel_scan import channel_scan
from models.ops.channel_scan.recurrence import BlockWeights
from models.ops.flops import Flops
from models.ops.layer_sums.native import LayerSums, covers
from models.registry import register
from models.shell.carried_state import StateMismatch
from models.shell.model import Block, LanguageModel, Size

MAMBA = "mamba"


class ChannelMixer(nn.Module):
    """A Mamba block over the pieces of one token's channels, forwards and backwards: x [b, t, d] -> y [b, t, d]."""

    def __init__(self, width: int, groups: int, provider: str):
        super().__init__()
        if groups < 1 or width % groups:
            raise ValueError(f"groups {groups} must divide the width {width}; change groups.")
        self.groups, self.provider, mamba = groups, provider, registry.entry(MAMBA).cls
        self.norm = RMSNorm(width)
        self.scans = nn.ModuleList(mamba(width // groups, 1, provider=provider) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        pieces = self.norm(x).flatten(0, 1).unflatten(-1, (self.groups, -1))
        y = channel_scan(pieces, *map(_weights, self.scans), provider=self.provider)
        return x + y.flatten(1).view_as(x)

    def flops(self, time: int) -> Flops:
        """Of what each token passes beyond the once that the modules inside tell of themselves."""
        more = [part for scan in self.scans for part in self._more(scan, (self.groups - 1) * time)]
        return sum_of(more)

    def _more(self, scan: nn.Module, rows: int) -> tuple[Flops, Flops]:
        return scan.flops(rows), linear_flops(scan, rows)


def _weights(scan: nn.Module) -> BlockWeights:
    """What a Mamba block learns, for the scan over channels."""
    taps, step = scan.convolution, scan.step
    return BlockWeights(
        scan.project.weight, taps.weight[:, 0], taps.bias, scan.select.weight, step.weight, step.bias, -scan.A_log.exp(),
        scan.D, scan.out.weight,
    )  # fmt: skip


def sum_of(parts: Sequence[Flops]) -> Flops:
    """The operations of all parts."""
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part)
    return total


@register(
    "mambamixer",
    paper="Behrouz, Santacatterina and Zabih 2024, arXiv 2403.19888",
    equation="y_Tok = Mamba(sum alpha y_Tok + sum beta y_Ch);  y_Ch = Mamba over channels(sum theta y_Tok + sum gamma y_Ch)",
)
class MambaMixer(LanguageModel):
    """A whole language model. State: a tuple of the token mixers' own; the channel mixers have none."""

    law = Law(
        forget="exp(Delta A), per number, from x",
        compare="-",
        write="Delta B x",
        read="C h + D x, then over channels",
    )
    reading = "causal over tokens; first weights of the sums, norms, residuals, the channel mixer's pieces"
    fixed_state = True
    mixes_channels = True
    state_setting = "states"
    no_weight_decay = ("tokens", "channels")

    def __init__(
        self,
        size: Size,
        feed: int,
        inner: int | None = None,
        states: int = 16,
        groups: int = 16,
        provider: str = "auto",
    ):
        """`inner` is the number of the token mixers' channels, twice the width by default; `feed` is not used."""
        mamba, width = registry.entry(MAMBA).cls, size.width
        mixers = [mamba(width, size.heads, inner, states, provider=provider) for _ in range(size.depth)]
        super().__init__(size, [Block(width, mixer, 0) for mixer in mixers])
        self.mixers = nn.ModuleList(ChannelMixer(width, groups, provider) for _ in range(size.depth))
        # Of layer l: alpha and beta [l] each; gamma [l] and theta [l + 1]. The newest term is the last.
        self.tokens = nn.ParameterList(_newest(layer, layer) for layer in range(1, size.depth + 1))
        self.channels = nn.ParameterList(_newest(layer, layer + 1) for layer in range(1, size.depth + 1))
        self.provider = provider
        self.register_buffer("places", _places(size.depth), persistent=False)

    @classmethod
    def made_of(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Its token mixer is the registered Mamba."""
        return (MAMBA,)

    def hidden(self, tokens: Tensor, state: tuple | None) -> tuple[Tensor, tuple]:
        """What the logits are made of, and the token mixers' states."""
        if state is not None and (not isinstance(state, tuple | list) or len(state) != len(self.blocks)):
            raise StateMismatch(f"That state is no tuple of {len(self.blocks)} mixers' states: it is another model's.")
        x = self.embedding(tokens)
        sums = LayerSums(self._weights()) if covers(x, self.provider) else _PlainSums(self.tokens, self.channels)
        sums.add(x), sums.add(x)
        states = []
        for index, (block, mixer) in enumerate(zip(self.blocks, self.mixers, strict=True)):
            if index:
                sums.add(x)
            y, after = block(sums.next(), None if state is None else state[index])
            sums.add(y)
            x = mixer(sums.next())
            states.append(after)
        return self.norm(x), tuple(states)

    def _weights(self) -> Tensor:
        """The weights of all sums [2 depth, 2 depth + 1], in the order in which sums and their terms are made."""
        learned = [one for pair in zip(self.tokens, self.channels, strict=True) for one in pair]
        return torch.cat([*learned, learned[0].new_zeros(1)])[self.places]


def _places(depth: int) -> Tensor:
    """Where each sum's weight of each term lies, the weights of all sums side by side; behind the last for a term not yet made.

    Terms are made in turn, y_Tok and y_Ch of each layer, and so are the sums, of a layer's tokens and channels.
    """
    begin, all_of_them = 0, depth * (2 * depth + 1) + depth
    places = torch.full((2 * depth, 2 * depth + 1), all_of_them)
    for layer in range(1, depth + 1):
        for place, (tokens, channels) in enumerate(((0, layer), (layer, 0)), start=2 * layer - 2):
            places[place, : 2 * layer : 2] = begin + tokens + torch.arange(layer)
            places[place, 1 : 2 * layer : 2] = begin + channels + torch.arange(layer)
            if channels == 0:  # the sum for channels has this layer's y_Tok, too
                places[place, 2 * layer] = begin + 2 * layer
            begin += 2 * layer + (channels == 0)
    return places


class _PlainSums:
    """`LayerSums` by PyTorch's operators."""

    def __init__(self, tokens: Sequence[Tensor], channels: Sequence[Tensor]):
        self.weights = [one for pair in zip(tokens, channels, strict=True) for one in pair]
        self.terms: list[Tensor] = []
        self.place = 0

    def add(self, y: Tensor) -> None:
        self.terms.append(y)

    def next(self) -> Tensor:
        tokens, channels = self.terms[::2], self.terms[1::2]
        weights, of_channels = self.weights[self.place], self.place % 2
        self.place += 1
        return _weighted(weights, [*channels, *tokens] if of_channels else [*tokens, *channels])


def _newest(*counts: int) -> nn.Parameter:
    """Weights of a sum whose last term is the newest: 1 for that, 0 for the others."""
    weights = torch.zeros(sum(counts))
    weights[-1] = 1
    return nn.Parameter(weights)


def _weighted(weights: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """The sum of the terms, each times a number of its own."""
    numbers = weights.to(terms[0].dtype).unbind()
    total = numbers[0] * terms[0]
    for number, term in zip(numbers[1:], terms[1:], strict=True):
        total = total + number * term
    return total
