//! What a checked spec matches, and what is refused with which advice.

use super::*;
use crate::exact::{Keep, MAX_KEPT};
use crate::vocabulary::MapType;

fn spec(yaml: &str) -> MapLatencyProbeSpec {
    serde_yaml::from_str(yaml).unwrap()
}

fn map(id: u32, name: &str, map_type: MapType) -> MapIdentity {
    MapIdentity {
        id,
        name: name.to_owned(),
        map_type: Some(map_type),
    }
}

#[test]
fn any_entry_may_match_but_all_fields_of_it_have_to() {
    let checked = spec("{maps: [{names: ['ct_*'], types: [Hash]}, {ids: [7]}]}")
        .check()
        .unwrap();

    assert!(checked.matches(&map(1, "ct_tcp", MapType::Hash), Ties::default()));
    assert!(!checked.matches(&map(1, "ct_tcp", MapType::Array), Ties::default()));
    assert!(!checked.matches(&map(1, "nat", MapType::Hash), Ties::default()));
    assert!(checked.matches(&map(7, "nat", MapType::Array), Ties::default()));
}

#[test]
fn a_map_matches_by_a_pin_or_by_one_process_that_holds_it() {
    let checked = spec(
        "{maps: [{names: [ct], pinPaths: ['/sys/fs/bpf/*/ct', '/run/bpf/**']},
                 {heldBy: {commands: [conntrack-refresher], cgroups: ['**/pod7*/*']}}]}",
    )
    .check()
    .unwrap();
    let holder = |command: &str, cgroup: &str| Holder {
        command: command.to_owned(),
        cgroup: cgroup.to_owned(),
    };
    let ct = map(1, "ct", MapType::Hash);
    let pinned = |path: &str| {
        let pins = &[path.to_owned()];
        checked.matches(&ct, Ties { pins, holders: &[] })
    };
    let held = |holders: &[Holder]| checked.matches(&ct, Ties { pins: &[], holders });

    assert!(pinned("/sys/fs/bpf/tc/ct") && pinned("/run/bpf/a/b"));
    assert!(!pinned("/sys/fs/bpf/tc/globals/ct") && !pinned("/sys/fs/bpf/ct"));
    let ties = Ties {
        pins: &["/sys/fs/bpf/tc/ct".to_owned()],
        holders: &[],
    };
    assert!(!checked.matches(&map(1, "nat", MapType::Hash), ties));
    // The kernel keeps 15 characters of a command.
    let (other, cgroup) = ("conntrack-reade", "kubepods/pod7-a/box");
    assert!(held(&[
        holder(other, ""),
        holder("conntrack-refre", cgroup)
    ]));
    assert!(!held(&[
        holder(other, cgroup),
        holder("conntrack-refre", "box")
    ]));
    assert!(!checked.matches(&ct, Ties::default()));
    assert!(checked.needs_pins() && checked.needs_holders() && !checked.matches_by_identity());
}

#[test]
fn left_out_fields_take_their_defaults() {
    let checked = spec("{maps: [{names: ['*']}], activeReads: {}}")
        .check()
        .unwrap();

    assert_eq!(checked.window, Duration::from_mins(1));
    assert!(checked.operations.iter().all(|it| it.is_read()));
    assert_eq!(checked.operations.len(), 5);
    assert_eq!(checked.aggregation, AggregationPlan::Histogram);
    let active = checked.active.unwrap();
    assert_eq!(active.cpus, CpuChoice::All);
    assert_eq!(active.period, Duration::from_millis(100));
}

#[test]
fn one_operation_in_so_many_is_counted() {
    let sampling = |aggregation: &str| {
        spec(&format!(
            "{{maps: [{{ids: [1]}}], aggregation: {aggregation}}}"
        ))
        .check()
        .map(|it| it.aggregation.sampling())
    };
    assert_eq!(sampling("{}"), Ok(1));
    assert_eq!(sampling("{strategy: Sampled}"), Ok(16));
    assert_eq!(sampling("{strategy: Sampled, oneIn: 2}"), Ok(2));
    assert_eq!(sampling("{strategy: Sampled, oneIn: 1024}"), Ok(1024));
    for wrong in ["-16", "0", "1", "3", "1000", "2048", "4294967298"] {
        let aggregation = format!("{{strategy: Sampled, oneIn: {wrong}}}");
        let message = format!(
            "spec.aggregation.oneIn: is {wrong}; write a power of two from 2 to 1024, such as 16"
        );
        assert_eq!(sampling(&aggregation).unwrap_err().to_string(), message);
    }
}

