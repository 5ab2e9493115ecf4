"""The hall: the command line, and measure(cell) -> rows. The only module that knows every wing.

python bench.py list [--costs]            models by family, tasks, comparisons; what each model costs
python bench.py run COMPARISON            measure what is missing, then draw the report
python bench.py report COMPARISON         redraw tables and figures from the stored rows
python bench.py submit COMPARISON         pack plan, rows and raw predictions for others, and draw their report
python bench.py verify COMPARISON         mark the predictions again and hold every row against them
python bench.py check MODEL|FILE.py|all   hold a model, or your own file, to the contract
python bench.py check --parity            hold the models to other people's code
python bench.py show TASK                 print one of a task's questions, the facts that matter marked
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import baselines
import tasks
from models import accounting, check_streaming, kernels, language_model, registry, user_file
from models.language_model import Size
from results import (
    command_line,
    contest_table,
    metrics,
    overrides,
    provenance,
    record,
    report,
    schedule,
    search,
    submission,
    verification,
)
from results import plan as plans
from results.forecast import forecast, timings
from results.identity import FLOOR_FAMILY, canonical, cell_of_row
from results.plan import Cell, Plan
from results.plan_files import LAPTOP, scales
from results.progress import Display
from tasks import contest, predictions, sample
from tasks.evaluate import PIECE, evaluate, validation_loss
from tasks.throughput import Throughput, from_samples, over_a_period, train_step
from tasks.throughput import measure as measure_throughput
from tasks.train import recipe, train

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results"
CODE_OF_ALL = ("models/*.py", "models/kernels/*.py", "tasks/train.py", "tasks/evaluate.py", "tasks/precision.py")
NOT_IN_RESULTS = ("check*.py", "user_file.py")  # what judges or loads models, but measures nothing

LONG = 1000  # steps from which on a training's loss is recorded by tenths
OPPONENTS_FAMILY = "other_people's_code"

Progress = Callable[[dict[str, Any]], None]


def prepare(model_files: Sequence[str]) -> None:
    """Register the user's own files, in the hall and again in every worker process."""
    for file in model_files:
        user_file.load_file(file)


def measure(cell: Cell, progress: Progress) -> record.Measured | list[dict[str, Any]]:
    """Measure one cell: train and examine a model, time it or several in turn, or let a task's cheats sit the exam."""
    torch.set_num_threads(cell.threads)
    if cell.kind == "contest":
        return _contested(cell, progress)
    with kernels.watch() as ran:
        measured = {"floors": _floors, "trial": _tried, "training": _trained, "timing": _timed}[cell.kind](
            cell, progress
        )
    return record.Measured(**measured, provider="+".join(sorted(ran)))


def _floors(cell: Cell, progress: Progress) -> dict[str, Any]:
    task = tasks.create(cell.task, **cell.task_settings)
    found = [(name, *m) for name, measurements in task.floors().items() for m in measurements]
    return {"protocol": task.protocol, "measurements": found}


def _tried(cell: Cell, progress: Progress) -> dict[str, Any]:
    """A trial of a learning rate: a short training, judged on the validation split."""
    task = tasks.create(cell.task, **cell.task_settings)
    model = _build(cell, task.vocab)
    run = {"dtype": cell.dtype, "device": cell.device, "progress": progress}
    log = train(model, task, **cell.budget, lr=cell.lr, seed=cell.seed, **run)
    model.eval()
    begun = time.perf_counter()
    judged = validation_loss(model, task, **run)
    seconds = time.perf_counter() - begun
    return {
        "parameters": language_model.parameter_count(model),
        "protocol": task.protocol,
        "measurements": [
            (None, search.METRIC, judged.value, judged.count, dict(cell.where)),
            (None, "training_seconds", log.seconds, len(log.losses), {"tokens": log.tokens, **recipe()}),
            (None, "evaluation_seconds", seconds, 1, {}),
        ],
    }


