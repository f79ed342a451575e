//! Shell-like patterns over paths: `*` and `?` stay within one name, `**` stands for any names, `{a,b}` for either, `[ab]`
//! for one character.

use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};

/// Longest pattern, in bytes.
pub const MAX_PATH_GLOB: usize = 255;

/// Why a text is not a pattern of paths.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPathGlob {
    /// Nothing would match.
    #[error("is empty; write a path, in which \"*\" stands for any characters of a name")]
    Empty,
    /// Longer than [`MAX_PATH_GLOB`].
    #[error("has {0} characters; at most {MAX_PATH_GLOB} are allowed")]
    TooLong(usize),
    /// Not printable ASCII.
    #[error("holds {0:?}; write \"?\" for a character beyond printable ASCII")]
    Character(char),
    /// No path is written like that, so nothing would match.
    #[error("holds the name {0:?}, which stands in no path; write the path without it")]
    Name(String),
    /// Not by the rules of patterns.
    #[error("is no pattern: {0}; write \\ before a character that is meant as it stands")]
    Syntax(String),
}

/// A compiled pattern of paths.
#[derive(Clone)]
pub struct PathGlob {
    text: String,
    matcher: GlobMatcher,
}

impl PathGlob {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `path` matches.
    pub fn matches(&self, path: &str) -> bool {
        self.matcher.is_match(path)
    }
}

impl FromStr for PathGlob {
    type Err = InvalidPathGlob;

    fn from_str(text: &str) -> Result<Self, InvalidPathGlob> {
        if text.is_empty() {
            return Err(InvalidPathGlob::Empty);
        }
        if text.len() > MAX_PATH_GLOB {
            return Err(InvalidPathGlob::TooLong(text.chars().count()));
        }
        if let Some(bad) = text.chars().find(|it| !(' '..='~').contains(it)) {
            return Err(InvalidPathGlob::Character(bad));
        }
        let names = text.strip_prefix('/').unwrap_or(text).split('/');
        if let Some(bad) = names.into_iter().find(|it| ["", ".", ".."].contains(it)) {
            return Err(InvalidPathGlob::Name(bad.to_owned()));
        }
        let glob = GlobBuilder::new(text)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|it| InvalidPathGlob::Syntax(it.kind().to_string()))?;
        Ok(Self {
            text: text.to_owned(),
            matcher: glob.compile_matcher(),
        })
    }
}

impl PartialEq for PathGlob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PathGlob {}

impl std::fmt::Debug for PathGlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PathGlob({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        pattern.parse::<PathGlob>().unwrap().matches(path)
    }

    #[test]
    fn a_star_stays_within_a_name_and_two_do_not() {
        let cases = [
            ("/sys/fs/bpf/*", "/sys/fs/bpf/ct", true),
            ("/sys/fs/bpf/*", "/sys/fs/bpf/tc/ct", false),
            ("/sys/fs/bpf/*/ct?", "/sys/fs/bpf/tc/ct4", true),
            ("/sys/fs/bpf/**", "/sys/fs/bpf/tc/globals/ct", true),
            ("/sys/fs/bpf/**/ct", "/sys/fs/bpf/ct", true),
            ("/sys/fs/bpf/{a,b}", "/sys/fs/bpf/b", true),
            ("/sys/fs/bpf/[ab]", "/sys/fs/bpf/c", false),
            ("/sys/fs/bpf", "/sys/fs/bpf/ct", false),
            (
                "**/cri-containerd-*",
                "kubepods.slice/cri-containerd-7.scope",
                true,
            ),
            ("**/cri-containerd-*", "cri-containerd-7.scope", true),
            ("kubepods*", "kubepods.slice/cri-containerd-7.scope", false),
            ("**", "", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn what_cannot_match_is_refused() {
        let error = |text: &str| text.parse::<PathGlob>().unwrap_err();
        assert_eq!(error(""), InvalidPathGlob::Empty);
        assert_eq!(error("/ä"), InvalidPathGlob::Character('ä'));
        assert_eq!(error("/a//b"), InvalidPathGlob::Name(String::new()));
        assert_eq!(error("/a/"), InvalidPathGlob::Name(String::new()));
        assert_eq!(error("/a/../b"), InvalidPathGlob::Name("..".to_owned()));
        assert_eq!(error(&"x".repeat(256)), InvalidPathGlob::TooLong(256));
        assert!(matches!(error("/a[b"), InvalidPathGlob::Syntax(_)));
        assert!("x".repeat(255).parse::<PathGlob>().is_ok());
    }
}
