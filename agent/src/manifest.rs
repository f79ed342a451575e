//! Reads one `MapLatencyProbe` from a file, or says what to write instead.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use maplatency_core::validate::{CheckedSpec, InvalidSpec, Problem};
use maplatency_core::{MapLatencyProbe, MapLatencyProbeSpec};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_yaml::{Deserializer, Mapping, Value};

use crate::args::is_dns_subdomain;

const API_VERSION: &str = "maplatency.dev/v1alpha1";
const KIND: &str = "MapLatencyProbe";
/// Largest file that is read, in bytes. A probe of the largest lists is a tenth of it.
const LARGEST: usize = 1 << 20;

/// A probe as a file asks for it.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The resource as a cluster would hold it, without uid and status.
    pub probe: MapLatencyProbe,
    /// Its spec without mistakes.
    pub spec: CheckedSpec,
}

/// Every mistake in a file, each with its place.
#[derive(Debug, thiserror::Error)]
pub struct InvalidManifest {
    file: String,
    mistakes: Vec<Mistake>,
}

/// One mistake: its line and column if they are known, the field, and what to write instead.
#[derive(Debug)]
struct Mistake {
    place: Option<(usize, usize)>,
    /// Empty where no field is to blame.
    field: String,
    advice: String,
}

impl Mistake {
    fn new(field: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            place: None,
            field: field.into(),
            advice: advice.into(),
        }
    }
}

impl fmt::Display for InvalidManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (
            at,
            Mistake {
                place,
                field,
                advice,
            },
        ) in self.mistakes.iter().enumerate()
        {
            if at > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.file)?;
            if let Some((line, column)) = place {
                write!(f, ":{line}:{column}")?;
            }
            if !field.is_empty() {
                write!(f, ": {field}")?;
            }
            write!(f, ": {advice}")?;
        }
        Ok(())
    }
}

impl InvalidManifest {
    /// One field does not go with the command line.
    pub fn of(file: &Path, field: &str, advice: &str) -> Self {
        Self {
            file: name_of(file),
            mistakes: vec![Mistake::new(field, advice)],
        }
    }
}

/// What to call the file.
fn name_of(file: &Path) -> String {
    if file.as_os_str() == "-" {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    }
}

impl From<Problem> for Mistake {
    fn from(Problem { field, advice }: Problem) -> Self {
        Self::new(field, advice)
    }
}

/// Reads and checks the probe in a file; `-` stands for standard input.
pub fn read(file: &Path) -> Result<Manifest, InvalidManifest> {
    let is_stdin = file.as_os_str() == "-";
    let name = name_of(file);
    let invalid = |mistakes| InvalidManifest {
        file: name.clone(),
        mistakes,
    };
    let bytes = if is_stdin {
        bytes(io::stdin().lock())
    } else {
        File::open(file).and_then(bytes)
    };
    let text = bytes
        .map_err(|it| Mistake::new("", unreadable(&it)))
        .and_then(|it| {
            match it.len() {
                0..=LARGEST => String::from_utf8(it).map_err(|_| "is no UTF-8 text; write YAML"),
                _ => Err("is larger than 1 MiB; write one MapLatencyProbe"),
            }
            .map_err(|advice| Mistake::new("", advice))
        })
        .map_err(|it| invalid(vec![it]))?;
    // Some editors put it before the first character.
    parse(text.trim_start_matches('\u{feff}')).map_err(invalid)
}

/// At most one byte more than may be there, which is enough to see that it is too much.
fn bytes(input: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such file; write the path of a file with a MapLatencyProbe, or - for standard input".to_owned()
        }
        io::ErrorKind::IsADirectory => "is a folder; write the path of a file in it".to_owned(),
        _ => format!("could not be read: {error}"),
    }
}

/// The document as it may stand in a file. Unlike the API server, no field is dropped in silence.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Metadata,
    spec: MapLatencyProbeSpec,
    /// Of a resource that comes from a cluster; measured anew here.
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

