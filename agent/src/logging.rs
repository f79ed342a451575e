//! The log on standard error, and errors as one line of bearable length.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::args::LogFormat;

/// Characters of one cause that are shown. A verifier's log has thousands of lines, and the last ones tell why.
const SHOWN: usize = 400;

/// Starts the log. `$RUST_LOG` outranks `default`.
pub fn start(format: LogFormat, default: LevelFilter) {
    let filter = EnvFilter::builder()
        .with_default_directive(default.into())
        .from_env_lossy();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// The whole chain of causes as one line. A cause that its effect already quotes is left out, and of a long one
/// only the end is kept.
pub fn brief_chain(error: &anyhow::Error) -> String {
    let mut whole = String::new();
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if whole.contains(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&brief(&text));
        whole.push_str(&text);
        whole.push('\n');
    }
    line
}

/// The last lines of a text that fit, joined.
fn brief(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .collect();
    let joined = lines.join(" | ");
    // A program that was refused before it was verified has no log.
    let joined = joined.strip_suffix(". Verifier output:").unwrap_or(&joined);
    let length = joined.chars().count();
    if length <= SHOWN {
        return joined.to_owned();
    }
    let tail: String = joined.chars().skip(length - SHOWN).collect();
    // From the beginning of a line on, if one begins there.
    let tail = tail.split_once(" | ").map_or(tail.as_str(), |it| it.1);
    format!("… {tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("refused")
            .context("no connection: refused")
            .context("could not list");
        assert_eq!(
            brief_chain(&error),
            "could not list: no connection: refused"
        );
    }

    #[test]
    fn an_empty_log_of_the_verifier_is_left_out() {
        let error = anyhow::anyhow!("returned EPERM. Verifier output: \n").context("refused");
        assert_eq!(brief_chain(&error), "refused: returned EPERM");
    }

    #[test]
    fn of_a_long_log_the_last_lines_are_kept() {
        use std::fmt::Write as _;
        let mut log = String::new();
        for line in 0..5000 {
            writeln!(log, "{line}: (85) call bpf_something#{line}").unwrap();
        }
        log.push_str("processed 5000 insns\n");
        let text =
            brief_chain(&anyhow::anyhow!(log).context("could not load the program enter_bpf"));

        assert!(
            text.starts_with("could not load the program enter_bpf: … 49"),
            "{text}"
        );
        assert!(
            text.ends_with("4999: (85) call bpf_something#4999 | processed 5000 insns"),
            "{text}"
        );
        assert!(text.chars().count() < 500 && !text.contains('\n'), "{text}");
    }
}
