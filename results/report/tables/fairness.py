"""The fairness card of an evaluation: what was equal for all models, what each had, and every deviation by name."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from results.cell import UNKNOWN_RATE
from results.plans import learning_rates, match
from results.report.evaluations import Evaluation, Model
from results.report.tables import summary, table
from schema.terms import state_tolerance, tolerance

Row = dict[str, Any]
FELL = 1.5  # times the loss at a training's end, above which its trials ended before it had learned most


def markdown(evaluation: Evaluation, reference_model: str = "transformer") -> str:
    """The card as Markdown: conditions shared by all, a line for each model, deviations; "" where nothing was trained."""
    if not evaluation.setup["budget"] or not evaluation.learners:
        return ""
    searched = any(trials(evaluation, model) for model in evaluation.learners)
    head = ["model", "parameters", f"to {reference_model}", *match.head(evaluation.setup["size"], reference_model)]
    head += ["tokens", "seeds", "provider", "trials", "trained at"]
    head += ["best rate (loss)", "median rate", "worst rate"] if searched else []
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    lines += [
        "| " + " | ".join(_line(evaluation, model, reference_model, searched)) + " |" for model in evaluation.learners
    ]
    odd = deviations(evaluation, reference_model)
    named = "\n".join(f"- {one}" for one in odd) if odd else "- none"
    return (
        f"**Fairness card.** {_shared(evaluation, reference_model)}\n\n"
        + "\n".join(lines)
        + f"\n\nDeviations:\n\n{named}"
        + "".join(f"\n\nSettings beside a model's own:\n\n{lines}" for lines in [_settings(evaluation)] if lines)
    )


def deviations(evaluation: Evaluation, reference_model: str = "transformer") -> list[str]:
    """A sentence for each way in which the models did not stand on equal terms."""
    found = []
    gaps = {model.label: table.parameter_gap(evaluation, model, reference_model) for model in evaluation.learners}
    if all(gap is None for gap in gaps.values()):
        counts = [model.parameters for model in evaluation.learners if model.parameters]
        apart = f"the models lie within {100 * (max(counts) / min(counts) - 1):.1f} % of one another" if counts else ""
        found.append(
            f"parameters: {reference_model} has no row here to be compared with" + (f"; {apart}" if apart else "")
        )
    for model in evaluation.learners:
        gap, near = gaps[model.label], 100 * tolerance(model.parameters or 0)
        if gap is not None and abs(gap) > near and match.by(evaluation.setup["size"]) != match.FLOPS:
            found.append(f"parameters: {model.label} has {gap:+.1f} %, beyond the tolerance of {near:g} %")
        lost, seeds = evaluation.lost_seeds(model.label)
        if lost:
            found.append(f"failures: {lost} of {seeds} seeds of {model.label} gave no number")
    found += [f"learning rate: {one}" for one in _rate_deviations(evaluation)]
    found += _match_deviations(evaluation)
    facts = {
        "tokens": lambda model: _tokens(evaluation, model),
        "seeds": lambda model: _seeds(evaluation, model),
        "provider that ran": lambda model: table.providers(evaluation, model),
        "number of learning-rate trials": lambda model: str(len(trials(evaluation, model))),
    }
    return found + [text for name, fact in facts.items() if (text := _uneven(evaluation.learners, name, fact))]


def trials(evaluation: Evaluation, model: Model) -> list[Row]:
    """The trials of a model's learning rate: one row each, its validation loss or why there is none."""
    rows = [
        r for r in evaluation.trials.get(model.label, []) if r["status"] != "ok" or r["metric"] == learning_rates.METRIC
    ]
    return sorted(rows, key=lambda row: row["lr"])


