//! Rows of a matrix that several threads write at once, each its own.

use std::marker::PhantomData;

/// A mutable matrix of equal rows whose rows may be taken by different threads.
pub(super) struct Rows<'a, T> {
    start: *mut T,
    width: usize,
    count: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: rows are disjoint, and `row` demands that no two threads take the same.
unsafe impl<T: Send> Send for Rows<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Rows<'_, T> {}

impl<'a, T> Rows<'a, T> {
    /// The rows of `width` elements that `all` consists of.
    pub fn new(all: &'a mut [T], width: usize) -> Rows<'a, T> {
        let count = all.len().checked_div(width).unwrap_or(0);
        Rows { start: all.as_mut_ptr(), width, count, life: PhantomData }
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `i`.
    ///
    /// # Safety
    /// While the row is borrowed, nobody else may take row `i`.
    #[allow(clippy::mut_from_ref)] // disjoint rows are the purpose
    pub unsafe fn row(&self, i: usize) -> &mut [T] {
        assert!(i < self.count, "row {i} of {}", self.count);
        // SAFETY: inside the slice that `new` was given; the caller promises that the row is his alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.width), self.width) }
    }

    /// Where element `offset` of row `i` lies, for those who write several rows as one.
    ///
    /// # Safety
    /// What is written there must be the caller's alone.
    pub unsafe fn at(&self, i: usize, offset: usize) -> *mut T {
        assert!(i < self.count && offset < self.width, "element {offset} of row {i} of {}", self.count);
        // SAFETY: inside the slice that `new` was given.
        unsafe { self.start.add(i * self.width + offset) }
    }

    /// `width` elements from `offset` of row `i`.
    ///
    /// # Safety
    /// While they are borrowed, nobody else may take any of them.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, i: usize, offset: usize, width: usize) -> &mut [T] {
        assert!(i < self.count && offset + width <= self.width, "part of row {i} of {}", self.count);
        // SAFETY: as in `row`.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.width + offset), width) }
    }
}
