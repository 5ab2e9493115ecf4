"""What stands in the rows of the needle task, and in the books of a split."""

from __future__ import annotations

import re

from tasks.text.corpus import documents

COMPACT = {
    "s-niah-1": re.compile(r"(?s)([^\n]*)\n([a-z]{5})=(\d{4})\n([^\n]*)\n\2=\3"),
    "s-niah-2": re.compile(r"(?s)([^\n]*)\n([a-z]{5})=(\d{4})\n([^\n]*)\n\2=\3"),
    "s-niah-3": re.compile(r"(?s)([^\n]*)\n([a-z]{5})=([0-9a-f]{2}-[0-9a-f]{2})\n([^\n]*)\n\2=\3"),
}


def rows(batch) -> list[str]:
    return [bytes(row.tolist()).decode() for row in batch.tokens]


def collapsed(split: str) -> str:
    return " ".join(" ".join(document.text for document in documents(split)).split())