def _shared(evaluation: Evaluation, reference_model: str) -> str:
    budget, setup = evaluation.setup["budget"], evaluation.setup
    told = [row["where"] for row in evaluation.measured(metric="training_seconds")]
    recipe = {name: sorted({where[name] for where in told if name in where}) for name in ("optimiser", "schedule")}
    matched = match.words(setup["size"], reference_model)
    parts = [f"matched by {matched}"] if matched else []
    parts += [table.work(budget)]
    parts += [f"{name}: {' or '.join(texts)}" for name, texts in recipe.items() if texts]
    parts += ["data order: drawn from seed and step alone, so the same for every model"]
    parts += [f"{setup['dtype']} on {setup['device']}, {setup['threads']} thread{'s' if setup['threads'] > 1 else ''}"]
    parts += [f"provider requested: {setup['provider_requested']}"]
    tried = next((rows for model in evaluation.learners if (rows := trials(evaluation, model))), [])
    if tried:
        rates = ", ".join(f"{row['lr']:g}" for row in tried)
        parts.append(
            f"learning rate: each of {rates} tried for "
            f"{tried[0]['budget']['steps']:,} steps with seed {tried[0]['seed']}, the lowest loss on the validation "
            "split taken for all seeds"
        )
    return "For all: " + "; ".join(parts) + "."


