"""MAD's noisy recall: in-context recall with pairs of noise symbols in between."""

from __future__ import annotations

from tasks.synthetic.mad.in_context_recall import InContextRecall
from tasks.synthetic.mad.protocol import MadTask
from tasks.synthetic.symbol_task import Where, refuse


class NoisyRecall(InContextRecall):
    """MAD noisy recall: in-context recall among noise, by the share of noise beside the other axes.

    Each pair is with chance `noise` two of `noise_symbols` symbols, which `vocab` includes, but for the last pair, which
    asks, and one before it, which can be asked. Published axes: noise 0.2 to
    0.8, vocab 32 to 144, length 128 to 1024, examples 12800 down to 800.

    >>> print(aligned(create("mad-noisy-recall", length=20, vocab=12, noise_symbols=4, noise=0.3)))
    k2 v0 k2 v0 k3 v1 n2 n1 k2 v0 n0 n1 k0 v0 n2 n2 k2 v0 k2 v0
    _  _  v0 _  _  _  _  _  v0 _  _  _  _  _  _  _  v0 _  v0 _
    """

    name = "mad-noisy-recall"

    def __init__(
        self,
        vocab: int = 32,
        length: int = 128,
        noise: float = 0.2,
        noise_symbols: int = 16,
        examples: int = 12800,
        test_lengths: tuple[int, ...] = (),
        samples: int = 1280,
    ) -> None:
        MadTask.__init__(self, vocab, length, examples, test_lengths, samples, shortest=4)
        self.noise, self.noise_symbols = noise, noise_symbols
        refuse(
            (not 0 <= noise < 1, f"{self.name} needs a share of noise from 0 to below 1, not {noise}."),
            (noise_symbols < 1, f"{self.name} needs at least 1 noise symbol."),
        )
        self._divide()

    def cell(self, length: int) -> Where:
        return {"noise": self.noise, **super().cell(length)}
