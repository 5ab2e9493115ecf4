"""One token of the matrix state's law, compiled on its own: the digits of a text's first, also where both states are one."""

from __future__ import annotations

import ctypes

import pytest
import torch
import torch.nn.functional as F

from models.ops import native_build
from models.ops.scan.native import SOURCE, Law, _macros, _text
from models.ops.scan.recurrence import recurrence

HEADS = 3


@pytest.mark.skipif(not native_build.compiler(), reason="no C compiler is here")
@pytest.mark.parametrize("width", (4, 24, 64))
@pytest.mark.parametrize("compare", (False, True))
@pytest.mark.parametrize("decay", (0, 1, 2))
def test_one_token_has_the_digits_of_a_texts_first(decay, compare, width):
    keys, generator = 12, torch.Generator().manual_seed(width)
    q, k = (torch.randn(1, 2, HEADS, keys, generator=generator) for _ in range(2))
    k, v = F.normalize(k, dim=-1), torch.randn(1, 2, HEADS, width, generator=generator)
    rate = torch.rand(1, 2, HEADS, generator=generator)
    shape = (1, 2, HEADS, keys)[: decay + 2] if decay else None
    log_forget = torch.rand(shape, generator=generator).log() if shape else None
    state = torch.randn(1, HEADS, keys, width, generator=generator)
    law = Law(decay, compare, False, True)
    read = native_build.compiled(SOURCE, torch.float32, "forward", "pppppi", **_macros(keys, width, torch.float32, law))

    def run(time: int, before: torch.Tensor, after: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
        parts = [None if x is None else x[:, :time].contiguous() for x in (q, k, k, v, log_forget, rate)]
        parts[4] = None if parts[4] is None else parts[4].exp()
        y, at = torch.empty_like(parts[3]), None if kept is None else kept.data_ptr()
        read(ctypes.byref(_text(*parts)), before.data_ptr(), after.data_ptr(), y.data_ptr(), at, 1)
        return y

    kept = torch.empty(1, HEADS, 1, keys, width)
    by_pieces, alone, both = torch.empty_like(state), torch.empty_like(state), state.clone()
    wanted = run(1, state, by_pieces, kept)  # what training keeps goes the way of a text
    y, again = run(1, state, alone, None), run(1, both, both, None)
    assert torch.equal(y, wanted) and torch.equal(alone, by_pieces)
    assert torch.equal(again, wanted) and torch.equal(both, by_pieces), "written over, the state is the same"
    first = [None if x is None else x[:, :1].double() for x in (q, k, v, log_forget, rate)]
    law_y, law_state = recurrence(*first[:3], log_forget=first[3], rate=first[4], compare=compare, state=state.double())
    torch.testing.assert_close(y.double(), law_y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone.double(), law_state, rtol=1e-5, atol=1e-5)
