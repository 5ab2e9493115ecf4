"""Whether a model may be examined on a text that is streamed: in pieces, the state carried, for any length."""

from __future__ import annotations

import torch
from torch import nn

from models.conformance.subject import LEAST, difference, feed
from models.matching.counts import state_bytes

SPLIT = 1e-3  # float32, relative: ten times the contract's bound for fresh weights, as training sharpens logits
LARGEST_STATE = 2**28  # bytes of one row's state


class NotStreamable(ValueError):
    """A model whose answers to a streamed text would be wrong, or whose state would not fit."""


def admit(model: nn.Module, length: int) -> None:
    """Let `model`, as its weights are now, be evaluated on `length` streamed tokens; raises NotStreamable if it must not.

    It must give in pieces what it gives in one, over more than two periods, and the state of one row must stay below
    256 MiB at `length`.
    """
    device = model.embedding.weight.device
    span = max(model.period, LEAST)
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(model.embedding.num_embeddings, (1, 2 * span + 21), generator=generator).to(device)
    whole, _ = feed(model, text)
    cuts = [1, 38, span - 1, span, span + 1, 2 * span, 2 * span + 7]
    error = difference(feed(model, text, cuts)[0], whole)
    if not error < SPLIT:
        raise NotStreamable(
            f"A text in pieces does not give what the whole gives (relative error {error:.2g}, bound {SPLIT:g}), so no "
            "long text can be streamed: mend the model's state (bench.py check says where), or ask shorter lengths."
        )
    at_one, at_two = (state_bytes(feed(model, text[:, : times * span])[1]) for times in (1, 2))
    growth = max(0, at_two - at_one) / span
    if at_two + growth * length > LARGEST_STATE:
        raise NotStreamable(
            f"The state grows by {growth:,.0f} bytes a token and would hold {growth * length / 2**20:,.0f} MiB after "
            f"{length:,} tokens: ask shorter lengths of this model, or take one with a fixed state."
        )