#[test]
fn single_operations_are_kept_only_where_that_is_asked_for() {
    let keeps = |aggregation: &str| {
        let yaml = format!("{{maps: [{{ids: [1]}}], aggregation: {aggregation}}}");
        spec(&yaml).check().map(|it| it.aggregation.keeps())
    };
    assert_eq!(keeps("{}"), Ok(None));
    assert_eq!(keeps("{strategy: Sampled}"), Ok(None));
    assert_eq!(
        keeps("{strategy: SlidingWindow}"),
        Ok(Some(Keep::Last(4096)))
    );
    let most = "{strategy: SlidingWindow, lastOperations: 65536}";
    assert_eq!(keeps(most), Ok(Some(Keep::Last(65_536))));
    assert_eq!(keeps("{strategy: Direct}"), Ok(Some(Keep::All(MAX_KEPT))));
    let direct = spec("{maps: [{ids: [1]}], aggregation: {strategy: Direct}}");
    assert_eq!(direct.check().unwrap().aggregation.sampling(), 1);
}

#[test]
fn patterns_of_commands_are_cut_as_those_of_maps_are() {
    let checked = spec(
        "{maps: [{names: [conntrack_refresh]}],
          callers: {commands: [conntrack-refresher, 'conntrack-refresh*'], excludeCommands: [conntrack-reader-2]}}",
    )
    .check()
    .unwrap();

    assert!(checked.matches(&map(1, "conntrack_refre", MapType::Hash), Ties::default()));
    for command in &checked.callers.commands {
        assert!(command.matches("conntrack-refre"), "{command:?}");
        assert!(!command.matches("conntrack-reade"), "{command:?}");
    }
    assert!(checked.callers.exclude[0].matches("conntrack-reade"));
}

#[test]
fn every_mistake_is_listed_with_its_field_and_advice() {
    let cases = [
        ("{maps: []}", "spec.maps: is empty; list at least one"),
        (
            "{maps: [{names: []}]}",
            "spec.maps[0].names: is empty; list at least one",
        ),
        (
            "{maps: [{types: [Hash], ids: []}]}",
            "spec.maps[0].ids: is empty; list at least one, or leave the field out",
        ),
        (
            "{maps: [{ids: [1]}], callers: {excludeCommands: []}}",
            "spec.callers.excludeCommands: is empty; list at least one",
        ),
        (
            "{maps: [{}]}",
            "spec.maps[0]: needs names, types, ids, pinPaths or heldBy; to match every map write names: [\"*\"]",
        ),
        (
            "{maps: [{names: ['']}]}",
            "spec.maps[0].names[0]: \"\" is empty; write \"*\" to match every name",
        ),
        (
            "{maps: [{names: ['ä']}]}",
            "spec.maps[0].names[0]: \"ä\" holds 'ä', which no name in the kernel can hold",
        ),
        (
            "{maps: [{ids: [1]}], callers: {commands: ['*-conntrack-refresher']}}",
            "spec.callers.commands[0]: \"*-conntrack-refresher\" has more than 15 characters besides \"*\"; the kernel \
             cuts names to 15, so nothing would match",
        ),
        (
            "{maps: [{ids: [0]}]}",
            "spec.maps[0].ids[0]: is 0; write a number from 1 to 2147483647",
        ),
        (
            "{maps: [{ids: [1]}], windowSeconds: 5}",
            "spec.windowSeconds: is 5; write a number from 10 to 600",
        ),
        (
            "{maps: [{ids: [1]}], callers: {}}",
            "spec.callers: needs commands or excludeCommands; to measure every caller leave callers out",
        ),
        (
            "{maps: [{ids: [1]}], callers: {commands: [a], excludeCommands: [a]}}",
            "spec.callers: \"a\" stands in both commands and excludeCommands; take it out of one of them",
        ),
        (
            "{maps: [{ids: [1]}], activeReads: {cpus: 3-1}}",
            "spec.activeReads.cpus: \"3-1\" counts down; write 1-3 instead of 3-1",
        ),
        (
            "{maps: [{ids: [1]}], activeReads: {periodMilliseconds: 1}}",
            "spec.activeReads.periodMilliseconds: is 1; write a number from 10 to 60000",
        ),
        (
            "{maps: [{pinPaths: ['']}]}",
            "spec.maps[0].pinPaths[0]: \"\" is empty; write a path, in which \"*\" stands for any characters of \
             a name",
        ),
        (
            "{maps: [{pinPaths: ['tc/globals/*']}]}",
            "spec.maps[0].pinPaths[0]: \"tc/globals/*\" does not begin with /; write a whole path, such as \
             \"/sys/fs/bpf/tc/globals/*\"",
        ),
        (
            "{maps: [{pinPaths: ['/sys/fs/bpf/[a']}]}",
            "spec.maps[0].pinPaths[0]: \"/sys/fs/bpf/[a\" is no pattern: unclosed character class; missing ']'; write \\ \
             before a character that is meant as it stands",
        ),
        (
            "{maps: [{pinPaths: ['/sys/fs/bpf/']}]}",
            "spec.maps[0].pinPaths[0]: \"/sys/fs/bpf/\" holds the name \"\", which stands in no path; write the path \
             without it",
        ),
        (
            "{maps: [{ids: [1], pinPaths: []}]}",
            "spec.maps[0].pinPaths: is empty; list at least one, or leave the field out",
        ),
        (
            "{maps: [{heldBy: {}}]}",
            "spec.maps[0].heldBy: needs commands or cgroups; to match maps whoever holds them leave heldBy out",
        ),
        (
            "{maps: [{heldBy: {commands: []}}]}",
            "spec.maps[0].heldBy.commands: is empty; list at least one",
        ),
        (
            "{maps: [{heldBy: {cgroups: [/kubepods]}}]}",
            "spec.maps[0].heldBy.cgroups[0]: \"/kubepods\" begins with /, but only the end of a cgroup's path is known; \
             write \"**/kubepods\"",
        ),
        (
            "{maps: [{ids: [1]}], aggregation: {oneIn: 8}}",
            "spec.aggregation.oneIn: goes with strategy Sampled only; write strategy: Sampled, or leave oneIn out",
        ),
        (
            "{maps: [{ids: [1]}], aggregation: {strategy: Direct, oneIn: 8, lastOperations: 256}}",
            "spec.aggregation.oneIn: goes with strategy Sampled only; write strategy: Sampled, or leave oneIn out; \
             spec.aggregation.lastOperations: goes with strategy SlidingWindow only; write strategy: SlidingWindow, or \
             leave lastOperations out",
        ),
        (
            "{maps: [{ids: [1]}], aggregation: {strategy: SlidingWindow, lastOperations: 255}}",
            "spec.aggregation.lastOperations: is 255; write a number from 256 to 65536",
        ),
        (
            "{maps: [{ids: [1]}], operations: []}",
            "spec.operations: is empty; list at least one, or leave the field out",
        ),
        (
            "{maps: [{ids: [1, 2, 1]}], operations: [Lookup, Update, Lookup]}",
            "spec.operations[2]: Lookup stands there twice; keep one of them; \
             spec.maps[0].ids[2]: 1 stands there twice; keep one of them",
        ),
        (
            "{maps: [{names: [a, 'b*', a]}]}",
            "spec.maps[0].names[2]: \"a\" stands there twice; keep one of them",
        ),
    ];
    refused(&cases);
}

