# SPDX-License-Identifier: Apache-2.0
"""Make a language model of 1 MB, in seconds and without a download, for serving on a CPU."""

from __future__ import annotations

import sys
from pathlib import Path


def make_tiny_model(directory: Path) -> Path:
    """Write a random two-layer model and its tokenizer below ``directory``, once."""
    if (directory / "config.json").exists():
        return directory
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        ["the quick brown fox jumps over the lazy dog"],
        vocab_size=512,
        min_frequency=1,
        special_tokens=["<s>", "</s>"],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(directory)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
    )
    LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(directory)
    return directory


if __name__ == "__main__":
    make_tiny_model(Path(sys.argv[1]))
