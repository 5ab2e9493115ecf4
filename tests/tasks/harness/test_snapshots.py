"""A training that was killed goes on to the same numbers, bit for bit; a snapshot that cannot be used is told and passed over."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from tasks.harness import tensor_file
from tasks.harness import train as loop
from tasks.harness.snapshots import Snapshots
from tasks.harness.train import Training, train
from tasks.task import Batch

STEPS = 12
RUN = {"steps": STEPS, "batch_tokens": 24, "lr": 1e-2, "seed": 3}


class Forgetful(nn.Module):
    """Dropout makes the weights depend on torch's generator; the scalar has no matrix, the frozen weight no gradient."""

    def __init__(self, width: int = 6):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embedding, self.out = nn.Embedding(8, width), nn.Linear(width, 8)
            self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, tokens, state=None):
        x = nn.functional.dropout(self.embedding(tokens), 0.3, self.training)
        return self.out(x) * self.scale, ()


class Digits:
    """As much of a task as training needs."""

    def training(self, seed, step, progress, tokens):
        rows = torch.randint(8, (4, 6), generator=torch.Generator().manual_seed(1000 * seed + step))
        return Batch(rows, rows.roll(-1, 1), {})


class Killed(Exception):
    pass


class Fatal(Snapshots):
    """Ends the process, as it were, after the snapshot of a step."""

    def __init__(self, path, after: int):
        super().__init__(path, minutes=0)
        self.after = after

    def keep(self, model, optimiser, so_far):
        super().keep(model, optimiser, so_far)
        if len(so_far.losses) == self.after:
            raise Killed


def run(snapshots=None):
    torch.manual_seed(7)
    model = Forgetful()
    return train(model, Digits(), **RUN, snapshots=snapshots), model


@pytest.fixture(scope="module")
def undisturbed():
    return run()


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("after", [1, 5, STEPS - 1])
def test_a_killed_training_goes_on_to_the_same_losses_and_weights(tmp_path, undisturbed, after):
    path = tmp_path / "snapshot.safetensors"
    with pytest.raises(Killed):
        run(Fatal(path, after))
    torch.manual_seed(99)  # another process
    model = Forgetful()
    log = train(model, Digits(), **RUN, snapshots=Snapshots(path, minutes=0))
    expected, trained = undisturbed
    assert (log.losses, log.tokens) == (expected.losses, expected.tokens)
    assert equal(model, trained)
    assert log.seconds > 0


def test_twice_killed_is_the_same_too(tmp_path, undisturbed):
    path = tmp_path / "snapshot.safetensors"
    for after in (3, 8):
        with pytest.raises(Killed):
            run(Fatal(path, after))
    log, model = run(Snapshots(path, minutes=0))
    assert log.losses == undisturbed[0].losses and equal(model, undisturbed[1])


def test_what_is_kept_is_what_was_at_that_step(tmp_path):
    path = tmp_path / "snapshot.safetensors"
    with pytest.raises(Killed):
        run(Fatal(path, 4))
    tensors, facts = tensor_file.read(path)
    assert len(tensors["losses"]) == 4 and facts["tokens"] == 4 * 24
    assert not any(name.startswith("optimiser/") and "frozen" in name for name in tensors)


@pytest.mark.parametrize("harm", ["cut", "flip", "empty"])
def test_a_damaged_snapshot_is_told_and_the_training_begins_anew(tmp_path, undisturbed, harm):
    path = tmp_path / "snapshot.safetensors"
    with pytest.raises(Killed):
        run(Fatal(path, 4))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes({"cut": content[:-40], "flip": content, "empty": b""}[harm])
    with pytest.warns(UserWarning, match="is damaged .*begins anew"):
        log, model = run(Snapshots(path, minutes=60))
    assert log.losses == undisturbed[0].losses and equal(model, undisturbed[1])


def test_a_snapshot_of_another_model_is_told_and_passed_over(tmp_path):
    path = tmp_path / "snapshot.safetensors"
    with pytest.raises(Killed):
        run(Fatal(path, 4))
    with pytest.warns(UserWarning, match="another model"):
        log = train(Forgetful(width=4), Digits(), **RUN, snapshots=Snapshots(path, minutes=60))
    assert len(log.losses) == STEPS


