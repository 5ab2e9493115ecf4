"""How the biases of recurrent cells begin."""

from __future__ import annotations

import torch
from torch import Tensor


def chrono_bias(units: int, longest: int) -> Tensor:
    """Forget biases `log u`, u uniform in [1, longest - 1], [units]: the gates' times of forgetting cover all up to `longest`.

    Tallec and Ollivier 2018, arXiv 1804.11188, Section 3. Raises ValueError below three tokens.
    """
    if longest < 3:
        raise ValueError(
            f"Chrono initialisation needs dependencies of at least 3 tokens, not {longest}; set longest to more."
        )
    return torch.empty(units).uniform_(1, longest - 1).log()
