//! The pre-tokenizers of byte-level BPE by the name in `tokenizer.ggml.pre`: one table.
//!
//! The names are those that llama.cpp's converter writes; the patterns are those of the models' own
//! `tokenizer.json`, each without its closing `\s+(?!\S)|\s+` where [`Step::Words`] supplies that. Alternatives in one
//! pattern are tried in order, as in a backtracking engine.

use super::split::{Digits, Step};
use crate::error::{Error, Result};

/// A row of the table.
#[derive(Debug)]
pub(super) struct Pre {
    /// The names that mean this row.
    pub names: &'static [&'static str],
    /// How text is cut into words.
    pub steps: &'static [Step],
    /// A word that is a token as a whole is that token, whatever the merges say.
    pub whole_words: bool,
    /// BOS goes first unless the metadata says otherwise.
    pub add_bos: bool,
    /// What the merges start from.
    pub alphabet: Alphabet,
}

/// What the merges start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// Bytes, each written as one character ([`super::bytes`]).
    Bytes,
    /// Characters, with spaces written as `▁`; bytes of others as `<0xNN>`.
    Text {
        /// A run of newlines that is a token as a whole is that token.
        whole_newlines: bool,
    },
}

const ROW: Pre = Pre { names: &[], steps: &[], whole_words: false, add_bos: false, alphabet: Alphabet::Bytes };

/// What a model that names no pre-tokenizer gets.
pub(super) const DEFAULT: &str = "default";

/// English contractions in either case.
macro_rules! contraction {
    () => {
        r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
    };
}
/// Words in the manner of GPT-4's tokenizer, with `$digits` for numbers.
macro_rules! gpt4 {
    ($digits:literal) => {
        concat!(contraction!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|", $digits, r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+")
    };
}
/// Words that also end where lower case turns to upper, in the manner of GPT-4o: `$lead` may come before a word,
/// `$upper` and `$lower` are letters that can be upper and lower case, `$suffix` ends a word, `$digits` is a number,
/// `$line` may follow punctuation.
macro_rules! gpt4o {
    ($lead:literal, $upper:literal, $lower:literal, $suffix:expr, $digits:literal, $line:literal) => {
        concat!(
            $lead,
            $upper,
            "*",
            $lower,
            "+",
            $suffix,
            "|",
            $lead,
            $upper,
            "+",
            $lower,
            "*",
            $suffix,
            "|",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+",
            $line,
            r"*|\s*[\r\n]+"
        )
    };
}
/// The same with the letters of all scripts.
macro_rules! cased {
    ($suffix:expr, $digits:literal) => {
        gpt4o!(
            r"[^\r\n\p{L}\p{N}]?",
            r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
            r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
            $suffix,
            $digits,
            r"[\r\n/]"
        )
    };
}
/// Chinese ideographs and Japanese kana.
macro_rules! cjk {
    () => {
        r"[\x{4E00}-\x{9FA5}\x{3040}-\x{30FF}]+"
    };
}
/// The ranges that DeepSeek's first tokenizers isolate as "CJK": nearly everything from U+0800.
const DEEPSEEK_CJK: Step = Step::Isolate(r"[\x{800}-\x{9FA5}\x{AC00}-\x{D7FF}]+");

const GPT2: Step = Step::Words(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+");
const GPT2_DIGITS: &[Step] = &[Step::Isolate(r"\p{N}"), GPT2];
const LLAMA3: Step = Step::Words(gpt4!(r"\p{N}{1,3}"));
const QWEN2: Step = Step::Words(gpt4!(r"\p{N}"));
const NEWLINES: Step = Step::Isolate(r"[^\n]+|\n+");
const BLOOM: Step = Step::Isolate(r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+");
const DEEPSEEK3: Step = Step::Words(concat!(
    r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+"
));
/// Letters that have case, in the ranges that DeepSeek LLM's `tokenizer.json` lists (which are no Unicode category).
const DEEPSEEK_LLM_LETTERS: Step = Step::Isolate(concat!(
    r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}",
    r"\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}",
    r"\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}",
    r"\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}",
    r"\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}",
    r"\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}",
    r"\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}",
    r"\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}",
    r"\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}",
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}",
    r"\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}",
    r"\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}",
    r"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+"
));

