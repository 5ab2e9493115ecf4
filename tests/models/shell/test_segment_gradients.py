"""Models that read a text segment by segment: what their backward pass fills grows with the text, not with its square."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import baselines  # noqa: F401  fills the registry
from models.language_model import Size, build
from models.shell.segments import cut, pieces

SEGMENT = 8
MODELS = ("titans-mac", "rmt", "memformer", "feng")


class Filled(TorchDispatchMode):
    """Counts the numbers that a slice's gradient fills with zeros around it."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ == "slice_backward":
            self.numbers += found.numel()
        return found


def filled(name: str, segments: int) -> int:
    torch.manual_seed(0)
    own = {"segment": SEGMENT} | ({"chunk": SEGMENT} if name == "titans-mac" else {})
    model = build(name, Size(16, 16, 1, 2), match=False, **own)
    logits, _ = model(torch.zeros(1, segments * SEGMENT, dtype=torch.long))
    with Filled() as zeros:
        logits.sum().backward()
    return zeros.numbers


@pytest.mark.parametrize("name", MODELS)
def test_what_the_backward_pass_fills_grows_with_the_text(name):
    assert filled(name, 32) <= 2.5 * filled(name, 16)


def test_a_text_is_cut_where_its_pieces_are():
    x = torch.arange(2 * 11 * 3).view(2, 11, 3)
    wanted = [x[:, piece] for piece in pieces(11, 3, 4)]
    found = cut(x, 3, 4)
    assert [len(part[0]) for part in found] == [1, 4, 4, 2]
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
