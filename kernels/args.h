// Arguments of the kernels: one struct for each, passed by value. `src/backend/hip/args.rs` says the same in Rust, and
// its tests compare sizes and offsets. Pointers are device addresses, widths are in elements, matrices are row-major.
#pragma once
#if defined(RF_HOST_LAYOUT) // a test compares the layout with Rust's, by any C++ compiler
#include <stdint.h>
struct alignas(8) f32x2 {
    float x, y;
};
#else
#include "portable.h"
#endif

#define RF_PAGE_TOKENS 32 // tokens of a page of the key-value cache, as in src/backend/mod.rs
#define RF_ACT_BLOCK 32   // elements of a block of quantised activations

// A weight matrix in the planes of its format (formats.h): one allocation, `plane[i]` bytes from its beginning.
struct MatrixArg {
    const uint8_t *data;
    uint64_t plane[3];
    uint32_t rows;
    uint32_t columns;
};

// Rows of activations quantised to 8 bits: blocks of 32 with `x ≈ d·q`.
struct QuantArg {
    int8_t *q;      // [n][columns]
    f32x2 *scales;  // [n][columns / 32] of {d, d·Σq}
};

// x / √(mean(x²) + epsilon) · gain; no norm where `gain` is null.
struct NormArg {
    const float *gain;
    float epsilon;
    uint32_t unused;
};

// ------------------------------------------------------------------------------------------------------------ matmul

#define RF_EPILOGUE_STORE 0u     // out = W·x + bias
#define RF_EPILOGUE_ADD 1u       // out += W·x + bias
#define RF_EPILOGUE_SILU 2u      // out = silu(part 0) · part 1: both parts have the same rows
#define RF_EPILOGUE_GELU_TANH 3u // out = gelu(part 0) · part 1

struct MatmulPart {
    MatrixArg matrix;
    const float *bias; // or null
    float *out;        // [n][out_stride]; of a gate and its up both name the same
    uint32_t out_stride;
    uint32_t which; // in kernels of two formats: 0 the first of the kernel's name, 1 the second
};

// One launch multiplies up to three matrices of equal width by the same activations.
struct MatmulArgs {
    MatmulPart part[3];
    uint32_t parts;
    uint32_t n;        // rows of activations
    uint32_t columns;
    uint32_t epilogue; // RF_EPILOGUE_…
    const float *x;    // [n][columns] float32: read by kernels that normalise or quantise for themselves
    NormArg norm;      // over x, in those kernels
    QuantArg acts;     // read by kernels that take quantised activations
    float softcap;     // c · tanh(y / c) on the result; 0: none
    uint32_t unused;
};

// ----------------------------------------------------------------------------------------------------- rows' own work

// Residual stream = rows of the embedding.
struct EmbedArgs {
    MatrixArg table;
    const uint32_t *tokens; // [n]
    float *x;               // [n][columns]
    float scale;
    uint32_t n;
};

// Normalises rows (or not) and writes them as float32, quantised, or both.
struct NormQuantizeArgs {
    const float *x;  // [n][columns]
    float *out;      // [n][columns], or null
    QuantArg acts;   // or null pointers
    NormArg norm;
    uint32_t n;
    uint32_t columns;
};

// x += norm(y), for networks that normalise a projection before it joins the residual stream.
struct NormAddArgs {
    const float *y; // [n][columns]
    float *x;       // [n][columns]
    NormArg norm;
    uint32_t n;
    uint32_t columns;
};

// out = act(gate) · up, where gate and up could not be had from one launch.
struct GateUpArgs {
    const float *gate; // [n][columns]
    const float *up;   // [n][columns]
    float *out;        // [n][columns]
    uint32_t n;
    uint32_t columns;
    uint32_t epilogue; // RF_EPILOGUE_SILU or RF_EPILOGUE_GELU_TANH
    uint32_t unused;
};

// --------------------------------------------------------------------------------------------------------- attention

#define RF_ROPE_NORM 0u // pairs (0, 1), (2, 3), …
#define RF_ROPE_NEOX 1u // pairs (0, pairs), (1, pairs + 1), …

// The rows of a step: where they stand and where their sequences' keys and values are.
struct StepArg {
    const uint32_t *positions;    // [n]: position in its sequence
    const uint32_t *first_page;   // [n]: index into `pages` of its sequence's first page
    const uint64_t *pages;        // device addresses: each page is [layer][k | v][n_head_kv][32][head_dim]
};

// Head norms, rotation, and the append to the cache.
struct RopeArg {
    NormArg q_norm;        // over each head
    NormArg k_norm;
    const float *rotation; // [n][cos of the pairs, then sin]
    uint32_t pairs;        // twice as many leading elements of a head rotate
    uint32_t style;        // RF_ROPE_…
};

struct HeadShape {
    uint32_t n_head;
    uint32_t n_head_kv;
    uint32_t head_dim;
    uint32_t layer;
};

// Steps of several rows: q is normalised and rotated in place, k and v go to the cache.
struct RopeAppendArgs {
    float *q;       // [n][n_head · head_dim]
    const float *k; // [n][n_head_kv · head_dim]
    const float *v; // [n][n_head_kv · head_dim]
    StepArg step;
    RopeArg rope;
    HeadShape shape;
    uint32_t n;
    uint32_t unused;
};

struct AttendArgs {
    const float *q;  // [n][n_head · head_dim]; raw if `k` is given, else normalised and rotated
    const float *k;  // attend_decode alone: the new rows', raw, each of a sequence of its own; null: they are in the cache
    const float *v;
    float *out;      // [n][n_head · head_dim]
    StepArg step;
    RopeArg rope;    // attend_decode alone
    HeadShape shape;
    float scale;     // on the scores
    float softcap;   // c · tanh(score / c); 0: none
    uint32_t window; // a row sees itself and the `window − 1` tokens before it; 0: all
    uint32_t n;
    float *partial;     // attend_decode alone: [n][n_head][splits][head_dim] sums, then [n][n_head][splits]{max, sum}
    uint32_t *counters; // [n][blocks of a row and share], zero before and after
    uint32_t splits;    // at most 256
    uint32_t unused;
};

// ---------------------------------------------------------------------------------------------------------- sampling

struct Candidate {
    uint32_t token; // 0xffffffff: the logits hold something that is no number
    float logit;
};

// The token with the greatest logit, of equal ones the first.
struct ArgmaxArgs {
    const float *logits; // [n][n_vocab]
    Candidate *out;      // [n]
    Candidate *partial;  // [n][splits]
    uint32_t *counters;  // [n], zero before and after
    uint32_t n;
    uint32_t n_vocab;
    uint32_t splits; // blocks of a row
    uint32_t unused;
};
