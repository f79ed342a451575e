//! How an agent shows who it is.

use std::fmt;

use crate::invalid::{Checked, form};
use crate::{InvalidMessage, wire};

/// Longest token. Those of service accounts have between 1 and 2 KiB.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// A service account token, as it is sent. Whether it is worth anything is for the API server to say.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Checks its form: 1 to [`MAX_TOKEN_BYTES`] visible ASCII characters.
    pub fn new(text: String) -> Result<Self, InvalidMessage> {
        form(
            "token",
            text,
            "1 to 8192 letters, digits, '-', '_' and '.'",
            |it| {
                let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
                (1..=MAX_TOKEN_BYTES).contains(&it.len()) && it.bytes().all(inner)
            },
        )
        .map(Self)
    }

    /// The token itself, which belongs into no log.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

impl TryFrom<wire::Token> for Token {
    type Error = InvalidMessage;

    fn try_from(wire::Token { token }: wire::Token) -> Checked<Self> {
        Self::new(token).map_err(|e| e.within("token"))
    }
}

impl From<Token> for wire::Token {
    fn from(Token(token): Token) -> Self {
        Self { token }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_short_and_of_its_alphabet_and_does_not_show_itself() {
        let token = Token::new("aGVsbG8.d29ybGQ._-".to_owned()).unwrap();
        assert_eq!(format!("{token:?}"), "Token(18 bytes)");
        for wrong in [
            "",
            "a b",
            "a\n",
            "ä",
            "a=b",
            &"a".repeat(MAX_TOKEN_BYTES + 1),
        ] {
            let error = Token::try_from(wire::Token {
                token: wrong.to_owned(),
            })
            .unwrap_err()
            .to_string();
            assert!(
                error.starts_with("token.token is not 1 to 8192 letters"),
                "{error}"
            );
            assert!(
                wrong.is_empty() || !error.contains(wrong) || wrong.len() == 1,
                "{error}"
            );
        }
    }
}
