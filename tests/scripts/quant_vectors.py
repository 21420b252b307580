#!/usr/bin/env python3
"""Writes tests/data/quant/: blocks of every tensor type that is decoded, with what the `gguf` package makes of them.

    pip install gguf==0.19.0 && python tests/scripts/quant_vectors.py

TYPE.bin holds N blocks as GGUF stores them, then N * elements float32 values, all little-endian (so N = file size /
(block bytes + 4 * elements)). Blocks are random bytes, which reach every bit of every field; only the half-precision
scales are kept finite. types.tsv holds id, name, elements and bytes of each type that the package knows.
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

OUT = Path(__file__).parent.parent / "data" / "quant"

# Byte offsets of the half-precision scales in a block.
HALVES = {
    T.Q4_0: [0],
    T.Q4_1: [0, 2],
    T.Q5_0: [0],
    T.Q5_1: [0, 2],
    T.Q8_0: [0],
    T.Q2_K: [80, 82],
    T.Q3_K: [108],
    T.Q4_K: [0, 2],
    T.Q5_K: [0, 2],
    T.Q6_K: [208],
    T.IQ4_NL: [0],
    T.IQ4_XS: [0],
    T.MXFP4: [],
}


def finite_halves(rng, n):
    """Random finite half-precision bit patterns, subnormal ones included."""
    sign = rng.integers(0, 2, n, dtype=np.uint16) << 15
    return (sign | rng.integers(0, 0x7C00, n, dtype=np.uint16)).astype("<u2")


def random_blocks(rng, kind):
    elements, size = GGML_QUANT_SIZES[kind]
    n = 4 if elements == 256 else 12
    blocks = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for offset in HALVES[kind]:
        blocks[:, offset : offset + 2] = finite_halves(rng, n).view(np.uint8).reshape(n, 2)
    if kind == T.MXFP4:
        blocks[:6, 0] = [0, 1, 2, 127, 254, 255]  # both subnormal scales, one half, the largest, and E8M0's NaN
    return blocks


def plain(rng, kind):
    """Elements of the unquantised types: edges first (zeros, subnormals, largest, infinities, NaN), then anything."""
    if kind == T.F32:
        edges = [0, 1 << 31, 1, 0x007FFFFF, 0x00800000, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000]
        return np.array(edges + list(rng.integers(0, 0x7F800000, 54)), "<u4").view(np.uint8).reshape(-1, 4)
    if kind == T.F16:
        edges = [0, 0x8000, 1, 0x8001, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00]
        return np.array(edges + list(finite_halves(rng, 116)), "<u2").view(np.uint8).reshape(-1, 2)
    edges = [0, 0x8000, 1, 0x007F, 0x0080, 0x3F80, 0x7F7F, 0x7F80, 0xFF80, 0x7FC0]
    return np.array(edges + list(rng.integers(0, 0x7F80, 118)), "<u2").view(np.uint8).reshape(-1, 2)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for kind in [T.F32, T.F16, T.BF16, *HALVES]:
        rng = np.random.default_rng(int(kind) + 1)
        blocks = random_blocks(rng, kind) if kind in HALVES else plain(rng, kind)
        # The package takes the unquantised float types by NumPy type, all others as bytes.
        stored = {T.F32: "<f4", T.F16: "<f2"}.get(kind, np.uint8)
        values = dequantize(blocks.view(stored), kind).astype("<f4").ravel()
        assert values.size == len(blocks) * GGML_QUANT_SIZES[kind][0]
        (OUT / f"{kind.name}.bin").write_bytes(blocks.tobytes() + values.tobytes())
    rows = [f"{int(kind)}\t{kind.name}\t{elements}\t{size}\n" for kind, (elements, size) in GGML_QUANT_SIZES.items()]
    (OUT / "types.tsv").write_text("".join(rows))


if __name__ == "__main__":
    main()