/// What of the metadata matters without a cluster. The rest is there so that what a cluster prints is taken.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    name: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    #[serde(rename = "uid")]
    _uid: Option<IgnoredAny>,
    #[serde(rename = "resourceVersion")]
    _resource_version: Option<IgnoredAny>,
    #[serde(rename = "generation")]
    _generation: Option<IgnoredAny>,
    #[serde(rename = "creationTimestamp")]
    _creation_timestamp: Option<IgnoredAny>,
    #[serde(rename = "managedFields")]
    _managed_fields: Option<IgnoredAny>,
    #[serde(rename = "ownerReferences")]
    _owner_references: Option<IgnoredAny>,
    #[serde(rename = "finalizers")]
    _finalizers: Option<IgnoredAny>,
    #[serde(rename = "deletionTimestamp")]
    _deletion_timestamp: Option<IgnoredAny>,
    #[serde(rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period_seconds: Option<IgnoredAny>,
}

fn parse(text: &str) -> Result<Manifest, Vec<Mistake>> {
    let at = only_document(text).map_err(|it| vec![it])?;
    let document = Deserializer::from_str(text)
        .nth(at)
        .map(Document::deserialize)
        .expect("the document was there a moment ago")
        .map_err(|it| vec![explain(&it)])?;
    let Document { metadata, spec, .. } = document;
    let name = metadata.name.filter(|it| !it.is_empty());
    let mut mistakes = Vec::new();
    match &name {
        None => mistakes.push(Mistake::new("metadata.name", "is missing; write a name such as conntrack")),
        Some(name) if !is_dns_subdomain(name) => mistakes.push(Mistake::new(
            "metadata.name",
            format!("{name:?} is no name; write at most 253 lowercase letters, digits, '-' and '.', such as conntrack"),
        )),
        Some(_) => (),
    }
    let checked = spec
        .check()
        .map_err(|InvalidSpec(it)| mistakes.extend(it.into_iter().map(Mistake::from)));
    let (Ok(checked), true) = (checked, mistakes.is_empty()) else {
        return Err(mistakes);
    };
    let mut probe = MapLatencyProbe::new(&name.unwrap_or_default(), spec);
    probe.metadata = ObjectMeta {
        labels: metadata.labels,
        annotations: metadata.annotations,
        // No cluster counts generations; a file is always the first.
        generation: Some(1),
        ..probe.metadata
    };
    Ok(Manifest {
        probe,
        spec: checked,
    })
}

/// Finds the one document that is not empty, and checks that it is of the right kind.
fn only_document(text: &str) -> Result<usize, Mistake> {
    let mut found = None;
    for (at, document) in Deserializer::from_str(text).enumerate() {
        match Value::deserialize(document).map_err(|it| explain(&it))? {
            Value::Null => (),
            Value::Mapping(_) if found.is_some() => {
                return Err(Mistake::new(
                    "",
                    "holds several documents; write one MapLatencyProbe per file",
                ));
            }
            Value::Mapping(fields) => {
                expect(&fields, "apiVersion", API_VERSION)?;
                expect(&fields, "kind", KIND)?;
                found = Some(at);
            }
            _ => {
                let advice = format!(
                    "is no MapLatencyProbe; begin with apiVersion: {API_VERSION} and kind: {KIND}"
                );
                return Err(Mistake::new("", advice));
            }
        }
    }
    found.ok_or_else(|| {
        let advice =
            format!("is empty; write a MapLatencyProbe, beginning with apiVersion: {API_VERSION}");
        Mistake::new("", advice)
    })
}

fn expect(fields: &Mapping, field: &str, wanted: &str) -> Result<(), Mistake> {
    match fields.get(field) {
        Some(Value::String(it)) if it == wanted => Ok(()),
        Some(Value::String(it)) => Err(Mistake::new(field, format!("is {it:?}; write {wanted}"))),
        Some(_) => Err(Mistake::new(field, format!("is no text; write {wanted}"))),
        None => Err(Mistake::new(
            field,
            format!("is missing; write {field}: {wanted}"),
        )),
    }
}

/// Turns a message of the parser, which is made for programmers, into a field and advice.
fn explain(error: &serde_yaml::Error) -> Mistake {
    let place = error.location().map(|it| (it.line(), it.column()));
    let text = error.to_string();
    let text = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |it| it.0);
    let (path, message) = match text.split_once(": ") {
        Some((path, message)) if is_path(path) => (path, message),
        _ => ("", text),
    };
    let (field, advice) = translate(path, message);
    Mistake {
        place,
        field,
        advice,
    }
}

