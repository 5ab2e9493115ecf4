"""A generated set described in Croissant 1.0 (JSON-LD) with the fields of its vocabulary for responsible AI."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from results.report.exports import data_sheets

TYPES = ((bool, "sc:Boolean"), (int, "sc:Integer"), (float, "sc:Float"), (str, "sc:Text"))
TERMS = {
    name: f"cr:{name}"
    for name in (
        "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format",
        "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
        "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
    )
}  # fmt: skip
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **TERMS,
}
CONFORMS = ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"]
CITE = (
    "@software{titanomachy, title = {Titanomachy: every generation of linear-recurrent sequence model, trained, tested and timed "
    "on equal terms}, author = {{The Titanomachy contributors}}, year = {2026}}"
)
MEANINGS = {
    "id": "number of the question in its set, from 0",
    "text": "what is read",
    "answer": "what is to follow; where a text asks at several places, all answers in order",
    "choices": "the closed set of answers that the question is scored among",
    "places": "behind how many tokens of the text an answer is asked",
    "tokens_sha256": "SHA-256 of the token numbers of text and answer, in decimals with blanks between them",
}


@dataclass(frozen=True)
class GeneratedSet:
    """A set of questions as a file of JSON lines, and what it came from."""

    name: str
    task: str
    about: str  # what the task asks, in a sentence
    settings: Mapping[str, Any]
    version: int  # of the task's evaluation
    data_hash: str  # of corpora and word lists that the task reads, "" for none
    file: str
    digest: str  # SHA-256 of the file
    size: int  # bytes
    records: Sequence[Mapping[str, Any]]
    licence: str  # a URL
    url: str  # where the set is published
    published: str = ""  # the day, as 2026-01-31

    @property
    def described(self) -> str:
        """The set in a few sentences, with the hash of its content."""
        told = json.dumps(self.settings, sort_keys=True, ensure_ascii=False)
        read = f", over data with the hash {self.data_hash}" if self.data_hash else ""
        return (
            f"{self.about} {len(self.records):,} questions: the test split of Titanomachy's task {self.task}, drawn by program "
            f"under settings {told}, evaluation version {self.version}{read}. Equal settings, version and data give an equal "
            f"file: its SHA-256 is {self.digest}."
        )


def document(one: GeneratedSet) -> dict[str, Any]:
    """The set's description; equal sets give equal descriptions."""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": one.name,
        "description": one.described,
        "conformsTo": CONFORMS,
        "version": f"{one.version}.0.0",
        "license": one.licence,
        "url": one.url,
        **({"datePublished": one.published} if one.published else {}),
        "citeAs": CITE,
        "creator": {"@type": "sc:Organization", "name": "The Titanomachy contributors"},
        "keywords": ["sequence models", "long context", "synthetic data", one.task],
        "isLiveDataset": False,
        **_responsible(one),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": one.file,
                "name": one.file,
                "contentUrl": one.file,
                "contentSize": f"{one.size} B",
                "encodingFormat": "application/jsonlines",
                "sha256": one.digest,
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "questions",
                "name": "questions",
                "description": "One record a question.",
                "field": _fields(one),
            }
        ],
    }


def _responsible(one: GeneratedSet) -> dict[str, Any]:
    """Croissant's fields of responsible AI."""
    sheet = data_sheets.of(one.task)
    return {
        "rai:dataCollection": sheet.collection,
        "rai:dataCollectionType": ["Software Collection"],
        "rai:dataPreprocessingProtocol": ["None: a question is written as the program draws it."],
        "rai:dataAnnotationProtocol": "None: the program that draws a question knows its answer.",
        "rai:dataBiases": [sheet.biases],
        "rai:dataLimitations": [sheet.limitations],
        "rai:dataUseCases": [
            f"Evaluation of sequence models. {sheet.use_cases} Not for training, which draws texts of its own."
        ],
        "rai:dataSocialImpact": "None that is known: questions are about made-up keys, symbols and stories.",
        "rai:personalSensitiveInformation": ["None: no living person is named or described."],
        "rai:dataReleaseMaintenancePlan": (
            "A set is never changed under its version: where the task asks something else, its evaluation's version is raised "
            "and the set is drawn anew with another hash."
        ),
    }


def _fields(one: GeneratedSet) -> list[dict[str, Any]]:
    """A field for each key that a record has; a list is repeated."""
    names = dict.fromkeys(name for record in one.records for name in record)
    return [_field(one, name) for name in names]


def _field(one: GeneratedSet, name: str) -> dict[str, Any]:
    known = (record[name] for record in one.records if record.get(name) not in (None, []))
    value = next(known, "")
    is_list = isinstance(value, list)
    kind = next(kind for of, kind in TYPES if isinstance(value[0] if is_list else value, of))
    field = {
        "@type": "cr:Field",
        "@id": f"questions/{name}",
        "name": name,
        "description": MEANINGS.get(name, f"the setting {name} that the question was drawn under"),
        "dataType": kind,
        "source": {"fileObject": {"@id": one.file}, "extract": {"column": name}},
    }
    return field | ({"repeated": True} if is_list else {})
