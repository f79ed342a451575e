//! Errors as one line.

use std::error::Error;

/// The whole chain of causes. A cause that its effect already quotes is left out.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(it) = cause {
        let part = it.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = it.source();
    }
    text
}
