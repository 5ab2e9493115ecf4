"""What saves memory in training changes no number beyond rounding: micro-batches, logits in chunks, activation checkpointing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import baselines  # noqa: F401  fills the registry
import tasks
from models import registry
from models.language_model import Size, seeded
from models.shell.model import LanguageModel
from tasks.harness import loss
from tasks.harness.loss import checkpointed, cross_entropy, gradients, micro_batches
from tasks.harness.train import Ahead, Losses, train
from tasks.task import IGNORE, Batch

SIZE = Size(32, 32, 2, 2)


def _model(name: str = "gated-deltanet", vocab: int = 32) -> nn.Module:
    return seeded(name, Size(vocab, 32, 2, 2), 0).double()


def _batch(rows: int = 5, time: int = 16, vocab: int = 32) -> Batch:
    """Rows of which each asks for another number of targets."""
    draws = torch.Generator().manual_seed(0)
    tokens, targets = (torch.randint(vocab, (rows, time), generator=draws) for _ in range(2))
    for row in range(rows):
        targets[row, : 3 * row] = IGNORE
    return Batch(tokens, targets, {})


def _gradients(model: nn.Module, micro: int, batch: Batch) -> tuple[float, list]:
    model.zero_grad(set_to_none=True)
    mean = gradients(model, "cpu", micro, batch)
    return mean.item(), [p.grad for p in model.parameters()]


def _same(found, expected, within: float = 1e-12) -> None:
    assert found[0] == pytest.approx(expected[0], rel=within)
    for a, b in zip(found[1], expected[1], strict=True):
        assert (a is None) == (b is None) and (a is None or torch.allclose(a, b, rtol=1e-9, atol=within))


@pytest.mark.parametrize("micro", [1, 16, 32, 40, 79])
def test_micro_batches_have_the_loss_and_gradients_of_the_whole_batch(micro):
    """Weighted by what each asks for: the mean of their means would be another number."""
    model, batch = _model(), _batch()
    whole = _gradients(model, 0, batch)
    _same(_gradients(model, micro, batch), whole)
    means = [gradients(model, "cpu", 0, part).item() for part in micro_batches(batch, 16)]
    assert abs(sum(means) / len(means) - whole[0]) > 1e-4


def test_a_batch_is_cut_by_whole_rows():
    batch = _batch()
    assert [len(part.tokens) for part in micro_batches(batch, 40)] == [2, 2, 1]
    assert [len(part.tokens) for part in micro_batches(batch, 3)] == [1] * 5
    assert micro_batches(batch, 0)[0] is batch and micro_batches(batch, 80)[0] is batch


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_logits_in_chunks_have_the_same_loss_and_gradients(monkeypatch, reduction):
    model, batch = _model(), _batch()

    def found():
        model.zero_grad(set_to_none=True)
        value = cross_entropy(model, batch.tokens, batch.targets, reduction)
        value.backward()
        return value.item(), [p.grad for p in model.parameters()]

    whole = found()
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 7 * 32)
    calls = []
    monkeypatch.setattr(LanguageModel, "head", lambda self, h: (calls.append(len(h)), h @ self.embedding.weight.T)[1])
    _same(found(), whole)
    assert max(calls) == 7


def test_a_large_vocabulary_is_held_a_chunk_at_a_time(monkeypatch):
    """What is saved for the backward pass stays below the logits of all tokens."""
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 2**14)
    model, batch = seeded("transformer", Size(4096, 32, 1, 2), 0), _batch(4, 32, 4096)
    largest = 0

    def keep(tensor):
        nonlocal largest
        largest = max(largest, tensor.numel() if tensor.shape[-1:] == (4096,) else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        value = cross_entropy(model, batch.tokens, batch.targets, "sum")
    assert largest == 0
    value.backward()


def test_no_shipped_model_hides_its_head():
    """Each lets its logits be taken in chunks: no class overrides `read`."""
    for name in registry.names():
        entry = registry.entry(name)
        whole = entry.is_language_model and not entry.adds_memory
        assert not whole or entry.cls.read is LanguageModel.read, name


@pytest.mark.parametrize("name", ["gated-deltanet", "rmt", "rwkv7", "titans-mac", "hybrid"])
def test_blocks_computed_again_have_the_same_gradients(name):
    model, batch = _model(name), _batch()
    plain = _gradients(model, 0, batch)
    forwards = []
    handles = [b.register_forward_hook(lambda *_: forwards.append(1)) for b in model.blocks]
    with checkpointed(model):
        _same(_gradients(model, 32, batch), plain)
    assert forwards
    for handle in handles:
        handle.remove()
    assert all("forward" not in vars(block) for block in model.blocks)
    _same(_gradients(model, 0, batch), plain)


def test_checkpointed_blocks_keep_less():
    model, batch = seeded("transformer", Size(32, 64, 4, 2), 0), _batch(2, 64)

    def kept() -> int:
        held: dict[int, int] = {}

        def keep(tensor):
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            cross_entropy(model, batch.tokens, batch.targets, "mean")
        return sum(held.values())

    plain = kept()
    with checkpointed(model):
        assert kept() < 0.5 * plain


def test_a_model_without_blocks_cannot_be_checkpointed():
    with (
        pytest.raises(ValueError, match="lists its layers in `blocks`, and Linear does not"),
        checkpointed(nn.Linear(2, 2)),
    ):
        pass


def test_a_training_in_micro_batches_with_checkpointing_ends_at_the_same_weights():
    task = tasks.create("mqar", pairs=(2,), length=16, vocab=32, test_lengths=(16,))
    run = {"steps": 5, "batch_tokens": 96, "lr": 1e-2}
    plain, saving = _model(), _model()
    first = train(plain, task, **run)
    second = train(saving, task, **run, micro_batch_tokens=32, activation_checkpointing=True)
    assert second.losses == pytest.approx(first.losses, rel=1e-6) and second.tokens == first.tokens
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_batches_drawn_ahead_are_the_same_in_the_same_order():
    def draw(step):
        if step == 7:
            raise ValueError("no rows")
        return _batch(1 + step)

    found = list(Ahead(draw, range(2, 7), ahead=True))
    assert [(step, len(batch.tokens)) for step, batch in found] == [(step, 1 + step) for step in range(2, 7)]
    taken = []
    with pytest.raises(ValueError, match="no rows"):
        taken += (step for step, _ in Ahead(draw, range(5, 9), ahead=True))
    assert not list(Ahead(draw, range(3, 3), ahead=True))


def test_losses_that_are_read_late_tell_the_step_that_diverged():
    losses = Losses([0.5], steps=9, late=3)
    for value in (1.0, float("nan")):
        losses.add(torch.tensor(value))
    assert losses.values == [0.5]
    with pytest.raises(FloatingPointError, match="the loss is nan at step 2 of 9"):
        losses.add(torch.tensor(1.0))
    assert losses.values == [0.5, 1.0]


def test_the_mean_of_one_batch_is_torchs_own():
    model, batch = _model(), _batch()
    logits, _ = model(batch.tokens)
    asked = batch.targets != IGNORE
    assert gradients(model, "cpu", 0, batch).item() == F.cross_entropy(logits[asked], batch.targets[asked]).item()


def test_processes_with_a_row_more_take_no_turn_more():
    """Five rows of two processes are three and two; a process that had a micro-batch more would wait for ever."""
    for rows, micro, expected in ((5, 10, 2), (6, 10, 3), (6, 20, 2), (7, 20, 2), (5, 0, 1), (5, 100, 1), (3, 10, 1)):
        batch = Batch(torch.zeros(rows, 10), torch.zeros(rows, 10), {})
        assert loss.turns(batch, micro, processes=2) == expected
        assert [len(part.tokens) for part in loss.in_parts(batch, expected)].count(0) == 0
