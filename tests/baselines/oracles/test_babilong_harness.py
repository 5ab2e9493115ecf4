"""BABILong's few-shot prompts against those that lm-evaluation-harness itself makes, where that is installed."""

from __future__ import annotations

from importlib import import_module

import pytest

for package in ("lm_eval", "yaml", "datasets", "transformers"):
    pytest.importorskip(package, reason="the harness's prompts are read from lm-eval")

from datasets import Dataset  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402

import tasks  # noqa: E402
from tasks.babilong.babi.facts import TASKS  # noqa: E402
from tasks.babilong.lm_eval_prompts import COMMON, GENERATION, few_shot, fields, folder  # noqa: E402
from tasks.text.tokenizer import BYTES  # noqa: E402


def theirs(name: str, context: str, asked: str) -> str:
    """The prompt that the harness makes of a context and a question, by its own task file and code."""
    config = {**fields(folder() / COMMON), **fields(folder() / f"babilong_{name}.yaml")}
    document = {"input": context, "question": asked, "target": "nothing"}
    for unneeded in ("include", "process_results", "dataset_kwargs"):
        config.pop(unneeded, None)
    config["custom_dataset"] = lambda **_: {name: Dataset.from_list([document])}
    return ConfigurableTask(config=config).fewshot_context(document, config["num_fewshot"])


@pytest.mark.parametrize("name", TASKS)
def test_prompts_are_those_that_the_harness_makes(name):
    task = tasks.create("babilong", questions=[name], length=4096, test_lengths=[4096], samples=8, template="harness")
    (exam,) = task.exams("test")
    for row, (context, asked) in enumerate(task.read(exam)):
        prompt = BYTES.decode(exam.batch.tokens[row, : exam.prompt].numpy())
        assert prompt.endswith(f"\n{asked}") and len(context) > 1000
        assert prompt == theirs(name, context, asked) and "\ufffd" not in prompt


@pytest.mark.parametrize("name", ["qa1", "qa7", "qa8"])
def test_answers_are_scored_as_the_harness_scores_them(name):
    process_results = import_module("lm_eval.tasks.babilong.common_utils").process_results
    task = tasks.create("few-shot-babilong", questions=[name], test_lengths=[0], samples=8, template="harness")
    assert fields(folder() / COMMON)["generation_kwargs"]["max_gen_toks"] == GENERATION
    scores, read = set(), task.asked._may_say(name, GENERATION)
    assert 60 < read < 80  # bytes for 16 tokens of GPT-2
    for exam in task.exams("test"):
        oracle = task.oracle(exam)
        truths = [BYTES.decode(text).strip() for text in oracle.text]
        for written in ("{}", "\n {}.", "THE {}", "one, none", "none or nothing", "far too late " * 6 + "a {}"):
            said = [written.format(truth).upper() if written.isupper() else written.format(truth) for truth in truths]
            answers = oracle._replace(text=tuple(tuple(text.encode()) for text in said))
            marks = {m.metric: m.value for m in task.mark(exam, answers)}
            theirs = [
                process_results({"target": truth}, [text[:read]])["acc"]
                for truth, text in zip(truths, said, strict=True)
            ]
            assert marks["harness_accuracy"] == sum(theirs) / len(theirs)
            scores |= set(theirs)
    assert scores == {0.0, 1.0}


@pytest.mark.parametrize("name", TASKS)
def test_its_examples_answer_with_our_labels_or_in_a_sentence(name):
    for _, asked, answer in few_shot(name).examples:
        if name in ("qa1", "qa2", "qa3"):
            assert answer.endswith(".") and " " in answer, (asked, answer)
        else:
            assert answer in TASKS[name].answers, (asked, answer)
