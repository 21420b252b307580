//! The CPU backend.
pub mod attention;
pub mod features;
pub mod pool;
pub mod vector;
