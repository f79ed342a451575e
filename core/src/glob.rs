//! Shell-like patterns over short names: `*` stands for any run of bytes, `?` for one byte.
//!
//! A pattern compiles to the same small automaton that the kernel side runs (`bpf/src/filter.h`): one bit per
//! position, so a name is matched with two table look-ups a byte and no backtracking.

use std::str::FromStr;

/// The kernel keeps at most this many bytes of a map's or a command's name.
pub const KERNEL_NAME_LENGTH: usize = 15;

/// Why a text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGlob {
    /// Nothing would match.
    #[error("is empty; write \"*\" to match every name")]
    Empty,
    /// It has a `*`, and needs more characters beside it than the kernel keeps.
    #[error(
        "has more than {KERNEL_NAME_LENGTH} characters besides \"*\"; the kernel cuts names to {KERNEL_NAME_LENGTH}, so \
         nothing would match"
    )]
    TooLong,
    /// Only what a kernel name can hold.
    #[error("holds {0:?}, which no name in the kernel can hold")]
    Character(char),
}

/// A compiled pattern.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    /// For every byte the positions that accept it.
    accepts: Box<[u32; 256]>,
    /// Positions at which any run of bytes may be skipped.
    skips: u32,
    tokens: u8,
}

impl std::fmt::Debug for Glob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Glob({:?})", self.text)
    }
}

impl FromStr for Glob {
    type Err = InvalidGlob;

    /// Compiles a pattern for names as the kernel keeps them.
    ///
    /// The kernel cuts names to [`KERNEL_NAME_LENGTH`] bytes. A pattern that spells out more than that before
    /// its first `*` is cut likewise, since it was written for the uncut name of the user's own source.
    fn from_str(text: &str) -> Result<Self, InvalidGlob> {
        if text.is_empty() {
            return Err(InvalidGlob::Empty);
        }
        if let Some(bad) = text.chars().find(|it| !(' '..='~').contains(it)) {
            return Err(InvalidGlob::Character(bad));
        }
        let mut accepts = Box::new([0u32; 256]);
        let mut skips = 0u32;
        let mut tokens = 0usize;
        for byte in text.bytes() {
            if skips == 0 && tokens == KERNEL_NAME_LENGTH {
                break;
            }
            if byte == b'*' {
                skips |= 1 << tokens;
                continue;
            }
            if tokens == KERNEL_NAME_LENGTH {
                return Err(InvalidGlob::TooLong);
            }
            let bit = 1u32 << tokens;
            if byte == b'?' {
                for row in accepts.iter_mut() {
                    *row |= bit;
                }
            } else {
                accepts[usize::from(byte)] |= bit;
            }
            tokens += 1;
        }
        Ok(Self {
            text: text.to_owned(),
            accepts,
            skips,
            tokens: u8::try_from(tokens).expect("at most KERNEL_NAME_LENGTH"),
        })
    }
}

impl Glob {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The automaton for the kernel side: rows per byte, skip positions, accepting position.
    pub fn automaton(&self) -> (&[u32; 256], u32, u32) {
        (&self.accepts, self.skips, 1 << self.tokens)
    }

    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        self.run(name) & (1 << self.tokens) != 0
    }

    fn run(&self, name: &str) -> u32 {
        name.bytes().fold(1, |state, byte| {
            ((state & self.accepts[usize::from(byte)]) << 1) | (state & self.skips)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn glob(text: &str) -> Glob {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_match_as_a_shell_would() {
        let cases = [
            ("*", "", true),
            ("*", "anything", true),
            ("cilium_ct4_*", "cilium_ct4_any4", true),
            ("cilium_ct4_*", "cilium_ct6_any6", false),
            ("*_ct4", "cilium_ct4", true),
            ("*_ct4", "cilium_ct4_x", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c--b", false),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("ab*ab", "abab", true),
            ("ab*ab", "ab", false),
        ];
        for (pattern, name, matches) in cases {
            assert_eq!(glob(pattern).matches(name), matches, "{pattern} on {name}");
        }
    }

    #[test]
    fn a_cut_name_matches_the_longer_name_in_the_users_source() {
        // The kernel keeps "cilium_ct4_glob" of "cilium_ct4_global".
        assert!(glob("cilium_ct4_global").matches("cilium_ct4_glob"));
        assert!(glob("cilium_ct4_global*").matches("cilium_ct4_glob"));
        assert!(!glob("cilium_ct4_global").matches("cilium_ct4_any4"));
        assert!(!glob("cilium_ct4_global").matches("cilium_ct4_glo"));
    }

    #[test]
    fn what_cannot_match_is_refused() {
        assert_eq!("".parse::<Glob>(), Err(InvalidGlob::Empty));
        assert_eq!("ä".parse::<Glob>(), Err(InvalidGlob::Character('ä')));
        assert_eq!(
            format!("*{}", "x".repeat(16)).parse::<Glob>(),
            Err(InvalidGlob::TooLong)
        );
        assert!(format!("*{}", "x".repeat(15)).parse::<Glob>().is_ok());
    }

    /// The textbook definition, by recursion.
    fn reference(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), tail) => {
                reference(rest, name) || tail.is_some_and(|(_, tail)| reference(pattern, tail))
            }
            (Some((b'?', rest)), Some((_, tail))) => reference(rest, tail),
            (Some((p, rest)), Some((c, tail))) => p == c && reference(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn the_automaton_agrees_with_the_definition(pattern in "[ab*?]{1,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(
                glob(&pattern).matches(&name),
                reference(pattern.as_bytes(), name.as_bytes())
            );
        }
    }
}
