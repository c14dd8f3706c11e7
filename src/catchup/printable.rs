//! Text of a feed where a person reads it.

/// The text with control characters, and others that are not seen, written as escapes.
pub(super) fn printable(text: &str) -> String {
    // A mark that combines is shown where it has something before it.
    let shown = |character: char| -> String { format!("a{character}").escape_debug().skip(1).collect() };
    let as_it_is = |character: char| matches!(character, '"' | '\'' | '\\');
    text.chars().map(|character| if as_it_is(character) { character.to_string() } else { shown(character) }).collect()
}

/// Is there nothing to escape?
pub(crate) fn is_printable(text: &str) -> bool {
    printable(text) == text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_turns_the_line_around_is_escaped_and_nothing_else() {
        assert_eq!(printable("a\u{1b}[2J\n\u{202e}b"), "a\\u{1b}[2J\\n\\u{202e}b");
        for plain in ["it's \"1\" \\ é", "e\u{301}", "名前", ""] {
            assert!(is_printable(plain), "{plain}");
        }
    }
}
