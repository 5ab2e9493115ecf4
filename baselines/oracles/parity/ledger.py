"""The ledger: every model, the independent code it was held against, and by how much the two differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from baselines.oracles.parity import hugging_face, titans_pytorch, torchscale
from baselines.oracles.parity.comparison import Comparison, version
from baselines.oracles.parity.fla import kernels, layers, naive
from models import registry

COMPARISONS: tuple[Comparison, ...] = (
    *naive.COMPARISONS,
    *hugging_face.COMPARISONS,
    *torchscale.COMPARISONS,
    *titans_pytorch.COMPARISONS,
    *kernels.COMPARISONS,
    *layers.COMPARISONS,
)
_PARTS = "no installable code that follows the paper was found; its parts are compared under titans-lmm and transformer-window"
NO_ORACLE = {name: _PARTS for name in ("titans-mac", "titans-mag", "titans-mal")}
INSTALL = {  # what brings a package without what it does not need here
    "fla-core": 'pip install -e ".[parity]"',
    "flash-linear-attention": "pip install --no-deps flash-linear-attention==0.6.0",
    "transformers": 'pip install -e ".[parity]"',
    "torchscale": "pip install --no-deps torchscale",
    "titans-pytorch": "pip install titans-pytorch",
}
NOTES = (
    "Norm epsilons of transformers' layers are set to ours (Mamba-2: 1e-6, theirs 1e-5). torchscale scales its rows before "
    "the norm, which an epsilon would notice: both sides have none.",
    "fla's TTT reads `z + LN(z)` where the paper has `q + LN(z)`, so our states are read in its way there; the paper's read "
    "is compared with titans-pytorch, TTT's network written out inside it.",
    "titans-pytorch's loss is a mean over the width: its step is 2/d of ours.",
    "RMT's oracle is Llama for the Transformer, with the memory carried from segment to segment by hand.",
)


@dataclass(frozen=True)
class LedgerRow:
    """One comparison with its figures, or the reason why there are none."""

    model: str
    oracle: str = ""
    version: str = ""
    compared: str = ""
    forward: float | None = None
    backward: float | None = None
    bound: float | None = None
    reason: str = ""

    @property
    def failed(self) -> bool:
        """True if it was compared and an error is not below the bound (NaN is not)."""
        if self.forward is None or self.bound is None:
            return False
        return not all(error < self.bound for error in (self.forward, self.backward) if error is not None)


def ledger(models: Sequence[str] | None = None) -> list[LedgerRow]:
    """Run every comparison whose package is installed, of all models or of those named; rows in the registry's order.

    A registered model without a comparison has a row that says why. Raises ValueError for a name that is neither registered
    nor compared.
    """
    compared = dict.fromkeys(item.model for item in COMPARISONS)
    known = list(dict.fromkeys([*registry.names(), *compared]))
    for name in models or ():
        if name not in known:
            raise ValueError(f"Unknown model '{name}'; the ledger knows: {', '.join(known)}.")
    rows = []
    for name in known if models is None else models:
        rows += [_row(item) for item in COMPARISONS if item.model == name]
        if name not in compared:
            rows.append(LedgerRow(name, reason=NO_ORACLE.get(name, "no comparison has been written")))
    return rows


def _row(item: Comparison) -> LedgerRow:
    installed = version(item.package)
    reason = item.obstacle() if installed else f"{item.package} is not installed: {INSTALL[item.package]}"
    if reason:
        return LedgerRow(item.model, item.package, compared=item.compared, reason=reason)
    return LedgerRow(item.model, item.package, installed, item.compared, *item.run(), item.bound)


def figures(row: LedgerRow) -> tuple[str, str, str, str, str]:
    """Model, oracle and version, what was compared, error forward and backward, or the reason in place of what is missing."""
    if row.forward is None:
        return row.model, row.oracle, row.compared or row.reason, "-", "-"
    mark = " (FAILS)" if row.failed else ""
    backward = "none" if row.backward is None else f"{row.backward:.0e}"
    return row.model, f"{row.oracle} {row.version}", row.compared, f"{row.forward:.0e}", f"{backward}{mark}"


def markdown(rows: Sequence[LedgerRow]) -> str:
    """The page `docs/parity.md` of these rows."""
    lines = [
        "# Parity: each model against independent code",
        "",
        "The same inputs and weights go through another package's code and through ours; an error is the largest",
        "`max |ours - theirs| / max |theirs|` over the outputs, and over the gradients of all inputs and weights for one random",
        "projection of the outputs. Below 1e-5 in float32 and 1e-9 in float64 is a pass, and `tests/baselines/` asserts it.",
        "A scan or law is compared in both its forms, the plain loop and the chunked one, and the worse counts.",
        "",
        "What our provider `fla` calls is compared with the law, its kernels run by Triton's interpreter (float16: below 5e-3).",
        "",
        "Drawn by `python bench.py check --parity --rows baselines/oracles/parity/ledger.jsonl --markdown` on a CPU, after",
        *(f"`{command}`," for command in dict.fromkeys(INSTALL.values())),
        "without which the rows of a package say that it is absent. The interpreter takes an environment of its own, without",
        "transformers: there, after `pip install fla-core==0.6.0 triton==3.9.0`, the same command runs with TRITON_INTERPRET=1.",
        "Each run takes from the rows what it cannot compute, and keeps what it computed.",
        "",
        "| model | oracle | compared | forward | backward |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in figures(row)) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in NOTES), ""])
