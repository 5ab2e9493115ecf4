"""Training, evaluation and timing, over small models that are made for the question."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import baselines  # noqa: F401  fills the registry
import tasks
from models.language_model import Size, build
from tasks.harness.evaluate import LONG, answer, average, evaluate
from tasks.harness.precision import precision
from tasks.harness.train import schedule, train
from tasks.speed.throughput import Throughput, measure
from tasks.task import IGNORE, Answers, Batch, EvaluationBatch, Measurement, Task


class Counter(nn.Module):
    """A recurrent model over 8 tokens: the state is a decayed sum of embeddings; `period` and shapes as a model's."""

    period = 5

    def __init__(self, vocab: int = 8, width: int = 6):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(vocab, width)
        self.out = nn.Linear(width, vocab)

    def forward(self, tokens, state=None):
        total = torch.zeros(tokens.shape[0], self.embedding.embedding_dim) if state is None else state[0]
        seen = []
        for x in self.embedding(tokens).unbind(1):
            total = 0.5 * total + x
            seen.append(total)
        place = (0 if state is None else state[1]) + tokens.shape[1]
        return self.out(torch.stack(seen, 1)), (total, place)


class Echo(Task):
    """The token at each place is asked again at the next one."""

    name = "echo"
    vocab = 8

    def training(self, seed, step, progress, tokens):
        rows = torch.randint(8, (4, 6), generator=torch.Generator().manual_seed(1000 * seed + step))
        return Batch(rows, rows, {})

    def exams(self, split):
        yield EvaluationBatch(self.training(99, 0, 0.0, 0))

    def mark(self, exam, answers):
        yield Measurement("accuracy", answers.hit.float().mean().item(), answers.hit.numel(), {})

    def floors(self):
        return {}


class Uniform(nn.Module):
    period = 1

    def forward(self, tokens, state=None):
        return torch.zeros(*tokens.shape, 256), ()


@pytest.fixture
def exam() -> EvaluationBatch:
    tokens = torch.randint(8, (3, 11), generator=torch.Generator().manual_seed(5))
    targets = tokens.roll(-1, 1).masked_fill(torch.arange(11) < 6, IGNORE)
    return EvaluationBatch(
        Batch(tokens, targets, {}), prompt=7, choices=((1, 2), (3,), (4, 5, 6), (7, 0)), generate=6, stop=2
    )


def test_a_uniform_model_scores_the_logarithm_of_the_vocabulary():
    task = tasks.create("language-modelling", length=64, test_lengths=(64,), test_bytes=512)
    found = {m.metric: m for m in evaluate(Uniform(), task)}
    assert found["bits_per_byte"].value == pytest.approx(8.0, abs=1e-6)
    assert found["bits_per_byte"].count == 512
    assert found["perplexity"].value == pytest.approx(256.0, rel=1e-5)


def test_the_size_of_the_pieces_changes_no_answer(exam):
    model = Counter()
    whole, pieces = (answer(model, exam, piece=piece) for piece in (100, 3))
    torch.testing.assert_close(whole.log_probability, pieces.log_probability)
    assert torch.equal(whole.hit, pieces.hit) and torch.equal(whole.choice, pieces.choice) and whole.text == pieces.text
    logits, _ = model(exam.batch.tokens)
    asked = exam.batch.targets != IGNORE
    chosen = logits[asked].log_softmax(-1).gather(-1, exam.batch.targets[asked][:, None])[:, 0]
    torch.testing.assert_close(whole.log_probability[asked], chosen)
    assert not whole.log_probability[~asked].any() and not whole.hit[~asked].any()


def test_choices_and_generation_equal_those_without_a_carried_state(exam):
    model, prompt = Counter(), exam.batch.tokens[:, : exam.prompt]
    found = answer(model, exam)
    for row in range(3):
        scores = []
        for choice in exam.choices:
            text = torch.cat([prompt[row], torch.tensor(choice)])[None]
            each = model(text)[0][0, exam.prompt - 1 : -1].log_softmax(-1)
            scores.append(sum(each[i, token].item() for i, token in enumerate(choice)))
        assert found.choice[row] == max(range(4), key=scores.__getitem__)
        text = prompt[row].tolist()
        while len(text) < exam.prompt + exam.generate:
            token = model(torch.tensor([text]))[0][0, -1].argmax().item()
            if token == exam.stop:
                break
            text.append(token)
        assert found.text[row] == tuple(text[exam.prompt :])


def test_measurements_are_averaged_by_count():
    given = [Measurement("m", 1.0, 1, {"a": 1}), Measurement("m", 4.0, 3, {"a": 1}), Measurement("m", 9.0, 2, {"a": 2})]
    assert average(given) == [Measurement("m", 3.25, 4, {"a": 1}), Measurement("m", 9.0, 2, {"a": 2})]


