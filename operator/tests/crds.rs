//! The definition in `crds/` is what the types generate, and keeps the API conventions.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::fs;
use std::path::Path;

use serde_yaml::Value;

const FILE: &str = "maplatencyprobes.maplatency.dev.yaml";

fn read(folder: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = root.join(folder).join(FILE);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn shipped() -> String {
    read("crds")
}

/// Calls `look` with every schema and its path.
fn walk(path: &str, schema: &Value, look: &mut impl FnMut(&str, &Value)) {
    look(path, schema);
    for (name, property) in schema["properties"].as_mapping().into_iter().flatten() {
        walk(
            &format!("{path}.{}", name.as_str().unwrap()),
            property,
            look,
        );
    }
    if !schema["items"].is_null() {
        walk(&format!("{path}[]"), &schema["items"], look);
    }
}

fn schemas(mut look: impl FnMut(&str, &Value)) {
    let crd: Value = serde_yaml::from_str(&shipped()).unwrap();
    walk(
        "",
        &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        &mut look,
    );
}

#[test]
fn the_shipped_definition_is_what_the_types_generate() {
    let generated = maplatency_operator::crd_yaml().unwrap();
    for folder in ["crds", "charts/maplatency/files"] {
        assert!(
            generated == read(folder),
            "the types have changed and {folder} has not; run `make crds`"
        );
    }
}

#[test]
fn every_field_is_described() {
    schemas(|path, schema| {
        let item_of_a_described_list = path.ends_with("[]");
        assert!(
            item_of_a_described_list || schema["description"].is_string(),
            "{path}"
        );
    });
}

#[test]
fn no_field_is_nullable_unsigned_or_closed_to_newer_fields() {
    schemas(|path, schema| {
        assert!(schema["nullable"].is_null(), "{path}");
        assert_ne!(schema["additionalProperties"], Value::Bool(false), "{path}");
        if schema["type"] == "integer" {
            let format = schema["format"].as_str().unwrap();
            assert!(matches!(format, "int32" | "int64"), "{path}: {format}");
        }
        assert_ne!(
            schema["type"], "number",
            "{path}: conventions forbid floats"
        );
    });
}

#[test]
fn every_list_says_how_it_merges_and_how_long_it_may_be() {
    schemas(|path, schema| {
        if schema["type"] == "array" {
            assert!(schema["x-kubernetes-list-type"].is_string(), "{path}");
            assert!(schema["maxItems"].is_number(), "{path}");
        }
    });
}

#[test]
fn every_rule_says_what_to_write_instead() {
    let mut rules = 0;
    schemas(|path, schema| {
        for rule in schema["x-kubernetes-validations"]
            .as_sequence()
            .into_iter()
            .flatten()
        {
            assert!(rule["message"].is_string(), "{path}");
            rules += 1;
        }
    });
    assert!(rules >= 6, "{rules} rules are left");
}
