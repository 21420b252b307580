#!/usr/bin/env python3
"""Writes tests/data/tiny/: a tiny random model of every architecture as GGUF, with the logits that `transformers` computes.

    pip install gguf==0.19.0 torch transformers==5.23.0 && python tests/scripts/tiny_models.py [--float32] [OUT]

NAME.gguf follows llama.cpp's converter: its metadata keys, tensor names, row orders and folded constants. Weights are
rounded to the type that the file stores before the logits are computed, in float32 throughout, so an exact engine
differs by rounding alone. With --float32 the same values are stored as F32, for engines that round activations to the
weights' type.

NAME.json holds `sequences`, each with `tokens`; `context`, the context length to evaluate under (LongRoPE chooses its
factors by it); `argmax`, the likeliest next token after every position; `margin`, the least distance in `argmax` from
the second likeliest; and `logits`, for a few positions the whole vocabulary.
"""

import json
import math
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as T
from gguf import GGUFWriter, RopeScalingType, TokenType
from gguf.quants import dequantize, quantize

N_VOCAB = 288
N_CTX = 64
LONG = 48  # tokens of the long sequence: beyond every window and original context below


@dataclass
class Model:
    """One file: a `transformers` configuration and what its GGUF says beyond the tensors."""

    name: str
    arch: str
    config: transformers.PreTrainedConfig
    metadata: Callable[[GGUFWriter], None] = lambda writer: None
    vocabulary: Callable[[GGUFWriter], None] | None = None  # else `spm_vocabulary`
    extra_tensors: dict[str, list[float]] = field(default_factory=dict)
    weight_types: dict[str, T] = field(default_factory=lambda: {"": T.F16})  # first name that contains the key
    short_context: int = N_CTX
    boundary: int = LONG // 2  # a position of the long sequence whose logits are kept, beside the last


# Vocabularies: 288 tokens each, so that every byte string can be tokenised.


def spm_vocabulary(writer):
    pieces = "▁ e t a o n i s r h l d ▁t he ▁a ▁the in er an re on ▁s th ▁w nd ▁c ▁and ou".split()
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + pieces
    n_special = N_VOCAB - len(tokens)
    # llama.cpp looks for <|endoftext|> in every SentencePiece vocabulary whose model's name contains "phi3".
    tokens += ["<|endoftext|>"] + [f"<extra_{i}>" for i in range(n_special - 1)]
    types = [TokenType.UNKNOWN] + [TokenType.CONTROL] * 2 + [TokenType.BYTE] * 256 + [TokenType.NORMAL] * len(pieces)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(len(pieces))] + [0.0] * n_special)
    writer.add_token_types(types + [TokenType.CONTROL] * n_special)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def gemma_vocabulary(writer):
    spm_vocabulary(writer)
    writer.add_add_space_prefix(False)


def bpe_vocabulary(pre):
    def write(writer):
        # GPT-2's alphabet: printable Latin-1 bytes are themselves, the others the code points from 256 on.
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [b for b in range(256) if b not in printable]
        alphabet = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
        merges = ["Ġ t", "h e", "i n", "Ġ a", "r e", "o n", "e r", "Ġt he", "a t", "n d", "Ġ s", "o u", "Ġ w", "e n",
                  "i s", "Ġ c", "o r", "in g", "e s", "i t", "Ġa nd", "Ġ f", "a l", "Ġ b", "Ġ p", "e d", "l l", "Ġ o",
                  "Ġ m", "a n"]  # fmt: skip
        tokens = alphabet + [merge.replace(" ", "") for merge in merges] + ["<|endoftext|>", "<|end|>"]
        assert len(tokens) == len(set(tokens)) == N_VOCAB
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(tokens)
        writer.add_token_types([TokenType.NORMAL] * (N_VOCAB - 2) + [TokenType.CONTROL] * 2)
        writer.add_token_merges(merges)
        writer.add_bos_token_id(N_VOCAB - 2)
        writer.add_eos_token_id(N_VOCAB - 1)
        writer.add_add_bos_token(False)

    return write


# Metadata that the architectures add to the common keys of `write_gguf`.


def llama_keys(head_dim, explicit_head=False):
    def write(writer):
        writer.add_vocab_size(N_VOCAB)
        writer.add_rope_dimension_count(head_dim)
        if explicit_head:
            head_keys(head_dim)(writer)

    return write


