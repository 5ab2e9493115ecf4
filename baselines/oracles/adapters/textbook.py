"""The gated delta rule in chunks as its paper writes it, through torch.compile: what a day's work and a compiler of others give.

Yang, Kautz, Hatamizadeh 2024, arXiv 2412.06464, Section 3.3, a chunk's rows as matrices, G the sums of log-forgetting within it:

    D = tril(exp(G_i - G_j)),   T = (I + stril(b K K^T * D))^-1,   U = T b V,   W = T b e^G K
    E = U - W S,   Y = e^G Q S + (Q K^T * D) E,   S <- e^G_last S + (e^(G_last - G) K)^T E
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.shell.compiled import BACKEND, CannotCompile, check, torch_as_it_was

CHUNK = 64
Rule = Callable[..., tuple[Tensor, Tensor]]


def gated_delta_rule(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """y [b, t, h, v] and the last state [b, h, k, v] from an empty one, t a multiple of CHUNK.

    q, k [b, t, h, k]; v [b, t, h, v]; g, the logarithm of what stays, and beta, the rate, [b, t, h].
    """
    pieces = v.shape[1] // CHUNK
    q, k, v = (x.unflatten(1, (pieces, CHUNK)).permute(0, 3, 1, 2, 4) for x in (q, k, v))
    g, beta = (x.unflatten(1, (pieces, CHUNK)).permute(0, 3, 1, 2) for x in (g, beta))
    G, beta = g.cumsum(-1), beta[..., None]
    e, D = G.exp()[..., None], (G[..., None] - G[..., None, :]).tril().exp().tril()
    system = (beta * k @ k.mT * D).tril(-1) + torch.eye(CHUNK, dtype=k.dtype)
    both = torch.cat([beta * v, beta * e * k], -1)
    U, W = torch.linalg.solve_triangular(system, both, upper=False, unitriangular=True).split(
        [v.shape[-1], k.shape[-1]], -1
    )
    read, scores, left = e * q, q @ k.mT * D, ((G[..., -1:] - G).exp()[..., None] * k).mT
    state, ys = v.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1]), []
    for i in range(pieces):
        E = U[:, :, i] - W[:, :, i] @ state
        ys.append(read[:, :, i] @ state + scores[:, :, i] @ E)
        state = e[:, :, i, -1:] * state + left[:, :, i] @ E
    return torch.cat(ys, 2).transpose(1, 2), state


def compiled(rule: Rule = gated_delta_rule) -> Rule:
    """`rule` as torch's inductor compiles it for the shapes of a call, forward and backward.

    Without a gradient it computes what it computes with one, so that it is compiled once: before a benchmark of level
    "operation" looks at the clock, as an error is taken first. Raises CannotCompile in one sentence
    where there is no C++ compiler, and when it is called where inductor fails.
    """
    check("cpu")
    found = torch.compile(rule, backend=BACKEND, dynamic=False, fullgraph=True)

    def call(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            return found(*inputs)
        try:
            with torch_as_it_was(), torch.enable_grad():
                y, state = found(*(x.detach().requires_grad_() for x in inputs))
                y.sum().backward()
        except Exception as error:
            first = " ".join(str(error).split("\n\n")[0].split())
            raise CannotCompile(f"inductor fails on {rule.__name__}: {type(error).__name__}: {first}") from error
        return y.detach(), state.detach()

    return call
