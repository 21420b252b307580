//! Greedy merging, which byte-level BPE and SentencePiece BPE share: join the best adjacent pair until none is left.
//!
//! They differ only in what a pair is worth: BPE has a table of merges by rank, SentencePiece looks the joined
//! text up and takes its score. A heap of candidates makes a word of `n` pieces cost `O(n log n)`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The id of a piece that is no token.
pub(super) const NO_ID: u32 = u32::MAX;
/// The neighbour of a piece at either end.
const NONE: u32 = u32::MAX;

/// A stretch of the word: bytes `start..start + len`, token `id` or [`NO_ID`]. A piece that was joined to its left
/// neighbour has length 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub start: u32,
    pub len: u32,
    pub id: u32,
    prev: u32,
    next: u32,
}

/// What joining a pair gives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Join {
    /// The least goes first; the leftmost of equals.
    pub order: u32,
    /// The token of the joined piece.
    pub id: u32,
}

/// A pair that may be joined. Fields are in the order that they are compared in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    order: u32,
    left: u32,
    /// Bytes of both pieces when this was found: another number now means that one of them has changed.
    len: u32,
    id: u32,
}

/// The pieces of one word; kept between words for its memory.
#[derive(Debug, Default)]
pub(super) struct Merger {
    pieces: Vec<Piece>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Starts a new word.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.queue.clear();
    }

    /// Appends a piece. The caller keeps words below 2³² - 1 bytes and pushes no empty piece.
    pub fn push(&mut self, start: u32, len: u32, id: u32) {
        let at = self.pieces.len() as u32;
        if let Some(last) = self.pieces.last_mut() {
            last.next = at;
        }
        self.pieces.push(Piece { start, len, id, prev: at.wrapping_sub(1), next: NONE });
    }

    /// Joins pairs in the order of `join` until it has none to offer.
    pub fn run(&mut self, join: impl Fn(&Piece, &Piece) -> Option<Join>) {
        for left in 0..self.pieces.len() as u32 {
            self.offer(left, &join);
        }
        while let Some(Reverse(best)) = self.queue.pop() {
            let Some(&left) = self.piece(best.left) else { continue };
            let Some(&right) = self.piece(left.next) else { continue };
            if left.len == 0 || left.len + right.len != best.len {
                continue;
            }
            if let Some(gone) = self.pieces.get_mut(left.next as usize) {
                gone.len = 0;
            }
            if let Some(joined) = self.pieces.get_mut(best.left as usize) {
                *joined = Piece { len: best.len, id: best.id, next: right.next, ..left };
            }
            if let Some(after) = self.pieces.get_mut(right.next as usize) {
                after.prev = best.left;
            }
            self.offer(left.prev, &join);
            self.offer(best.left, &join);
        }
    }

    /// The pieces that are left, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().filter(|p| p.len > 0)
    }

    fn piece(&self, at: u32) -> Option<&Piece> {
        self.pieces.get(at as usize)
    }

    /// Queues the pair that starts at `left`, if it is one and can be joined.
    fn offer(&mut self, left: u32, join: &impl Fn(&Piece, &Piece) -> Option<Join>) {
        let Some(l) = self.piece(left) else { return };
        let Some(r) = self.piece(l.next) else { return };
        if let Some(Join { order, id }) = join(l, r) {
            let len = l.len + r.len;
            self.queue.push(Reverse(Candidate { order, left, len, id }));
        }
    }
}