fn refused(cases: &[(&str, &str)]) {
    for (yaml, message) in cases {
        assert_eq!(
            spec(yaml).check().unwrap_err().to_string(),
            *message,
            "{yaml}"
        );
    }
}

#[test]
fn mistakes_in_objectives_are_listed_likewise() {
    refused(&[
        (
            "{maps: [{ids: [1]}], objectives: []}",
            "spec.objectives: is empty; list at least one, or leave the field out",
        ),
        (
            "{maps: [{ids: [1]}], objectives: [{name: Slow-, operation: Update, thresholdMicroseconds: 0, forSeconds: 3601}]}",
            "spec.objectives[0].name: \"Slow-\" is no name; write at most 40 lower-case letters, digits and '-', the first \
             and the last no '-'; spec.objectives[0].operation: Update is not measured; add it to spec.operations, or name \
             another; spec.objectives[0].thresholdMicroseconds: is 0; write a number from 1 to 10000000; \
             spec.objectives[0].forSeconds: is 3601; write a number from 0 to 3600",
        ),
        (
            "{maps: [{ids: [1]}], operations: [Update], objectives: [
               {name: w, operation: Update, thresholdMicroseconds: 1},
               {name: w, operation: Update, thresholdMicroseconds: 2}]}",
            "spec.objectives[1].name: \"w\" stands there twice; give each objective its own name",
        ),
    ]);
}

#[test]
fn several_mistakes_come_together() {
    let error = spec("{maps: [{ids: [0]}], windowSeconds: 1}")
        .check()
        .unwrap_err();
    assert_eq!(error.0.len(), 2);
}

#[test]
fn patterns_are_as_long_as_the_api_server_takes_them() {
    let names = |length| format!("{{maps: [{{names: ['{}']}}]}}", "*".repeat(length));
    assert!(spec(&names(63)).check().is_ok());
    assert_eq!(
        spec(&names(64)).check().unwrap_err().to_string(),
        "spec.maps[0].names[0]: has 64 characters; at most 63 are allowed"
    );
}
