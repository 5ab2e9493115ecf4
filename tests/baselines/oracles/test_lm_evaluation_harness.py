"""lm-evaluation-harness asks a model of this house: the same numbers as by hand, with files of our own."""

from __future__ import annotations

import json
import math

import pytest
import torch

lm_eval = pytest.importorskip("lm_eval", reason="the bridge needs lm-eval")

from lm_eval.api.instance import Instance  # noqa: E402

import baselines  # noqa: E402, F401
from baselines.oracles.adapters import lm_evaluation_harness as bridge  # noqa: E402
from models.language_model import Size, seeded  # noqa: E402
from tasks.text.tokenizer import BYTES  # noqa: E402

SIZE = Size(vocab=256, width=32, depth=2, heads=2)
QUESTIONS = [("The sky is", ["blue", "a cat"], 0), ("Two and two are", ["a", "four", "fourteen"], 1)]
TEXT = "It is a truth universally acknowledged. " * 40

YAML = {
    "choices": """
task: own_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}]
""",
    "rolling": """
task: own_rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: byte_perplexity}}]
""",
    "generation": """
task: own_generation
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{wanted}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 12, do_sample: false}}
metric_list: [{{metric: exact_match}}]
""",
}


@pytest.fixture(scope="module")
def model():
    return seeded("gated-deltanet", SIZE, 0).eval()


def log_probability(model, context: str, text: str) -> float:
    tokens = torch.tensor([list((context + text).encode())])
    with torch.no_grad():
        scores = model(tokens)[0][0].log_softmax(-1)
    start = len(context.encode())
    return sum(scores[place - 1, tokens[0, place]].item() for place in range(start, tokens.shape[1]))


def greedy(model, context: str, longest: int) -> str:
    tokens = list(context.encode())
    for _ in range(longest):
        with torch.no_grad():
            tokens.append(model(torch.tensor([tokens]))[0][0, -1].argmax().item())
    return BYTES.decode(tokens[len(context.encode()) :]).split("\n")[0]


@pytest.fixture(scope="module")
def found(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("harness")
    rows = {
        "choices": [{"question": q, "choices": c, "answer": a} for q, c, a in QUESTIONS],
        "rolling": [{"text": TEXT}],
        "generation": [{"question": q, "wanted": greedy(model, q, 12)} for q, *_ in QUESTIONS],
    }
    for kind, yaml in YAML.items():
        file = folder / f"{kind}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows[kind]))
        (folder / f"{kind}.yaml").write_text(yaml.format(file=file))
    from lm_eval.tasks import TaskManager

    return lm_eval.simple_evaluate(
        bridge.HarnessModel(model, BYTES),
        tasks=["own_choices", "own_rolling", "own_generation"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
    )["results"]


def test_choices_are_scored_as_by_hand(model, found):
    right = 0
    for question, choices, answer in QUESTIONS:
        scores = [log_probability(model, question, " " + choice) for choice in choices]
        right += max(range(len(choices)), key=scores.__getitem__) == answer
    assert found["own_choices"]["acc,none"] == pytest.approx(right / len(QUESTIONS))


def test_a_long_text_is_scored_whole(model, found):
    assert len(TEXT) > bridge.PIECE
    expected = math.exp(-log_probability(model, "\0", TEXT) / len(TEXT.encode()))
    assert found["own_rolling"]["byte_perplexity,none"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("separator", "vocab", "first"), [(7, 200, 7), (None, 255, 255), (None, 256, 0)])
def test_a_text_begins_after_the_token_that_texts_were_trained_after(model, separator, vocab, first):
    class Tokenizer:
        def __init__(self) -> None:
            self.separator, self.vocab = separator, vocab

    assert bridge.HarnessModel(model, Tokenizer()).eot_token_id == first


def test_generation_is_greedy_and_stops(found):
    assert found["own_generation"]["exact_match,none"] == 1.0


def test_continuations_of_one_context_share_its_reading(model):
    harness = bridge.HarnessModel(model, BYTES)
    context = list(b"The house of")
    requests = [(None, context, list(text)) for text in (b" cards", b" Elrond")]
    for (_, _, text), (score, _) in zip(requests, harness._loglikelihood_tokens(requests, True), strict=True):
        expected = log_probability(model, "The house of", bytes(text).decode())
        assert score == pytest.approx(expected, rel=1e-4, abs=1e-4)


class Pairs:
    """Joins "th" and "e" to one token, the byte 1."""

    separator, vocab = 0, 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode().replace(b"the", b"\x01"))

    def decode(self, tokens: list[int]) -> str:
        return bytes(tokens).replace(b"\x01", b"the").decode(errors="replace")


def asked(harness, *pairs):
    return harness.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs], disable_tqdm=True)


