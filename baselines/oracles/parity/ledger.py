"""The ledger: every model, the independent code it was held against, and by how much the two differ."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from baselines.oracles.parity.comparison import Comparison, version
from baselines.oracles.parity.ledger_rows import LedgerRow
from models import registry


def _found() -> tuple[Comparison, ...]:
    """The COMPARISONS of every module beside this one and below, by the modules' names: a new one is a new file, no more."""
    modules = pkgutil.walk_packages([str(Path(__file__).parent)], f"{__package__}.")
    names = sorted(module.name for module in modules if module.name != __name__)
    return tuple(item for name in names for item in getattr(import_module(name), "COMPARISONS", ()))


COMPARISONS: tuple[Comparison, ...] = _found()
_PARTS = "no installable code that follows the paper was found; its parts are compared under titans-lmm and transformer-window"
_LOOP = "no installable code runs on a CPU; a test holds it to a loop written from the equations"
_NONE = "no code of its authors is known; a test holds it to a loop written from the equations"
_NO_PACKAGE = "its authors' code is no package; a test holds it to a loop written from the equations"
NO_ORACLE = {
    **dict.fromkeys(("titans-mac", "titans-mag", "titans-mal"), _PARTS),
    "lact": _LOOP,
    "mamba3": "no installable code runs on a CPU; tests hold it to a loop written from its equations, and its scan to its "
    "authors' kernels",
    **dict.fromkeys(("armt", "block-recurrent", "knn-lm", "memoryllm", "memoryllm-frozen"), _NO_PACKAGE),
    **dict.fromkeys(("yaad", "moneta", "memora", "omeganet", "atlas", "mambamixer", "feng", "camelot"), _NONE),
    "bmojo": "its authors' code needs CUDA, without eidetic memory; a test holds it to a loop written from the equations",
    "memformer": "the package of that name is another model; a test holds it to a loop written from the equations",
    "r-transformer": "no installable code; tests hold its RNN to torch's GRU on every window",
    "bahdanau": "no installable code reads a text by itself; tests hold it to its equations and to a hand-written GRU",
    **dict.fromkeys(
        ("hybrid", "griffin", "samba", "xlstm"), "a pattern of mixers, each of which is compared under its own name"
    ),
    "janet": "no installable code was found; a test holds its reference recurrence to arithmetic by hand",
    "log-linear-gated-deltanet": "no installable code has it in plain PyTorch; a test holds it to one state a token",
    "longhorn": "the authors' code needs a CUDA extension and is not on PyPI; a test holds the layer to its equations",
    "polysketch": "the authors' code is jax's and on no index; a test holds the layer to its equations",
    "scatterbrain": "the authors' causal code stops in its own assertion; a test holds the layer to its equations",
    "s4": "no installable code has its low-rank part; tests hold it to the dense recurrence and to the paper's Cauchy form",
}
INSTALL = {  # what brings a package without what it does not need here
    "fla-core": 'pip install -e ".[parity]"',
    "flash-linear-attention": "pip install --no-deps flash-linear-attention==0.6.0",
    "lru-pytorch": "pip install --no-deps lru-pytorch==0.1.3",
    "minGRU-pytorch": "pip install --no-deps minGRU-pytorch==0.2.1",
    "performer-pytorch": "pip install --no-deps performer-pytorch==1.1.4 axial-positional-embedding local-attention==1.9.0",
    "pytorch-pretrained-bert": "pip install --no-deps pytorch-pretrained-bert==0.6.2 boto3 botocore jmespath s3transfer urllib3 "
    "requests certifi idna charset-normalizer",
    "routing-transformer": "pip install --no-deps routing-transformer==1.6.1 local-attention==1.11.2 "
    "axial-positional-embedding product-key-memory colt5-attention mixture-of-experts hyper-connections",
    "rwkv": "pip install --no-deps rwkv==0.8.32",
    "s5-pytorch": "pip install --no-deps s5-pytorch==0.2.1",
    "titans-pytorch": "pip install titans-pytorch",
    "torch": "pip install -e .",
    "torchscale": "pip install --no-deps torchscale",
    "transformers": 'pip install -e ".[parity]"',
    "xlstm": "pip install --no-deps xlstm==2.0.6 mlstm_kernels omegaconf dacite antlr4-python3-runtime==4.9.3",
}
NOTES = (
    "Norm epsilons of transformers' layers are set to ours (Mamba-2: 1e-6, theirs 1e-5). torchscale scales its rows before "
    "the norm, which an epsilon would notice: both sides have none.",
    "fla's TTT reads `z + LN(z)` where the paper has `q + LN(z)`, so our states are read in its way there; the paper's read "
    "is compared with titans-pytorch, TTT's network written out inside it.",
    "titans-pytorch's loss is a mean over the width: its step is 2/d of ours.",
    "RMT's oracle is Llama for the Transformer, with the memory carried from segment to segment by hand.",
)


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
    try:
        return LedgerRow(item.model, item.package, installed, item.compared, *item.run(), item.bound)
    except ImportError as error:  # of something that the package needs and its installation did not bring
        reason = f"{item.package} is installed and cannot be imported ({error}): {INSTALL[item.package]}"
        return LedgerRow(item.model, item.package, compared=item.compared, reason=reason)


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
