//! Which pages large memory is had in.
//!
//! Huge pages are handed out several times as fast as small ones, and what lies in them is read a few per cent faster. But a
//! virtual machine may give its free memory back to its host, in huge pieces, and has to fetch it from there again at half a
//! gigabyte a second; small pages come from the smaller pieces first, which it has kept. So huge pages are timed while
//! memory is filled with them, and where they come slowly small ones are taken for a while. The system is told afterwards
//! that these may become huge, which it sees to in the background.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The size of a huge page.
pub(super) const HUGE_PAGE: usize = 2 << 20;
/// The size of a small page, or a multiple of it.
const PAGE: usize = 4 << 10;
/// A huge page that takes longer was fetched from a host. They are cleared in 0.1 to 0.4 ms and were fetched in 4 ms;
/// small ones of that size take 0.5 to 1.
const SLOW: Duration = Duration::from_millis(1);
/// Stretches of [`HUGE_PAGE`] bytes in small pages after a slow huge one.
const SMALL: usize = 128;

/// Fills memory, in small pages while huge ones come slowly.
#[derive(Debug, Default)]
pub(super) struct Populate {
    /// Stretches to be filled with small pages.
    small: AtomicUsize,
}

impl Populate {
    /// Whether the next stretch is to have small pages.
    fn next_is_small(&self) -> bool {
        self.small.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// A huge page took `time`.
    fn huge_took(&self, time: Duration) {
        if time > SLOW {
            self.small.store(SMALL, Ordering::Relaxed);
        }
    }

    /// Has the system find memory for `bytes`, at most [`HUGE_PAGE`] of them, which lie in a mapping of our own for which
    /// huge pages are asked. They keep what they hold.
    pub fn populate(&self, bytes: &mut [u8]) {
        if self.next_is_small() {
            advise(bytes, Advice::Small);
            advise(bytes, Advice::Populate);
            return advise(bytes, Advice::Huge);
        }
        let began = Instant::now();
        advise(bytes, Advice::Populate);
        self.huge_took(began.elapsed());
    }
}

/// What the system is told of some memory.
#[derive(Clone, Copy)]
pub(super) enum Advice {
    /// Not to use huge pages,
    Small,
    /// to use them,
    Huge,
    /// and to find memory now, which takes a fifth of what the first touches of the pages would.
    Populate,
}

/// Advice on the pages that some bytes of a mapping of our own are in. They keep what they hold; a refusal (of an older
/// system) changes nothing.
#[cfg(target_os = "linux")]
pub(super) fn advise(bytes: &mut [u8], advice: Advice) {
    let range = bytes.as_mut_ptr_range();
    let (from, to) = (range.start.addr() / PAGE * PAGE, range.end.addr().next_multiple_of(PAGE));
    let advice = match advice {
        Advice::Small => libc::MADV_NOHUGEPAGE,
        Advice::Huge => libc::MADV_HUGEPAGE,
        Advice::Populate => libc::MADV_POPULATE_WRITE,
    };
    // SAFETY: advice that changes no byte, on whole pages of a mapping of which we have a part.
    unsafe { libc::madvise(range.start.with_addr(from).cast(), to - from, advice) };
}

/// The system finds memory when it is touched.
#[cfg(not(target_os = "linux"))]
pub(super) fn advise(_: &mut [u8], _: Advice) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pages_follow_a_slow_huge_one() {
        let populate = Populate::default();
        assert!(!populate.next_is_small());
        populate.huge_took(SLOW);
        assert!(!populate.next_is_small(), "not slow yet");
        populate.huge_took(2 * SLOW);
        assert_eq!((0..1000).take_while(|_| populate.next_is_small()).count(), SMALL, "and then a huge one again");
        populate.huge_took(SLOW / 10);
        assert!(!populate.next_is_small(), "which was quick");
    }

    #[test]
    fn what_is_there_stays() {
        let mut buffer = vec![7u8; 3 * HUGE_PAGE];
        let start = buffer.as_ptr().align_offset(HUGE_PAGE);
        for small in [0, 1] {
            let populate = Populate { small: small.into() };
            populate.populate(&mut buffer[start..start + HUGE_PAGE]);
            populate.populate(&mut buffer[start + 5..start + 9]);
            populate.populate(&mut []);
        }
        assert!(buffer.iter().all(|&byte| byte == 7));
    }
}
