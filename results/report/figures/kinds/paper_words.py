"""What a figure in a paper's form says of our scale and of the paper's."""

from __future__ import annotations

import pandas as pd

from results.plans.paper import Form
from results.report.evaluations import Evaluation
from results.rows import metrics, published
from results.rows.row import FLOOR_FAMILY

SOURCES = "measured here", "printed elsewhere"


def note(evaluation: Evaluation, form: Form, printed: pd.DataFrame) -> str:
    """The lines below the title: which way is better, our scale and protocol, the paper's, one a line."""
    protocol = f"their protocol: {published.protocol(form.printed.table)}"
    return "\n".join([metrics.better(form.metric), _ours(evaluation), _theirs(printed), protocol])


def tick(x: int, is_ours: bool, evaluation: Evaluation, form: Form, printed: pd.DataFrame) -> str:
    """A length as papers write it; with the batch where the paper's axis has it."""
    text = f"{x // 1024**2}M" if x % 1024**2 == 0 else f"{x // 1024}K" if x % 1024 == 0 else f"{x}"
    if not form.by_batch:
        return text
    theirs = printed[printed.length == x].setting.str.extract(r"x(\d+)\b", expand=False).dropna()
    batches = [str(max(1, evaluation.settings.get("batch_tokens", x) // x))] if is_ours else []
    return text + "".join(f"\nx {batch}" for batch in dict.fromkeys([*batches, *theirs]))


def _ours(evaluation: Evaluation) -> str:
    setup, rows = evaluation.setup, evaluation.measured()
    size = ", ".join(f"{name} {setup['size'][name]}" for name in ("width", "depth", "heads"))
    budget = setup["budget"]
    tokens = f", {budget['steps'] * budget['batch_tokens']:,} tokens trained" if budget else f", {setup['device']}"
    protocols = ", ".join(sorted({row["protocol"] for row in rows if row["family"] != FLOOR_FAMILY}))
    return f"filled, measured here: {size}{tokens}, protocol {protocols}"


def _theirs(printed: pd.DataFrame) -> str:
    papers = "; ".join(dict.fromkeys(f"{row.paper}, {row.table}" for row in printed.itertuples()))
    stated = [
        f"{what} {', '.join(found) if found else 'not stated'}"
        for what, found in (
            ("parameters", [text for text in dict.fromkeys(printed.params) if text and len(text) < 16]),
            ("tokens", [text for text in dict.fromkeys(printed.tokens) if text and len(text) < 16]),
        )
    ]
    return f"hollow, printed elsewhere: {papers}; {'; '.join(stated)}"
