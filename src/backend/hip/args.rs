//! The kernels' arguments: `kernels/args.h` again, in Rust. Addresses are those of the device.

use bytemuck::{Pod, Zeroable};

use super::driver::Address;

/// `epilogue`: out = W·x + bias.
pub const EPILOGUE_STORE: u32 = 0;
/// `epilogue`: out += W·x + bias.
pub const EPILOGUE_ADD: u32 = 1;
/// `epilogue`: out = silu(part 0) · part 1.
pub const EPILOGUE_SILU: u32 = 2;
/// `epilogue`: out = gelu(part 0) · part 1.
pub const EPILOGUE_GELU_TANH: u32 = 3;
/// `style`: pairs (0, 1), (2, 3), …
pub const ROPE_NORM: u32 = 0;
/// `style`: pairs (0, pairs), (1, pairs + 1), …
pub const ROPE_NEOX: u32 = 1;

macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => { $(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
        #[allow(missing_docs)] // the header has the fields' meanings
        pub struct $name { $(pub $field: $type,)* }
    )* };
}

arguments! {
    /// A weight matrix in the planes of its format.
    MatrixArg { data: Address, plane: [u64; 3], rows: u32, columns: u32, }

    /// Rows of quantised activations.
    QuantArg { q: Address, scales: Address, }

    /// A norm; none with a gain of 0.
    NormArg { gain: Address, epsilon: f32, unused: u32, }

    /// One matrix of a multiplication.
    MatmulPart { matrix: MatrixArg, bias: Address, out: Address, out_stride: u32, which: u32, }

    /// Up to three matrices times the same activations.
    MatmulArgs {
        part: [MatmulPart; 3],
        parts: u32,
        n: u32,
        columns: u32,
        epilogue: u32,
        x: Address,
        norm: NormArg,
        acts: QuantArg,
        softcap: f32,
        unused: u32,
    }

    /// Residual stream = rows of the embedding.
    EmbedArgs { table: MatrixArg, tokens: Address, x: Address, scale: f32, n: u32, }

    /// Rows, normalised or not, as float32, quantised, or both.
    NormQuantizeArgs { x: Address, out: Address, acts: QuantArg, norm: NormArg, n: u32, columns: u32, }

    /// x += norm(y).
    NormAddArgs { y: Address, x: Address, norm: NormArg, n: u32, columns: u32, }

    /// out = act(gate) · up.
    GateUpArgs { gate: Address, up: Address, out: Address, n: u32, columns: u32, epilogue: u32, unused: u32, }

    /// Where the rows of a step stand, and their sequences' pages.
    StepArg { positions: Address, first_page: Address, pages: Address, }

    /// Head norms and rotation.
    RopeArg { q_norm: NormArg, k_norm: NormArg, rotation: Address, pairs: u32, style: u32, }

    /// The heads of a layer.
    HeadShape { n_head: u32, n_head_kv: u32, head_dim: u32, layer: u32, }

    /// Finishes q in place, k and v in the cache.
    RopeAppendArgs { q: Address, k: Address, v: Address, step: StepArg, rope: RopeArg, shape: HeadShape, n: u32, unused: u32, }

    /// Attention over the cache.
    AttendArgs {
        q: Address,
        k: Address,
        v: Address,
        out: Address,
        step: StepArg,
        rope: RopeArg,
        shape: HeadShape,
        scale: f32,
        softcap: f32,
        window: u32,
        n: u32,
        partial: Address,
        counters: Address,
        splits: u32,
        unused: u32,
    }

    /// The token with the greatest logit.
    ArgmaxArgs {
        logits: Address,
        out: Address,
        partial: Address,
        counters: Address,
        n: u32,
        n_vocab: u32,
        splits: u32,
        unused: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rust's structures against the header's, by a C++ compiler that is told what Rust found.
    #[test]
    fn the_header_says_the_same() {
        use std::fmt::Write;
        let mut checks =
            String::from("#define __device__\n#define RF_HOST_LAYOUT 1\n#include \"args.h\"\n#include <cstddef>\n");
        macro_rules! check {
            ($($name:ident { $($field:ident),* })*) => { $(
                writeln!(checks, "static_assert(sizeof({}) == {}, \"size\");", stringify!($name), size_of::<$name>()).expect("text");
                $( writeln!(checks, "static_assert(offsetof({}, {}) == {}, \"offset\");", stringify!($name), stringify!($field),
                    std::mem::offset_of!($name, $field)).expect("text"); )*
            )* };
        }
        check! {
            MatrixArg { data, plane, rows, columns }
            QuantArg { q, scales }
            NormArg { gain, epsilon }
            MatmulPart { matrix, bias, out, out_stride, which }
            MatmulArgs { part, parts, n, columns, epilogue, x, norm, acts, softcap }
            EmbedArgs { table, tokens, x, scale, n }
            NormQuantizeArgs { x, out, acts, norm, n, columns }
            NormAddArgs { y, x, norm, n, columns }
            GateUpArgs { gate, up, out, n, columns, epilogue }
            StepArg { positions, first_page, pages }
            RopeArg { q_norm, k_norm, rotation, pairs, style }
            HeadShape { n_head, n_head_kv, head_dim, layer }
            RopeAppendArgs { q, k, v, step, rope, shape, n }
            AttendArgs { q, k, v, out, step, rope, shape, scale, softcap, window, n, partial, counters, splits }
            ArgmaxArgs { logits, out, partial, counters, n, n_vocab, splits }
        }
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("layout.cpp");
        std::fs::write(&source, checks).expect("written");
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        let output = std::process::Command::new(compiler)
            .args(["-std=c++17", "-fsyntax-only", "-I"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels"))
            .arg(&source)
            .output()
            .expect("a C++ compiler");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
