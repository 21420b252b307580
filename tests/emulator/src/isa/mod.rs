//! The instruction tables: one row for each instruction that computes, a module for each family.
//!
//! Rows say what an instruction reads, writes and computes; `decode` turns a line of disassembly into an [`Inst`]
//! according to its row. Instructions that touch memory or the program counter have more to decode than operands and
//! come from [`global`], [`lds`], [`scratch`] and [`flow`].
//!
//! [`Inst`]: crate::inst::Inst

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::inst::Row;

pub mod access;
pub mod carry;
pub mod compare;
pub mod convert;
pub mod cross;
pub mod dot;
pub mod float;
pub mod flow;
pub mod global;
pub mod half;
pub mod int;
pub mod lds;
pub mod packed;
pub mod scalar;
pub mod scratch;
pub mod special;
pub mod wmma;

/// The row of `name`, which is a mnemonic without the suffix of its encoding.
pub fn row(name: &str) -> Option<&'static Row> {
    static ROWS: OnceLock<HashMap<&'static str, &'static Row>> = OnceLock::new();
    let rows = ROWS.get_or_init(|| {
        let tables = [
            float::TABLE,
            float::ACCUMULATING,
            special::TABLE,
            half::TABLE,
            half::ACCUMULATING,
            half::MIXED,
            convert::TABLE,
            int::TABLE,
            int::SHORT,
            int::WIDE,
            carry::TABLE,
            packed::TABLE,
            packed::ACCUMULATING,
            dot::TABLE,
            dot::ACCUMULATING,
            cross::TABLE,
            wmma::TABLE,
        ];
        tables
            .iter()
            .chain(compare::TABLES)
            .chain(scalar::TABLES)
            .copied()
            .flatten()
            .map(|row| (row.name, row))
            .collect()
    });
    rows.get(name).copied()
}