def head_keys(head_dim):
    def write(writer):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)

    return write


def scaling_keys(kind, factor, original_context=None):
    def write(writer):
        writer.add_rope_scaling_type(kind)
        writer.add_rope_scaling_factor(factor)
        if original_context is not None:
            writer.add_rope_scaling_orig_ctx_len(original_context)

    return write


def all_of(*writes):
    def write(writer):
        for each in writes:
            each(writer)

    return write


def gemma3_keys(window, local_base=None):
    def write(writer):
        head_keys(16)(writer)
        writer.add_sliding_window(window)
        if local_base is not None:
            writer.add_rope_freq_base_swa(local_base)

    return write


def phi3_keys(rope_dims, original_context, attn_factor=None):
    def write(writer):
        writer.add_rope_dimension_count(rope_dims)
        writer.add_rope_scaling_orig_ctx_len(original_context)
        writer.add_sliding_window(0)
        if attn_factor is not None:
            writer.add_rope_scaling_attn_factors(attn_factor)

    return write


def llama3_factors(base, head_dim, factor, low, high, original_context):
    """What `rope_freqs.weight` holds: the divisor of each frequency, by Llama 3's rule on its wavelength."""
    factors = []
    for i in range(head_dim // 2):
        turns = original_context / (2 * math.pi * base ** (2 * i / head_dim))
        smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
        factors.append(1.0 / ((1 - smooth) / factor + smooth))
    return factors


# Settings of all models, and of the smaller ones; heads are of 16 everywhere.
COMMON = dict(vocab_size=N_VOCAB, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=N_CTX, rms_norm_eps=1e-5, bos_token_id=None,
              eos_token_id=None, pad_token_id=None)  # fmt: skip
NARROW = dict(hidden_size=32, num_attention_heads=2, num_key_value_heads=1)


def llama_models():
    def llama(name, keys=llama_keys(16), **options):
        rope = {"rope_type": "default", "rope_theta": 10000.0}
        settings = COMMON | dict(tie_word_embeddings=False, rope_parameters=rope) | options.pop("config", {})
        return Model(name, "llama", transformers.LlamaConfig(**settings), keys, **options)

    yield llama("llama")

    rope = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
    factors = llama3_factors(10000.0, 16, 8.0, 1.0, 4.0, 32)
    assert factors[0] == 1.0 < factors[1] < 8.0 == factors[-1]
    yield llama(
        "llama3",
        config=NARROW
        | dict(
            tie_word_embeddings=True,
            rope_parameters=rope | dict(rope_theta=10000.0, original_max_position_embeddings=32),
        ),
        vocabulary=bpe_vocabulary("llama-bpe"),
        extra_tensors={"rope_freqs.weight": factors},
    )

    rope = dict(rope_type="linear", factor=4.0, rope_theta=10000.0)
    linear = all_of(llama_keys(16), scaling_keys(RopeScalingType.LINEAR, 4.0))
    yield llama("llama-linear", linear, config=dict(rope_parameters=rope), weight_types={"": T.BF16})

    # llama.cpp's files carry no window for `llama`; Mistral models since v0.2 have none.
    config = transformers.MistralConfig(
        **COMMON | dict(hidden_size=32, head_dim=16, sliding_window=None, tie_word_embeddings=False),
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    )
    yield Model("mistral", "llama", config, llama_keys(16, explicit_head=True))

    for kind in [T.Q8_0, T.Q4_1]:
        yield llama(f"llama-{kind.name.lower()}", weight_types={"": kind})
    mixed = {
        "token_embd": T.Q8_0, "attn_output": T.BF16, "output": T.Q5_1, "attn_q": T.Q4_0, "attn_k": T.Q5_0,
        "attn_v": T.F32, "ffn_gate": T.MXFP4, "ffn_up": T.Q4_1, "ffn_down": T.F16,
    }  # fmt: skip
    yield llama("llama-mixed", weight_types=mixed)


def qwen_models():
    rope = dict(rope_type="default", rope_theta=1000000.0)
    qwen = COMMON | dict(rms_norm_eps=1e-6, use_sliding_window=False, tie_word_embeddings=True)
    config = transformers.Qwen2Config(**qwen, rope_parameters=rope)
    yield Model("qwen2", "qwen2", config, vocabulary=bpe_vocabulary("qwen2"))

    # Of the eight frequencies, this base leaves the first, interpolates the last three and mixes those between.
    rope = dict(rope_type="yarn", factor=2.0, original_max_position_embeddings=32, rope_theta=20.0)
    config = transformers.Qwen2Config(**qwen | NARROW, rope_parameters=rope)
    yarn = scaling_keys(RopeScalingType.YARN, 2.0, 32)
    yield Model("qwen2-yarn", "qwen2", config, yarn, vocabulary=bpe_vocabulary("qwen2"), boundary=31)

    rope = dict(rope_type="default", rope_theta=1000000.0)
    config = transformers.Qwen3Config(**qwen | dict(hidden_size=32, head_dim=16), rope_parameters=rope)
    yield Model("qwen3", "qwen3", config, head_keys(16), vocabulary=bpe_vocabulary("qwen2"))


def gemma_models():
    # Seven layers: the sixth is global. A window of 8 takes the token itself and the seven before it.
    gemma = COMMON | NARROW | dict(
        num_hidden_layers=7, intermediate_size=48, head_dim=16, query_pre_attn_scalar=16, sliding_window=8,
        rms_norm_eps=1e-6, tie_word_embeddings=True,
    )  # fmt: skip
    local = {"rope_type": "default", "rope_theta": 10000.0}
    rope = {"sliding_attention": local, "full_attention": {"rope_type": "default", "rope_theta": 1000000.0}}
    config = transformers.Gemma3TextConfig(**gemma, rope_parameters=rope)
    yield Model("gemma3", "gemma3", config, gemma3_keys(8), vocabulary=gemma_vocabulary, boundary=8)

    scaled = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0}
    local = {"rope_type": "default", "rope_theta": 5000.0}
    rope = {"sliding_attention": local, "full_attention": scaled}
    config = transformers.Gemma3TextConfig(**gemma, rope_parameters=rope)
    keys = all_of(gemma3_keys(8, 5000.0), scaling_keys(RopeScalingType.LINEAR, 8.0))
    yield Model("gemma3-scaled", "gemma3", config, keys, vocabulary=gemma_vocabulary, boundary=8)


