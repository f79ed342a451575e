//! Files that are refused, and with which words.

use super::{NOTHING_MATCHES, file, may_load_probes, output, stderr, stdout};

#[test]
fn a_bad_file_is_refused_with_the_field_and_what_to_write() {
    let head = "apiVersion: maplatency.dev/v1alpha1\nkind: MapLatencyProbe\n";
    let with = |rest: &str| format!("{head}{rest}");
    let cases = [
        (
            String::new(),
            "FILE: is empty; write a MapLatencyProbe, beginning with apiVersion: maplatency.dev/v1alpha1",
        ),
        (
            "# only a comment\n---\n".to_owned(),
            "FILE: is empty; write a MapLatencyProbe, beginning with apiVersion: maplatency.dev/v1alpha1",
        ),
        (
            "just text\n".to_owned(),
            "FILE: is no MapLatencyProbe; begin with apiVersion: maplatency.dev/v1alpha1 and kind: MapLatencyProbe",
        ),
        (
            format!("{NOTHING_MATCHES}---\n{NOTHING_MATCHES}"),
            "FILE: holds several documents; write one MapLatencyProbe per file",
        ),
        (
            "kind: MapLatencyProbe\n".to_owned(),
            "FILE: apiVersion: is missing; write apiVersion: maplatency.dev/v1alpha1",
        ),
        (
            "apiVersion: maplatency.dev/v1\nkind: MapLatencyProbe\n".to_owned(),
            "FILE: apiVersion: is \"maplatency.dev/v1\"; write maplatency.dev/v1alpha1",
        ),
        (
            "apiVersion: maplatency.dev/v1alpha1\nkind: Pod\n".to_owned(),
            "FILE: kind: is \"Pod\"; write MapLatencyProbe",
        ),
        (
            with("spec: {maps: [{ids: [1]}]}\n"),
            "FILE:1:1: metadata: is missing; write metadata: {name: conntrack}",
        ),
        (
            with("metadata: {}\nspec: {maps: [{ids: [1]}]}\n"),
            "FILE: metadata.name: is missing; write a name such as conntrack",
        ),
        (
            with("metadata: {name: My_Probe}\nspec: {maps: [{ids: [1]}]}\n"),
            "FILE: metadata.name: \"My_Probe\" is no name; write at most 253 lowercase letters, digits, '-' \
             and '.', such as conntrack",
        ),
        (
            with("metadata: {name: a}\n"),
            "FILE:1:1: spec: is missing; write spec: {maps: [{names: [\"demo_*\"]}]}",
        ),
        (
            with("metadata: {name: a}\nspec: {maps: [{ids: [1]}], windowsSeconds: 9}\n"),
            "FILE:4:28: spec.windowsSeconds: is no field; write one of nodeSelector, maps, operations, callers, \
             activeReads, outliers, aggregation, objectives, windowSeconds",
        ),
        (
            with("metadata: {name: a}\nspec:\n  maps:\n  - names: demo\n"),
            "FILE:6:12: spec.maps[0].names: is the text \"demo\"; write a list, such as [a, b]",
        ),
        (
            with("metadata: {name: a}\nspec: {maps: [{ids: [1]}], operations: [lookup]}\n"),
            "FILE:4:41: spec.operations[0]: \"lookup\" is unknown; write Lookup",
        ),
        (
            with(
                "metadata: {name: a}\nspec: {maps: [{}], windowSeconds: 5, activeReads: {cpus: 3-1}}\n",
            ),
            "FILE: spec.maps[0]: needs names, types, ids, pinPaths or heldBy; to match every map write names: [\"*\"]\n\
             FILE: spec.activeReads.cpus: \"3-1\" counts down; write 1-3 instead of 3-1\n\
             FILE: spec.windowSeconds: is 5; write a number from 10 to 600",
        ),
        (
            with("\tmetadata: {name: a}\n"),
            "FILE:3:1: is no valid YAML: found a tab character that violates indentation at line 3 column 1, while \
             scanning a plain scalar",
        ),
    ];
    assert_refused(&cases);
}

