//! Memory that begins on a cache line and whose allocation may fail.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::error::{Error, Result};

/// A cache line, and the width of the widest vector.
const ALIGNMENT: usize = 64;
/// From this size on the system is asked for huge pages: fewer misses of the translation cache while streaming.
const HUGE: usize = 4 << 20;

/// Zeroed bytes, aligned to 64.
pub struct AlignedBuf {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: owns its bytes, as a Vec does.
unsafe impl Send for AlignedBuf {}
// SAFETY: as above.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// `bytes` zeroed bytes, or [`Error::OutOfMemory`].
    pub fn zeroed(bytes: usize) -> Result<AlignedBuf> {
        let out_of_memory = || Error::OutOfMemory { bytes: bytes as u64, what: "weights or activations".into() };
        let alignment = if bytes >= HUGE { HUGE / 2 } else { ALIGNMENT };
        let layout = Layout::from_size_align(bytes.max(1), alignment).map_err(|_| out_of_memory())?;
        // SAFETY: the layout has a size above zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(out_of_memory)?;
        #[cfg(target_os = "linux")]
        if bytes >= HUGE {
            // SAFETY: advice on our own pages; a refusal changes nothing.
            unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Ok(AlignedBuf { start, layout })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: allocated with this size, initialised to zero.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }

    /// The bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: allocated with this size, initialised to zero, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