def test_a_full_disk_is_told_once_and_stops_nothing(tmp_path, undisturbed, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_file, "write", full)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        log, _ = run(Snapshots(tmp_path / "snapshot.safetensors", minutes=0))
    assert log.losses == undisturbed[0].losses
    assert [str(one.message) for one in told if "No space left" in str(one.message)] == [str(told[0].message)]


class Reads(list):
    """Counts at which step a loss was waited for, and keeps nothing."""

    def restore(self, model, optimiser):
        return None

    def keep(self, model, optimiser, so_far):
        self.append(len(so_far.losses))


def test_snapshots_wait_for_no_loss_that_is_read_late(undisturbed, monkeypatch):
    waited = []
    read = loop.Losses.read
    monkeypatch.setattr(loop, "read_every", lambda device: 4)  # as on a GPU, in fewer steps
    monkeypatch.setattr(loop.Losses, "read", lambda self: waited.append(len(self.unread)) or read(self))
    kept = Reads()
    log, model = run(kept)
    assert kept == [4, 8]
    assert [count for count in waited if count] == [4, 4, 4]
    assert log.losses == undisturbed[0].losses and equal(model, undisturbed[1])


def test_snapshots_are_taken_when_it_is_time(tmp_path):
    path = tmp_path / "snapshot.safetensors"
    run(Snapshots(path, minutes=60))
    assert not path.exists()
    run(Snapshots(path, minutes=0))
    assert path.exists()


def test_a_file_that_cannot_be_written_whole_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    tensor_file.write(path, {"a": torch.arange(3)}, {"n": 1})
    monkeypatch.setattr(
        tensor_file.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space"):
        tensor_file.write(path, {"a": torch.zeros(3)}, {"n": 2})
    tensors, facts = tensor_file.read(path)
    assert facts == {"n": 1} and tensors["a"].tolist() == [0, 1, 2] and list(tmp_path.iterdir()) == [path]


def test_tensors_that_share_memory_and_small_ones_come_back(tmp_path):
    weight = torch.randn(3, 4, dtype=torch.bfloat16)
    tensors = {
        "one": weight,
        "same": weight,
        "turned": weight.T,
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
    }
    tensor_file.write(tmp_path / "x.safetensors", tensors, {})
    found, _ = tensor_file.read(tmp_path / "x.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def rewritten(path, change) -> None:
    """The snapshot with other tensors or facts, whole and with the right digest."""
    tensors, facts = tensor_file.read(path)
    change(tensors, facts)
    tensor_file.write(path, tensors, facts)


FOREIGN = {
    "no losses": lambda tensors, facts: tensors.pop("losses"),
    "no tokens": lambda tensors, facts: facts.pop("tokens"),
    "seconds of text": lambda tensors, facts: facts.update(seconds="long"),
    "another torch": lambda tensors, facts: facts.update(torch="1.0"),
    "no number": lambda tensors, facts: tensors.update({"optimiser/x/exp_avg": torch.ones(2)}),
    "a number too many": lambda tensors, facts: tensors.update({"optimiser/99/exp_avg": torch.ones(2)}),
    "averages of another shape": lambda tensors, facts: tensors.update({"optimiser/0/exp_avg": torch.ones(2, 77)}),
    "another generator": lambda tensors, facts: tensors.update({"random/cpu": torch.ones(3)}),
    "another device": lambda tensors, facts: tensors.update({"random/tpu": torch.ones(3)}),
}


@pytest.mark.parametrize("change", FOREIGN)
def test_a_snapshot_of_another_make_is_told_and_changes_nothing(change, tmp_path):
    model = Forgetful()
    optimiser = torch.optim.AdamW(model.parameters())
    model.out(model.embedding.weight).sum().backward()
    optimiser.step()
    snapshots = Snapshots(tmp_path / "snapshot", 0)
    snapshots.keep(model, optimiser, Training([1.0], 3, 1.0))
    rewritten(tmp_path / "snapshot", FOREIGN[change])
    fresh = Forgetful()
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    other, drawn = torch.optim.AdamW(fresh.parameters()), torch.get_rng_state()
    with pytest.warns(UserWarning, match="the training begins anew"):
        assert snapshots.restore(fresh, other) is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in fresh.state_dict().items())
    assert not other.state and torch.equal(torch.get_rng_state(), drawn)
