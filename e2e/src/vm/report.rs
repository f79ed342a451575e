//! What a machine said on its second serial port, understood.
//!
//! Lines that begin with `vm: ` are of `init.sh`; all others are of the test programs.

use super::machine::Ended;
use super::plan::Preempt;

/// The outcome of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What ran with each choice of hooks.
    pub sections: Vec<Section>,
    /// What went wrong beside tests. A warning of the kernel is such a thing.
    pub problems: Vec<String>,
}

/// The outcome of the tests with one choice of hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// The choice, as `--tier` takes it.
    pub tier: String,
    /// Tests that passed.
    pub passed: u64,
    /// Names of tests that failed.
    pub failed: Vec<String>,
    /// What this kernel could not run, and why.
    pub not_run: Vec<String>,
    /// What else went wrong.
    pub problems: Vec<String>,
}

impl Section {
    fn program_ended(&mut self, program: &str, status: &str) {
        // 101 is what a test program ends with when a test fails, which its lines tell already.
        if status != "0" && (status != "101" || self.failed.is_empty()) {
            let ended = format!("{program} ended with status {status}");
            self.problems.push(ended);
        }
    }

    /// Whether all is well.
    pub fn is_good(&self) -> bool {
        self.passed > 0 && self.failed.is_empty() && self.problems.is_empty()
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
        parts.extend(self.problems.iter().cloned());
        if !self.not_run.is_empty() {
            parts.push(format!("not run: {}", self.not_run.join(", ")));
        }
        parts.join("; ")
    }
}

impl Report {
    /// Reads it.
    pub fn of(ended: &Ended, wanted: Preempt) -> Self {
        let mut report = read(&ended.said, &wanted.to_string());
        if ended.hung {
            let limit = format!("did not end within {} s", ended.took.as_secs());
            report.problems.push(limit);
        }
        report
    }

    /// Whether all is well.
    pub fn is_good(&self) -> bool {
        !self.sections.is_empty()
            && self.problems.is_empty()
            && self.sections.iter().all(Section::is_good)
    }
}

fn read(said: &str, preempt: &str) -> Report {
    let mut report = Report::default();
    let mut section = Section::default();
    let (mut program, mut is_list, mut is_done) = (String::new(), false, false);
    for line in said.lines().map(str::trim_end) {
        if let Some(words) = line.strip_prefix("vm: ") {
            let (word, rest) = words.split_once(' ').unwrap_or((words, ""));
            match word {
                "preempt" if rest != preempt => {
                    let other = format!("the kernel runs with preempt={rest}");
                    report.problems.push(other);
                }
                "tier" => {
                    let next = Section {
                        tier: rest.to_owned(),
                        ..Section::default()
                    };
                    report.sections.push(std::mem::replace(&mut section, next));
                }
                "refused" => {
                    let reason = rest.trim_start_matches("error: ");
                    section.problems.push(format!("refused: {reason}"));
                }
                "begin" => without_hash(rest).clone_into(&mut program),
                "end" => section.program_ended(&std::mem::take(&mut program), rest),
                // Several tests may lack the same.
                "not-run" if section.not_run.iter().any(|it| it == rest) => (),
                "not-run" => section.not_run.push(rest.to_owned()),
                "warning" => report.problems.push(format!("the kernel warned: {rest}")),
                "done" => is_done = true,
                _ => (),
            }
            is_list = false;
        } else if line == "failures:" {
            // The first list holds what failed tests wrote; their names are the second one.
            is_list = true;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            is_list = false;
            section.passed += count(result, "passed");
        } else if let Some(name) = line.strip_prefix("    ").filter(|_| is_list) {
            if !name.contains(' ') && !section.failed.iter().any(|it| it == name) {
                section.failed.push(name.to_owned());
            }
        } else if !line.is_empty() {
            is_list = false;
        }
    }
    if !program.is_empty() {
        section.problems.push(format!("{program} did not end"));
    }
    report.sections.push(section);
    // Before the first word about a tier there is nothing of a tier.
    report.sections.retain(|it| !it.tier.is_empty());
    if !is_done {
        let early = "the machine did not come to its end".to_owned();
        report.problems.push(early);
    }
    report
}

/// The name of a test program, to which Cargo adds a hash that means nothing on another machine.
fn without_hash(program: &str) -> &str {
    program.rsplit_once('-').map_or(program, |(name, _)| name)
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

    const GOOD: &str = "vm: kernel 6.12\r\nvm: preempt full\r\nvm: tier Fentry\r\nvm: begin sys-1\r\n\r\nrunning 2 tests\r\n\
        test a ... ok\r\ntest b ... ok\r\n\r\ntest result: ok. 2 passed; 0 failed; 0 ignored\r\n\r\nvm: end 0\r\nvm: done\r\n";

    #[test]
    fn a_machine_whose_tests_all_pass_is_good() {
        let report = read(GOOD, "full");
        assert!(report.is_good(), "{report:?}");
        assert_eq!(report.sections[0].tier, "Fentry");
        assert_eq!(report.sections[0].sentence(), "2 passed");
    }

    #[test]
    fn a_machine_that_preempts_in_another_way_is_not_good() {
        assert!(!read(GOOD, "none").is_good());
    }

    #[test]
    fn failed_tests_are_named_and_what_they_wrote_is_not() {
        let said = "vm: tier Auto\nvm: begin x-1\ntest a ... ok\ntest b::c ... FAILED\n\nfailures:\n\n---- b::c stdout ----\n\
            \x20   left\nError: too few\n\n\nfailures:\n    b::c\n\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored\n\nvm: end 101\nvm: done\n";
        let report = read(said, "full");
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!(report.sections[0].sentence(), "1 passed; 1 failed: `b::c`");
        assert!(!report.is_good());
    }

    #[test]
    fn a_machine_that_stops_early_is_not_good_and_says_where_it_stopped() {
        assert!(!read("", "full").is_good());
        for (said, sentence) in [
            ("vm: begin sys-1\ntest a ... ", "sys did not end"),
            (
                "vm: begin sys-1\nvm: end 139\nvm: done\n",
                "sys ended with status 139",
            ),
            (
                "vm: refused error: could not load the probes: no\nvm: done\n",
                "refused: could not load the probes: no",
            ),
        ] {
            let report = read(&format!("vm: tier Auto\n{said}"), "full");
            assert_eq!(report.sections[0].sentence(), sentence);
            assert!(!report.is_good());
        }
    }

    #[test]
    fn a_warning_of_the_kernel_is_a_failure() {
        let said = GOOD.replace("vm: done", "vm: warning [ 1.0] WARNING: x\nvm: done");
        assert!(!read(&said, "full").is_good());
    }
}
