"""A model of this house as a model of lm-evaluation-harness (package `lm-eval`, EleutherAI).

    from baselines.oracles.adapters.lm_evaluation_harness import HarnessModel
    lm_eval.simple_evaluate(HarnessModel(model, tokenizer), tasks=["piqa"], ...)

A context is read once, however many continuations it has, and a text of any length is read in pieces with the state
carried: no window cuts it. Importing this module needs lm-eval: pip install -e ".[lm-eval]".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import lm_eval
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager
from torch import Tensor, nn
from tqdm import tqdm

PIECE = 1024  # tokens fed at once
LONGEST = 256  # tokens of a generation where a task does not say, as in the harness

# The zero-shot tasks of the Titans paper's first table, by the harness's names.
TITANS_TASKS = (
    "wikitext", "lambada_openai", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "social_iqa", "boolq"
)  # fmt: skip


def ask(
    model: nn.Module,
    tokenizer: HarnessTokenizer,
    tasks: Sequence[str],
    device: str = "cpu",
    limit: int | None = None,
    include: str | None = None,
) -> dict[str, dict[str, Any]]:
    """What the harness's `tasks` give: metric -> value by task. `limit` questions of each; `include` is a folder of task files.

    Raises ValueError for a task that the harness does not know.
    """
    manager = TaskManager(include_path=include)
    if unknown := [name for name in tasks if not manager.match_tasks([name])]:
        raise ValueError(f"lm-evaluation-harness knows no task {', '.join(unknown)}; `lm_eval ls tasks` prints them.")
    found = lm_eval.simple_evaluate(
        HarnessModel(model, tokenizer, device), tasks=list(tasks), task_manager=manager, limit=limit, bootstrap_iters=0
    )
    return found["results"]


class HarnessTokenizer(Protocol):
    """What is needed of a tokenizer."""

    separator: int | None
    vocab: int

    def encode(self, text: str) -> Sequence[int]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...


class HarnessModel(TemplateLM):
    """`model(tokens [b, t], state) -> (logits [b, t, vocab], state)` with its tokenizer, asked by the harness."""

    def __init__(self, model: nn.Module, tokenizer: HarnessTokenizer, device: str = "cpu") -> None:
        super().__init__()
        self.model, self.text_tokenizer, self.where = model.to(device).eval(), tokenizer, device

    @property
    def eot_token_id(self) -> int:
        """What texts began after in training: the token between documents, or one beyond the tokenizer's, where it has none."""
        if self.text_tokenizer.separator is not None:
            return self.text_tokenizer.separator
        own = self.text_tokenizer.vocab
        return own if self.model.embedding.num_embeddings > own else 0

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The tokens of a text, without any special one."""
        return [int(token) for token in self.text_tokenizer.encode(string)]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-probability of each continuation after its context, and whether greedy decoding would write it.

        Every token of a continuation is scored; after an empty context, or one of blanks alone, behind the token that texts
        begin after. Raises ValueError for a continuation without tokens: nothing is certain that was not scored.
        """
        pairs = [(request.args, *self._encode_pair(*request.args)) for request in requests]
        return self._loglikelihood_tokens(pairs, disable_tqdm=disable_tqdm)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The tokens of both; blanks at a context's end go to the continuation, as the harness has it.

        Where the tokenizer joins the two in one token, the continuation is what it is by itself: its own tokens are asked
        after those of the context, as they are of every other choice.
        """
        kept = context.rstrip()
        continuation = context[len(kept) :] + continuation
        before, whole = self.tok_encode(kept), self.tok_encode(kept + continuation)
        own = whole[len(before) :] if whole[: len(before)] == before else self.tok_encode(continuation)
        return before or [self.eot_token_id], own

    @torch.no_grad()
    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation after its context, and whether greedy decoding would write it."""
        if empty := [pair for pair, _, continuation in requests if not continuation]:
            raise ValueError(
                f"lm-evaluation-harness asks for {len(empty)} continuations without text, the first of {str(empty[0])[:80]!r}: "
                "nothing of them can be scored; repair the task's choices or leave the task out."
            )
        self._fit(len(context) + len(continuation) for _, context, continuation in requests)
        answers: list[tuple[float, bool]] = [(math.nan, False)] * len(requests)
        read: tuple[list[int], Tensor, Any] | None = None
        order = sorted(range(len(requests)), key=lambda number: requests[number][1])
        for number in tqdm(order, desc="continuations", disable=disable_tqdm):
            _, context, continuation = requests[number]
            if read is None or read[0] != context:
                read = context, *self._last(context or [self.eot_token_id])
            answers[number] = self._score(continuation, *read[1:])
        return answers

    @torch.no_grad()
    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts, each after the token between documents."""
        self._fit(1 + len(self.tok_encode(request.args[0])) for request in requests)
        answers = []
        for request in tqdm(requests, desc="texts", disable=disable_tqdm):
            tokens = self.tok_encode(request.args[0])
            if request.args[0] and not tokens:
                raise ValueError(
                    f"The tokenizer has no tokens for the text {request.args[0][:80]!r}: it cannot be scored."
                )
            answers.append(self._score(tokens, *self._last([self.eot_token_id]))[0] if tokens else 0.0)
        return answers

    @torch.no_grad()
    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations, each ended before the first of its stops, of at most `max_gen_toks` tokens (0: none).

        Raises ValueError where a task asks for drawn ones, or for a number of tokens that is none.
        """
        for request in requests:
            _greedy(request.args[1])
        self._fit(len(self.tok_encode(request.args[0])) + _longest(request.args[1]) - 1 for request in requests)
        answers = []
        for request in tqdm(requests, desc="generations", disable=disable_tqdm):
            context, options = request.args
            stops = options.get("until") or []
            stops = [stops] if isinstance(stops, str) else stops
            longest = _longest(options)
            answers.append(self._generate(self.tok_encode(context) or [self.eot_token_id], stops, longest))
        return answers

    def _fit(self, needed: Iterable[int]) -> None:
        """Refuse, before any is answered, requests of more tokens than a model has positions. Raises ValueError."""
        known = getattr(self.model, "positions", None)
        most = max(needed, default=0) + len(getattr(self.model, "begin", ())) if known is not None else 0
        if known is not None and most > known:
            raise ValueError(f"The model knows {known:,} positions, and these tasks need {most:,} of them.")

    def _generate(self, context: list[int], stops: Sequence[str], longest: int) -> str:
        written: list[int] = []
        text = ""
        last, state = self._last(context) if longest else (None, None)
        while len(written) < longest:
            token = int(last.argmax())
            if token == self.text_tokenizer.separator or token >= self.text_tokenizer.vocab:  # a text ends here
                break
            written.append(token)
            text = self.text_tokenizer.decode(written)
            ends = [text.index(stop) for stop in stops if stop and stop in text]
            if ends:
                return text[: min(ends)]
            last, state = self._last([token], state)
        return text

    def _last(self, tokens: list[int], state: Any = None) -> tuple[Tensor, Any]:
        """Logits [vocab] after the last of the tokens, and the state there."""
        logits = None
        for piece in self._pieces(tokens):
            logits, state = self.model(piece, state)
        return logits[0, -1].float(), state

    def _score(self, tokens: list[int], last: Tensor, state: Any) -> tuple[float, bool]:
        """Log-probability of tokens after a context whose last logits and state are given, and whether all are greedy."""
        total, greedy, done = 0.0, True, 0
        for piece in self._pieces(tokens):
            logits, state = self.model(piece, state)
            before = torch.cat([last[None], logits[0, :-1].float()])
            wanted = torch.tensor(tokens[done : done + piece.shape[1]], device=before.device)
            total += before.log_softmax(-1).gather(1, wanted[:, None]).double().sum().item()
            greedy &= bool((before.argmax(-1) == wanted).all())
            last, done = logits[0, -1].float(), done + piece.shape[1]
        return total, greedy

    def _pieces(self, tokens: list[int]) -> Iterator[Tensor]:
        whole = torch.tensor([tokens], device=self.where)
        for start in range(0, len(tokens), PIECE):
            yield whole[:, start : start + PIECE]


def _longest(options: Mapping[str, Any]) -> int:
    """The most tokens that a request lets a model write. Raises ValueError for a number that is none."""
    longest = options.get("max_gen_toks", LONGEST)
    if type(longest) is not int or longest < 0:
        raise ValueError(f"max_gen_toks must be a whole number of tokens, at least 0, not {longest!r}.")
    return longest


def _greedy(options: Mapping[str, Any]) -> None:
    """Refuse a generation that is to be drawn. Raises ValueError."""
    if options.get("do_sample") and options.get("temperature") != 0:
        raise ValueError("This task draws its generations (do_sample); models here generate greedily: leave it out.")