def test_a_continuation_that_merges_into_its_context_is_scored_by_its_own_tokens(model):
    (merged, greedy), (other, _) = asked(bridge.HarnessModel(model, Pairs()), ("th", "e"), ("th", "is"))
    assert merged == pytest.approx(log_probability(model, "th", "e"), rel=1e-4) and merged < 0 and not greedy
    assert other == pytest.approx(log_probability(model, "th", "is"), rel=1e-4)


@pytest.mark.parametrize(("context", "whole"), [("", "was"), (" ", " was"), ("\n", "\nwas"), (" \n", " \nwas")])
def test_after_a_blank_context_all_is_scored_behind_the_beginning(model, context, whole):
    ((score, _),) = asked(bridge.HarnessModel(model, BYTES), (context, "was"))
    assert score == pytest.approx(log_probability(model, "\0", whole), rel=1e-4)


def test_a_continuation_that_begins_with_the_token_between_texts_is_scored_whole(model):
    ((score, _),) = asked(bridge.HarnessModel(model, BYTES), ("", "\0"))
    assert score == pytest.approx(log_probability(model, "\0", "\0"), rel=1e-4) and score < 0


def test_a_continuation_without_text_is_refused_and_not_certain(model):
    for context in ("", "The house of"):
        with pytest.raises(ValueError, match="1 continuations without text"):
            asked(bridge.HarnessModel(model, BYTES), (context, ""), (context, " cards"))


@pytest.mark.parametrize("until", [None, [], "", [""], ["\n", ""]])
def test_generations_have_their_tokens_whatever_ends_them(model, until):
    harness = bridge.HarnessModel(model, BYTES)
    wanted = greedy(model, "The sky is", 5)
    for count, expected in ((0, ""), (5, wanted)):
        options = {"until": until, "max_gen_toks": count}
        request = Instance("generate_until", {}, ("The sky is", options), 0)
        assert harness.generate_until([request], disable_tqdm=True) == [expected]
    first = Instance("generate_until", {}, ("The sky is", {"until": [wanted[:1]], "max_gen_toks": 5}), 0)
    assert harness.generate_until([first], disable_tqdm=True) == [""]


@pytest.mark.parametrize(
    ("options", "said"), [({"max_gen_toks": -1}, "whole number"), ({"do_sample": True}, "greedily")]
)
def test_generations_that_cannot_be_made_are_refused(model, options, said):
    with pytest.raises(ValueError, match=said):
        bridge.HarnessModel(model, BYTES).generate_until([Instance("generate_until", {}, ("a", options), 0)], True)


def test_a_kept_model_is_asked_by_its_folder(model, tmp_path, capsys, monkeypatch):
    import bench
    from runner.checkpoints import store
    from tasks.harness.train import Training

    monkeypatch.setenv("COLUMNS", "160")
    facts = {"model": "gated-deltanet", "settings": {}, "size": {"width": 32, "depth": 2, "heads": 2}, "vocab": 256}
    facts |= {"seed": 1, "task": "language-modelling", "model_files": []}
    store.save(tmp_path / "kept", model, BYTES, Training([1.0], 1, 1.0), facts)
    file = tmp_path / "rolling.jsonl"
    file.write_text(json.dumps({"text": TEXT}) + "\n")
    (tmp_path / "rolling.yaml").write_text(YAML["rolling"].format(file=file))
    asked = ["zero-shot", str(tmp_path / "kept"), "--include", str(tmp_path), "--tasks"]
    assert bench.main([*asked, "own_rolling"]) == 0
    expected = math.exp(-log_probability(model, "\0", TEXT) / len(TEXT.encode()))
    assert f"{expected:.2f}" in capsys.readouterr().out
    assert bench.main([*asked, "own_roling"]) == 2
    assert "knows no task own_roling" in capsys.readouterr().err
    store.save(tmp_path / "kept", model, None, Training([1.0], 1, 1.0), facts)
    assert bench.main([*asked, "own_rolling"]) == 2
    assert "whose tokens are no text" in capsys.readouterr().err


class Short(torch.nn.Module):
    """Knows 8 positions, and none when it is asked."""

    positions = 8

    def forward(self, tokens, state=None):
        raise AssertionError("something was computed")


def test_requests_beyond_the_positions_of_a_model_are_refused_before_any_is_answered():
    from lm_eval.api.instance import Instance

    short = bridge.HarnessModel(Short(), BYTES)
    told = "knows 8 positions, and these tasks need"
    with pytest.raises(ValueError, match=told):
        short._loglikelihood_tokens([(None, [1], [2]), (None, [1] * 5, [2] * 4)])
    with pytest.raises(ValueError, match=told):
        short.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("12345678",), 0)])
    with pytest.raises(ValueError, match=told):
        short.generate_until([Instance("generate_until", {}, ("12345", {"max_gen_toks": 5}), 0)])