/// Every pre-tokenizer that this library knows.
pub(super) static TABLE: &[Pre] = &[
    Pre {
        names: &[DEFAULT],
        steps: &[Step::Isolate(r"[\p{P}$+<=>^~|]+"), GPT2, Step::Isolate(r"\p{N}+"), Step::Isolate("[0-9][0-9][0-9]")],
        ..ROW
    },
    Pre {
        names: &[
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        steps: &[LLAMA3],
        whole_words: true,
        add_bos: true,
        ..ROW
    },
    Pre { names: &["dbrx", "smaug-bpe", "chatglm-bpe"], steps: &[LLAMA3], ..ROW },
    Pre { names: &["glm4", "glm5"], steps: &[LLAMA3], whole_words: true, ..ROW },
    Pre {
        names: &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "roberta-bpe",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
        ],
        steps: &[GPT2],
        ..ROW
    },
    Pre {
        names: &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        steps: GPT2_DIGITS,
        ..ROW
    },
    Pre {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        steps: &[QWEN2],
        ..ROW
    },
    Pre {
        names: &["qwen35"],
        steps: &[Step::Words(concat!(
            contraction!(),
            r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
        ))],
        ..ROW
    },
    Pre { names: &["laguna"], steps: &[NEWLINES, QWEN2], ..ROW },
    Pre {
        // Qwen 2 without English contractions, so that Turkish suffixes stay with their apostrophe.
        names: &["ufakzeka"],
        steps: &[Step::Words(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+")],
        ..ROW
    },
    Pre {
        names: &["falcon"],
        steps: &[Step::Isolate(r"[\p{P}$+<=>^~|`]+"), GPT2, Step::Isolate("[0-9][0-9][0-9]")],
        ..ROW
    },
    Pre {
        names: &["deepseek-llm"],
        steps: &[
            Step::Isolate(r"[\r\n]"),
            DEEPSEEK_LLM_LETTERS,
            Step::Isolate(r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+"),
            Step::Isolate(r"\s+$"),
            DEEPSEEK_CJK,
            Step::Isolate(r"\p{N}+"),
        ],
        ..ROW
    },
    Pre {
        names: &["deepseek-coder"],
        steps: &[
            Step::Isolate(r"[\r\n]"),
            Step::Isolate(r"\s?\p{L}+"),
            Step::Isolate(r"\s?\p{P}+"),
            DEEPSEEK_CJK,
            Step::Isolate(r"\p{N}"),
        ],
        ..ROW
    },
    Pre {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        steps: &[Step::Isolate(r"\p{N}{1,3}"), Step::Isolate(cjk!()), DEEPSEEK3],
        ..ROW
    },
    Pre {
        names: &["spark2_5"],
        steps: &[
            Step::Isolate(r"\p{N}{1,3}"),
            Step::Isolate(cjk!()),
            Step::Words(concat!(
                r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
                r"| ?[\p{P}\p{S}]+|[\r\n]"
            )),
            Step::Isolate(r"\p{N}"),
        ],
        ..ROW
    },
    Pre {
        names: &["afmoe"],
        steps: &[
            Step::Thousands(Digits::Any),
            Step::Isolate(concat!(
                r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{30FF}\x{FF65}-\x{FF9F}",
                r"\x{2F00}-\x{2FDF}\x{E40}-\x{EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}\x{AA60}-\x{AA7F}",
                r"\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+"
            )),
            DEEPSEEK3,
        ],
        ..ROW
    },
    Pre {
        names: &["youtu"],
        steps: &[
            Step::Isolate(concat!(
                r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}",
                r"\x{FF1A}\x{FF1B}\x{FF0C}\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|[\x{3105}-\x{312F}]+|",
                cjk!()
            )),
            Step::Words(cased!(concat!("(?:", contraction!(), ")?"), r"\p{N}")),
        ],
        whole_words: true,
        ..ROW
    },
    Pre { names: &["tekken"], steps: &[Step::Words(cased!("", r"\p{N}"))], whole_words: true, add_bos: true, ..ROW },
    Pre {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        steps: &[Step::Words(cased!(concat!("(?:", contraction!(), ")?"), r"\p{N}{1,3}"))],
        ..ROW
    },
    Pre {
        names: &["granite-embed-multi-97m"],
        steps: &[Step::Words(cased!(concat!("(?:", contraction!(), ")?"), r"\p{N}{1,3}"))],
        whole_words: true,
        ..ROW
    },
    Pre {
        names: &["tiny_aya", "cohere2moe"],
        steps: &[
            Step::Thousands(Digits::DecimalWord),
            Step::Words(cased!(concat!("(?:", contraction!(), ")?"), r"\p{N}{1,3}")),
        ],
        ..ROW
    },
    Pre {
        names: &["kimi-k2"],
        steps: &[Step::Words(concat!(
            r"\p{Han}+|",
            gpt4o!(
                r"[^\r\n\p{L}\p{N}]?",
                r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
                r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
                concat!("(?:", contraction!(), ")?"),
                r"\p{N}{1,3}",
                r"[\r\n]"
            )
        ))],
        ..ROW
    },
    Pre { names: &["poro-chat", "bloom", "gpt3-finnish"], steps: &[BLOOM], ..ROW },
    Pre { names: &["viking"], steps: &[BLOOM, Step::Isolate(r"\p{N}")], ..ROW },
    Pre { names: &["jais-2"], steps: &[Step::WordsAndPowers(gpt4!(r"\p{N}{1,3}"))], ..ROW },
    Pre {
        names: &["chameleon"],
        steps: &[
            Step::Isolate("<sentinel:[0-9]+>"),
            Step::Isolate("IMGIMG[A-I]{1,4}Z"),
            Step::Isolate(r"[\t\n]|    |  "),
            Step::Isolate(r"\p{N}"),
            Step::Isolate(r"[\p{P}!-/:-@\[-`{-~]"),
            GPT2,
        ],
        add_bos: true,
        ..ROW
    },
    Pre { names: &["superbpe"], steps: &[Step::Isolate(r"\p{N}+"), Step::Thousands(Digits::Decimal)], ..ROW },
    Pre {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        steps: &[Step::Words(concat!(
            contraction!(),
            r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]"
        ))],
        ..ROW
    },
    Pre {
        names: &["seed-coder"],
        steps: &[Step::Words(concat!(
            contraction!(),
            r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+"
        ))],
        ..ROW
    },
    Pre {
        names: &["exaone-moe"],
        steps: &[Step::Words(concat!(
            contraction!(),
            r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]"
        ))],
        ..ROW
    },
    Pre {
        names: &["minicpm5"],
        steps: &[Step::Isolate(r"\p{N}{1,3}"), Step::Words(gpt4!(r"\p{N}+"))],
        whole_words: true,
        ..ROW
    },
    Pre {
        names: &["gemma4", "granite-embed-multi-311m"],
        steps: &[NEWLINES],
        add_bos: true,
        alphabet: Alphabet::Text { whole_newlines: true },
        ..ROW
    },
    Pre { names: &["sarvam-moe"], steps: &[NEWLINES], alphabet: Alphabet::Text { whole_newlines: false }, ..ROW },
];

