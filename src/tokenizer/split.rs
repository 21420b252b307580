//! Cutting text into words before byte-level BPE: the machine that runs the steps of [`super::pre`]'s table.
//!
//! Published pre-tokenizers are regular expressions with a look-ahead, `\s+(?!\S)`, for engines that backtrack.
//! That look-ahead is the only one and says: of a run of white space, leave the last character to the word that
//! follows. Here it is a rule applied to matches of an automaton instead, so that time is linear in the text
//! whatever the text is, and no text can make a match fail.

use regex_automata::{Input, meta::Regex};

use crate::error::{Error, Result};

/// One step: cuts every piece that the step before it left.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Each match is a piece, and so is what lies between two of them.
    Isolate(&'static str),
    /// The same for the pattern followed by `|\s+(?!\S)|\s+`.
    Words(&'static str),
    /// The same for the pattern followed by `|\s{512}(?!\S)|\s{256}(?!\S)|…|\s{4}(?!\S)|\s{1,2}(?!\S)|\s`.
    WordsAndPowers(&'static str),
    /// Runs of digits are cut into threes from the right: `12345` → `12`, `345`.
    Thousands(Digits),
}

/// What counts as a run of digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digits {
    /// `\p{N}+`.
    Any,
    /// `\d+`.
    Decimal,
    /// `\d+\b`: not a run that a letter follows.
    DecimalWord,
}

/// The pattern, among those of one automaton, that matches a run of white space.
const SPACES: usize = 1;

#[derive(Debug)]
struct Stage {
    regex: Regex,
    rule: Rule,
}

/// How a stage treats its matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Isolate,
    Words,
    WordsAndPowers,
    Thousands,
}

/// The compiled steps of one pre-tokenizer.
#[derive(Debug)]
pub(super) struct Splitter {
    stages: Vec<Stage>,
}

impl Splitter {
    /// Compiles `steps`.
    ///
    /// # Errors
    /// A pattern that does not compile: a defect of the table, which a test over all of it rules out.
    pub fn new(steps: &[Step]) -> Result<Splitter> {
        let stage = |step: &Step| {
            let (patterns, rule): (&[&str], Rule) = match step {
                Step::Isolate(p) => (&[p], Rule::Isolate),
                Step::Words(p) => (&[p, r"\s+"], Rule::Words),
                Step::WordsAndPowers(p) => (&[p, r"\s+"], Rule::WordsAndPowers),
                Step::Thousands(Digits::Any) => (&[r"\p{N}+"], Rule::Thousands),
                Step::Thousands(Digits::Decimal) => (&[r"\d+"], Rule::Thousands),
                Step::Thousands(Digits::DecimalWord) => (&[r"\d+\b"], Rule::Thousands),
            };
            let regex =
                Regex::new_many(patterns).map_err(|e| Error::Internal(format!("pre-tokenizer {patterns:?}: {e}")))?;
            Ok(Stage { regex, rule })
        };
        Ok(Splitter { stages: steps.iter().map(stage).collect::<Result<_>>()? })
    }

    /// Calls `word` with every word of `text` in order. Their concatenation is `text`; none is empty.
    pub fn split(&self, text: &str, word: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        cut(&self.stages, text, word)
    }
}

