//! Backends: where tensors live and the verbs run.
pub mod cpu;
