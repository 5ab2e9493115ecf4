"""A memory added after training: one training for it and its base, chosen without the test, refused where senseless."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import tasks
from models import registry
from models.conformance import kit
from models.shell.added_memory import AddedMemory
from results.cell import CHOSEN, Cell
from results.plans import learning_rates
from results.plans.learning_rates import Search
from results.rows.row import exam_of
from runner.again.rebuilt import rebuild
from runner.cell_key import as_trained, identify, training_key, without_exam_settings, without_memory
from runner.checkpoints import added_memory, store, teaching
from runner.checkpoints.trained_model import CheckpointSettings
from runner.commands.ask import asked_table
from runner.measure import measure
from tasks.language_modelling.task import LanguageModelling

TEXT = {"length": 32, "test_lengths": [32], "test_bytes": 64, "validation_bytes": 64}
BASE = Cell(
    comparison="tiny", kind="training", model="transformer", settings={}, task="language-modelling", task_settings=TEXT,
    size={"width": 16, "depth": 1, "heads": 2}, budget={"steps": 3, "batch_tokens": 128}, seed=0, lr=1e-2,
    dtype="float32", provider="auto", device="cpu", threads=1,
)  # fmt: skip
KNN = dataclasses.replace(BASE, model="knn-lm", settings={"entries": 200})
MQAR = {
    "task": "mqar",
    "task_settings": {"samples": 4, "pairs": [2], "test_pairs": [2], "length": 16, "test_lengths": [16]},
}


def quiet(news: dict) -> None:
    pass


def changed(cell: Cell = KNN, **parts) -> Cell:
    return dataclasses.replace(cell, **parts)


def key(cell: Cell) -> str:
    return training_key(cell, tasks.create(cell.task, **cell.task_settings))


@pytest.fixture
def trainings(monkeypatch) -> list[str]:
    done, real = [], teaching.train

    def counted(model, *arguments, **options):
        done.append(type(model).__name__)
        return real(model, *arguments, **options)

    monkeypatch.setattr(teaching, "train", counted)
    return done


def numbers(measured, metric: str) -> list[tuple]:
    return [m for m in measured.measurements if m[1] == metric]


def test_the_base_is_trained_once_for_all_its_memories(tmp_path, trainings):
    checkpoints = CheckpointSettings(tmp_path / "checkpoints")
    plain, first, second = (
        measure(cell, quiet, checkpoints)
        for cell in (BASE, KNN, changed(settings={"store": "text", "weight": 0.5, "temperature": 2.0}))
    )
    assert trainings == ["LanguageModel"]
    assert plain.parameters == first.parameters == second.parameters
    losses = [numbers(one, "training_loss") for one in (plain, first, second)]
    assert losses[0] == losses[1] == losses[2]
    bits = [numbers(one, "bits_per_byte")[0][2] for one in (plain, first, second)]
    assert len(set(bits)) == 3
    (folder,) = (path for path in checkpoints.folder.iterdir() if path.is_dir())
    assert store.read_facts(folder)["model"] == "transformer"


def test_without_checkpoints_a_memory_s_cell_gives_the_same(tmp_path, trainings):
    kept = measure(KNN, quiet, CheckpointSettings(tmp_path))
    alone = measure(KNN, quiet)
    assert numbers(kept, "bits_per_byte") == numbers(alone, "bits_per_byte") and len(trainings) == 2


def test_what_a_memory_costs_and_what_validation_chose_stand_in_rows():
    found = measure(KNN, quiet)
    ((_, _, off, count, where),) = numbers(found, "validation_loss")
    assert where == {"memory": "off"} and count == 64
    ((_, _, on, _, where),) = numbers(found, "memory_validation_loss")
    tried = {float(one.split()[1].rstrip(":")): float(one.split()[2]) for one in where["tried"].split("; ")}
    assert set(tried) == {0.1, 0.25, 0.5, 0.75} and tried[where["weight"]] == min(tried.values()) == pytest.approx(
        on, abs=1e-4
    )
    assert off != on
    assert numbers(found, "memory_bytes")[0][2] == 200 * (4 * 16 + 8)
    assert numbers(found, "memory_build_seconds")[0][2] > 0
    assert numbers(found, "memory_reading_milliseconds_per_token")[0][2] > 0
    text = measure(changed(settings={"store": "text", "weight": 0.5}), quiet)
    assert numbers(text, "memory_bytes")[0][4]["stored"] == 0 < numbers(text, "memory_bytes")[0][2]
    assert not numbers(measure(BASE, quiet), "memory_bytes")


def test_the_test_split_chooses_nothing_and_only_trained_text_is_stored(monkeypatch):
    asked, real = [], LanguageModelling.exams
    monkeypatch.setattr(LanguageModelling, "exams", lambda self, split: asked.append(split) or real(self, split))
    steps, drawn = [], LanguageModelling.training

    def draw(self, seed, step, *rest):
        steps.append((seed, step))
        return drawn(self, seed, step, *rest)

    monkeypatch.setattr(LanguageModelling, "training", draw)
    measure(changed(settings={"entries": 10_000}), quiet)
    assert asked == ["validation"] * 5 + ["test"]
    assert steps == [(0, 0), (0, 1), (0, 2)] * 2  # training, then what is remembered of it


def test_the_keys_part_evaluations_and_join_trainings():
    other = changed(settings={"entries": 300})
    assert key(KNN) == key(other) == key(BASE)
    assert len({identify(cell).key for cell in (BASE, KNN, other)}) == 3
    window = changed(BASE, model="transformer-window", settings={"window": 16})
    camelot = changed(model="camelot", settings={"base_settings": {"window": 16}, "slots": 4})
    assert key(camelot) == key(window) != key(changed(model="camelot", settings={}))
    assert without_memory(BASE) is BASE and as_trained(KNN).model == "transformer"
    scaled = changed(settings={"base_settings": {"rotary_scaling": "ntk", "rotary_factor": 4.0}})
    assert key(scaled) == key(BASE)


def test_a_memory_takes_the_learning_rate_of_its_base():
    cells = [dataclasses.replace(cell, stage=CHOSEN, lr=0.0) for cell in (BASE, KNN)]
    found = learning_rates.trials(Search((1e-3, 2e-3)), cells, without_exam_settings)
    assert [(trial.model, trial.lr) for trial in found] == [("transformer", 1e-3), ("transformer", 2e-3)]


def test_a_store_of_random_training_texts_is_not_applicable():
    rows = measure(changed(**MQAR), quiet)
    assert [(row["status"], row["reason"].split(":")[0]) for row in rows] == [("left out", "not applicable")]
    assert added_memory.senseless(changed(settings={"store": "text"}, **MQAR)) == ""
    assert added_memory.senseless(changed(model="camelot", settings={}, **MQAR)) == ""
    after = {"task": "needle", "task_settings": {"length": 64, "train_on": {"name": "language-modelling"}}}
    assert added_memory.senseless(changed(**after)) == ""


def test_a_row_says_again_what_its_model_is():
    from results.rows import store as rows_store

    for cell in (
        KNN,
        changed(model="camelot", settings={"threshold": 0.5, "base_settings": {"window": 16}, "slots": 4}),
    ):
        rows = rows_store.rows(cell, identify(cell), measure(cell, quiet))
        again = rebuild(rows)
        assert all(rows[0][name] == value for name, value in again.items())
        assert exam_of(rows[0]) == 1


def test_a_checkpoint_is_asked_with_a_memory(tmp_path, capsys):
    checkpoints = CheckpointSettings(tmp_path)
    expected = numbers(measure(KNN, quiet, checkpoints), "bits_per_byte")[0][2]
    asked = (str(tmp_path / key(BASE)), "language-modelling", TEXT, None, "auto", "cpu", ())
    table = asked_table(*asked, ("knn-lm", {"entries": 200}))
    said = dict(zip(table.columns[0].cells, table.columns[2].cells, strict=True))
    assert float(said["bits_per_byte"]) == pytest.approx(expected, abs=1e-4)
    assert table.title.startswith("knn-lm on transformer, trained on language-modelling")
    with pytest.raises(ValueError, match=r"'gla' is no memory.*knn-lm"):
        asked_table(*asked, ("gla", {}))


def test_a_memory_is_timed_where_no_gradient_is_asked_for():
    model = registry.entry("knn-lm").cls
    timed = added_memory.timed(KNN, build_fresh())
    assert isinstance(timed, model) and len(timed.keys) == 200
    tokens = torch.zeros(1, 8, dtype=torch.long)
    with torch.no_grad():
        assert not torch.equal(timed(tokens)[0], timed.base(tokens)[0])
    assert torch.equal(timed(tokens)[0], timed.base(tokens)[0])


def build_fresh() -> AddedMemory:
    from runner.build import build

    return build(KNN, 256)


def test_the_kit_asks_a_memory_twice():
    found = kit.check("knn-lm", only=["short texts", "with memory, short texts"])
    assert [each.name for each in found] == ["short texts", "with memory, short texts"]
    assert all(each.passed for each in found) and found[0].figure != found[1].figure
    with pytest.raises(ValueError, match="There is no property 'with memory, short texts'"):
        kit.check("transformer", only=["with memory, short texts"])
