"""Compile Triton kernels for an H100 without one: `compile_kernel.py KERNEL,DTYPE,WIDTH,CHUNK ...`, a line of JSON each.

A process of its own, as kernels that were imported under TRITON_INTERPRET=1 cannot be compiled.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from models.ops.neural_memory.triton import chunk_read, deep_chunks, linear_chunks
from models.ops.neural_memory.triton.autograd import deep_tiles, padded, tiles

IN_KIND = {"q_ptr", "k_ptr", "v_ptr"}  # the rest is float32
SWITCHES = {"FIRST": 1, "JOINED": True, "GELU": True}


def compiled(name: str, kind: str, width: int, size: int) -> dict[str, int]:
    module = {"deep": deep_chunks, "linear": linear_chunks}.get(name.split(".")[0], chunk_read)
    kernel = getattr(module, name.split(".")[1])
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[kind]
    if module is deep_chunks:
        settings = deep_tiles(size, width, dtype)
    elif name.split(".")[1].startswith("scan"):
        settings = {"BLOCK": padded(size + 2), "num_warps": 1}
    else:
        settings = tiles(size, width, width, dtype)
    options = {key: settings.pop(key) for key in ("num_warps", "num_stages") if key in settings}
    settings |= {key: value for key, value in SWITCHES.items() if key in kernel.arg_names}
    kinds = {arg: kind if arg in IN_KIND else "fp32" for arg in kernel.arg_names if arg.endswith("_ptr")}
    signature = {
        arg: "constexpr" if arg in settings else f"*{kinds[arg]}" if arg in kinds else "i32" for arg in kernel.arg_names
    }
    aligned = {(i,): [["tt.divisibility", 16]] for i, arg in enumerate(kernel.arg_names) if arg in kinds}
    source = ASTSource(kernel, signature, constexprs=settings, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    return {"shared": made.metadata.shared, **registers(made.asm["cubin"])}


def registers(cubin: bytes) -> dict[str, int]:
    """Registers a thread and bytes of its stack (spilled registers), as the CUDA toolkit reads them from the code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {"registers": int(re.search(r"REG:(\d+)", said)[1]), "stack": int(re.search(r"STACK:(\d+)", said)[1])}


if __name__ == "__main__":
    for each in sys.argv[1:]:
        kernel_name, dtype_name, width_text, size_text = each.split(",")
        found = compiled(kernel_name, dtype_name, int(width_text), int(size_text))
        print(json.dumps({"kernel": each, **found}), flush=True)