fn cut(stages: &[Stage], piece: &str, word: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let Some((stage, rest)) = stages.split_first() else {
        return if piece.is_empty() { Ok(()) } else { word(piece) };
    };
    let mut emit = |start: usize, end: usize| cut(rest, piece.get(start..end).unwrap_or_default(), word);
    let mut done = 0;
    while let Some(found) = stage.regex.search(&Input::new(piece).range(done..)) {
        if found.is_empty() {
            break; // no pattern of the table matches nothing; this only keeps the loop finite
        }
        emit(done, found.start())?;
        done = found.start();
        let run = piece.get(found.range()).unwrap_or_default();
        let followed = found.end() < piece.len();
        let spaces = found.pattern().as_usize() == SPACES;
        match stage.rule {
            Rule::Words if spaces && followed => {
                let end = done + without_last(run);
                emit(done, end)?;
                done = end;
            }
            Rule::WordsAndPowers if spaces => {
                let mut left = run.chars().count();
                let mut chars = run.char_indices().map(|(at, _)| found.start() + at).skip(1);
                while left > 0 {
                    let n = power(left, followed);
                    let end = chars.nth(n - 1).unwrap_or(found.end());
                    emit(done, end)?;
                    done = end;
                    left -= n;
                    if left == 1 && followed {
                        break; // the last one belongs to what follows
                    }
                }
            }
            Rule::Thousands => {
                let count = run.chars().count();
                for (i, (at, _)) in run.char_indices().enumerate().skip(1) {
                    if (count - i) % 3 == 0 {
                        emit(done, found.start() + at)?;
                        done = found.start() + at;
                    }
                }
                emit(done, found.end())?;
                done = found.end();
            }
            Rule::Isolate | Rule::Words | Rule::WordsAndPowers => {
                emit(done, found.end())?;
                done = found.end();
            }
        }
    }
    emit(done, piece.len())
}

/// Bytes of `run` without its last character; all of them if it has only one.
fn without_last(run: &str) -> usize {
    match run.char_indices().next_back() {
        Some((at, _)) if at > 0 => at,
        _ => run.len(),
    }
}

/// How many of `left` white-space characters [`Step::WordsAndPowers`] takes at once.
fn power(left: usize, followed: bool) -> usize {
    let free = left - usize::from(followed);
    [512, 256, 128, 64, 32, 16, 8, 4, 2, 1].into_iter().find(|&n| n <= free).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(steps: &[Step], text: &str) -> Vec<String> {
        let mut all = Vec::new();
        let splitter = Splitter::new(steps).unwrap();
        splitter
            .split(text, &mut |word| {
                all.push(word.to_owned());
                Ok(())
            })
            .unwrap();
        assert_eq!(all.concat(), text);
        all
    }

    #[test]
    fn the_last_space_belongs_to_the_word() {
        let steps = [Step::Words(r" ?\p{L}+")];
        assert_eq!(words(&steps, "a   b  c  "), ["a", "  ", " b", " ", " c", "  "]);
        assert_eq!(words(&steps, " \u{3000}x"), [" ", "\u{3000}", "x"]);
        assert_eq!(words(&steps, "a b!"), ["a", " b", "!"]);
        assert_eq!(words(&steps, ""), [""; 0]);
    }

    #[test]
    fn steps_cut_what_steps_before_left() {
        let steps = [Step::Isolate(r"\p{N}"), Step::Isolate("[a-z]+")];
        assert_eq!(words(&steps, "ab12c-"), ["ab", "1", "2", "c", "-"]);
    }

    #[test]
    fn thousands_from_the_right() {
        let any = [Step::Thousands(Digits::Any)];
        assert_eq!(words(&any, "x1234567y123z12"), ["x", "1", "234", "567", "y", "123", "z", "12"]);
        let word = [Step::Thousands(Digits::DecimalWord)];
        assert_eq!(words(&word, "1234 1234a"), ["1", "234", " 1234a"]);
    }

    #[test]
    fn powers_of_two_spaces() {
        let steps = [Step::WordsAndPowers(r" ?\p{L}+")];
        let lengths = |n: usize, tail: &str| -> Vec<usize> {
            words(&steps, &(" ".repeat(n) + tail)).iter().map(|w| w.len()).collect()
        };
        assert_eq!(lengths(8, ""), [8]);
        assert_eq!(lengths(8, "a"), [4, 2, 1, 2]);
        assert_eq!(lengths(1, "!"), [1, 1]);
        assert_eq!(lengths(2, "!"), [1, 1, 1]);
    }
}
