//! Texts as a shell reads them.

use std::borrow::Cow;

/// The text as one word of a shell.
pub(crate) fn shell_word(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:+=@%,".contains(&byte)) {
        return text.into();
    }
    // Nothing has a meaning within single quotes, save the one that ends them.
    format!("'{}'", text.replace('\'', r"'\''")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_every_setting_as_it_was_written() {
        for text in
            ["", "plain-1.0", "Endpoint=sb://a;Key=b", "it's", "$(id) `id` \"$HOME\" \\ # & |", "'", "two\nlines"]
        {
            let script = format!("WORD={}\nprintf %s \"$WORD\"", shell_word(text));
            let output = std::process::Command::new("sh").arg("-c").arg(script).output().expect("a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        }
    }
}
