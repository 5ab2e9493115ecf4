"""Exact nearest neighbours of many queries among many keys, by squared distance: in plain PyTorch, or by faiss.

`nearest` finds a few more than are asked by |k|^2 - 2 q.k, measures these again as |q - k|^2, which has no cancellation and does
not depend on who else is asked, and sorts them by distance and then by place: so a text in pieces finds what the whole finds.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Search = Literal["auto", "torch", "faiss"]

QUERIES = 128  # of one product
BLOCK = 128  # keys, of which only the blocks with the nearest are sorted
SPARE = 32  # more than are asked, among which rounding and ties are settled
LARGE = 100_000  # keys beyond which `auto` takes faiss where it is installed


def provider_of(search: Search, keys: int) -> str:
    """Who searches: "torch" or "faiss". Raises ValueError where faiss is asked for and absent."""
    there = find_spec("faiss") is not None
    if search == "faiss" and not there:
        raise ValueError("search='faiss' needs the package faiss, which is not installed: pip install faiss-cpu.")
    return "faiss" if search == "faiss" or (search == "auto" and there and keys > LARGE) else "torch"


def nearest(queries: Tensor, keys: Tensor, count: int, provider: str = "torch") -> tuple[Tensor, Tensor]:
    """Places [n, count] and squared distances [n, count] of the keys nearest to each query, the nearest first.

    Shapes: queries [n, d], keys [m, d]; fewer than `count` where there are fewer keys. Of equally near ones the earlier.
    """
    wanted = min(count + SPARE, len(keys))
    with torch.no_grad():
        rough = _by_faiss if provider == "faiss" else _by_products
        places = rough(queries.detach(), keys, wanted).sort(-1)[0]
    away = (queries[:, None] - keys[places]).square().sum(-1)
    order = away.detach().argsort(dim=-1, stable=True)[:, :count]
    return places.gather(1, order), away.gather(1, order)


def _by_products(queries: Tensor, keys: Tensor, count: int) -> Tensor:
    """Places of `count` nearest: the nearest lie in those `count` blocks whose nearest are the nearest."""
    filling = (0, -len(keys) % BLOCK)
    squares = F.pad(keys.square().sum(-1), filling, value=float("inf"))
    filled = F.pad(keys, (0, 0, *filling))
    blocks, found = len(filled) // BLOCK, []
    for some in queries.split(QUERIES):
        away = torch.addmm(squares, some, filled.T, alpha=-2).view(len(some), blocks, BLOCK)
        best = away.amin(-1).topk(min(count, blocks), largest=False)[1]
        among = away.gather(1, best[..., None].expand(-1, -1, BLOCK)).flatten(1).topk(count, largest=False)[1]
        found.append(best.gather(1, among // BLOCK) * BLOCK + among % BLOCK)
    return torch.cat(found) if found else torch.empty(0, count, dtype=torch.long, device=keys.device)


def _by_faiss(queries: Tensor, keys: Tensor, count: int) -> Tensor:
    """The same by faiss's exact search, `IndexFlatL2`'s."""
    import faiss  # optional, and slow to import

    asked, there = (x.float().cpu().contiguous().numpy() for x in (queries, keys))
    return torch.from_numpy(faiss.knn(asked, there, count)[1]).to(keys.device)