#[test]
fn numbers_namespaces_and_marks_of_editors_are_told_in_words_of_the_file() {
    let head = "apiVersion: maplatency.dev/v1alpha1\nkind: MapLatencyProbe\n";
    let with = |rest: &str| format!("{head}{rest}");
    assert_refused(&[
        (
            format!(
                "\u{feff}{}",
                with("metadata: {name: a, namespace: b}\nspec: {maps: [{ids: [1]}]}\n")
            ),
            "FILE:3:21: metadata.namespace: is no field here, as probes belong to no namespace; leave it out",
        ),
        (
            with(
                "metadata: {name: a}\nspec: {maps: [{ids: [1]}], windowSeconds: 99999999999999999999999}\n",
            ),
            "FILE:4:43: spec.windowSeconds: is 99999999999999999999999; write a number of fewer digits",
        ),
        (
            with("metadata: {name: a}\nspec: {maps: [{ids: [18446744073709551615]}]}\n"),
            "FILE:4:22: spec.maps[0].ids[0]: is 18446744073709551615; write a number of fewer digits",
        ),
    ]);
}

/// Runs the agent with each text as its file, and expects the message.
fn assert_refused(cases: &[(String, &str)]) {
    for (text, message) in cases {
        let file = file(text);
        let path = file.path().to_str().unwrap();
        let output = output(&["run", "-f", path]);
        assert_eq!(
            stderr(&output),
            format!("error: {}\n", message.replace("FILE", path)),
            "{text}"
        );
        assert_eq!(
            (output.status.code(), stdout(&output)),
            (Some(2), ""),
            "{text}"
        );
    }
}

#[test]
fn a_file_of_operations_is_refused_where_none_are_kept_or_it_cannot_be_written() {
    let probe = |strategy: &str| {
        file(&format!(
            "apiVersion: maplatency.dev/v1alpha1\nkind: MapLatencyProbe\nmetadata: {{name: a}}\n\
             spec: {{maps: [{{ids: [1]}}], aggregation: {{strategy: {strategy}}}}}\n"
        ))
    };
    let (counts, direct) = (probe("SlidingWindow"), probe("Direct"));
    let run = |file: &tempfile::NamedTempFile, operations: &str| {
        let path = file.path().to_str().unwrap();
        output(&["run", "-f", path, "--operations", operations])
    };

    let refused = run(&counts, "/dev/null");
    let message = format!(
        "error: {}: spec.aggregation.strategy: is not Direct, without which single operations are not kept, as \
         --operations needs them; write strategy: Direct, or leave --operations out\n",
        counts.path().display()
    );
    assert_eq!(
        (refused.status.code(), stderr(&refused)),
        (Some(2), &*message)
    );

    let failed = run(&direct, "/nowhere/operations.csv");
    let message = "error: could not write operations to /nowhere/operations.csv: No such file or directory (os error 2)\n";
    assert_eq!((failed.status.code(), stderr(&failed)), (Some(1), message));
    let before = std::fs::read(direct.path()).unwrap();
    let same = run(&direct, direct.path().to_str().unwrap());
    let message = format!(
        "error: {}: is the file of --operations, too, which would empty it; write another path there\n",
        direct.path().display()
    );
    assert_eq!((same.status.code(), stderr(&same)), (Some(2), &*message));
    assert_eq!(std::fs::read(direct.path()).unwrap(), before);

    if may_load_probes(
        "a_file_of_operations_is_refused_where_none_are_kept_or_it_cannot_be_written",
    ) {
        let full = run(&direct, "/dev/full");
        let message = "error: could not write operations to /dev/full: No space left on device (os error 28)\n";
        assert_eq!((full.status.code(), stderr(&full)), (Some(1), message));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("probe.yaml");
    let cases = [
        (
            missing.to_str().unwrap(),
            "there is no such file; write the path of a file with a MapLatencyProbe, or - for standard input",
        ),
        (
            folder.path().to_str().unwrap(),
            "is a folder; write the path of a file in it",
        ),
        (
            "-",
            "is empty; write a MapLatencyProbe, beginning with apiVersion: maplatency.dev/v1alpha1",
        ),
    ];
    for (path, message) in cases {
        let output = output(&["run", "-f", path]);
        let name = if path == "-" { "standard input" } else { path };
        assert_eq!(stderr(&output), format!("error: {name}: {message}\n"));
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn a_file_without_end_is_refused() {
    let output = output(&["run", "-f", "/dev/zero"]);
    assert_eq!(
        stderr(&output),
        "error: /dev/zero: is larger than 1 MiB; write one MapLatencyProbe\n"
    );
    assert_eq!(output.status.code(), Some(2));
}
