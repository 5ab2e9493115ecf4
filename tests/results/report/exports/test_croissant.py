"""The card of a generated set: whole, and, where mlcroissant is installed, valid by it, and read back by it."""

from __future__ import annotations

import hashlib
import json

import pytest

from results.report.exports import croissant, data_sheets

RECORDS = [
    {"id": 0, "text": "a b", "answer": "c", "places": [1, 2], "length": 64, "depth": None},
    {"id": 1, "text": "d\ne", "answer": "f", "places": [3], "length": 64, "depth": 0.5},
]
DATA = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def card(task: str = "needle"):
    digest = hashlib.sha256(DATA).hexdigest()
    about, licence = "What it asks.", "https://opensource.org/license/mit"
    one = croissant.GeneratedSet(
        "made-up", task, about, {"length": 64}, 2, "0123abcd", "questions.jsonl", digest, len(DATA), RECORDS, licence, "https://example.org/x",
        "2026-01-31",
    )  # fmt: skip
    return croissant.document(one)


def test_a_card_has_version_hash_and_every_field_with_its_type():
    found = card()
    digest = hashlib.sha256(DATA).hexdigest()
    assert found["version"] == "2.0.0" and found["distribution"][0]["sha256"] == digest
    assert digest in found["description"] and "hash 0123abcd" in found["description"]
    fields = {field["name"]: field for field in found["recordSet"][0]["field"]}
    types = {name: field["dataType"].removeprefix("sc:") for name, field in fields.items()}
    assert types == {
        "id": "Integer", "text": "Text", "answer": "Text", "places": "Integer", "length": "Integer", "depth": "Float",
    }  # fmt: skip
    assert [name for name, field in fields.items() if field.get("repeated")] == ["places"]


@pytest.mark.parametrize("task", [*data_sheets.SHEETS, "mqar"])
def test_a_card_says_what_responsible_use_needs(task):
    found = card(task)
    for name in ("dataCollection", "dataBiases", "dataLimitations", "dataUseCases", "personalSensitiveInformation"):
        assert found[f"rai:{name}"]
    assert found["rai:dataCollection"] == data_sheets.of(task).collection


def test_mlcroissant_finds_nothing_and_reads_the_records_back(tmp_path):
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    (tmp_path / "questions.jsonl").write_bytes(DATA)
    (tmp_path / "croissant.json").write_text(json.dumps(card()), encoding="utf-8")
    dataset = mlcroissant.Dataset(jsonld=tmp_path / "croissant.json")
    issues = dataset.metadata.ctx.issues
    assert (set(issues.errors), set(issues.warnings)) == (set(), set())
    assert dataset.metadata.data_biases and dataset.metadata.version == "2.0.0"
    found = list(dataset.records("questions"))
    assert [one["questions/answer"] for one in found] == [b"c", b"f"]
    assert [list(one["questions/places"]) for one in found] == [[1, 2], [3]]
