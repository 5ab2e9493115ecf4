"""Who computes: what `auto` takes, what a name gets, and the sentences where a provider is absent."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from models.layers import ShortConvolution
from models.ops import providers
from models.ops.native_build import compiler
from models.ops.providers import NotCovered, Operation, ProviderAbsent, check_provider, note, operations, watch
from models.ops.scan import scan
from models.ops.short_convolution import short_convolution
from models.ops.short_convolution.recurrence import recurrence


@pytest.fixture
def forms(monkeypatch):
    """Makes an operation of stand-ins on a machine where every package is there and every tensor counts as CUDA's."""
    module = types.ModuleType("stand_ins.forms")
    monkeypatch.setitem(sys.modules, "stand_ins.forms", module)
    monkeypatch.setattr(providers, "_missing", lambda provider: "")
    monkeypatch.setattr(providers, "order", lambda device: providers.ON_CUDA)

    def offer(**functions):
        for name, function in functions.items():
            setattr(module, name, function)
        return Operation("work", "stand_ins", {name.replace("_", "-"): f"forms:{name}" for name in functions})

    return offer


def refuses(x):
    raise NotCovered("not this row")


def lacks(x):
    raise ImportError("no libcudart")


def test_a_watcher_inside_another_takes_its_own_names_and_leaves_the_outer_watching():
    with watch() as outer:
        with watch() as inner:
            note("chunked")
        assert outer == inner == {"chunked"}
        note("recurrence")
    assert (outer, inner) == ({"chunked", "recurrence"}, {"chunked"})


def test_auto_on_a_cpu_without_a_compiled_form_is_chunked_and_says_so(monkeypatch):
    monkeypatch.setattr(scan, "forms", {name: form for name, form in scan.forms.items() if name != "native"})
    x = torch.randn(1, 5, 2, 4)
    with watch() as ran:
        auto = scan.form("auto")
        assert ran == set()
        y, _ = auto(x, x, x)
    assert ran == {"chunked"}
    assert torch.equal(y, scan(x, x, x, provider="chunked")[0])


def test_order_depends_on_the_device_of_the_tensors():
    assert providers.order(torch.device("cpu")) == ("native", "chunked")
    assert providers.order(torch.device("meta")) == ("chunked",)
    assert providers.order(torch.device("cuda", 1)) == ("triton", "fla", "mamba-ssm", "causal-conv1d", "chunked")


def test_auto_takes_the_first_that_covers_what_is_asked(forms):
    work = forms(chunked=lambda x: "chunked", mamba_ssm=lambda x: "mamba-ssm", fla=refuses)
    with watch() as ran:
        assert work(torch.ones(1)) == "mamba-ssm"
    assert ran == {"mamba-ssm"}


def test_auto_passes_by_what_is_not_installed(forms, monkeypatch):
    work = forms(chunked=lambda x: "chunked", fla=lambda x: "fla")
    monkeypatch.setattr(providers, "_missing", lambda provider: "triton")
    assert work(torch.ones(1)) == "chunked"


def test_auto_warns_of_an_installation_that_cannot_be_imported(forms):
    work = forms(chunked=lambda x: "chunked", fla=lacks)
    with pytest.warns(UserWarning, match="'fla' is installed but cannot be imported .no libcudart"):
        assert work(torch.ones(1)) == "chunked"


def test_auto_hides_no_other_error(forms):
    def broken(x):
        raise RuntimeError("out of shared memory")

    work = forms(chunked=lambda x: "chunked", fla=broken)
    with pytest.raises(RuntimeError, match="out of shared memory"):
        work(torch.ones(1))


def test_auto_that_nothing_covers_is_an_error(forms):
    work = forms(chunked=refuses, fla=refuses)
    with pytest.raises(ProviderAbsent, match="No provider covers 'work'"):
        work(torch.ones(1))


def test_tensor_among_the_named_inputs_is_found(forms):
    work = forms(chunked=lambda count, x: count + x.item())
    assert work(1, x=torch.ones(1)) == 2


