//! From ids back to bytes.

use tokenizers::decoders::wordpiece::cleanup;

use super::bytes;
use super::spm::SPACE;
use super::vocab::{Kind, Vocab};

/// How the texts of a vocabulary stand for bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// One character per byte ([`super::bytes`]).
    Bytes,
    /// Text with `▁` for spaces; byte tokens are bytes.
    Spaces,
    /// Text that begins a word, unless it begins with this mark.
    Words(String),
}

/// The way back from ids to bytes.
#[derive(Debug)]
pub(super) struct Renderer {
    pub form: Form,
    /// Whether encoding puts a space in front, which decoding has to take away.
    pub strip_first_space: bool,
    /// Whether spaces before punctuation and English suffixes go, as WordPiece cannot tell where they were.
    pub clean_up: bool,
}

impl Renderer {
    /// Appends the bytes of one token: all of them, even those that are no whole character. A control or unknown
    /// token gives its text if `special`, else nothing.
    pub fn push(&self, vocab: &Vocab, id: u32, special: bool, out: &mut Vec<u8>) {
        let text = vocab.text(id).unwrap_or_default();
        match vocab.kind(id) {
            Some(Kind::Control | Kind::Unknown) if special => out.extend_from_slice(text.as_bytes()),
            Some(Kind::Control | Kind::Unknown | Kind::Unused) | None => {}
            Some(Kind::UserDefined) => out.extend_from_slice(text.as_bytes()),
            Some(Kind::Byte) if byte_of(text).is_some() => out.extend(byte_of(text)),
            Some(Kind::Byte | Kind::Normal) => self.push_text(text, out),
        }
    }

    fn push_text(&self, text: &str, out: &mut Vec<u8>) {
        match &self.form {
            Form::Bytes => {
                for c in text.chars() {
                    match bytes::byte_of(c) {
                        Some(byte) => out.push(byte),
                        None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    }
                }
            }
            Form::Spaces => {
                for (i, part) in text.split(SPACE).enumerate() {
                    if i > 0 {
                        out.push(b' ');
                    }
                    out.extend_from_slice(part.as_bytes());
                }
            }
            Form::Words(mark) => match text.strip_prefix(mark.as_str()) {
                Some(rest) => out.extend_from_slice(rest.as_bytes()),
                None => {
                    out.push(b' ');
                    out.extend_from_slice(text.as_bytes());
                }
            },
        }
    }

    /// The text of all of `ids`, with U+FFFD for what is no UTF-8.
    pub fn decode(&self, vocab: &Vocab, ids: &[u32], special: bool) -> String {
        let mut out = Vec::with_capacity(ids.len() * 4);
        let mut ids = ids.iter();
        if self.strip_first_space {
            for &id in ids.by_ref() {
                self.push(vocab, id, special, &mut out);
                if !out.is_empty() {
                    let is_text = !matches!(vocab.kind(id), Some(Kind::Control | Kind::Unknown));
                    if is_text && out.first() == Some(&b' ') {
                        out.remove(0);
                    }
                    break;
                }
            }
        }
        for &id in ids {
            self.push(vocab, id, special, &mut out);
        }
        let text = match String::from_utf8(out) {
            Ok(text) => text,
            Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
        };
        if self.clean_up { cleanup(&text) } else { text }
    }
}

/// The byte that a byte token's text, `<0xNN>`, names.
fn byte_of(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() == 2 { u8::from_str_radix(hex, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Strings;

    fn render(form: Form, tokens: &[(&str, Kind)], special: bool) -> Vec<u8> {
        let texts: Strings = tokens.iter().map(|t| t.0).collect();
        let vocab = Vocab::new("test", texts, Some(tokens.iter().map(|t| t.1).collect())).unwrap();
        let renderer = Renderer { form, strip_first_space: false, clean_up: false };
        let mut out = Vec::new();
        (0..tokens.len() as u32).for_each(|id| renderer.push(&vocab, id, special, &mut out));
        out
    }

    #[test]
    fn kinds() {
        let tokens = [
            ("<s>", Kind::Control),
            ("▁a▁▁b", Kind::Normal),
            ("<0xF0>", Kind::Byte),
            ("▁u", Kind::UserDefined),
            ("<unk>", Kind::Unknown),
            ("gone", Kind::Unused),
        ];
        assert_eq!(render(Form::Spaces, &tokens, false), b" a  b\xF0\xE2\x96\x81u");
        assert_eq!(render(Form::Spaces, &tokens, true), b"<s> a  b\xF0\xE2\x96\x81u<unk>");
    }

    #[test]
    fn forms() {
        assert_eq!(render(Form::Bytes, &[("ĠÃ", Kind::Normal), ("語", Kind::Normal)], false), b" \xC3\xE8\xAA\x9E");
        let words = [("un", Kind::Normal), ("##do", Kind::Normal), ("it", Kind::Normal)];
        assert_eq!(render(Form::Words("##".into()), &words, false), b" undo it");
    }
}
