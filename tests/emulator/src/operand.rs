//! The text of operands and modifiers.

use crate::inst::{EXEC, M0, NULL, Src, Ty, VCC};
use crate::isa::cross::{Dpp, Permutation};
use crate::lane::float_to_half;
use crate::memory::{PRIVATE_BASE, SHARED_BASE};

/// A line of disassembly taken apart.
#[derive(Debug)]
pub struct Text<'a> {
    pub mnemonic: &'a str,
    pub operands: Vec<&'a str>,
    pub modifiers: Vec<&'a str>,
}

impl<'a> Text<'a> {
    /// Operands are between commas; modifiers follow them after spaces.
    pub fn parse(text: &'a str) -> Text<'a> {
        let (mnemonic, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let (mut operands, mut modifiers) = (Vec::new(), Vec::new());
        for piece in split_at_commas(rest.trim()) {
            let mut words = piece.split_whitespace();
            operands.extend(words.next());
            modifiers.extend(words);
        }
        Text { mnemonic, operands, modifiers }
    }
}

/// Pieces between commas that are not inside of brackets.
fn split_at_commas(text: &str) -> Vec<&str> {
    let (mut pieces, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth -= 1,
            ',' if depth == 0 => {
                pieces.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(text[start..].trim());
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Registers `first..first + count`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Register {
    V { first: u16, count: u16 },
    S { first: u8, count: u16 },
}

pub fn register(text: &str) -> Option<Register> {
    let special = |first, count| Some(Register::S { first, count });
    match text {
        "vcc_lo" => return special(VCC, 1),
        "vcc_hi" => return special(VCC + 1, 1),
        "vcc" => return special(VCC, 2),
        "exec_lo" => return special(EXEC, 1),
        "exec_hi" => return special(EXEC + 1, 1),
        "exec" => return special(EXEC, 2),
        "m0" => return special(M0, 1),
        "null" => return special(NULL, 16),
        _ => {}
    }
    let (class, base, limit, numbers) = match text {
        _ if text.starts_with("ttmp") => ('s', 108, 124, &text[4..]),
        _ if text.starts_with('v') => ('v', 0, 256, &text[1..]),
        _ if text.starts_with('s') => ('s', 0, 106, &text[1..]),
        _ => return None,
    };
    let (first, last) = match numbers.strip_prefix('[').and_then(|range| range.strip_suffix(']')) {
        Some(range) => {
            let (first, last) = range.split_once(':').unwrap_or((range, range));
            (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?)
        }
        None => (numbers.parse().ok()?, numbers.parse().ok()?),
    };
    if first > last || base + last >= limit {
        return None;
    }
    let (first, count) = (base + first, last - first + 1);
    Some(if class == 'v' { Register::V { first, count } } else { Register::S { first: first as u8, count } })
}

/// The VGPR of an operand of type `ty`.
pub fn vgpr(text: &str, registers: u16) -> Result<u16, String> {
    match register(text) {
        Some(Register::V { first, count }) if count == registers => Ok(first),
        _ => Err(format!("operand {text} is not {registers} VGPRs")),
    }
}

pub fn sgpr(text: &str, registers: u16) -> Result<u8, String> {
    match register(text) {
        Some(Register::S { first, count }) if count == registers || first == NULL => Ok(first),
        _ => Err(format!("operand {text} is not {registers} SGPRs")),
    }
}

/// A source with its modifiers: `(source, negate, absolute)`.
pub fn source(text: &str, ty: Ty) -> Result<(Src, bool, bool), String> {
    if let Some(k) = constant(text, ty) {
        return Ok((Src::K(k), false, false));
    }
    let (inner, neg) = match (text.strip_prefix('-'), unwrap(text, "neg(", ")")) {
        (Some(inner), _) | (None, Some(inner)) => (inner, true),
        _ => (text, false),
    };
    let (inner, abs) = match unwrap(inner, "|", "|").or_else(|| unwrap(inner, "abs(", ")")) {
        Some(inner) => (inner, true),
        None => (inner, false),
    };
    if (neg || abs) && !ty.is_float() {
        return Err(format!("modifier in operand {text}"));
    }
    if let Some(k) = constant(inner, ty) {
        return Ok((Src::K(k), neg, abs));
    }
    match register(inner) {
        Some(Register::V { first, count }) if count == ty.registers() => Ok((Src::V(first), neg, abs)),
        Some(Register::S { first: NULL, .. }) => Ok((Src::K(0), neg, abs)),
        Some(Register::S { first, count }) if count == ty.registers() => Ok((Src::S(first), neg, abs)),
        _ => Err(format!("operand {text}")),
    }
}

fn unwrap<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.strip_suffix(after)
}

/// The bits of a constant as type `ty` reads it.
fn constant(text: &str, ty: Ty) -> Option<u64> {
    match text {
        "src_shared_base" => return Some(u64::from(SHARED_BASE) << 32),
        "src_private_base" => return Some(u64::from(PRIVATE_BASE) << 32),
        _ => {}
    }
    if let Some(hex) = text.strip_prefix("0x") {
        let literal = u32::from_str_radix(hex, 16).ok()?;
        return Some(match ty {
            Ty::F64 => u64::from(literal) << 32,
            Ty::I64 => i64::from(literal as i32) as u64,
            _ => u64::from(literal),
        });
    }
    if let Ok(integer) = text.parse::<i64>() {
        return Some(if ty.registers() == 2 && !matches!(ty, Ty::Rows(_)) {
            integer as u64
        } else {
            u64::from(integer as u32)
        });
    }
    let float: f64 = text.parse().ok().filter(|_| text.contains('.'))?;
    // The one inline constant that is not exact in every type.
    let float = if (float - 0.15915494).abs() < 1e-7 { 0.15915494309189532 } else { float };
    Some(match ty {
        Ty::F64 | Ty::B64 | Ty::I64 => float.to_bits(),
        Ty::F16 | Ty::B16 | Ty::PackedF16 | Ty::PackedB16 => u64::from(float_to_half(float as f32)),
        _ => u64::from((float as f32).to_bits()),
    })
}

/// An integer in the assembler's notation.
pub fn integer(text: &str) -> Result<i64, String> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let value = match digits.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    let value = value.map_err(|_| format!("immediate {text}"))?;
    Ok(if negative { -value } else { value })
}

/// The modifiers after the operands.
#[derive(Default, Debug)]
pub struct Modifiers {
    pub neg_lo: u8,
    pub neg_hi: u8,
    pub op_sel: Option<u8>,
    pub op_sel_hi: Option<u8>,
    pub clamp: bool,
    pub omod: i8,
    pub offset: i64,
    pub offsets: [u32; 2],
    pub glc: bool,
    pub dpp: Option<Dpp>,
}

impl Modifiers {
    pub fn parse(words: &[&str]) -> Result<Modifiers, String> {
        let mut modifiers = Modifiers::default();
        for word in words {
            modifiers.add(word)?;
        }
        Ok(modifiers)
    }

    fn add(&mut self, word: &str) -> Result<(), String> {
        let (name, value) = word.split_once(':').unwrap_or((word, ""));
        match name {
            "neg_lo" => self.neg_lo = bits(value)?,
            "neg_hi" => self.neg_hi = bits(value)?,
            "op_sel" => self.op_sel = Some(bits(value)?),
            "op_sel_hi" => self.op_sel_hi = Some(bits(value)?),
            "clamp" => self.clamp = true,
            "mul" | "div" => {
                let power = match integer(value)? {
                    2 => 1,
                    4 => 2,
                    _ => return Err(format!("modifier {word}")),
                };
                self.omod = if name == "mul" { power } else { -power };
            }
            // `offset:swizzle(…)` is read from the encoding instead.
            "offset" if value.starts_with("swizzle") => {}
            "offset" => self.offset = integer(value)?,
            "offset0" => self.offsets[0] = integer(value)? as u32,
            "offset1" => self.offsets[1] = integer(value)? as u32,
            "glc" => self.glc = true,
            // Which caches are passed by means nothing where there is none; waits end at once.
            "slc" | "dlc" | "wait_vdst" | "wait_exp" => {}
            _ => return self.add_dpp(name, value).map_err(|_| format!("modifier {word}")),
        }
        Ok(())
    }

    fn add_dpp(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = || integer(value).map(|n| n as u32);
        let permutation = match name {
            "quad_perm" => Permutation::Quad(fields(value, 2)?),
            // Lanes with nothing to read get 0 in this encoding.
            "dpp8" => Permutation::Eight(fields(value, 3)?),
            "row_shl" => Permutation::ShiftLeft(number()?),
            "row_shr" => Permutation::ShiftRight(number()?),
            "row_ror" => Permutation::RotateRight(number()?),
            "row_mirror" => Permutation::Mirror,
            "row_half_mirror" => Permutation::HalfMirror,
            "row_share" => Permutation::Share(number()?),
            "row_xmask" => Permutation::Xor(number()?),
            _ => {
                let dpp = self.dpp.as_mut().ok_or("not of DPP")?;
                match name {
                    "row_mask" => dpp.row_mask = number()?,
                    "bank_mask" => dpp.bank_mask = number()?,
                    "bound_ctrl" => dpp.bound_ctrl = true,
                    "fi" => dpp.fetch_inactive = number()? != 0,
                    _ => return Err("not of DPP".into()),
                }
                return Ok(());
            }
        };
        let bound_ctrl = name == "dpp8";
        self.dpp = Some(Dpp { permutation, row_mask: 15, bank_mask: 15, bound_ctrl, fetch_inactive: false });
        Ok(())
    }
}

/// `[1,0,1]` as bits, the first the lowest.
fn bits(list: &str) -> Result<u8, String> {
    Ok(fields(list, 1)? as u8)
}

/// `[3,2,1,0]` as fields of `width` bits, the first the lowest.
fn fields(list: &str, width: u32) -> Result<u32, String> {
    let list = unwrap(list, "[", "]").ok_or_else(|| format!("list {list}"))?;
    let mut value = 0;
    for (i, field) in list.split(',').enumerate() {
        value |= (integer(field.trim())? as u32) << (width * i as u32);
    }
    Ok(value)
}