def phi_models():
    # Phi-4-mini rotates three quarters of each head and ties its output.
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}
    phi = COMMON | NARROW
    config = transformers.Phi3Config(
        **phi | dict(tie_word_embeddings=True), original_max_position_embeddings=N_CTX, rope_parameters=rope
    )
    yield Model("phi3", "phi3", config, phi3_keys(12, N_CTX))

    short = [1.0, 1.05, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]
    long = [1.0, 1.2, 1.6, 2.0, 2.6, 3.2, 3.6, 4.0]
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": short, "long_factor": long}
    config = transformers.Phi3Config(
        **phi | dict(tie_word_embeddings=False), original_max_position_embeddings=16, rope_parameters=rope
    )
    attn_factor = math.sqrt(1 + math.log(N_CTX / 16) / math.log(16))
    keys = all_of(phi3_keys(16, 16, attn_factor), lambda w: w.add_rope_scaling_type(RopeScalingType.LONGROPE))
    factors = {"rope_factors_long.weight": long, "rope_factors_short.weight": short}
    yield Model("phi3-longrope", "phi3", config, keys, extra_tensors=factors, short_context=16, boundary=15)


# Weights.

TENSOR_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def gguf_name(arch, name):
    stem, suffix = name.rsplit(".", 1)
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem)
    if layer is None:
        return f"{TENSOR_NAMES[stem]}.{suffix}"
    if arch == "gemma3" and layer[2] == "post_attention_layernorm":
        return f"blk.{layer[1]}.post_attention_norm.{suffix}"  # other architectures norm before the feed-forward here
    return f"blk.{layer[1]}.{TENSOR_NAMES[layer[2]]}.{suffix}"


def random_weight(rng, model, name, shape):
    """Scaled so that attention is peaked (positions matter), logits are of a real model's size, and a tied output does
    not merely repeat the token that came in."""
    values = rng.standard_normal(shape)
    if "norm" in name:
        return 0.3 * values + (0.0 if model.arch == "gemma3" else 1.0)
    if name.endswith(".bias"):
        return 0.5 * values
    if name.startswith("token_embd"):
        return values * (0.2 if model.arch == "gemma3" else 0.4)
    return values * 1.5 / math.sqrt(shape[-1])


