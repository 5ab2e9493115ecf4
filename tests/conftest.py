"""One thread for every test process: two busy threads on a core each run many times slower than one."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # read when torch is imported, so before any test module

import torch  # noqa: E402

torch.set_num_threads(1)
