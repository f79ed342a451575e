//! What a machine said on its second serial port, understood.
//!
//! Lines that begin with `vm: ` are of `init.sh`; all others are of the test programs.

use super::machine::Ended;
use super::plan::Preempt;

/// The outcome of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The kernel's release, by its own word.
    pub kernel: Option<String>,
    /// How it preempts, by its own word.
    pub preempt: Option<String>,
    /// Tests that passed.
    pub passed: u64,
    /// Names of tests that failed.
    pub failed: Vec<String>,
    /// What this kernel could not run, and why.
    pub not_run: Vec<String>,
    /// Warnings of the kernel.
    pub warnings: Vec<String>,
    /// What else went wrong.
    pub problems: Vec<String>,
}

impl Report {
    /// Reads it.
    pub fn of(ended: &Ended, wanted: Preempt) -> Self {
        let mut report = Self::read(&ended.said);
        if ended.hung {
            let at = format!("did not end within {} s", ended.took.as_secs());
            report.problems.insert(0, at);
        }
        if let Some(preempt) = &report.preempt
            && *preempt != wanted.to_string()
        {
            let other = format!("the kernel runs with preempt={preempt}");
            report.problems.push(other);
        }
        report
    }

    fn read(said: &str) -> Self {
        let mut report = Self::default();
        let (mut program, mut is_list, mut is_done) = (String::new(), false, false);
        for line in said.lines().map(str::trim_end) {
            if let Some(words) = line.strip_prefix("vm: ") {
                let (word, rest) = words.split_once(' ').unwrap_or((words, ""));
                match word {
                    "kernel" => report.kernel = Some(rest.to_owned()),
                    "preempt" => report.preempt = Some(rest.to_owned()),
                    "begin" => rest.clone_into(&mut program),
                    "end" => report.program_ended(&std::mem::take(&mut program), rest),
                    "not-run" => report.not_run.push(rest.to_owned()),
                    "warning" => report.warnings.push(rest.to_owned()),
                    "refused" => {
                        let reason = rest.trim_start_matches("error: ");
                        report.problems.push(format!("refused: {reason}"));
                    }
                    "done" => is_done = true,
                    _ => (),
                }
                is_list = false;
            } else if line == "failures:" {
                // The first list holds what failed tests wrote; their names are the second one.
                is_list = true;
            } else if let Some(result) = line.strip_prefix("test result: ") {
                is_list = false;
                report.passed += count(result, "passed");
            } else if let Some(name) = line.strip_prefix("    ").filter(|_| is_list) {
                if !name.contains(' ') && !report.failed.iter().any(|it| it == name) {
                    report.failed.push(name.to_owned());
                }
            } else if !line.is_empty() {
                is_list = false;
            }
        }
        if !program.is_empty() {
            report.problems.push(format!("{program} did not end"));
        } else if !is_done {
            report
                .problems
                .push("the machine did not come to its end".to_owned());
        }
        report
    }

    fn program_ended(&mut self, program: &str, status: &str) {
        // 101 is what a test program ends with when a test fails, which its lines tell already.
        if status != "0" && (status != "101" || self.failed.is_empty()) {
            self.problems
                .push(format!("{program} ended with status {status}"));
        }
    }

    /// Whether all is well.
    pub fn is_good(&self) -> bool {
        self.passed > 0
            && self.failed.is_empty()
            && self.warnings.is_empty()
            && self.problems.is_empty()
    }

    /// The result in a line.
    pub fn sentence(&self) -> String {
        let mut parts = Vec::new();
        if self.passed > 0 || !self.failed.is_empty() {
            parts.push(format!("{} passed", self.passed));
        }
        if !self.failed.is_empty() {
            let names: Vec<_> = self.failed.iter().map(|it| format!("`{it}`")).collect();
            parts.push(format!("{} failed: {}", names.len(), names.join(", ")));
        }
        if !self.warnings.is_empty() {
            parts.push(format!("the kernel warned: {}", self.warnings[0]));
        }
        parts.extend(self.problems.iter().cloned());
        parts.extend(self.not_run.iter().map(|it| format!("not run: {it}")));
        parts.join("; ")
    }
}

/// The number before a word, as in `12 passed; 0 failed`.
fn count(text: &str, word: &str) -> u64 {
    let words: Vec<_> = text.split([' ', ';']).collect();
    let pair = words.windows(2).find(|it| it[1] == word);
    pair.and_then(|it| it[0].parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "vm: kernel 6.12\r\nvm: preempt full\r\nvm: begin sys-1\r\n\r\nrunning 2 tests\r\n\
        test a ... ok\r\ntest b ... ok\r\n\r\ntest result: ok. 2 passed; 0 failed; 0 ignored\r\n\r\nvm: end 0\r\nvm: done\r\n";

    #[test]
    fn a_machine_whose_tests_all_pass_is_good() {
        let report = Report::read(GOOD);
        assert!(report.is_good(), "{report:?}");
        assert_eq!(report.kernel.as_deref(), Some("6.12"));
        assert_eq!(report.sentence(), "2 passed");
    }

    #[test]
    fn failed_tests_are_named_and_what_they_wrote_is_not() {
        let said = "vm: begin x\ntest a ... ok\ntest b::c ... FAILED\n\nfailures:\n\n---- b::c stdout ----\n\
            \x20   left\nError: too few\n\n\nfailures:\n    b::c\n\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored\n\nvm: end 101\nvm: done\n";
        let report = Report::read(said);
        assert_eq!(report.failed, ["b::c"]);
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!(report.sentence(), "1 passed; 1 failed: `b::c`");
        assert!(!report.is_good());
    }

    #[test]
    fn a_machine_that_stops_early_is_not_good_and_says_where_it_stopped() {
        for (said, problem) in [
            ("", "the machine did not come to its end"),
            ("vm: begin sys-1\ntest a ... ", "sys-1 did not end"),
            (
                "vm: begin sys-1\nvm: end 139\nvm: done\n",
                "sys-1 ended with status 139",
            ),
        ] {
            let report = Report::read(said);
            assert_eq!(report.problems, [problem]);
            assert!(!report.is_good());
        }
    }

    #[test]
    fn an_agent_that_refuses_is_quoted() {
        let said = "vm: kernel 5.1\nvm: refused error: could not load the probes: no\nvm: done\n";
        let report = Report::read(said);
        assert!(!report.is_good());
        assert_eq!(report.sentence(), "refused: could not load the probes: no");
    }

    #[test]
    fn a_warning_of_the_kernel_is_a_failure() {
        let report =
            Report::read(&GOOD.replace("vm: done", "vm: warning [ 1.0] WARNING: x\nvm: done"));
        assert!(!report.is_good());
    }
}
