//! Memory that begins on a cache line and whose allocation may fail.
//!
//! Large pieces are mapped and not taken from the C library's heap: its arenas, of which each thread of the host may have
//! its own, keep what is freed in them, and a closed model is to give its memory back to the system at once.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;

use super::pool::Pool;
use super::populate::{Advice, HUGE_PAGE, Populate, advise};
use crate::error::{Error, Result};

/// A cache line, and the width of the widest vector.
const ALIGNMENT: usize = 64;
/// From this size on memory is mapped.
const MAPPED: usize = 256 << 10;
/// From this size on the system is asked for huge pages: fewer misses of the translation cache while streaming.
const HUGE: usize = 4 << 20;
/// What a [`Slabs`] maps at a time.
const SLAB: usize = 32 << 20;

/// A cache line, for memory of which no vector straddles two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [u8; ALIGNMENT]);

/// Zeroed bytes, aligned to 64.
pub struct AlignedBuf {
    start: NonNull<u8>,
    len: usize,
    from: Origin,
}

/// Whom the memory goes back to.
enum Origin {
    Heap(Layout),
    /// All of a mapping, or a piece that nobody else has.
    #[cfg(unix)]
    Mapping(#[expect(dead_code, reason = "kept for its end")] Arc<Mapping>),
}

// SAFETY: owns its bytes, as a Vec does.
unsafe impl Send for AlignedBuf {}
// SAFETY: as above.
unsafe impl Sync for AlignedBuf {}

/// Pages of our own. Who holds one accesses the bytes that were given out to it alone.
#[cfg(unix)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

#[cfg(unix)]
// SAFETY: an address and a length.
unsafe impl Send for Mapping {}
#[cfg(unix)]
// SAFETY: as above.
unsafe impl Sync for Mapping {}

#[cfg(unix)]
impl Mapping {
    /// Zeroed pages of at least `bytes`, and where they are to be used from.
    fn new(bytes: usize) -> Option<(Mapping, NonNull<u8>)> {
        // Huge pages begin at multiples of their size; address space for that is free.
        let spare = if bytes >= HUGE { HUGE_PAGE } else { 0 };
        let len = bytes.checked_add(spare)?;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping of our own, at an address of the system's choice.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), len, access, kind, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return None;
        }
        let mapping = Mapping { start: NonNull::new(mapping.cast::<u8>())?, len };
        let skip = if spare > 0 { mapping.start.as_ptr().align_offset(HUGE_PAGE) } else { 0 };
        // SAFETY: at most `spare` bytes into the mapping.
        let start = unsafe { mapping.start.add(skip) };
        #[cfg(target_os = "linux")]
        if spare > 0 {
            // SAFETY: advice on our own pages; a refusal changes nothing.
            unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Some((mapping, start))
    }
}

#[cfg(unix)]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped with this begin and length.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

fn out_of_memory(bytes: usize) -> Error {
    Error::OutOfMemory { bytes: bytes as u64, what: "weights or activations".into() }
}

impl AlignedBuf {
    /// `bytes` zeroed bytes, or [`Error::OutOfMemory`].
    pub fn zeroed(bytes: usize) -> Result<AlignedBuf> {
        #[cfg(unix)]
        if bytes >= MAPPED {
            let (mapping, start) = Mapping::new(bytes).ok_or_else(|| out_of_memory(bytes))?;
            return Ok(AlignedBuf { start, len: bytes, from: Origin::Mapping(Arc::new(mapping)) });
        }
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).map_err(|_| out_of_memory(bytes))?;
        // SAFETY: the layout has a size above zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(|| out_of_memory(bytes))?;
        Ok(AlignedBuf { start, len: bytes, from: Origin::Heap(layout) })
    }

    /// Has the system find memory for all of it now.
    pub fn populate(&mut self) {
        #[cfg(unix)]
        if let Origin::Mapping(_) = self.from {
            advise(self.as_mut_slice(), Advice::Populate);
        }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: ours alone, with this size, initialised to zero.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: ours alone, with this size, initialised to zero, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        match self.from {
            // SAFETY: allocated with this layout.
            Origin::Heap(layout) => unsafe { dealloc(self.start.as_ptr(), layout) },
            #[cfg(unix)]
            Origin::Mapping(_) => {}
        }
    }
}

/// Bytes that do not change any more, in memory that they keep alive and may share.
#[derive(Clone)]
pub struct SharedBytes {
    start: NonNull<u8>,
    len: usize,
    /// An [`AlignedBuf`] or a mapping, kept for its end.
    _owner: Arc<dyn Send + Sync>,
}

