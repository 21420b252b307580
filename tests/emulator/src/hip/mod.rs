//! The face of HIP's runtime: `extern "C"` functions over one [`state::Runtime`], and the tests' controls beside them.

pub mod controls;
pub mod device;
pub mod error;
pub mod event;
pub mod graph;
pub mod kernel;
pub mod memory;
pub mod state;
pub mod stream;
