//! Errors as one line.

use std::error::Error;
use std::fmt::Write as _;

/// The whole chain of causes, top first. `Display` shows only the top.
///
/// A cause whose text the line already holds is skipped, since the messages of kube embed their causes.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.contains(&text) {
            write!(line, ": {text}").expect("writing to a String never fails");
        }
        next = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn a_cause_is_told_once() {
        let bottom = Layer {
            text: "refused",
            source: None,
        };
        let middle = Layer {
            text: "no connection: refused",
            source: Some(Box::new(bottom)),
        };
        let top = Layer {
            text: "could not list",
            source: Some(Box::new(middle)),
        };
        assert_eq!(chain(&top), "could not list: no connection: refused");
    }
}