/// `spec.maps[0].names`, and nothing like `did not find expected key`.
fn is_path(text: &str) -> bool {
    let inner =
        |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '[' | ']' | '_' | '-' | '/');
    text.chars().all(inner) && !text.starts_with("invalid") && !text.starts_with("unknown")
}

fn translate(path: &str, message: &str) -> (String, String) {
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    if let Some(name) = quoted_after(message, "missing field ") {
        return (below(name), format!("is missing; {}", example(name)));
    }
    if path == "metadata" && quoted_after(message, "unknown field ") == Some("namespace") {
        let advice = "is no field here, as probes belong to no namespace; leave it out";
        return (below("namespace"), advice.to_owned());
    }
    if let Some(name) = quoted_after(message, "unknown field ") {
        // The parser names the unknown field as part of the path in some places only.
        let field = if path.ends_with(name) {
            path.to_owned()
        } else {
            below(name)
        };
        return (
            field,
            format!("is no field; write {}", choices(name, message)),
        );
    }
    if let Some(name) = quoted_after(message, "unknown variant ") {
        return (
            path.to_owned(),
            format!("{name:?} is unknown; write {}", choices(name, message)),
        );
    }
    if let Some(name) = message.strip_prefix("duplicate entry with key ") {
        return (
            below(name.trim_matches('"')),
            "stands there twice; keep one of them".to_owned(),
        );
    }
    if let Some((found, wanted)) = message
        .strip_prefix("invalid type: ")
        .and_then(|it| it.rsplit_once(", expected "))
    {
        // An integer is no integer to the parser where it does not fit.
        let wanted = match form(wanted) {
            "a whole number" if found.starts_with("integer ") => "a number of fewer digits",
            other => other,
        };
        return (
            path.to_owned(),
            format!("is {}; write {wanted}", finding(found)),
        );
    }
    (path.to_owned(), format!("is no valid YAML: {message}"))
}

/// The name between backquotes that follows `start`.
fn quoted_after<'a>(message: &'a str, start: &str) -> Option<&'a str> {
    message
        .strip_prefix(start)?
        .strip_prefix('`')?
        .split('`')
        .next()
}

/// The one that was meant if only its case differs, or else all that the parser lists.
fn choices(name: &str, message: &str) -> String {
    let list = message.split_once(", expected ").map_or("", |it| it.1);
    let known: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    match known.iter().find(|it| it.eq_ignore_ascii_case(name)) {
        Some(meant) => (*meant).to_owned(),
        None => format!("one of {}", known.join(", ")),
    }
}

/// What to write for a field that has to be there.
fn example(field: &str) -> &'static str {
    match field {
        "maps" => "list the maps to measure, such as maps: [{names: [\"demo_*\"]}]",
        "metadata" => "write metadata: {name: conntrack}",
        "spec" => "write spec: {maps: [{names: [\"demo_*\"]}]}",
        _ => "add it",
    }
}

/// What the parser found, in words of the file and not of Rust.
fn finding(found: &str) -> String {
    match found.split_once(' ') {
        Some(("string", text)) => format!("the text {text}"),
        Some(("integer" | "boolean", value)) => {
            let value = value.replace('`', "");
            // Beyond 64 bits the parser tells how it holds the number.
            let (number, _) = value.split_once(" as ").unwrap_or((&value, ""));
            number.to_owned()
        }
        Some(("floating", value)) => value.trim_start_matches("point ").replace('`', ""),
        _ => match found {
            "map" => "a group of fields".to_owned(),
            "sequence" => "a list".to_owned(),
            "unit value" => "empty".to_owned(),
            other => other.to_owned(),
        },
    }
}