def test_training_is_a_function_of_its_seed_and_learns():
    runs = [train(Counter(), Echo(), steps=60, batch_tokens=24, lr=5e-2, seed=seed).losses for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
    assert runs[0][-1] < 0.7 * runs[0][0]


def test_a_short_run_gives_the_losses_of_before():
    losses = train(Counter(), Echo(), steps=50, batch_tokens=24, lr=2e-2).losses
    assert losses[::10] == pytest.approx([2.1842, 1.3618, 1.144, 0.6004, 0.5218], abs=2e-3)


def test_a_loss_that_is_not_finite_ends_the_run():
    model = Counter()
    model.out.weight.data[0, 0] = math.inf
    with pytest.raises(FloatingPointError, match="diverged: the loss is nan at step 0 of 5"):
        train(model, Echo(), steps=5, batch_tokens=24, lr=1e-3)


def test_the_rate_rises_then_falls_to_a_tenth():
    shares = [schedule(step, 100) for step in range(100)]
    assert shares[0] == pytest.approx(0.1) and max(shares) == shares[9] == shares[10] == 1.0
    assert shares[10:] == sorted(shares[10:], reverse=True) and shares[-1] == pytest.approx(0.1, abs=1e-3)


def test_throughput_measures_every_length_and_the_largest_state_of_a_period():
    seen = []

    def state_bytes(state):
        seen.append(state[1])
        return state[1] % 5  # a state that is emptied every fifth token, as a segment's cache is

    settings = Throughput(lengths=(10, 20), batch_tokens=20, repeats=2, decode=2)
    found = list(measure(Counter(), settings, state_bytes, dtype="float32", device="cpu", vocab=8))
    assert {(m.metric, m.where.get("length")) for m in found} >= {
        (metric, length)
        for metric in ("training_tokens_per_second", "prefill_tokens_per_second", "decoding_milliseconds_per_token")
        for length in (10, 20)
    }
    assert [m.value for m in found if m.metric == "state_bytes"] == [4.0, 4.0]
    assert seen[:6] == [10, 11, 12, 13, 14, 15]
    assert all(m.value > 0 for m in found if "per" in m.metric.split("_"))


class Recorder(Counter):
    """A counter that notes the lengths of its pieces, and says NaN from a place on."""

    def __init__(self, spoilt: int):
        super().__init__()
        self.pieces, self.spoilt = [], spoilt

    def forward(self, tokens, state=None):
        self.pieces.append(tokens.shape[1])
        logits, state = super().forward(tokens, state)
        return logits if state[1] < self.spoilt else logits * math.nan, state


@pytest.mark.parametrize(("spoilt", "finite"), [(1000, [1.0, 1.0]), (15, [1.0, 0.0])])
def test_decoding_alone_reads_the_context_in_pieces_and_trains_nothing(spoilt, finite):
    model = Recorder(spoilt)
    settings = Throughput(lengths=(10, 20), repeats=2, decode=2, decode_only=True, piece=8)
    found = list(measure(model, settings, lambda state: state[1], dtype="float32", device="cpu", vocab=8))
    read = [piece for piece in model.pieces if piece > 1]
    assert read == [8, 2, 8, 2]
    assert {m.metric for m in found if "length" in m.where and "quantile" not in m.metric} == {
        "decoding_milliseconds_per_token", "state_bytes", "finite_output",
    }  # fmt: skip
    assert [m.value for m in found if m.metric == "finite_output"] == finite
    # The warm-up and each repeat decode two tokens on from where the last ended, then comes a period of five.
    assert [m.value for m in found if m.metric == "state_bytes"][0] >= 10 + 2 * 3 + 5


@pytest.mark.parametrize(
    "settings",
    [
        {"lengths": ()}, {"lengths": (0,)}, {"repeats": 0}, {"decode": 0}, {"piece": 0},
        {"weights": "bfloat16"}, {"weights": "int4", "decode_only": True},
    ],
)  # fmt: skip
def test_impossible_timings_are_refused(settings):
    with pytest.raises(ValueError, match="throughput"):
        Throughput(**settings)


def test_precision_is_put_back_and_unknown_ones_are_refused():
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    with precision("float32+onednn", "cpu"):
        assert matmul.fp32_precision == "bf16"
    assert matmul.fp32_precision == before
    with precision("bfloat16", "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="float8"), precision("float8", "cpu"):
        pass


def test_the_oracle_of_the_contract_knows_everything(exam):
    truth = exam.batch._replace(targets=exam.batch.tokens.roll(-1, 1).masked_fill(torch.arange(11) < 6, IGNORE))
    targets = truth.targets.clone()
    targets[:, 6:] = torch.tensor([4, 5, 6, IGNORE, IGNORE])
    known = Echo().oracle(exam._replace(batch=truth._replace(targets=targets)))
    assert isinstance(known, Answers) and known.choice.tolist() == [2, 2, 2] and known.text == ((4, 5, 6),) * 3


def test_long_texts_say_what_memory_they_took():
    short, long = (
        tasks.create("needle", variants=("s-niah-1",), depths=(0.5,), samples=1, test_lengths=(length,))
        for length in (128, LONG)
    )
    assert not [m for m in evaluate(Uniform(), short) if "memory" in m.metric]
    (held,) = [m for m in evaluate(Uniform(), long) if m.metric == "evaluation_peak_memory_bytes"]
    assert held.where == {"length": LONG} and held.value > 2**20


def test_pieces_that_ask_nothing_are_read_without_logits():
    """Between the pieces that ask, a long text needs no head; what is answered stays the same to the bit."""
    model = build("gated-deltanet", Size(vocab=16, width=16, depth=1, heads=2)).eval()
    tokens = torch.randint(16, (2, 40), generator=torch.Generator().manual_seed(3))
    targets = torch.full_like(tokens, IGNORE)
    targets[:, 21] = tokens[:, 22]
    exam = EvaluationBatch(Batch(tokens, targets, {}), prompt=36, choices=((1, 2), (3,)), generate=3)
    with torch.no_grad():
        state, texts = None, []
        for start in range(0, 36, 8):
            logits, state = model(tokens[:, start : min(start + 8, 36)], state)
            texts.append(logits)
        heads = []
        model.head, head = lambda hidden: heads.append(hidden.shape[1]) or head(hidden), model.head
        answers = answer(model, exam, piece=8)
    before = torch.cat(texts, 1)[:, 21].log_softmax(-1).gather(-1, targets[:, 21:22])[:, 0]
    assert torch.equal(answers.log_probability[:, 21], before)
    assert [size for size in heads if size > 1] == [8, 4, 4], "the piece that asks, the prompt's last, and what follows"
