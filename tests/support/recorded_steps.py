"""Models that decode from records, and the same tokens by the layers alone: what the tests of decoding compare."""

from __future__ import annotations

import torch

from models.language_model import seeded
from models.shell.decoding.recorded_step import TRIALS, without_records
from models.shell.model import Size

SIZE = Size(64, 32, 2, 2)
PLAIN = "gated-deltanet mamba titans-lmm gru s5 rwkv4 mlstm hgrn2 yaad retnet linear-attention rebased"
MODELS = {name: {} for name in PLAIN.split()}
# With a place in the text, and with the tokens of an open segment.
MODELS |= {
    "titans-mag": {"window": 8},
    "titans-mal": {"window": 8},
    "titans-mac": {"segment": 16},
    "transformer-window": {"window": 8},
}


def made(name="gated-deltanet", **settings):
    return seeded(name, SIZE, 0, **settings).eval()


def text(rows=1, time=64):
    return torch.randint(64, (rows, time), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def decoded(model, tokens, state=None):
    """Logits of tokens one by one, and the last state."""
    found = []
    for t in range(tokens.shape[1]):
        y, state = model(tokens[:, t : t + 1], state)
        found.append(y)
    return torch.cat(found, 1), state


def leaves(state):
    if not isinstance(state, torch.Tensor | tuple):
        return [torch.tensor(-1 if state is None else state)]
    return [state] if isinstance(state, torch.Tensor) else [leaf for part in state for leaf in leaves(part)]


def of_layers(model, tokens, state=None):
    with without_records():
        return decoded(model, tokens, state)


def records(model):
    return [
        entry.record for entry in model._steps._entries.values() if entry.record is not None and entry.uses > TRIALS
    ]


def is_equal(one, other):
    return torch.equal(one[0], other[0]) and all(map(torch.equal, leaves(one[1]), leaves(other[1])))


def settled(name="gated-deltanet", **settings):
    """A model that decodes from a record, and a state to go on from."""
    model = made(name, **settings)
    _, state = decoded(model, text(time=128))
    assert records(model)
    return model, state
