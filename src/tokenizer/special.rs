//! Special tokens: finding them in text before anything else is cut, and knowing which of them end a turn.

use super::vocab::{Kind, Vocab};

/// A part of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Fragment<'a> {
    /// Text between special tokens; never empty.
    Text(&'a str),
    /// A special token.
    Token(u32),
}

/// Which white space a special token swallows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strip {
    /// On its left.
    Left,
    /// On its right.
    Right,
}

/// Finds special tokens in text: at each place the longest, from the left.
#[derive(Debug, Default)]
pub(super) struct Specials {
    /// The ids of all tokens that can be matched, by the bytes of their texts.
    sorted: Vec<u32>,
    /// Where the texts that begin with byte `b` start in `sorted`; they end where those of `b + 1` start.
    starts: Vec<usize>,
    /// The tokens that swallow white space, by id.
    strips: Vec<(u32, Strip)>,
}

impl Specials {
    /// The special tokens of `vocab`. `strips` has to be sorted by id.
    pub fn new(vocab: &Vocab, strips: Vec<(u32, Strip)>) -> Specials {
        let matchable = |&id: &u32| {
            let kind = vocab.kind(id);
            matches!(kind, Some(Kind::Control | Kind::Unknown | Kind::UserDefined))
                && vocab.text(id).is_some_and(|t| !t.is_empty())
        };
        let mut sorted: Vec<u32> = (0..vocab.len() as u32).filter(matchable).collect();
        sorted.sort_unstable_by(|&a, &b| vocab.text(a).cmp(&vocab.text(b)));
        let first = |id: &u32| byte(vocab, *id, 0).unwrap_or(0);
        let starts = (0..=256).map(|b| sorted.partition_point(|id| usize::from(first(id)) < b)).collect();
        Specials { sorted, starts, strips }
    }

    /// Cuts `text` at its special tokens: at all of them if `parse`, else only at those that the vocabulary's maker
    /// defined as text.
    pub fn partition<'a>(&self, vocab: &Vocab, text: &'a str, parse: bool) -> Vec<Fragment<'a>> {
        let mut fragments = Vec::new();
        let (mut done, mut at) = (0, 0);
        while at < text.len() {
            let Some((id, len)) = self.longest_at(vocab, text.as_bytes().get(at..).unwrap_or_default(), parse) else {
                at += 1;
                continue;
            };
            let strip = self.strips.binary_search_by_key(&id, |s| s.0).ok().and_then(|i| self.strips.get(i));
            let mut before = text.get(done..at).unwrap_or_default();
            if matches!(strip, Some((_, Strip::Left))) {
                before = before.trim_end_matches(is_space);
            }
            if !before.is_empty() {
                fragments.push(Fragment::Text(before));
            }
            fragments.push(Fragment::Token(id));
            at += len;
            if matches!(strip, Some((_, Strip::Right))) {
                let rest = text.get(at..).unwrap_or_default();
                at += rest.len() - rest.trim_start_matches(is_space).len();
            }
            done = at;
        }
        if done < text.len() {
            fragments.push(Fragment::Text(text.get(done..).unwrap_or_default()));
        }
        fragments
    }

    /// The longest special token that `bytes` begins with, and its length.
    fn longest_at(&self, vocab: &Vocab, bytes: &[u8], parse: bool) -> Option<(u32, usize)> {
        let first = usize::from(*bytes.first()?);
        let mut range = self.sorted.get(*self.starts.get(first)?..*self.starts.get(first + 1)?)?;
        let mut longest = None;
        let mut depth = 1;
        // All texts in `range` agree with `bytes` up to `depth`; the one that ends there comes first.
        while let Some((&id, others)) = range.split_first() {
            if vocab.text(id).is_some_and(|t| t.len() == depth) {
                if parse || vocab.kind(id) == Some(Kind::UserDefined) {
                    longest = Some((id, depth));
                }
                range = others;
            }
            let Some(&next) = bytes.get(depth) else { break };
            let from = range.partition_point(|&id| byte(vocab, id, depth) < Some(next));
            let to = range.partition_point(|&id| byte(vocab, id, depth) <= Some(next));
            range = range.get(from..to)?;
            depth += 1;
        }
        longest
    }
}

fn byte(vocab: &Vocab, id: u32, at: usize) -> Option<u8> {
    vocab.text(id)?.as_bytes().get(at).copied()
}

