"""xLSTM: blocks of mLSTM, then one of sLSTM, repeated.

Beck et al. 2024, arXiv 2405.04517, Section 2.4: xLSTM[m:1] has one `slstm` block to every m of `mlstm`. Both bring their
channel mixing, so the depth is solved and then the mLSTM's inner width.

Deviations: [1:1] by default, which fits into two layers; the paper's best are [7:1] and [1:0], and its sLSTM stands at places
of its own, not at the end of each group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.registry import register
from models.shell.hybrid import Hybrid
from models.shell.model import Size


@register(
    "xlstm",
    paper="Beck et al. 2024, arXiv 2405.04517",
    equation="C <- f C + e^i k v^T, y = C^T q / max(|n^T q|, 1); then h <- o c / n with c <- f c + e^i z",
)
class XLSTM(Hybrid):
    """mLSTM blocks and an sLSTM block in turn. State: a tuple of the blocks' own."""

    @classmethod
    def made_of(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The pattern: as many mlstm as the setting says, then one slstm."""
        return ("mlstm",) * settings.get("mlstm_blocks", 1) + ("slstm",)

    def __init__(self, size: Size, feed: int, mlstm_blocks: int = 1, inner: int | None = None, provider: str = "auto"):
        """`mlstm_blocks` to every sLSTM block; `inner` is the mLSTM's width, twice the model's by default."""
        if mlstm_blocks < 1:
            raise ValueError(f"mlstm_blocks must be at least 1, not {mlstm_blocks}.")
        own = {} if inner is None else {"mlstm.inner": inner}
        super().__init__(size, feed, self.made_of({"mlstm_blocks": mlstm_blocks}), own, provider=provider)
