"""kNN-LM: what followed the nearest of all earlier contexts is mixed into what the trained model expects.

Khandelwal et al. 2020, arXiv 1911.00172, Section 2, whose code is urvashik/knnlm:

    p = l p_knn + (1 - l) p_lm,    p_knn(y) = sum_{i in N: v_i = y} exp(-|q - k_i|^2 / T) / sum_{i in N} exp(-|q - k_i|^2 / T)

A key k [D] is the input of the last layer's feed-forward, after its norm (where a layer has none, the last norm's output), of a
context; its value v the token that followed; q is the key of the context at hand and N its k nearest keys, found exactly.

`store="training"`: keys of the first `entries` tokens that the base was trained on; static, no part of the state. Their number
and the sizes here are a laptop's: k 32 for 1,024, 100,000 entries for 103 million.
`store="text"` is the continuous cache of Grave, Joulin, Usunier 2017, arXiv 1612.04426: keys and values of the row's own past,
all of them, or the last `cache`; they are part of the state. A key's value is known a token later: the current one never counts.

The share l (`weight`) is chosen on the validation split. Without keys the model is its base.

Deviation: the continuous cache compares by squared distance, as kNN-LM does, and takes the same share; Grave et al. take
exp(theta q.k) of an LSTM's states. The paper has no temperature T; 1 is its form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from baselines.external_memory.nearest import Search, nearest, provider_of
from models.attention import extend
from models.law import Law
from models.layers import at_least_float32
from models.ops.providers import note
from models.registry import register
from models.shell.added_memory import AddedMemory, Texts

QUERIES = 256  # rows of one comparison with the text's own past
State = tuple[tuple, tuple | None]  # the base's state; keys [b, room, D], the tokens there [b, room], how many


@register(
    "knn-lm",
    paper="Khandelwal et al. 2020, arXiv 1911.00172; Grave, Joulin and Usunier 2017, arXiv 1612.04426",
    equation="p = l p_knn + (1 - l) p_lm,  p_knn ~ exp(-|q - k_i|^2) over the nearest stored contexts",
)
class KNNLM(AddedMemory):
    """A trained model with a store of contexts and what followed. State: the base's, and with `store="text"` the text's keys."""

    law = Law(
        forget="-, or what is older than `cache`",
        compare="|q - k_i|^2, when read",
        write="a context's k and the token behind it",
        read="l p_knn + (1 - l) p_lm",
    )
    grid, default = {"weight": (0.1, 0.25, 0.5, 0.75)}, {"weight": 0.25}

    def __init__(
        self,
        model: nn.Module,
        base: str = "transformer",
        base_settings: Mapping[str, Any] | None = None,
        store: Literal["training", "text"] = "training",
        entries: int = 100_000,
        neighbours: int = 32,
        weight: float | None = None,
        temperature: float = 1.0,
        cache: int | None = None,
        search: Search = "auto",
        provider: str = "auto",
    ):
        """`base`, `base_settings` and `provider` are the trained model's; `weight` None is chosen on validation."""
        super().__init__(model, weight=weight)
        if store not in ("training", "text") or (cache is not None and (store != "text" or cache < 1)):
            raise ValueError(
                "knn-lm takes store='training' or 'text', and with 'text' a cache of at least 1 token or None."
            )
        if min(entries, neighbours) < 1 or temperature <= 0 or not (weight is None or 0 <= weight < 1):
            raise ValueError("knn-lm needs entries and neighbours >= 1, temperature > 0 and 0 <= weight < 1 (or None).")
        self.store, self.neighbours, self.temperature, self.cache = store, neighbours, temperature, cache
        self.entries, self.search = entries if store == "training" else 0, search
        provider_of(search, 0)  # refuses what is not installed
        self.register_buffer("keys", None, persistent=False)
        self.register_buffer("values", None, persistent=False)

    @classmethod
    def grows(cls, settings: Mapping[str, Any]) -> bool:
        """Whether keys of the text are kept without a limit."""
        return settings.get("store") == "text" and settings.get("cache") is None

    @classmethod
    def stores_training(cls, settings: Mapping[str, Any]) -> bool:
        """Whether contexts of the training text are stored."""
        return settings.get("store", "training") == "training"

    @property
    def period(self) -> int:
        """The base's, or the cache, if that is longer and the memory acts."""
        return max(self.base.period, 1 if self.is_asleep else self.cache or 1)

    def remember(self, texts: Texts) -> None:
        """Store the contexts of the first `entries` asked tokens of these texts."""
        if self.store == "text":
            return
        keys, values, left = [], [], self.entries
        with self.evaluating():
            for tokens, targets in texts:
                with self._keys() as seen:
                    self.base(tokens)
                asked = targets >= 0
                keys.append(at_least_float32(seen[0])[asked][:left])
                values.append(targets[asked][:left])
                left -= len(values[-1])
                if left <= 0:
                    break
        self.keys, self.values = (torch.cat(parts) if parts else None for parts in (keys, values))

    def read(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        before, past = (None, None) if state is None else state
        with self._keys() as seen:
            logits, after = self.base(tokens, before)
        with torch.autocast(tokens.device.type, enabled=False):
            log_lm = at_least_float32(logits).log_softmax(-1)
            q = seen[0].to(log_lm.dtype)
            if self.store == "training":
                return self._mixed(log_lm, self._from_store(q, log_lm.shape[-1])), (after, None)
            p, past = self._from_text(q, tokens, past, log_lm.shape[-1])
            return self._mixed(log_lm, p), (after, past)

    def _mixed(self, log_lm: Tensor, p: Tensor | None) -> Tensor:
        """The mixture's logarithm; a row of p that is zero, as it had nothing to look among, leaves the model's."""
        share = self.chosen["weight"]
        if p is None or not share:
            return log_lm
        found, known = p > 0, p.sum(-1, keepdim=True) > 0.5
        kept = log_lm + math.log1p(-share)
        mixed = torch.logaddexp(kept, p.where(found, 1.0).log() + math.log(share)).where(found, kept)
        return mixed.where(known, log_lm)

    def _from_store(self, q: Tensor, vocab: int) -> Tensor | None:
        """p_knn [b, t, vocab] of queries [b, t, D]; None of an empty store."""
        if self.keys is None:
            return None
        searcher = provider_of(self.search, len(self.keys))
        if searcher != "torch":
            note(searcher)
        places, away = nearest(q.flatten(0, 1), self.keys.to(q.dtype), self.neighbours, searcher)
        share = (-away / self.temperature).softmax(-1)
        p = q.new_zeros(len(share), vocab).scatter_add(1, self.values[places], share)
        return p.view(*q.shape[:2], vocab)

    def _from_text(self, q: Tensor, tokens: Tensor, past: tuple | None, vocab: int) -> tuple[Tensor, tuple]:
        """p_knn [b, t, vocab] from the row's own past, and that past with this piece."""
        first = 0 if past is None else past[2]
        if past is not None and past[0].dtype != q.dtype:  # a text that goes on in another precision
            past = past[0].to(q.dtype), past[1], first
        keys, read, count = past = extend(past, q, tokens)
        followed = read[:, 1:count]  # what came after each key but the last
        found = []
        for start in range(0, q.shape[1], QUERIES):
            some = q[:, start : start + QUERIES]
            place = first + start + torch.arange(some.shape[1], device=q.device)[:, None]
            distance = place - torch.arange(count - 1, device=q.device)
            seen = (distance > 0) & (distance <= (self.cache or count))
            found.append(_weighed(some, keys[:, : count - 1], followed, seen, self.temperature, vocab))
        if self.cache is not None:
            kept = max(0, count - self.cache)
            past = keys[:, kept:count].clone(), read[:, kept:count].clone(), count - kept
        return torch.cat(found, 1), past

    @contextmanager
    def _keys(self) -> Iterator[list[Tensor]]:
        """The keys [b, t, D] of the text that the base reads inside the block, in a list."""
        seen: list[Tensor] = []
        feed = self.blocks[-1].feed
        hook = (self.base.norm if feed is None else feed).register_forward_hook(
            lambda module, given, output: seen.append(output if feed is None else given[0])
        )
        try:
            yield seen
        finally:
            hook.remove()


def _weighed(q: Tensor, keys: Tensor, values: Tensor, seen: Tensor, temperature: float, vocab: int) -> Tensor:
    """Shares of what followed the keys [b, n, D] that each query [b, t, D] sees; zero for one that sees none."""
    away = (q.square().sum(-1, keepdim=True) + keys.square().sum(-1)[:, None] - 2 * q @ keys.mT).clamp_min(0)
    share = (-away / temperature).masked_fill(~seen, -torch.inf).softmax(-1)
    share = share.masked_fill(~seen.any(-1, keepdim=True), 0.0)
    p = q.new_zeros(*q.shape[:2], vocab)
    return p.scatter_add(2, values[:, None].expand(-1, q.shape[1], -1), share)