/// What to write for a type of the parser.
fn form(wanted: &str) -> &str {
    match wanted {
        "i64" | "i32" | "u32" | "u64" => "a whole number",
        "any YAML value" => "a number of fewer digits",
        "a sequence" => "a list, such as [a, b]",
        "a string" => "a text in quotes",
        _ if wanted.starts_with("struct ") || wanted == "a map" => {
            "fields of its own, indented below it"
        }
        _ => wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probe whose spec is written in flow style.
    fn with_spec(spec: &str) -> String {
        format!("apiVersion: {API_VERSION}\nkind: {KIND}\nmetadata: {{name: a}}\nspec: {spec}\n")
    }

    fn refusal(text: &str) -> String {
        let mistakes = parse(text).unwrap_err();
        InvalidManifest {
            file: "f".to_owned(),
            mistakes,
        }
        .to_string()
    }

    #[test]
    fn what_a_cluster_prints_is_taken_without_what_only_a_cluster_knows() {
        let text = format!(
            "---\napiVersion: {API_VERSION}\nkind: {KIND}\n\
             metadata: {{name: a, labels: {{x: y}}, uid: u, resourceVersion: '7', generation: 4, managedFields: []}}\n\
             spec: {{maps: [{{ids: [1]}}]}}\nstatus: {{matchedMaps: 3}}\n---\n"
        );

        let probe = parse(&text).unwrap().probe;

        assert_eq!(probe.metadata.name.as_deref(), Some("a"));
        assert_eq!(probe.metadata.labels.unwrap()["x"], "y");
        assert_eq!(
            (probe.metadata.generation, probe.metadata.uid),
            (Some(1), None)
        );
        assert_eq!(probe.status, None);
    }

    #[test]
    fn mistakes_come_with_their_place_and_advice() {
        let cases = [
            (
                "{maps: [{ids: [1]}], windowSeconds: sixty}",
                "f:4:43: spec.windowSeconds: is the text \"sixty\"; write a whole number",
            ),
            (
                "{maps: [{ids: [1]}], window: 60}",
                "f:4:28: spec.window: is no field; write one of \
                 nodeSelector, maps, operations, callers, activeReads, outliers, aggregation, objectives, windowSeconds",
            ),
            (
                "{maps: [{ids: [1]}], windowseconds: 60}",
                "f:4:28: spec.windowseconds: is no field; write windowSeconds",
            ),
            (
                "{maps: [{name: [a]}]}",
                "f:4:16: spec.maps[0].name: is no field; write one of names, types, ids, pinPaths, heldBy",
            ),
            (
                "{maps: {names: [a]}}",
                "f:4:14: spec.maps: is a group of fields; write a list, such as [a, b]",
            ),
            (
                "{maps: [{names: a}]}",
                "f:4:23: spec.maps[0].names: is the text \"a\"; write a list, such as [a, b]",
            ),
            (
                "{maps: [{names: [[a]]}]}",
                "f:4:24: spec.maps[0].names[0]: is a list; write a text in quotes",
            ),
            (
                "{maps: [{types: [hash]}]}",
                "f:4:24: spec.maps[0].types[0]: \"hash\" is unknown; write Hash",
            ),
            (
                "{maps: [{ids: [1]}], operations: [Read]}",
                "f:4:41: spec.operations[0]: \"Read\" is unknown; write one of Lookup, LookupAndDelete, LookupBatch, \
                 LookupAndDeleteBatch, GetNextKey, Update, UpdateBatch, Delete, DeleteBatch",
            ),
            (
                "{operations: [Lookup]}",
                "f:4:7: spec.maps: is missing; list the maps to measure, such as maps: [{names: [\"demo_*\"]}]",
            ),
            (
                "{maps: [",
                "f:5:1: is no valid YAML: did not find expected node content",
            ),
            (
                "{maps: [], maps: []}",
                "f:4:7: spec.maps: stands there twice; keep one of them",
            ),
            (
                "{maps: [{ids: [1.5]}]}",
                "f:4:22: spec.maps[0].ids[0]: is 1.5; write a whole number",
            ),
            (
                "{maps: [{ids: [0]}], windowSeconds: 1}",
                "f: spec.maps[0].ids[0]: is 0; write a number from 1 to 2147483647\n\
                 f: spec.windowSeconds: is 1; write a number from 10 to 600",
            ),
        ];
        for (spec, message) in cases {
            assert_eq!(refusal(&with_spec(spec)), message, "{spec}");
        }
    }
}
