// All kernels, as one unit: what build.rs and run-time compilers compile.
#include "norm.hip"
#include "rope_kv.hip"
#include "attention.hip"
#include "attend_prefill.hip"
#include "sample.hip"
#include "embed.hip"
#include "gemv.hip"
#include "exact.hip"
