//! The CPU backend.
pub mod features;
pub mod pool;
pub mod vector;
