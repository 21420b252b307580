//! The vocabulary: the texts of the tokens, their kinds, and the way back from a text to its id.

use ahash::RandomState;

use crate::error::{Error, Result};
use crate::gguf::Strings;

/// What a token is for; the numbers are those of `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text.
    Normal = 1,
    /// Stands for text that the vocabulary cannot express.
    Unknown = 2,
    /// Steers the model and is no text: BOS, end of turn, …
    Control = 3,
    /// Text that is matched whole before anything else is cut.
    UserDefined = 4,
    /// A reserved row: never text.
    Unused = 5,
    /// One byte, written `<0xNN>`.
    Byte = 6,
}

impl Kind {
    /// The kind that the metadata's number stands for; 0 is "undefined", which no text comes from either.
    pub fn from_number(n: i32) -> Option<Kind> {
        Some(match n {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            0 | 5 => Kind::Unused,
            6 => Kind::Byte,
            _ => return None,
        })
    }
}

/// A slot of the index that holds no id.
const FREE: u64 = u64::MAX;

/// The half of a hash that stands beside the id in a slot. Few texts share it with another: a walk looks at texts, which lie
/// anywhere in memory, only to be sure.
fn tag(hash: u64) -> u64 {
    hash & !u64::from(u32::MAX)
}

/// The id in a slot.
fn id_in(slot: u64) -> u32 {
    slot as u32
}

/// Texts and kinds by id, and ids by text.
///
/// The index is an open-addressed table of ids, each below half of its text's hash; its keys are the texts themselves, so
/// that a vocabulary of 262,144 tokens costs two allocations instead of one per token. Its hash is keyed at random: a file
/// cannot choose texts that collide.
#[derive(Debug)]
pub(super) struct Vocab {
    texts: Strings,
    kinds: Vec<Kind>,
    slots: Vec<u64>,
    hasher: RandomState,
    longest: usize,
}

impl Vocab {
    /// A vocabulary of `texts`, whose kinds default to [`Kind::Normal`].
    ///
    /// # Errors
    /// No tokens at all, and a text that two ids share: its id would be a matter of chance. Empty texts are
    /// rows that nothing can match and may repeat.
    pub fn new(file: &str, texts: Strings, kinds: Option<Vec<Kind>>) -> Result<Vocab> {
        let n = texts.len();
        if n == 0 || u32::try_from(n).is_err() {
            return Err(Error::malformed(file, format!("the vocabulary has {n} tokens")));
        }
        let kinds = kinds.unwrap_or_else(|| vec![Kind::Normal; n]);
        let slots = vec![FREE; n.saturating_mul(3).div_ceil(2).next_power_of_two()];
        let mut vocab = Vocab { texts, kinds, slots, hasher: RandomState::new(), longest: 0 };
        for id in 0..n as u32 {
            let text = vocab.texts.get(id as usize).unwrap_or_default();
            if text.is_empty() {
                continue;
            }
            let (hash, len) = (vocab.hasher.hash_one(text), text.len());
            let slot = vocab.slot(text, hash);
            match vocab.slots.get_mut(slot) {
                Some(free) if *free == FREE => *free = tag(hash) | u64::from(id),
                Some(taken) => {
                    let taken = id_in(*taken);
                    let what = format!("tokens {taken} and {id} of the vocabulary are both '{}'", excerpt(text));
                    return Err(Error::malformed(file, what));
                }
                None => {}
            }
            vocab.longest = vocab.longest.max(len);
        }
        Ok(vocab)
    }

    /// The slot that holds the id of `text` with `hash`, or the free one where it would go.
    fn slot(&self, text: &str, hash: u64) -> usize {
        let mut at = self.tagged(hash as usize, hash);
        while self.id_at(at).is_some_and(|id| self.text(id) != Some(text)) {
            at = self.tagged(at + 1, hash);
        }
        at
    }

    /// The first slot from `at` on that is free or has the tag of `hash`. The table is never more than two thirds full, so the
    /// walk ends.
    fn tagged(&self, at: usize, hash: u64) -> usize {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = at & mask;
        while self.slots.get(at).is_some_and(|&slot| slot != FREE && tag(slot) != tag(hash)) {
            at = (at + 1) & mask;
        }
        at
    }

    /// The id in a slot that is not free.
    fn id_at(&self, slot: usize) -> Option<u32> {
        self.slots.get(slot).filter(|&&slot| slot != FREE).map(|&slot| id_in(slot))
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Bytes of the longest text.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The text of `id` as stored.
    pub fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(id as usize)
    }

    /// The kind of `id`.
    pub fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    /// Corrects the kind of `id`.
    pub fn set_kind(&mut self, id: u32, kind: Kind) {
        if let Some(k) = self.kinds.get_mut(id as usize) {
            *k = kind;
        }
    }

    /// The id whose text is exactly `text`.
    pub fn find(&self, text: &str) -> Option<u32> {
        self.id_at(self.slot(text, self.hasher.hash_one(text)))
    }

    /// The id of each of some texts. Slots and texts lie anywhere in memory: each step is made for all of them, so that
    /// they wait for it together.
    pub fn find_all<const N: usize>(&self, texts: [&str; N]) -> [Option<u32>; N] {
        let hashes = texts.map(|text| self.hasher.hash_one(text));
        let ids = hashes.map(|hash| self.id_at(self.tagged(hash as usize, hash)));
        let found = ids.map(|id| id.and_then(|id| self.text(id)));
        let mut all = ids;
        for ((id, found), text) in all.iter_mut().zip(found).zip(texts) {
            // Another text with the same tag is rare.
            if id.is_some() && found != Some(text) {
                *id = self.find(text);
            }
        }
        all
    }

    /// The id of `<0xNN>` for every byte that has one.
    pub fn byte_tokens(&self) -> [Option<u32>; 256] {
        std::array::from_fn(|byte| self.find(&format!("<0x{byte:02X}>")))
    }
}

/// At most forty characters of a text, for a message.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