def _trained(cell: Cell, progress: Progress) -> dict[str, Any]:
    if cell.lr == search.UNKNOWN:
        raise FloatingPointError("no learning rate of the grid came through its trial")
    task = tasks.create(cell.task, **cell.task_settings)
    model = _build(cell, task.vocab)
    run = {"dtype": cell.dtype, "device": cell.device}
    longest_asked = max(getattr(task, "test_lengths", ()), default=0)
    _admit(model, longest_asked)
    log = train(model, task, **cell.budget, lr=cell.lr, seed=cell.seed, progress=progress, **run)
    model.eval()
    _admit(model, longest_asked)
    begun, longest = time.perf_counter(), [1]

    def examined(news: dict[str, Any]) -> None:
        longest.append(news["length"])
        progress(news)

    kept: list[dict[str, Any]] = []
    found = [
        (None, *m)
        for m in evaluate(
            model, task, **run, progress=examined, keep=lambda *answered: kept.append(predictions.keep(task, *answered))
        )
    ]
    tail = log.losses[-max(1, len(log.losses) // 10) :]
    found += [
        (None, "training_loss", sum(tail) / len(tail), len(tail), {"over": "last tenth of the steps"}),
        (None, "training_seconds", log.seconds, len(log.losses), {"tokens": log.tokens, **recipe()}),
        (None, "evaluation_seconds", time.perf_counter() - begun, 1, {}),
        *_curve(log.losses),
    ]
    state = _largest_state(model, max(longest), cell.device)
    return {
        "parameters": language_model.parameter_count(model),
        "state_bytes": state,
        "protocol": task.protocol,
        "measurements": found,
        "predictions": kept,
    }


def _admit(model: torch.nn.Module, longest: int) -> None:
    """Refuse, before training and again after it, a model that may not be fed in pieces where an exam must be."""
    if longest > PIECE:
        check_streaming.admit(model, longest)


def _curve(losses: Sequence[float]) -> list[tuple]:
    """The mean loss of each tenth of a long training; of a short one its last tenth says enough."""
    if len(losses) < LONG:
        return []
    cuts = [len(losses) * tenth // 10 for tenth in range(11)]
    tenths = [losses[low:high] for low, high in zip(cuts, cuts[1:], strict=False)]
    return [
        (None, "loss_in_training", sum(part) / len(part), len(part), {"tenth": number})
        for number, part in enumerate(tenths, 1)
    ]


def _timed(cell: Cell, progress: Progress) -> dict[str, Any]:
    settings = tasks.checked("throughput", Throughput, cell.task_settings)
    model = _build(cell, 256)
    found, begun, kept = [], time.perf_counter(), []
    run = {"dtype": cell.dtype, "device": cell.device, "keep": kept.append}
    for m in measure_throughput(model, settings, language_model.state_bytes, **run):
        found.append((None, *m))
        progress(m.where)
    for length in settings.lengths:
        work = accounting.training_flops_per_token(cell.model, Size(256, **cell.size), length, **dict(cell.settings))
        if work is not None:
            found.append((None, "training_flops_per_token", work, 1, {"length": length}))
    found.append((None, "timing_seconds", time.perf_counter() - begun, 1, {}))
    parameters = language_model.parameter_count(model)
    state = max(int(m[2]) for m in found if m[1] == "state_bytes")
    timed = {"parameters": parameters, "state_bytes": state, "protocol": "timing", "measurements": found}
    return timed | {"predictions": kept}


def _contested(cell: Cell, progress: Progress) -> list[dict[str, Any]]:
    """Rows of a contest: what each entrant's training steps took, or why there is none."""
    asked, begun = cell.task_settings, time.perf_counter()
    made: dict[str, dict[str, Any]] = {entrant["name"]: {} for entrant in cell.entrants}
    entrants = [
        contest.Entrant(
            entrant["name"],
            partial(_entrant_step, cell, entrant, made[entrant["name"]]),
            entrant["repeats"],
            entrant["longest"],
            counted=not entrant["opponent"] or _opponents().OPPONENTS[entrant["opponent"]].shares_layer,
        )
        for entrant in cell.entrants
    ]
    run = {"limit": asked["limit"], "dtype": cell.dtype, "device": cell.device}
    outcome = contest.hold(entrants, length=cell.where["length"], progress=progress, **run)
    found = list(contest.findings(outcome, asked["reference"], cell.where))
    rows, identity, seconds = [], identify(cell), time.perf_counter() - begun
    for entrant in cell.entrants:
        own, who = cell.of(entrant), identity.of(entrant["name"])
        standing = outcome.standings[entrant["name"]]
        if standing.status != "ok":
            rows += record.failure(own, who, standing.reason, standing.status)
            continue
        mine = [(None, *m) for name, m in found if name == entrant["name"]]
        mine += [(None, "timing_seconds", seconds, 1, cell.where)]
        rows += record.rows(own, who, record.Measured(protocol="contest", measurements=mine, **made[entrant["name"]]))
    return record.one_attempt(rows)


def _entrant_step(cell: Cell, entrant: dict[str, Any], made: dict[str, Any]) -> contest.Step:
    """One entrant's training step; what is known of the entrant besides, its parameters and provider, goes into `made`."""
    own, draw = cell.of(entrant), torch.Generator().manual_seed(cell.seed)
    shape = (cell.task_settings["batch"], cell.where["length"])
    if cell.task_settings["level"] == "model":
        model = _build(own, 256).to(cell.device)
        made["parameters"] = language_model.parameter_count(model)
        step = partial(train_step, model, torch.randint(256, shape, generator=draw).to(cell.device))
    else:
        layer = _layer(own, entrant).to(cell.device)
        made["parameters"] = sum(p.numel() for p in layer.parameters())
        x = torch.randn(*shape, cell.size["width"], generator=draw).to(cell.device)
        forward = layer if entrant["opponent"] else lambda x: layer(x)[0]
        step = contest.layer_step(forward, list(layer.parameters()), x)

    def watched() -> torch.Tensor:
        with kernels.watch() as ran:
            y = step()
        made["provider"] = entrant["opponent"] or "+".join(sorted(ran))
        return y

    return watched


def _opponents() -> ModuleType:
    """Other people's code; imported where a contest names it, so that a broken baseline stops nothing else."""
    from baselines.oracles import opponents

    return opponents


def _layer(cell: Cell, entrant: dict[str, Any]) -> torch.nn.Module:
    """The mixer alone, of ours or of an opponent's."""
    width, heads = cell.size["width"], cell.size["heads"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        if entrant["opponent"]:
            return _opponents().build(entrant["opponent"], width, heads, **cell.settings)
        return registry.entry(cell.model).cls(width, heads, **_settings(cell))


def _settings(cell: Cell) -> dict[str, Any]:
    """The settings of a cell's model, its provider among them."""
    settings = dict(cell.settings)
    if "provider" in inspect.signature(registry.entry(cell.model).cls).parameters:
        settings.setdefault("provider", cell.provider)  # attention alone has nothing to choose
    return settings


def _build(cell: Cell, vocab: int) -> torch.nn.Module:
    return language_model.seeded(cell.model, Size(vocab, **cell.size), cell.seed, **_settings(cell))


@torch.no_grad()
def _largest_state(model: torch.nn.Module, context: int, device: str) -> int:
    """Bytes of the largest state over one period after `context` tokens, for one row of the batch."""
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    _, state = model(token.expand(1, max(1, context)))
    return max(map(language_model.state_bytes, over_a_period(model, token, state)))


def identify(cell: Cell) -> record.Identity:
    """What a cell is before it is measured: its key, its model's family, and the hashes of its code and data."""
    if cell.kind == "contest":
        return _identify_contest(cell)
    if cell.kind == "timing":
        task_file, data_hash = ROOT / "tasks" / "throughput.py", ""
    else:
        task_file, data_hash = _task_facts(cell.task, repr(sorted(cell.task_settings.items())))
    files, family, order = {task_file}, "", 0
    if cell.model:
        entry = registry.entry(cell.model)
        files.add(entry.file)
        family, order = entry.family, entry.family_order
    code = _code_hash(frozenset(files), cell.kind != "floors")
    key = record.key(cell, data_hash, code, _device_class(cell), provenance.machine(), cell.threads)
    return record.Identity(key, family, order, code, data_hash)


def _identify_contest(cell: Cell) -> record.Identity:
    """A contest's identity: the families of its entrants; the versions of other people's packages stand for its data."""
    files, families, versions = {ROOT / "tasks" / "contest.py"}, {}, {}
    for entrant in cell.entrants:
        if entrant["opponent"]:
            files.add(ROOT / "baselines" / "oracles" / "opponents.py")
            package = _opponents().OPPONENTS[entrant["opponent"]].package
            versions[package] = _opponents().comparison.version(package)
            families[entrant["name"]] = (OPPONENTS_FAMILY, len(registry.FAMILIES))
        else:
            entry = registry.entry(entrant["model"])
            files.add(entry.file)
            families[entrant["name"]] = (entry.family, entry.family_order)
    packages = hashlib.sha256(repr(sorted(versions.items(), key=str)).encode()).hexdigest()[:16] if versions else ""
    code = _code_hash(frozenset(files), True)
    key = record.key(cell, packages, code, _device_class(cell), provenance.machine(), cell.threads)
    return record.Identity(key, code_hash=code, data_hash=packages, families=families)


def _device_class(cell: Cell) -> str:
    return cell.device if cell.device == "cpu" else torch.cuda.get_device_name()


@cache
def _task_facts(name: str, settings: str) -> tuple[Path, str]:
    task = tasks.create(name, **dict(ast.literal_eval(settings)))
    return Path(inspect.getfile(type(task))), task.data_hash()


@cache
def _code_hash(files: frozenset[Path], with_models: bool) -> str:
    """Hash of the code that a cell's numbers depend on: its own files, what they import, and the measuring here."""
    found = set(files)
    if with_models:
        every = {path for pattern in CODE_OF_ALL for path in ROOT.glob(pattern)}
        found |= {path for path in every if not any(path.match(pattern) for pattern in NOT_IN_RESULTS)}
    closure = provenance.import_closure(ROOT, found)
    hall = "".join(inspect.getsource(f) for f in MEASURING)
    code = provenance.code_hash(provenance.named(ROOT, closure))
    return hashlib.sha256((code + hall).encode()).hexdigest()[:16]


MEASURING = (
    measure,
    _floors,
    _tried,
    _trained,
    _curve,
    _timed,
    _contested,
    _entrant_step,
    _layer,
    _settings,
    _build,
    _largest_state,
)


def command_list(arguments: argparse.Namespace, console: Console) -> int:
    """Show what there is: models by family with equation and paper, tasks, comparisons, files that failed to import."""
    if arguments.markdown:
        print(models_markdown())
        return 0
    if arguments.costs:
        console.print(_costs(overrides.size(arguments.size) if arguments.size else {}, arguments.length))
        return 0
    table = Table("model", "family", "equation", "paper", title="Models")
    for name in registry.names():
        entry = registry.entry(name)
        table.add_row(name, entry.family.replace("_", " "), entry.equation, entry.paper)
    console.print(table)
    table = Table("task", "what it asks", title="Tasks")
    for name in tasks.names():
        table.add_row(name, tasks.describe(name))
    table.add_row("throughput", (inspect.getdoc(sys.modules[Throughput.__module__]) or "").splitlines()[0])
    console.print(table)
    table = Table("comparison", "scales", "question", title="Comparisons")
    for name in plans.comparisons(RESULTS):
        table.add_row(name, ", ".join([LAPTOP, *scales(RESULTS / name)]), plans.load(RESULTS / name).question)
    console.print(table)
    for module, error in baselines.failures.items():
        console.print(f"not importable: {module}: {error}", style="red", markup=False)
    return 0


def _costs(changed: dict[str, int], length: int) -> Table:
    """Parameters, state and operations of every model at one size and context."""
    fields = {"vocab": 256, "width": 256, "depth": 4, "heads": 4}
    if unknown := set(changed) - set(fields):
        raise ValueError(f"--size knows {', '.join(fields)}, not {', '.join(sorted(unknown))}.")
    size = Size(**fields | changed)
    title = f"Costs at {size}, {length:,} tokens; forward and training in FLOPs per token"
    table = Table("model", "parameters", "state", "forward", "training", title=title)
    for name in registry.names():
        found = accounting.costs(name, size, length)
        work = ("no formula" if value is None else f"{value:,.0f}" for value in (found.forward, found.training))
        table.add_row(name, f"{found.parameters:,}", metrics.byte_size(found.state_bytes), *work)
    return table


def models_markdown() -> str:
    """The table of models that the README shows, from the registry."""
    lines = ["| family | model | update | paper |", "| --- | --- | --- | --- |"]
    for entry in map(registry.entry, registry.names()):
        equation = entry.equation.replace("|", "\\|")
        lines.append(f"| {entry.family.replace('_', ' ')} | `{entry.name}` | {equation} | {entry.paper} |")
    return "\n".join(lines)


def command_run(arguments: argparse.Namespace, console: Console) -> int:
    """Measure the cells of a comparison that are missing, and draw its report."""
    plan = _plan(arguments)
    rows_path = RESULTS / plan.comparison / "rows.jsonl"
    here = record.read(rows_path)
    cells = _cells(plan, here)
    _check_settings(cells)
    if arguments.dry_run:
        past = timings(RESULTS) + record.read(rows_path.parent / "reference" / "rows.jsonl") + here
        table, line = forecast(plan, cells, lambda cell: identify(cell).key, here, past)
        console.print(table, line)
        return 0
    begun = time.monotonic()
    with Display(len(cells), quiet=arguments.quiet) as display:
        summary = schedule.Summary()
        for are_trials in (True, False):  # trials first: they say which rate the others are trained at
            cells = _cells(plan, record.read(rows_path))
            summary += schedule.run(
                [cell for cell in cells if (cell.kind == "trial") == are_trials],
                measure,
                identify,
                rows_path,
                workers=plan.workers,
                timeout=plan.timeout,
                retry_failed=arguments.retry_failed,
                initializer=prepare,
                initargs=(plan.model_files,),
                on_event=display.tell,
            )
    console.print(
        f"{summary.measured} cells measured, {summary.skipped} already there, {summary.failed} failed, "
        f"in {time.monotonic() - begun:.0f} s; rows in {_shown(rows_path)}"
    )
    whole = _cells(plans.load(RESULTS / plan.comparison), record.read(rows_path))
    _report(plan, RESULTS / plan.comparison, {identify(cell).key for cell in [*whole, *cells]}, console)
    return 1 if summary.failed else 0


def _cells(plan: Plan, rows: Sequence[dict[str, Any]]) -> list[Cell]:
    """The plan's cells, those whose learning rate is searched for at the rate that the trials among `rows` chose."""
    cells = plans.cells(plan, registry.names())
    return search.chosen(plan.search, cells, rows, lambda cell: identify(cell).key) if plan.search else cells


def command_report(arguments: argparse.Namespace, console: Console) -> int:
    """Redraw a comparison's tables and figures from its stored rows."""
    folder = RESULTS / arguments.comparison
    plan = plans.load(folder)
    if arguments.adopt:
        return command_submit(arguments, console)
    _report(plan, folder / "reference" if arguments.reference else folder, None, console)
    return 0


def command_submit(arguments: argparse.Namespace, console: Console) -> int:
    """Make this machine's rows of the plan's cells the reference, with plan, raw predictions and hashes; draw it."""
    folder = RESULTS / arguments.comparison
    plan = plans.load(folder)
    measured = record.read(folder / "rows.jsonl")
    keys = {identify(cell).key for cell in _cells(plan, measured)}
    rows = [row for row in measured if row["cell"] in keys]
    missing = len(keys - {row["cell"] for row in rows})
    if missing:
        raise ValueError(f"{missing} cells of {plan.comparison} are not measured here; run it before submitting it.")
    packed = submission.pack(folder, rows)
    console.print(f"{len(rows)} rows and the predictions of {packed.cells} cells in {_shown(folder / 'reference')}")
    for reason in dict.fromkeys(packed.left_out.values()):
        cells = [cell for cell, why in packed.left_out.items() if why == reason]
        console.print(f"{len(cells)} cells without predictions: {reason}", style="yellow", markup=False)
    _report(plan, folder / "reference", None, console)
    return 0


def command_verify(arguments: argparse.Namespace, console: Console) -> int:
    """Hold a comparison's rows against what their predictions give when marked again; 1 where one differs."""
    folder = RESULTS / arguments.comparison
    plans.load(folder)  # or say that there is no such comparison
    folder = folder / "reference" if arguments.reference else folder
    rows = record.attempts(record.read(folder / "rows.jsonl"))
    if not rows:
        raise record.RecordError(f"There are no rows in {_shown(folder)} to verify; run the comparison first.")
    verdict = verification.verify(rows, folder / "predictions", _rederive)
    differences = verdict.differences
    if arguments.reference:
        stale = report.stale_tables(rows, folder)
        differences = [*submission.differences(folder), *differences, *stale]
    for difference in differences:
        console.print(f"DIFFERS  {difference}", style="red", markup=False, soft_wrap=True)
    for reason, unknown in verdict.unknown.items():
        metrics = ", ".join(sorted({row["metric"] or "failed" for row in unknown}))
        console.print(f"not re-derived: {len(unknown)} rows ({metrics}): {reason}", markup=False, soft_wrap=True)
    unknown = sum(map(len, verdict.unknown.values()))
    console.print(f"{verdict.held} rows hold, {len(differences)} differences, {unknown} rows cannot be re-derived")
    return 1 if differences else 0


def _rederive(rows: list[dict[str, Any]], kept: list[dict[str, Any]] | None) -> verification.Again:
    """The numbers of one cell, marked again from its predictions; of floors, computed again."""
    row, is_floors = rows[0], rows[0]["family"] == FLOOR_FAMILY
    if not is_floors and kept is None:
        return verification.Again([], "no predictions were kept")
    if not is_floors and not row["budget"]:
        return verification.Again([(row["model"], *m) for m in from_samples(kept)], "measured once, without samples")
    try:
        task, exams = _asked(row["task"], canonical(row["settings"]["task"]), is_floors)
        identity = identify(cell_of_row(row))
    except (ValueError, LookupError, OSError, ImportError) as error:
        return verification.Again([], f"the task cannot be set here: {error}")
    if identity.data_hash != row["data_hash"]:
        return verification.Again([], "the task's data here are not those that were asked")
    if is_floors:
        found = [(name, *m) for name, measurements in task.floors().items() for m in measurements]
    else:
        found = [(row["model"], *m) for m in predictions.mark(task, exams, kept)]
    finite = [number for number in found if math.isfinite(number[2])]
    return verification.Again(finite, "measured once", identity.code_hash == row["code_hash"])


@lru_cache(maxsize=1)  # cells of one task follow one another
def _asked(name: str, settings: str, floors: bool) -> tuple[tasks.Task, list[Any]]:
    task = tasks.create(name, **json.loads(settings))
    return task, [] if floors else list(task.exams("test"))


def _report(plan: Plan, folder: Path, keys: set[str] | None, console: Console) -> None:
    """Draw the report of the rows in `folder`; with `keys`, of those cells only, so that stale rows stay out.

    A run of a part passes the keys of the whole plan too: a new model stands beside the ones measured before it.
    """
    rows = record.read(folder / "rows.jsonl")
    if not rows:
        raise record.RecordError(f"There are no rows in {_shown(folder / 'rows.jsonl')}; run the comparison first.")
    if keys is not None:
        rows = [row for row in rows if row["cell"] in keys]
    is_reference = folder.name == "reference"
    reference = [] if is_reference else record.read(folder / "reference" / "rows.jsonl")
    out = folder if is_reference else folder / "report"
    shown = {"claims": plan.claims, "tables": plan.printed, "forms": plan.figures}
    page = report.report(rows, out, title=plan.title, question=plan.question, reference=reference, **shown)
    for part in contest_table.terminal(rows):
        console.print(part, highlight=False)
    console.print(f"report: {_shown(page)}")


def command_check(arguments: argparse.Namespace, console: Console) -> int:
    """Hold a registered model, the models of a file, or all of them to the contract; print one line a property."""
    from models.check import check

    if arguments.parity:
        return _parity(arguments, console)
    if arguments.model is None:
        raise ValueError("Say what to check: a registered name, a path/to/file.py, or all; or give --parity.")
    names = registry.names() if arguments.model == "all" else [arguments.model]
    if arguments.model.endswith(".py"):
        names = user_file.load_file(arguments.model)
    settings, failed = overrides.settings(arguments.set), 0
    if set(settings) - set(names):
        raise ValueError(f"--set names {', '.join(sorted(set(settings) - set(names)))}, which is not checked here.")
    for name in names:
        registry.entry(name)
        console.print(f"[bold]{name}[/bold]")
        for item in check(name, thorough=arguments.thorough, **settings.get(name, {})):
            failed += not item.passed
            mark = "[green]holds[/green]" if item.passed else "[red]FAILS[/red]"
            figure = f"{item.figure:.3g}" if isinstance(item.figure, float) else item.figure
            console.print(f"  {mark}  {item.name}: {figure}  {escape(item.detail)}", highlight=False, soft_wrap=True)
    console.print(f"{len(names)} model(s) checked, {failed} propert{'y' if failed == 1 else 'ies'} failed")
    return 1 if failed else 0


def _parity(arguments: argparse.Namespace, console: Console) -> int:
    """Print the ledger of a model, or of all: how far its numbers are from independent code."""
    from baselines.oracles import ledger, ledger_rows

    whole = arguments.model in (None, "all")
    stored = ledger_rows.read(Path(arguments.rows)) if arguments.rows else []
    rows = ledger_rows.filled(ledger.ledger(None if whole else [arguments.model]), stored)
    if arguments.rows:
        ledger_rows.keep(Path(arguments.rows), rows, whole)
    failed = sum(row.failed for row in rows)
    if arguments.markdown:
        print(ledger.markdown(rows), end="")
        return 1 if failed else 0
    table = Table("model", "oracle", "compared", "forward", "backward", title="Largest relative error")
    for row in rows:
        table.add_row(*map(escape, ledger.figures(row)))
    console.print(table)
    for reason in dict.fromkeys(row.reason for row in rows if row.oracle and row.reason):
        console.print(reason, style="yellow", markup=False)
    console.print(f"{sum(row.forward is not None for row in rows)} comparison(s) made, {failed} failed")
    return 1 if failed else 0


def command_show(arguments: argparse.Namespace, console: Console) -> int:
    """Print one question of a task: settings, text with what matters marked, answer."""
    every = overrides.settings(arguments.set)
    if others := set(every) - {arguments.task}:
        raise ValueError(
            f"--set names {', '.join(sorted(others))}, but {arguments.task} is shown: set {arguments.task}.X."
        )
    settings = every.get(arguments.task, {})
    task = tasks.create(arguments.task, **settings)
    console.print(sample.render(task, settings, arguments.split, arguments.number, arguments.whole), soft_wrap=True)
    return 0


def _plan(arguments: argparse.Namespace) -> Plan:
    """The comparison's plan with the command line's changes."""
    plan = plans.load(RESULTS / arguments.comparison)
    names = overrides.names(arguments.models or "")
    files = [name for name in names if name.endswith(".py")]
    own = [name for file in files for name in user_file.load_file(file)]
    chosen = [name for name in names if name not in files] + own
    return plan.with_overrides(**command_line.changes(arguments, chosen, files))


def _check_settings(cells: Sequence[Cell]) -> None:
    """Refuse a misspelt setting, an impossible size, an absent provider or device before anything is measured."""
    seen = set()
    for cell in cells:
        kernels.check_provider(cell.provider or "auto")
        if cell.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("Device cuda was asked for, but torch sees no CUDA device here; use --device cpu.")
        if cell.kind == "contest":
            _check_contest(cell)
            continue
        what = (cell.model, repr(cell.settings), repr(cell.size), cell.task, repr(cell.task_settings), cell.provider)
        if what in seen:
            continue
        seen.add(what)
        if cell.kind == "timing":
            tasks.checked("throughput", Throughput, cell.task_settings)
        elif cell.kind == "floors":
            tasks.create(cell.task, **cell.task_settings)
        if cell.model:
            with torch.device("meta"):
                _build(cell, 256)


def _check_contest(cell: Cell) -> None:
    """Refuse an entrant that does not exist or has a wrong setting; one that cannot be built only drops out."""
    for entrant in cell.entrants:
        if entrant["opponent"]:
            _opponents().check(entrant["opponent"], entrant["settings"])
            continue
        entry = registry.entry(entrant["model"])
        language_model.check_settings(entry, entrant["settings"])
        if cell.task_settings["level"] == "layer" and entry.is_language_model:
            raise ValueError(
                f"'{entry.name}' is a whole language model and has no layer to time; name it in a contest of level 'model'."
            )


def _shown(path: Path) -> str:
    return os.path.relpath(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; bad input is one sentence and exit code 2, Ctrl-C is 130."""
    actions = {
        "list": command_list,
        "run": command_run,
        "report": command_report,
        "submit": command_submit,
        "verify": command_verify,
        "check": command_check,
        "show": command_show,
    }
    parsed = command_line.parsed(command_line.parser(__doc__, actions, kernels.PROVIDERS), arguments)
    console = Console()
    try:
        return parsed.action(parsed, console)
    except KeyboardInterrupt:
        print("Stopped; what was measured is kept, run the same command to go on.", file=sys.stderr)
        return 130
    except (ValueError, KeyError, RuntimeError, OSError, ImportError) as error:
        if os.environ.get("TITANOMACHY_TRACE"):
            raise
        print(f"bench.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
