//! A page of documentation and the JSON file behind it, made of parts that are measured apart from each other.
//!
//! Each mode of the program measures one part and puts it into the file; the page is then written from all that the
//! file holds. So a mode that is run again alone leaves the figures of the others as they are.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::machine::{self, Machine};

/// What one mode measured.
pub(crate) trait Section: Serialize + DeserializeOwned {
    /// The name of the mode, and of its part of the JSON file.
    const KEY: &'static str;

    /// Its part of the page, which begins with a heading of the second level.
    fn render(&self, text: &mut String) -> fmt::Result;

    /// What it aims at, for the table at the top of the page.
    fn aims(&self) -> Vec<Aim> {
        vec![]
    }
}

/// Something that was set as an aim before it was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Aim {
    pub(crate) what: String,
    pub(crate) aimed: String,
    pub(crate) measured: String,
    /// `yes`, `no`, or something in between.
    pub(crate) met: String,
}

/// A part with where and when it was measured.
#[derive(Serialize, Deserialize)]
struct Measured<T> {
    at: String,
    machine: Machine,
    figures: T,
}

/// One part as the page knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    key: &'static str,
    read: fn(&Value) -> anyhow::Result<Rendered>,
}

struct Rendered {
    at: String,
    machine: Machine,
    text: String,
    aims: Vec<Aim>,
}

impl Part {
    pub(crate) const fn of<T: Section>() -> Self {
        Self {
            key: T::KEY,
            read: read::<T>,
        }
    }
}

fn read<T: Section>(value: &Value) -> anyhow::Result<Rendered> {
    let Measured {
        at,
        machine,
        figures,
    } = Measured::<T>::deserialize(value)?;
    let mut text = String::new();
    figures.render(&mut text)?;
    Ok(Rendered {
        at,
        machine,
        text,
        aims: figures.aims(),
    })
}

/// Something that was measured elsewhere, read from a file beside the JSON file.
pub(crate) type Included = fn(beside: &Path) -> anyhow::Result<Option<(String, Vec<Aim>)>>;

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) title: &'static str,
    /// Below the title.
    pub(crate) intro: &'static str,
    pub(crate) json: PathBuf,
    pub(crate) markdown: PathBuf,
    /// In the order of the page.
    pub(crate) parts: &'static [Part],
    pub(crate) included: &'static [Included],
}

impl Page {
    /// Puts what a mode measured into the JSON file in place of what it measured before, and writes the page anew.
    pub(crate) fn put<T: Section>(&self, figures: T) -> anyhow::Result<()> {
        let measured = Measured {
            at: machine::today(),
            machine: machine::describe()?,
            figures,
        };
        let mut file = self.load()?;
        file.insert(T::KEY.to_owned(), serde_json::to_value(measured)?);
        write(&self.json, &(serde_json::to_string_pretty(&file)? + "\n"))?;
        self.write()
    }

    /// Writes the page from what the JSON file holds.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let file = self.load()?;
        let beside = self.json.parent().unwrap_or(Path::new("."));
        let mut included = Vec::new();
        for it in self.included {
            included.extend(it(beside)?);
        }
        write(&self.markdown, &self.text(&file, &included)?)?;
        eprintln!(
            "Wrote {} from {}",
            self.markdown.display(),
            self.json.display()
        );
        Ok(())
    }

    fn load(&self) -> anyhow::Result<Map<String, Value>> {
        let text = match fs::read_to_string(&self.json) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Map::new()),
            other => other.with_context(|| format!("could not read {}", self.json.display()))?,
        };
        serde_json::from_str(&text)
            .with_context(|| format!("{} holds no JSON object", self.json.display()))
    }

    fn text(
        &self,
        file: &Map<String, Value>,
        included: &[(String, Vec<Aim>)],
    ) -> anyhow::Result<String> {
        let mut parts = Vec::new();
        for part in self.parts {
            if let Some(value) = file.get(part.key) {
                let rendered = (part.read)(value).with_context(|| {
                    format!("{}: {} cannot be read", self.json.display(), part.key)
                })?;
                parts.push((part.key, rendered));
            }
        }
        let mut text = format!("# {}\n\n{}\n", self.title, self.intro);
        machines(&mut text, &parts)?;
        let aims = parts.iter().flat_map(|it| &it.1.aims);
        table_of_aims(&mut text, aims.chain(included.iter().flat_map(|it| &it.1)))?;
        for (_, part) in &parts {
            write!(text, "\n{}\n", part.text.trim_end())?;
        }
        for (part, _) in included {
            write!(text, "\n{}\n", part.trim_end())?;
        }
        Ok(text)
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
}

/// One table for each machine that parts were measured on, which mostly is one.
fn machines(text: &mut String, parts: &[(&str, Rendered)]) -> fmt::Result {
    let mut told: Vec<&Machine> = Vec::new();
    for (_, part) in parts {
        if told.contains(&&part.machine) {
            continue;
        }
        told.push(&part.machine);
        let Machine {
            kernel,
            processor,
            cpus,
            preemption,
        } = &part.machine;
        let here = parts.iter().filter(|it| it.1.machine == part.machine);
        let taken: Vec<String> = here.map(|(key, it)| format!("{key} {}", it.at)).collect();
        write!(
            text,
            "
| | |
|---|---|
| Kernel | {kernel} |
| Preemption | {preemption} |
| Processor | {processor}, {cpus} CPUs |
| Measured | {} |
",
            taken.join(", ")
        )?;
    }
    Ok(())
}

fn table_of_aims<'a>(text: &mut String, aims: impl Iterator<Item = &'a Aim>) -> fmt::Result {
    let mut aims = aims.peekable();
    if aims.peek().is_none() {
        return Ok(());
    }
    text.push_str("\n## Aims\n\n| What | Aim | Measured | Met |\n|---|---|---|---|\n");
    for Aim {
        what,
        aimed,
        measured,
        met,
    } in aims
    {
        writeln!(text, "| {what} | {aimed} | {measured} | {met} |")?;
    }
    Ok(())
}

/// The word for an aim that is met, or not.
pub(crate) fn yes_or_no(is_met: bool) -> String {
    if is_met { "yes" } else { "**no**" }.to_owned()
}

#[cfg(test)]
mod tests;