// SAFETY: read-only bytes of an owner that is both.
unsafe impl Send for SharedBytes {}
// SAFETY: as above.
unsafe impl Sync for SharedBytes {}

impl From<AlignedBuf> for SharedBytes {
    fn from(buffer: AlignedBuf) -> Self {
        SharedBytes { start: buffer.start, len: buffer.len, _owner: Arc::new(buffer) }
    }
}

impl SharedBytes {
    /// `len` bytes at `offset` of a mapped file; `None` if they are not inside.
    pub fn mapped(map: &Arc<memmap2::Mmap>, offset: usize, len: usize) -> Option<SharedBytes> {
        let bytes = map.get(offset..)?.get(..len)?;
        Some(SharedBytes { start: NonNull::from(bytes).cast(), len, _owner: map.clone() })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: bytes of the owner, which gives them to nobody to write and moves them nowhere.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// Memory for many tensors, most of which are smaller than a huge page. Side by side in large mappings all of it is in huge
/// pages: the system hands them out several times as fast (20 GB/s against 3), and reading them misses fewer
/// translations. A mapping goes back to the system when all that lies in it is dropped.
#[derive(Default)]
pub struct Slabs {
    #[cfg(unix)]
    open: Mutex<Option<Slab>>,
    populate: Populate,
}

/// The mapping that is being given out.
#[cfg(unix)]
struct Slab {
    mapping: Arc<Mapping>,
    /// Where what is left begins, and its length.
    rest: NonNull<u8>,
    left: usize,
}

#[cfg(unix)]
// SAFETY: as `AlignedBuf`: what is left of it is its own.
unsafe impl Send for Slab {}

impl Slabs {
    /// As [`AlignedBuf::zeroed`].
    pub fn zeroed(&self, bytes: usize) -> Result<AlignedBuf> {
        #[cfg(unix)]
        if (1..SLAB / 2).contains(&bytes) {
            return self.piece(bytes).ok_or_else(|| out_of_memory(bytes));
        }
        AlignedBuf::zeroed(bytes)
    }

    /// Has the system find memory for `bytes`, all or some of what [`Slabs::zeroed`] gave, on all threads.
    pub fn populate(&self, bytes: &mut [u8], pool: &Pool) {
        let head = bytes.as_ptr().align_offset(HUGE_PAGE).min(bytes.len());
        let (head, rest) = bytes.split_at_mut(head);
        let stretches = std::iter::once(head).chain(rest.chunks_mut(HUGE_PAGE)).filter(|bytes| !bytes.is_empty());
        let stretches: Vec<_> = stretches.map(Mutex::new).collect();
        pool.run(stretches.len(), &|i| self.populate.populate(&mut stretches[i].lock()));
    }

    /// The next `bytes` of the open slab, or of a new one. What is left of the old one is never touched and so costs
    /// addresses only.
    #[cfg(unix)]
    fn piece(&self, bytes: usize) -> Option<AlignedBuf> {
        let taken = bytes.next_multiple_of(ALIGNMENT);
        let mut open = self.open.lock();
        let slab = match &mut *open {
            Some(slab) if slab.left >= taken => slab,
            other => {
                let (mapping, rest) = Mapping::new(SLAB)?;
                other.insert(Slab { mapping: Arc::new(mapping), rest, left: SLAB })
            }
        };
        let piece = AlignedBuf { start: slab.rest, len: bytes, from: Origin::Mapping(slab.mapping.clone()) };
        // SAFETY: within the slab, of which as much is left.
        slab.rest = unsafe { slab.rest.add(taken) };
        slab.left -= taken;
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zero_aligned_and_apart() {
        let slabs = Slabs::default();
        let mut pieces: Vec<AlignedBuf> = [1, 100, 3 << 20, SLAB / 2 - 1, SLAB / 2 - 1, SLAB, 64, 0]
            .iter()
            .map(|&bytes| slabs.zeroed(bytes).expect("memory"))
            .collect();
        for (i, piece) in pieces.iter_mut().enumerate() {
            assert!(piece.as_slice().iter().all(|&byte| byte == 0), "piece {i} overlaps one before it");
            assert!(piece.as_slice().as_ptr().addr().is_multiple_of(ALIGNMENT), "piece {i}");
            piece.as_mut_slice().fill(i as u8 + 1);
        }
        drop(slabs);
        for (i, piece) in pieces.iter().enumerate() {
            assert!(piece.as_slice().iter().all(|&byte| byte == i as u8 + 1), "piece {i} was written by another");
        }
    }
}