def _line(evaluation: Evaluation, model: Model, reference_model: str, searched: bool) -> list[str]:
    gap, rows, tried = (
        table.parameter_gap(evaluation, model, reference_model),
        evaluation.rows[model.label],
        trials(evaluation, model),
    )
    cells = [
        model.title,
        f"{model.parameters:,}" if model.parameters else "",
        "" if gap is None else f"{gap:+.1f} %",
        *match.cells(evaluation.setup["size"], *_figure(evaluation, model)),
        _tokens(evaluation, model),
        _seeds(evaluation, model),
        table.providers(evaluation, model),
        str(len(tried)) if tried else "none",
        ", ".join(f"{rate:g}" for rate in sorted({row["lr"] for row in rows}) if rate != UNKNOWN_RATE),
    ]
    if searched:
        ranked = sorted(tried, key=lambda row: (row["value"] is None, row["value"] or 0.0, row["lr"]))
        median = [_rate(ranked[(len(ranked) - 1) // 2]) if len(ranked) > 2 else ""]  # of two there is none
        cells += [_rate(ranked[0]), *median, _rate(ranked[-1])] if ranked else [""] * 3
    return cells


def _rate(row: Row) -> str:
    loss = "failed" if row["value"] is None else f"{row['value']:.3f}"
    return f"{row['lr']:g} ({loss})"


def _rate_deviations(evaluation: Evaluation) -> list[str]:
    """Trials that failed, rates at an edge of their grid, grids whose losses hardly differ, and models that did not learn."""
    failed: list[str] = []
    named: dict[str, list[str]] = {
        "at the lowest of their grid, so that a better one may lie beyond": [],
        "at the highest of their grid, so that a better one may lie beyond": [],
        "chosen by next to nothing, as the losses of the trials hardly differ": [],
        "chosen before learning set in, which trials as short cannot foretell": [],
        "did not learn, for lack of budget and not of a rate, since all trials ended on one plateau": [],
    }
    lowest, highest, alike, early, unlearned = named.values()
    for model in evaluation.learners:
        if not (tried := trials(evaluation, model)):
            continue
        failed += [
            f"{row['lr']:g} of {model.label} failed in its trial ({row['reason']})" for row in tried if row["reason"]
        ]
        rates, used = [row["lr"] for row in tried], {row["lr"] for row in evaluation.rows[model.label]}
        lowest += [f"{model.label} ({rates[0]:g})"] if rates[0] in used else []
        highest += [f"{model.label} ({rates[-1]:g})"] if rates[-1] in used and len(rates) > 1 else []
        losses = sorted(row["value"] for row in tried if row["value"] is not None)
        if learning_rates.is_plateau(losses):
            told = unlearned if _did_not_learn(evaluation, model) else alike
            told += [f"{model.label} ({losses[0]:.3f} to {losses[-1]:.3f})"]
        elif (end := _fell_later(evaluation, model, losses)) is not None:
            early.append(f"{model.label} ({losses[0]:.3f} at best, {end:.3f} at the end of training)")
    return failed + [f"{what}: {', '.join(models)}" for what, models in named.items() if models]


def _fell_later(evaluation: Evaluation, model: Model, losses: Sequence[float]) -> float | None:
    """The loss that a model's trainings ended at, where its trials ended too early to tell rates apart; None elsewhere.

    Too early: the best trial lies far above that end, and less than half as far below the middling trial. A loss of text, which
    falls evenly, does not lie far above.
    """
    ended = [row["value"] for row in evaluation.measured(model.label, "training_loss")]
    if len(losses) < 2 or not ended:
        return None
    end = fmean(ended)
    apart = losses[len(losses) // 2] - losses[0]
    return end if losses[0] > FELL * end and apart < (losses[0] - end) / 2 else None


def _did_not_learn(evaluation: Evaluation, model: Model) -> bool:
    """Whether a model is no better than who guesses or reads without understanding, by the evaluation's headline number."""
    column = summary.headline(evaluation)
    return column is not None and evaluation.learned(model.label, column.metric, column.where) == "no"


def _figure(evaluation: Evaluation, model: Model) -> tuple[float | None, float | None]:
    """What a model's rows have of the state or FLOPs that are matched, and what was aimed at; None where no row says it."""
    if match.by(evaluation.setup["size"]) == match.STATE:
        return model.state_bytes, evaluation.setup["size"]["state_bytes"]
    row = next(iter(evaluation.measured(model.label, "matched_flops_per_token")), None)
    return (None, None) if row is None else (row["value"], row["where"]["aim"])


def _match_deviations(evaluation: Evaluation) -> list[str]:
    """A sentence for each model that is not where the match by state or FLOPs wanted it."""
    by, found = match.by(evaluation.setup["size"]), []
    noun = {match.STATE: "state bytes", match.FLOPS: "training FLOPs"}.get(by)
    for model in evaluation.learners if noun else ():
        has, aim = _figure(evaluation, model)
        near = 100 * (state_tolerance(aim) if by == match.STATE else tolerance(model.parameters or 0))
        if has is None and evaluation.measured(model.label):
            found.append(f"{noun}: {model.label} has no formula of them, so it keeps its parameter match")
        elif has is not None and abs(off := match.gap(has, aim)) > near:
            found.append(f"{noun}: {model.label} has {off:+.1f} %, beyond the tolerance of {near:g} %")
    return found


def _uneven(models: Sequence[Model], name: str, fact: Any) -> str:
    """A sentence if the models differ in a fact, with who has what."""
    groups: dict[str, list[str]] = {}
    for model in models:
        if value := fact(model):
            groups.setdefault(value, []).append(model.label)
    if len(groups) < 2:
        return ""
    return f"{name}: " + "; ".join(f"{value} for {', '.join(labels)}" for value, labels in groups.items())


def _tokens(evaluation: Evaluation, model: Model) -> str:
    """The tokens that a model was trained on, over its seeds."""
    rows = evaluation.measured(model.label, "training_seconds")
    counts = sorted({row["where"]["tokens"] for row in rows if "tokens" in row["where"]})
    return "" if not counts else f"{counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "")


def _settings(evaluation: Evaluation) -> str:
    """A line for each model that was measured under other settings than its own, or under another name; "" where none was."""
    lines = []
    for model in evaluation.learners:
        row = next(iter(evaluation.rows[model.label]), None)
        own = {} if row is None else row["settings"]["model"]
        name = "" if row is None or row["model"] == model.label else f"{row['model']}, "
        said = "; ".join(f"{setting} = {_words(value)}" for setting, value in own.items())
        lines += [f"- {model.label}: {name}{said or 'as it comes'}"] if own or name else []
    return "\n".join(lines)


def _words(value: Any) -> str:
    """A setting's value as the command line takes it."""
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _seeds(evaluation: Evaluation, model: Model) -> str:
    good = [row["seed"] for row in evaluation.measured(model.label)]
    return ", ".join(map(str, sorted(set(good))))
