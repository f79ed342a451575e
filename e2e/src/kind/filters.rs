//! The packet filters. A Docker daemon that ends leaves its chains behind, and a policy that drops what is forwarded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::command::output_of;

const TOOLS: [&str; 2] = ["iptables", "ip6tables"];
/// What the names of Docker's chains begin with.
const CHAIN: &str = "DOCKER";

/// What `iptables-save` says, per tool. A tool that is missing has nothing to say.
pub(super) fn now() -> BTreeMap<String, String> {
    let saved = TOOLS.iter().filter_map(|tool| {
        let rules = output_of(&mut Command::new(format!("{tool}-save"))).ok()?;
        Some(((*tool).to_owned(), rules))
    });
    saved.collect()
}

/// Removes what Docker left, and gives back what failed.
pub(super) fn put_back(before: &BTreeMap<String, String>) -> Vec<String> {
    let mut failures = Vec::new();
    for (tool, now) in now() {
        let before = before.get(&tool).map(String::as_str).unwrap_or_default();
        let commands = undo(before, &now);
        if !commands.is_empty()
            && let Err(error) = restore(&tool, &commands)
        {
            failures.push(format!("the rules of {tool}: {error:#}"));
        }
    }
    failures
}

fn restore(tool: &str, commands: &str) -> Result<()> {
    let mut child = Command::new(format!("{tool}-restore"))
        .args(["--noflush", "--wait"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {tool}-restore"))?;
    let mut input = child.stdin.take().context("it has no stdin")?;
    input.write_all(commands.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", stderr.trim());
    Ok(())
}

/// A table as `iptables-save` writes it.
#[derive(Debug, Default)]
struct Table<'a> {
    policies: BTreeMap<&'a str, &'a str>,
    rules: Vec<&'a str>,
}

fn tables(saved: &str) -> BTreeMap<&str, Table<'_>> {
    let mut tables = BTreeMap::new();
    let mut table = "";
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            if let (Some(name), Some(policy)) = (words.next(), words.next()) {
                let table: &mut Table<'_> = tables.entry(table).or_default();
                table.policies.insert(name, policy);
            }
        } else if line.starts_with("-A ") {
            tables.entry(table).or_default().rules.push(line);
        }
    }
    tables
}

/// The input of `iptables-restore --noflush` that takes away what Docker added. What others added stays.
fn undo(before: &str, now: &str) -> String {
    let before = tables(before);
    let none = Table::default();
    let mut commands = String::new();
    for (name, table) in tables(now) {
        let old = before.get(name).unwrap_or(&none);
        let is_new = |chain: &str| chain.starts_with(CHAIN) && !old.policies.contains_key(chain);
        let chains: BTreeSet<_> = table.policies.keys().filter(|it| is_new(it)).collect();
        // In the chains themselves nothing stays anyway.
        let jumps = table.rules.iter().filter(|rule| {
            let mut words = rule.split(' ').skip(1);
            let own = words.next().is_some_and(|it| chains.contains(&it));
            !own && words.any(|it| chains.contains(&it))
        });
        let policies = table.policies.iter().filter(|(chain, policy)| {
            let old = old.policies.get(*chain).copied().unwrap_or("ACCEPT");
            **policy == "DROP" && old == "ACCEPT" && **chain == "FORWARD"
        });
        let mut lines = String::new();
        for (chain, _) in policies {
            _ = writeln!(lines, ":{chain} ACCEPT [0:0]");
        }
        for rule in jumps {
            _ = writeln!(lines, "-D {}", &rule["-A ".len()..]);
        }
        // Emptied first, as they name each other.
        for (option, chain) in chains
            .iter()
            .map(|it| ("-F", it))
            .chain(chains.iter().map(|it| ("-X", it)))
        {
            _ = writeln!(lines, "{option} {chain}");
        }
        if !lines.is_empty() {
            _ = write!(commands, "*{name}\n{lines}COMMIT\n");
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str =
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n-A INPUT -p icmp -j ACCEPT\nCOMMIT\n";

    #[test]
    fn what_docker_added_goes_and_what_others_added_stays() {
        let now = "# a comment\n*filter\n:INPUT ACCEPT [5:9]\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\n:DOCKER-USER - [0:0]\n\
            -A INPUT -p icmp -j ACCEPT\n-A INPUT -p tcp -j DROP\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\nCOMMIT\n\
            *nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\nCOMMIT\n";

        let commands = undo(BEFORE, now);

        assert_eq!(
            commands,
            "*filter\n:FORWARD ACCEPT [0:0]\n-D FORWARD -j DOCKER-USER\n-F DOCKER\n-F DOCKER-USER\n-X DOCKER\n\
             -X DOCKER-USER\nCOMMIT\n*nat\n-D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-F DOCKER\n-X DOCKER\nCOMMIT\n"
        );
    }

    #[test]
    fn chains_and_a_policy_that_were_there_before_stay() {
        let before = BEFORE.replace(
            ":FORWARD ACCEPT [0:0]",
            ":FORWARD DROP [0:0]\n:DOCKER - [0:0]",
        );

        assert_eq!(undo(&before, &before), "");
    }
}
