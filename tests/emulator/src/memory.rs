//! What device code may touch: the live ranges of the device's address space, which is the host's.

use std::sync::Arc;

/// High halves of the generic addresses that mean workgroup and private memory.
pub const SHARED_BASE: u32 = 0x0001_0000;
pub const PRIVATE_BASE: u32 = 0x0002_0000;

/// What a range is, for messages.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    Device,
    Host,
    Image,
    Arguments,
    /// An allocation that was freed: never accessible, but worth naming.
    Freed,
}

#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub start: u64,
    pub end: u64,
    pub kind: Kind,
}

/// All ranges, sorted by address; they do not overlap.
#[derive(Default, Debug)]
pub struct Ranges(Vec<Range>);

impl Ranges {
    pub fn new(mut ranges: Vec<Range>) -> Ranges {
        ranges.sort_by_key(|range| range.start);
        Ranges(ranges)
    }

    /// The range that holds all of `start..end`, unless it was freed.
    pub fn find(&self, start: u64, end: u64) -> Option<Range> {
        let after = self.0.partition_point(|range| range.start <= start);
        let range = *self.0.get(after.checked_sub(1)?)?;
        (end <= range.end && range.kind != Kind::Freed).then_some(range)
    }

    /// What a bad address is close to.
    pub fn describe(&self, address: u64) -> String {
        let after = self.0.partition_point(|range| range.start <= address);
        let below = after.checked_sub(1).map(|i| self.0[i]);
        let above = self.0.get(after).copied();
        match (below, above) {
            (Some(r), _) if address < r.end && r.kind == Kind::Freed => {
                format!("{} bytes into an allocation of {} bytes that was freed", address - r.start, r.end - r.start)
            }
            (Some(r), _) if address < r.end => {
                format!("across the end of a range of {} bytes ({:?})", r.end - r.start, r.kind)
            }
            (Some(r), above) if above.is_none_or(|a| address - r.end <= a.start - address) => {
                let (beyond, size) = (address - r.end, r.end - r.start);
                format!("{beyond} bytes beyond the end of a range of {size} bytes ({:?})", r.kind)
            }
            (_, Some(r)) => {
                format!("{} bytes before a range of {} bytes ({:?})", r.start - address, r.end - r.start, r.kind)
            }
            _ => "no memory is allocated".into(),
        }
    }
}

/// A wave's view of the ranges, which remembers where it was last.
#[derive(Clone)]
pub struct Memory {
    ranges: Arc<Ranges>,
    last: [(u64, u64); 4],
}

impl Memory {
    pub fn new(ranges: Arc<Ranges>) -> Memory {
        Memory { ranges, last: [(1, 0); 4] }
    }

    /// Whether `start..end` may be read and written.
    #[inline(always)]
    pub fn allows(&mut self, start: u64, end: u64) -> bool {
        let inside = |(low, high): (u64, u64)| low <= start && end <= high && start <= end;
        self.last.iter().any(|&range| inside(range)) || self.look_up(start, end)
    }

    #[cold]
    fn look_up(&mut self, start: u64, end: u64) -> bool {
        let Some(range) = self.ranges.find(start, end) else { return false };
        self.last.rotate_right(1);
        self.last[0] = (range.start, range.end);
        start <= end
    }

    pub fn describe(&self, address: u64) -> String {
        self.ranges.describe(address)
    }
}
