"""Small random causal language models of transformers, one of each architecture with a carried state, built offline."""

from __future__ import annotations

from typing import Any

import torch

VOCAB, WINDOWED = 256, 40  # tokens of an attention window
SIZE = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
MIXED = {"num_hidden_layers": 3, "num_key_value_heads": 2}
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
TURNS = ["linear_attention", "full_attention"]
MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {  # the beginning of its class, and its settings beside SIZE
    "mamba": ("Mamba", {"state_size": 8}),
    "falcon-mamba": ("FalconMamba", {"state_size": 8}),
    "mamba2": ("Mamba2", {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 32}),
    "rwkv": ("Rwkv", {"context_length": 512, "attention_hidden_size": 32}),
    "recurrent-gemma": ("RecurrentGemma", MIXED | {
        "num_attention_heads": 4, "intermediate_size": 96, "lru_width": 32, "attention_window_size": WINDOWED,
    }),
    "qwen3-next": ("Qwen3Next", HEADS | DELTA | EXPERTS | {
        "head_dim": 8, "layer_types": TURNS, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    }),
    "qwen3.5": ("Qwen3_5", HEADS | DELTA | {"head_dim": 8, "layer_types": TURNS}),
    "xlstm": ("xLSTM", {
        "hidden_size": 128, "embedding_dim": 128, "num_heads": 4, "num_blocks": 2, "chunk_size": 16,
    }),
    "bamba": ("Bamba", HEADS | MAMBA2 | {"attn_layer_indices": [1], "mamba_chunk_size": 32}),
    "zamba": ("Zamba", MIXED | {
        "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 48, "mamba_d_state": 8, "n_mamba_heads": 2,
        "attn_layer_offset": 1, "attn_layer_period": 2, "mamba_dt_rank": 4,
    }),
    "zamba2": ("Zamba2", MIXED | {
        "num_attention_heads": 4, "intermediate_size": 48, "mamba_d_state": 8, "mamba_ngroups": 1, "n_mamba_heads": 4,
        "chunk_size": 32, "layers_block_type": ["mamba", "hybrid", "mamba"],
    }),
    "jamba": ("Jamba", HEADS | EXPERTS | {
        "attn_layer_offset": 1, "attn_layer_period": 2, "mamba_d_state": 8, "mamba_dt_rank": 4, "use_mamba_kernels": False,
    }),
    "falcon-h1": ("FalconH1", HEADS | MAMBA2 | {"mamba_d_ssm": 64, "mamba_chunk_size": 32, "head_dim": 8}),
    "granite-hybrid": ("GraniteMoeHybrid", HEADS | MAMBA2 | {
        "layer_types": ["mamba", "attention"], "mamba_chunk_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2,
        "shared_intermediate_size": 16,
    }),
    "nemotron-h": ("NemotronH", MIXED | {
        "num_attention_heads": 4, "intermediate_size": 48, "head_dim": 8, "ssm_state_size": 8, "mamba_num_heads": 4,
        "mamba_head_dim": 16, "n_groups": 1, "chunk_size": 32, "layers_block_type": ["mamba", "attention", "mlp"],
    }),
    "olmo-hybrid": ("OlmoHybrid", HEADS | DELTA | {"layer_types": TURNS, "pad_token_id": 0}),
    "kimi-linear": ("KimiLinear", HEADS | {
        "num_key_value_heads": 4, "layer_types": TURNS, "pad_token_id": 0, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
        "v_head_dim": 8, "qk_nope_head_dim": 8, "moe_intermediate_size": 16, "num_experts_per_tok": 2, "num_local_experts": 4,
        "linear_head_dim": 8, "linear_num_heads": 4,
    }),
    "minimax": ("MiniMax", HEADS | {
        "layer_types": TURNS, "num_local_experts": 4, "num_experts_per_tok": 2, "block_size": 32, "head_dim": 8,
    }),
    "lfm2": ("Lfm2", HEADS | {"layer_types": ["conv", "full_attention"]}),
    "mistral": ("Mistral", HEADS | {"sliding_window": WINDOWED}),
    "gemma3": ("Gemma3", HEADS | {
        "head_dim": 8, "sliding_window": WINDOWED, "layer_types": ["sliding_attention", "full_attention"],
    }),
    "llama": ("Llama", HEADS),
}  # fmt: skip


def available(name: str) -> bool:
    """Whether the transformers that is installed has the architecture."""
    import transformers

    return hasattr(transformers, f"{ARCHITECTURES[name][0]}ForCausalLM")


def tiny(name: str, seed: int = 0, **settings: Any) -> torch.nn.Module:
    """A model of an architecture under random weights that are large enough for the state to matter."""
    import transformers

    family, own = ARCHITECTURES[name]
    made = getattr(transformers, f"{family}ForCausalLM")
    configurations = (getattr(transformers, f"{family}{end}", None) for end in ("TextConfig", "Config"))
    configuration = next(found for found in configurations if found is not None)
    torch.manual_seed(seed)
    return made(configuration(**SIZE | own | settings)).eval()
