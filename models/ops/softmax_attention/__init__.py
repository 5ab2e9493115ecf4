"""Softmax attention: `softmax_attention(q, k, v, *, window, prefix, provider)`, and `windowed_attention`, always in a window.

    y_i = sum_j softmax_j(q_i . k_j / sqrt(d)) v_j        over j up to i's place, the last `window` of them, and a prefix

All forms compute the same function; `models.attention` keeps the keys and values of what was read before.

    recurrence    one row after another, written out: the law, in any dtype
    sdpa          torch's `scaled_dot_product_attention`, which picks a kernel itself; `auto` takes it
    math, flash   the same by one of its kernels alone: plain products, or FlashAttention (Dao et al. 2022, arXiv 2205.14135;
                  Dao 2024, 2307.08691), which never stores the scores
    flex          torch's FlexAttention (Dong et al. 2024, arXiv 2412.05496); on a CPU without gradients
    flash-attn    the authors' own package, for half precision on CUDA
    native        of windows alone, forward and back in C (`window.c`); there `auto` takes it on a CPU

On one thread of a CPU (8 rows, 512 tokens, 4 heads of 16) `flash` takes the time of `sdpa`, which picks it there; `math` takes
1.7 times that forward and backward and 3 times forward, `recurrence` 23 and 19 times. `flex`, which a CPU runs uncompiled, and
forward alone, takes 9 times the time of `sdpa`, and 18 times in a window of 64, of which it computes every pair.
"""

from models.ops.providers import Operation

_FORMS = {
    "sdpa": "sdpa:sdpa",
    "math": "sdpa:math",
    "flash": "sdpa:flash",
    "flex": "flex:flex",
    "flash-attn": "flash_attn:flash_attn",
}
softmax_attention = Operation(
    "softmax attention",
    __name__,
    {"recurrence": "recurrence:recurrence", **_FORMS},
    automatic="sdpa",
)
windowed_attention = Operation(
    "windowed attention",
    __name__,
    {"recurrence": "recurrence:windowed", "native": "window:native", **_FORMS},
    automatic="sdpa",
)
