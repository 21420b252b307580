//! Rows of a matrix that several threads write at once, each its own.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable matrix of equal rows whose rows may be taken by different threads.
pub(super) struct Rows<'a, T> {
    start: *mut T,
    width: usize,
    count: usize,
    /// What the first row counts as, and the first of a row's elements.
    first_row: usize,
    first: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: rows are disjoint, and `row` demands that no two threads take the same.
unsafe impl<T: Send> Send for Rows<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Rows<'_, T> {}

impl<'a, T> Rows<'a, T> {
    /// The rows of `width` elements that `all` consists of.
    pub fn new(all: &'a mut [T], width: usize) -> Rows<'a, T> {
        Rows::window(all, 0, 0..width)
    }

    /// Rows of which only those from `first_row` on and only some columns are there: `all` consists of these.
    pub fn window(all: &'a mut [T], first_row: usize, columns: Range<usize>) -> Rows<'a, T> {
        let (first, width) = (columns.start, columns.len());
        let count = all.len().checked_div(width).unwrap_or(0);
        Rows { start: all.as_mut_ptr(), width, count, first_row, first, life: PhantomData }
    }

    /// Elements from one row to the next.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Which of the rows that are there row `i` is.
    fn index(&self, i: usize) -> usize {
        let index = i.wrapping_sub(self.first_row);
        assert!(index < self.count, "row {i} of {} from {}", self.count, self.first_row);
        index
    }

    /// Row `i`.
    ///
    /// # Safety
    /// While the row is borrowed, nobody else may take row `i`.
    #[allow(clippy::mut_from_ref)] // disjoint rows are the purpose
    pub unsafe fn row(&self, i: usize) -> &mut [T] {
        let i = self.index(i);
        // SAFETY: inside the slice that `new` was given; the caller promises that the row is his alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.width), self.width) }
    }

    /// Where element `offset` of row `i` lies, for those who write several rows as one.
    ///
    /// # Safety
    /// What is written there must be the caller's alone.
    pub unsafe fn at(&self, i: usize, offset: usize) -> *mut T {
        let there = (self.first..self.first + self.width).contains(&offset);
        let i = self.index(i);
        assert!(there, "element {offset} of rows of {}", self.width);
        // SAFETY: inside the slice that `new` was given.
        unsafe { self.start.add(i * self.width + offset - self.first) }
    }

    /// `width` elements from `offset` of row `i`.
    ///
    /// # Safety
    /// While they are borrowed, nobody else may take any of them.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, i: usize, offset: usize, width: usize) -> &mut [T] {
        let there = offset >= self.first && offset + width <= self.first + self.width;
        let i = self.index(i);
        assert!(there, "{width} elements from {offset} of rows of {}", self.width);
        // SAFETY: as in `row`.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.width + offset - self.first), width) }
    }
}
