//! Memory that begins on a cache line and whose allocation may fail.
//!
//! Large pieces are mapped and not taken from the C library's heap: its arenas, of which each thread of the host may have
//! its own, keep what is freed in them, and a closed model is to give its memory back to the system at once.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::error::{Error, Result};

/// A cache line, and the width of the widest vector.
const ALIGNMENT: usize = 64;
/// From this size on memory is mapped.
const MAPPED: usize = 256 << 10;
/// From this size on the system is asked for huge pages: fewer misses of the translation cache while streaming.
const HUGE: usize = 4 << 20;
/// The size of a huge page.
const HUGE_PAGE: usize = 2 << 20;

/// Zeroed bytes, aligned to 64.
pub struct AlignedBuf {
    start: NonNull<u8>,
    len: usize,
    from: Origin,
}

/// Whom the memory goes back to.
enum Origin {
    Heap(Layout),
    /// What was mapped: its begin, and its length.
    #[cfg(unix)]
    Mapping(NonNull<u8>, usize),
}

// SAFETY: owns its bytes, as a Vec does.
unsafe impl Send for AlignedBuf {}
// SAFETY: as above.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// `bytes` zeroed bytes, or [`Error::OutOfMemory`].
    pub fn zeroed(bytes: usize) -> Result<AlignedBuf> {
        let out_of_memory = || Error::OutOfMemory { bytes: bytes as u64, what: "weights or activations".into() };
        #[cfg(unix)]
        if bytes >= MAPPED {
            return AlignedBuf::mapped(bytes).ok_or_else(out_of_memory);
        }
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).map_err(|_| out_of_memory())?;
        // SAFETY: the layout has a size above zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(out_of_memory)?;
        Ok(AlignedBuf { start, len: bytes, from: Origin::Heap(layout) })
    }

    #[cfg(unix)]
    fn mapped(bytes: usize) -> Option<AlignedBuf> {
        // Huge pages begin at multiples of their size; address space for that is free.
        let spare = if bytes >= HUGE { HUGE_PAGE } else { 0 };
        let len = bytes.checked_add(spare)?;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping of our own, at an address of the system's choice.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), len, access, kind, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return None;
        }
        let mapping = NonNull::new(mapping.cast::<u8>())?;
        let skip = if spare > 0 { mapping.as_ptr().align_offset(HUGE_PAGE) } else { 0 };
        // SAFETY: at most `spare` bytes into the mapping.
        let start = unsafe { mapping.add(skip) };
        #[cfg(target_os = "linux")]
        if spare > 0 {
            // SAFETY: advice on our own pages; a refusal changes nothing.
            unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Some(AlignedBuf { start, len: bytes, from: Origin::Mapping(mapping, len) })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: allocated with this size, initialised to zero.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: allocated with this size, initialised to zero, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        match self.from {
            // SAFETY: allocated with this layout.
            Origin::Heap(layout) => unsafe { dealloc(self.start.as_ptr(), layout) },
            #[cfg(unix)]
            // SAFETY: mapped with this begin and length.
            Origin::Mapping(mapping, len) => unsafe {
                libc::munmap(mapping.as_ptr().cast(), len);
            },
        }
    }
}
