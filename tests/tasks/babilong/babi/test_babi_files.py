"""Released bAbI files as a source: read as written, split as released, and asked inside BABILong."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import torch

import tasks
from tasks.babilong.babi import released as babi_files
from tasks.babilong.babi.released import SourceError, items, parse
from tasks.babilong.questions import split_of
from tasks.babilong.scoring import in_order

STORY = """1 John travelled to the hallway.
2 Mary journeyed to the bathroom.
3 Where is John? \thallway\t1
4 Daniel went back to the bathroom.
5 John moved to the bedroom.
6 Where is Mary? \tbathroom\t2
"""
ROOMS = ("hallway", "bathroom", "bedroom", "garden", "kitchen", "office")


def story(number: int) -> str:
    """Two moves of two people and one question, different for every number."""
    one, two = ROOMS[number % 6], ROOMS[number // 6 % 6]
    return f"1 John moved to the {one}.\n2 Mary moved to the {two}.\n3 Where is John? \t{one}\t1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "qa1_single-supporting-fact_train.txt").write_text("".join(map(story, range(30))))
    (tmp_path / "qa1_single-supporting-fact_test.txt").write_text("".join(map(story, range(30, 36))))
    return tmp_path


def test_a_file_is_read_as_it_is_written():
    (told,) = parse(STORY)
    first, second = told.items
    assert first.facts == ("John travelled to the hallway.", "Mary journeyed to the bathroom.")
    assert (first.question, first.answer, first.supports) == ("Where is John? ", "hallway", (0,))
    assert second.facts == tuple(told.facts) and len(second.facts) == 4 and second.supports == (1,)


def test_every_tenth_training_story_is_kept_for_validation(folder):
    train, validation, test = (items(str(folder), "qa1", split) for split in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (27, 3, 6)
    assert not set(train) & set(validation)


def test_an_archive_holds_what_its_folder_holds(folder, tmp_path):
    packed = tmp_path / "babi.tar.xz"
    with tarfile.open(packed, "w:xz") as archive:
        archive.add(folder, arcname="en-10k", filter=lambda member: None if member.name.endswith(".xz") else member)
    for split in ("train", "validation", "test"):
        assert items(str(packed), "qa1", split) == items(str(folder), "qa1", split)
    assert babi_files.data_hash(str(packed)) == babi_files.data_hash(str(folder))


def test_babilong_asks_the_released_questions(folder):
    made = tasks.create("babilong", questions=("qa1",), length=128, test_lengths=(256,), source=str(folder), samples=9)
    exams = list(made.exams("test"))
    asked = sum(len(exam.batch.tokens) for exam in exams)
    assert asked == 6  # all that the test file holds
    for exam in exams:
        for row in range(len(exam.batch.tokens)):
            context = bytes(exam.batch.tokens[row, : exam.prompt].tolist()).decode()
            matching = [i for i in items(str(folder), "qa1", "test") if all(fact in context for fact in i.facts)]
            assert any(bytes(made.truth(exam, row)).decode() == item.answer + "\n" for item in matching)
    batch = made.training(0, 0, 1.0, 2048)
    assert len(batch.tokens) == 2048 // batch.tokens.shape[1]
    other = tasks.create("babilong", questions=("qa1",), length=128)
    assert made.data_hash() != other.data_hash()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: path / "nowhere", "There is no bAbI data"),
        (lambda path: "", "There is no bAbI data at ''"),
        (lambda path: "$EMPTY", "There is no bAbI data"),
        (lambda path: path, "holds no file named as bAbI's are"),
        (lambda path: (path / "x.tar").write_bytes(b"no archive") and path / "x.tar", "cannot be read as bAbI data"),
        (
            lambda path: (path / "qa1_single_test.txt").write_text("1 A went.\nnot a line\n") and path,
            "Line 2 of qa1_single_test.txt is no line of bAbI",
        ),
    ],
)
def test_a_bad_source_is_told_in_one_sentence(prepare, message, tmp_path, monkeypatch):
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(SourceError, match=message) as found:
        tasks.create("babilong", questions=("qa1",), source=str(prepare(tmp_path)))
    assert "\n" not in str(found.value)


def test_a_model_trained_on_ours_is_asked_both(folder, monkeypatch):
    monkeypatch.setenv("SOME_BABI", str(folder))
    (folder / "qa1_single-supporting-fact_test.txt").write_text("".join(map(story, range(36))))
    made = tasks.create(
        "babilong", questions=["qa1"], length=128, test_lengths=[0, 256], samples=9,
        test_sources=["simulator", "$SOME_BABI"],
    )  # fmt: skip
    alone = tasks.create("babilong", questions=["qa1"], length=128, test_lengths=[0, 256], samples=9)
    assert torch.equal(made.training(0, 3, 0.7, 2048).tokens, alone.training(0, 3, 0.7, 2048).tokens)
    assert [e.batch.where for e in made.exams("validation")] == [e.batch.where for e in alone.exams("validation")]
    ours = [exam for exam in made.exams("test") if exam.batch.where["stories"] == "simulator"]
    assert all(map(torch.equal, *([e.batch.tokens for e in exams] for exams in (ours, alone.exams("test")))))
    released = items(str(folder), "qa1", "test")
    asked = [exam for exam in made.exams("test") if exam.batch.where["stories"] == "released"]
    for exam in asked:
        for row, (context, question) in enumerate(made.read(exam)):
            told = [item for item in released if item.question.strip() == question and in_order(item.facts, context)]
            assert bytes(made.truth(exam, row)).decode() in {item.answer + "\n" for item in told}
    never_told = sum(split_of("qa1", item.facts) == "test" for item in released)
    assert 0 < never_told == sum(len(exam.batch.tokens) for exam in asked if exam.batch.where["length"]) < 9
    assert {m.where["stories"] for m in made.floors()["floor: majority answer"]} == {"simulator", "released"}
    assert made.data_hash() == alone.data_hash() + babi_files.data_hash(str(folder))[:16]


def test_sources_of_the_test_are_one_of_each_kind_and_there(folder):
    with pytest.raises(ValueError, match="'simulator' and one source of files, each once"):
        tasks.create("babilong", questions=("qa1",), test_sources=(str(folder), str(folder / "..")))
    with pytest.raises(SourceError, match="at '\\$NO_SUCH_VARIABLE': let the variable name a folder"):
        tasks.create("babilong", questions=("qa1",), test_sources=("$NO_SUCH_VARIABLE",))
    with pytest.raises(ValueError, match="no test questions of qa2"):
        tasks.create("babilong", questions=("qa1", "qa2"), test_sources=("simulator", str(folder)))


def test_a_question_that_the_source_lacks_is_named(folder):
    with pytest.raises(ValueError, match="no test questions of qa2"):
        tasks.create("babilong", questions=("qa1", "qa2"), source=str(folder))
