//! The one tag that Jinja does not know: `{% generation %} … {% endgeneration %}`, with which `transformers` marks the
//! assistant's words for training. A rendering shows its body.

/// Replaces the tag by `{% with %} … {% endwith %}`: whitespace is handled as for any block, and variables that are
/// set inside stay inside, both as in Python. Comments, strings and `raw` blocks are left alone.
pub(super) fn replace_generation_tags(source: &str) -> String {
    let mut output = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find('{') {
        let (before, tag) = rest.split_at(start);
        output += before;
        let length = match tag.as_bytes().get(1) {
            Some(b'#') => find_after(tag, "#}"),
            Some(b'{') => 2 + code_length(tag.get(2..).unwrap_or_default(), "}}"),
            Some(b'%') => {
                let length = 2 + code_length(tag.get(2..).unwrap_or_default(), "%}");
                let (tag, after) = tag.split_at(length);
                if tag_name(tag) == "raw" { length + raw_length(after) } else { length }
            }
            _ => 1,
        };
        let (tag, after) = tag.split_at(length);
        match tag_name(tag) {
            "generation" => output += &tag.replacen("generation", "with", 1),
            "endgeneration" => output += &tag.replacen("endgeneration", "endwith", 1),
            _ => output += tag,
        }
        rest = after;
    }
    output + rest
}

/// The word that a block tag starts with; empty for anything else.
fn tag_name(tag: &str) -> &str {
    let Some(inside) = tag.strip_prefix("{%") else { return "" };
    let inside = inside.trim_start_matches(['-', '+']).trim_start();
    let end = inside.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inside.len());
    inside.get(..end).unwrap_or_default()
}

/// Bytes up to and with `mark`, or all of them.
fn find_after(text: &str, mark: &str) -> usize {
    text.find(mark).map_or(text.len(), |at| at + mark.len())
}

/// Bytes of code up to and with `mark`, which may also stand in a string; or all of them.
fn code_length(code: &str, mark: &str) -> usize {
    let mut quote = None;
    let mut escaped = false;
    for (at, byte) in code.bytes().enumerate() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if byte == b'\\' => escaped = true,
            Some(open) if byte == open => quote = None,
            Some(_) => {}
            None if byte == b'"' || byte == b'\'' => quote = Some(byte),
            None if code.as_bytes().get(at..).is_some_and(|rest| rest.starts_with(mark.as_bytes())) => {
                return at + mark.len();
            }
            None => {}
        }
    }
    code.len()
}

/// Bytes up to and with the tag that ends a `raw` block, or all of them.
fn raw_length(text: &str) -> usize {
    let mut at = 0;
    while let Some(tag) = text.get(at..).and_then(|rest| rest.find("{%")).map(|start| at + start) {
        at = tag + find_after(text.get(tag..).unwrap_or_default(), "%}");
        if text.get(tag..at).is_some_and(|tag| tag_name(tag) == "endraw") {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::replace_generation_tags as replace;

    #[test]
    fn the_tag_becomes_a_scope_with_the_same_whitespace_marks() {
        assert_eq!(replace("a {%- generation -%} b {%+endgeneration%} c"), "a {%- with -%} b {%+endwith%} c");
    }

    #[test]
    fn what_only_looks_like_the_tag_stays() {
        for source in [
            "{# {% generation %} #}",
            "{{ '{% generation %}' }}",
            "{{ \"\\\"{% generation %}\" }}",
            "{% raw %}{% generation %}{% endraw %}",
            "{% set generation = 1 %}",
            "{% generations %}",
            "generation {",
            "{% generation",
            "{%",
            "{{ 'open",
            "{#",
            "{% raw %}{%",
            "ünï {cöde}",
        ] {
            let expected = if source == "{% generation" { "{% with" } else { source };
            assert_eq!(replace(source), expected);
        }
    }
}