/// The row that `name` means.
///
/// # Errors
/// An unknown name: a guess would give wrong ids and no error.
pub(super) fn find(file: &str, name: &str) -> Result<&'static Pre> {
    TABLE.iter().find(|row| row.names.contains(&name)).ok_or_else(|| {
        let names: Vec<&str> = TABLE.iter().flat_map(|row| row.names).copied().collect();
        let what = format!(
            "the pre-tokenizer '{name}' (metadata key 'tokenizer.ggml.pre') is not known; one of these can be forced \
             with the option 'pre': {}",
            names.join(", ")
        );
        Error::unsupported(file, what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::split::Splitter;

    #[test]
    fn every_row_compiles_and_loses_nothing() {
        let text = "It's 3½ o'clock:\r\n\r\n\tI'LL  pay $12345678…  你好ภาษา  Zażółć    \u{85}é\u{301}\0 «x» \n ";
        for row in TABLE {
            let mut joined = String::new();
            let splitter = Splitter::new(row.steps).unwrap();
            splitter
                .split(text, &mut |word| {
                    assert!(!word.is_empty(), "{:?}", row.names);
                    joined.push_str(word);
                    Ok(())
                })
                .unwrap();
            assert_eq!(joined, text, "{:?}", row.names);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = TABLE.iter().flat_map(|row| row.names).copied().collect();
        let n = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n);
        assert!(n >= 80, "{n}");
    }

    #[test]
    fn unknown_names_are_refused_by_name() {
        let e = find("m.gguf", "llama-bpe-9").unwrap_err().to_string();
        assert!(
            e.contains("m.gguf") && e.contains("'llama-bpe-9'") && e.contains("'pre'") && e.contains("qwen2"),
            "{e}"
        );
    }
}