/// White space in the C locale, which is what the models' strip rules were written for.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// The special tokens that strip, which GGUF does not store: they are known by model. The result is sorted by id.
///
/// `name` is `general.name`, `arch` is `general.architecture`, `pre` is `tokenizer.ggml.pre`.
pub(super) fn strips(vocab: &Vocab, name: &str, arch: &str, pre: &str) -> Vec<(u32, Strip)> {
    let name = name.to_lowercase();
    let mask = |text: &str| vocab.find(text).map(|id| (id, Strip::Left)).into_iter().collect();
    if matches!(pre, "jina-v2-de" | "jina-v2-es" | "jina-v2-code") || matches!(arch, "nomic-bert-moe" | "jina-bert-v3")
    {
        mask("<mask>")
    } else if name.contains("phi-3") || name.contains("phi3") {
        let strips = |&id: &u32| {
            matches!(vocab.kind(id), Some(Kind::Control | Kind::Unknown | Kind::UserDefined))
                && !matches!(vocab.text(id), Some("<unk>" | "<s>" | "<|endoftext|>"))
        };
        (0..vocab.len() as u32).filter(strips).map(|id| (id, Strip::Right)).collect()
    } else if name.contains("modern-bert") {
        mask("[MASK]")
    } else {
        Vec::new()
    }
}

/// Texts that end a turn, the likelier first: the first that a vocabulary has is its end of turn if its metadata
/// names none.
const END_OF_TURN: [&str; 11] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

/// Further texts after which a model has nothing to say: end of message, of a call, of a file, padding.
const OTHER_ENDS: [&str; 23] = [
    "<|eom_id|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "</s>",
    "[EOS]",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "[e~[",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
    "<|EOT|>",
];

/// The end-of-turn token by its text.
pub(super) fn end_of_turn(vocab: &Vocab) -> Option<u32> {
    END_OF_TURN.iter().find_map(|text| vocab.find(text))
}

/// The tokens that end generation: `named` ones, and those with a well-known text. Sorted.
///
/// A token with a text of [`END_OF_TURN`] becomes a control token: converters get its kind wrong often enough.
/// [`OTHER_ENDS`] count only as control tokens, because `</s>` is also a tag of HTML, which some vocabularies have.
pub(super) fn ends_of_generation(vocab: &mut Vocab, named: &[Option<u32>]) -> Vec<u32> {
    let has = |text: &str| vocab.find(text).is_some();
    // In the Harmony format, `<|end|>` separates the messages of one turn.
    let calls = has("<|call|>") || has("<|calls|>");
    let harmony = calls && (has("<|return|>") || has("<|flush|>"));
    let mut ends: Vec<u32> = named.iter().copied().flatten().collect();
    for id in OTHER_ENDS.iter().filter_map(|text| vocab.find(text)) {
        if vocab.kind(id) == Some(Kind::Control) {
            ends.push(id);
        }
    }
    for &text in END_OF_TURN.iter().filter(|&&text| !(harmony && text == "<|end|>")) {
        if let Some(id) = vocab.find(text) {
            vocab.set_kind(id, Kind::Control);
            ends.push(id);
        }
    }
    ends.sort_unstable();
    ends.dedup();
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Strings;

    fn vocab(tokens: &[(&str, Kind)]) -> Vocab {
        let texts: Strings = tokens.iter().map(|t| t.0).collect();
        Vocab::new("test", texts, Some(tokens.iter().map(|t| t.1).collect())).unwrap()
    }

    #[test]
    fn the_longest_token_at_the_leftmost_place() {
        use Fragment::{Text, Token};
        let v = vocab(&[
            ("<a>", Kind::Control),
            ("<a>b", Kind::Control),
            ("\n", Kind::UserDefined),
            ("\n\n", Kind::UserDefined),
            ("x", Kind::Normal),
        ]);
        let s = Specials::new(&v, Vec::new());
        let cut = s.partition(&v, "x<a>b\n\n\né<a><a", true);
        assert_eq!(cut, [Text("x"), Token(1), Token(3), Token(2), Text("é"), Token(0), Text("<a")]);
        assert_eq!(s.partition(&v, "<a>\nx", false), [Text("<a>"), Token(2), Text("x")]);
        assert_eq!(s.partition(&v, "", true), []);
    }

    #[test]
    fn strips_white_space() {
        use Fragment::{Text, Token};
        let v = vocab(&[("<l>", Kind::Control), ("<r>", Kind::Control)]);
        let s = Specials::new(&v, vec![(0, Strip::Left), (1, Strip::Right)]);
        assert_eq!(
            s.partition(&v, "a \n<l> b <r> \t c", true),
            [Text("a"), Token(0), Text(" b "), Token(1), Text("c")]
        );
        assert_eq!(s.partition(&v, "  <l><r>  ", true), [Token(0), Token(1)]);
    }

    #[test]
    fn ends_by_text_and_kind() {
        let mut v =
            vocab(&[("</s>", Kind::Normal), ("<|end|>", Kind::Normal), ("a", Kind::Normal), ("<eos>", Kind::Control)]);
        assert_eq!(ends_of_generation(&mut v, &[Some(2), None]), [1, 2, 3]);
        assert_eq!((v.kind(0), v.kind(1)), (Some(Kind::Normal), Some(Kind::Control)));
        let mut v = vocab(&[("<|end|>", Kind::Control), ("<|return|>", Kind::Control), ("<|call|>", Kind::Control)]);
        assert_eq!(ends_of_generation(&mut v, &[]), [1, 2]);
    }
}