def as_stored(model, name, weight):
    """The converter's row order and constants: `llama` pairs a head's rotated rows (i, i + d/2) as neighbours; Gemma's
    norms multiply by 1 + w."""
    heads = {"attn_q.": model.config.num_attention_heads, "attn_k.": model.config.num_key_value_heads}
    for part, n_head in heads.items():
        if model.arch == "llama" and part in name:
            rows = weight.shape[0]
            return weight.reshape(n_head, 2, rows // n_head // 2, -1).swapaxes(1, 2).reshape(weight.shape)
    return weight + 1 if model.arch == "gemma3" and "norm" in name else weight


def build(model, seed):
    """The `transformers` model with its random weights, and the tensors of the file: name → (bytes or floats, type)."""
    network = transformers.AutoModelForCausalLM.from_config(model.config, attn_implementation="eager")
    network = network.float().eval()
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, parameter in network.named_parameters():
        stored = gguf_name(model.arch, name)
        weight = random_weight(rng, model, stored, tuple(parameter.shape)).astype(np.float32)
        kind = T.F32
        if weight.ndim == 2:
            kind = next(kind for part, kind in model.weight_types.items() if part in stored)
        data = quantize(as_stored(model, stored, weight), kind)
        tensors[stored] = (data, kind)
        with torch.no_grad():  # quantisation is per row, so it commutes with the order of rows
            parameter.copy_(torch.from_numpy(dequantize(quantize(weight, kind), kind).astype(np.float32)))
    for name, values in model.extra_tensors.items():
        tensors[name] = (np.array(values, np.float32), T.F32)
    return network, tensors


def write_gguf(model, tensors, path, float32):
    config = model.config
    writer = GGUFWriter(path, model.arch)
    writer.add_name(f"tiny random {model.name}")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    model.metadata(writer)
    (model.vocabulary or spm_vocabulary)(writer)
    for name, (data, kind) in tensors.items():
        if float32 or kind in (T.F32, T.F16):
            values = dequantize(data, kind)
            writer.add_tensor(name, values.astype(np.float16 if kind == T.F16 and not float32 else np.float32))
        else:
            writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def sequence(network, tokens, context, positions):
    with torch.no_grad():
        logits = network(torch.tensor([tokens])).logits[0].float().numpy()
    best = np.sort(logits, axis=-1)
    return {
        "tokens": tokens,
        "context": context,
        "argmax": logits.argmax(-1).tolist(),
        "margin": float(f"{(best[:, -1] - best[:, -2]).min():.4g}"),
        "logits": [{"position": p, "values": [float(f"{x:.7g}") for x in logits[p]]} for p in positions],
    }


def main():
    arguments = [a for a in sys.argv[1:] if a != "--float32"]
    out = Path(arguments[0]) if arguments else Path(__file__).parent.parent / "data" / "tiny"
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # one order of summation
    for model in [*llama_models(), *qwen_models(), *gemma_models(), *phi_models()]:
        # The first seed whose likeliest tokens all stand clear of rounding.
        for seed in range(100):
            network, tensors = build(model, seed)
            rng = np.random.default_rng(seed + 1000)
            short, long = (rng.integers(3, N_VOCAB, n).tolist() for n in (5, LONG))
            sequences = [
                sequence(network, short, model.short_context, [len(short) - 1]),
                sequence(network, long, N_CTX, [model.boundary, LONG - 1]),
            ]
            if min(s["margin"] for s in sequences) > 0.02:
                break
        else:
            raise RuntimeError(f"{model.name}: no seed keeps its likeliest tokens apart")
        write_gguf(model, tensors, out / f"{model.name}.gguf", "--float32" in sys.argv)
        oracle = json.dumps({"model": f"{model.name}.gguf", "n_vocab": N_VOCAB, "sequences": sequences})
        (out / f"{model.name}.json").write_text(oracle.replace("}, {", "},\n{") + "\n")
        spread = [float(np.std(entry["values"])) for s in sequences for entry in s["logits"]]
        print(f"{model.name}: seed {seed}, margins {[s['margin'] for s in sequences]}, logit spread {min(spread):.2f}")


if __name__ == "__main__":
    main()
