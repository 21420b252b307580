//! A network: configuration, weights and one forward pass over the [verbs](crate::backend::Backend).

pub mod config;
pub mod forward;
mod rope;
pub mod weights;

pub use config::Config;
pub use forward::{Network, Stage};