@pytest.mark.parametrize("provider", ["fla", "mamba-ssm", "causal-conv1d"])
def test_package_that_is_not_installed_is_named_with_its_command(provider, monkeypatch):
    monkeypatch.setattr(providers, "_missing", lambda name: "its_module")
    with pytest.raises(ProviderAbsent, match=rf"'{provider}' needs the module its_module.*not installed: pip install"):
        check_provider(provider)


@pytest.mark.parametrize("provider", ["fla", "mamba-ssm", "causal-conv1d"])
def test_machine_without_cuda_is_an_error_not_a_fallback(provider, monkeypatch):
    monkeypatch.setattr(providers, "_missing", lambda name: "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ProviderAbsent, match=f"'{provider}' needs a CUDA device, and torch sees none"):
        check_provider(provider)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    if provider == "fla":
        check_provider(provider)
    else:
        with pytest.raises(ProviderAbsent, match="needs a CUDA device"):
            check_provider(provider)


def test_checking_a_provider_imports_nothing(monkeypatch):
    monkeypatch.setattr(providers, "import_module", refuses)
    for provider in ("auto", "recurrence", "chunked"):
        check_provider(provider)
    for provider in ("fla", "mamba-ssm", "causal-conv1d"):
        try:
            check_provider(provider)
        except ProviderAbsent as error:
            assert not isinstance(error, NotCovered)


@pytest.mark.parametrize(
    "operation, provider", [("selective", "fla"), ("scan", "causal-conv1d"), ("deep memory", "fla")]
)
def test_provider_without_a_form_of_the_operation_names_who_has_one(operation, provider, monkeypatch):
    monkeypatch.setattr(providers, "check_provider", lambda provider: None)
    with pytest.raises(
        ProviderAbsent, match=f"'{provider}' has no form of '{operation}'.*use one of: recurrence, chunked"
    ):
        operations()[operation].form(provider)


@pytest.mark.parametrize("provider, like, match", [
    ("fla", torch.ones(1, dtype=torch.float64), "no float64 kernels"),
    ("causal-conv1d", torch.ones(1), "computes on CUDA tensors, not on cpu"),
])  # fmt: skip
def test_tensors_that_kernels_cannot_take_are_not_covered(provider, like, match, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(NotCovered, match=match):
        providers.require(provider, like)


def test_part_without_a_form_of_the_named_provider_runs_under_auto(monkeypatch):
    monkeypatch.setattr(providers, "check_provider", lambda provider: None)
    x, weight = torch.randn(1, 6, 8), torch.randn(8, 1, 4)
    with watch() as ran:
        short_convolution.form_or_auto("fla")(x, weight)
    assert ran == {"native" if compiler() else "chunked"}
    with watch() as ran:
        assert short_convolution.form_or_auto("recurrence") is recurrence
    assert ran == {"recurrence"}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("time", [1, 2, 3, 9])
def test_convolution_is_its_law(time, bias):
    """Outputs, what is left for the next piece, and all gradients, from a carried state, in float64."""
    torch.manual_seed(time)
    answers = []
    layer = ShortConvolution(6, bias=True).double()
    shift = layer.bias.detach() + 1 if bias else None
    given = [torch.randn(2, time, 6).double(), layer.weight.detach(), shift, torch.randn(2, 3, 6).double()]
    for provider in ("recurrence", "chunked"):
        inputs = [None if x is None else x.clone().requires_grad_() for x in given]
        y, left = short_convolution(*inputs, provider=provider)
        assert left.untyped_storage().nbytes() == left.numel() * left.element_size()
        loss = (y * y.detach().sin()).sum() + (left * left.detach().cos()).sum()
        answers.append([y, left, *torch.autograd.grad(loss, [x for x in inputs if x is not None])])
    for law, fast in zip(*answers, strict=True):
        torch.testing.assert_close(fast, law, rtol=1e-12, atol=1e-12)
