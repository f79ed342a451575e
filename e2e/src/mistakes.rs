//! Mistakes that users make in a probe, and what they are told.

/// Specs that the API server refuses, and a part of what kubectl then says.
pub const REFUSED: [(&str, &str); 36] = [
    ("{}", "spec.maps: Required value"),
    (
        "{maps: []}",
        "spec.maps in body should have at least 1 items",
    ),
    (
        "{maps: [{}]}",
        "an entry of maps needs names, types, ids, pinPaths or heldBy; to match every map write names: [\"*\"]",
    ),
    (
        "{maps: [{pinPaths: ['tc/globals/*']}]}",
        "spec.maps[0].pinPaths[0] in body should match",
    ),
    (
        "{maps: [{heldBy: {}}]}",
        "heldBy needs commands or cgroups; to match maps whoever holds them leave heldBy out",
    ),
    (
        "{maps: [{heldBy: {cgroups: [/kubepods]}}]}",
        "spec.maps[0].heldBy.cgroups[0] in body should match",
    ),
    (
        "{maps: [{names: []}]}",
        "spec.maps[0].names in body should have at least 1 items",
    ),
    (
        "{maps: [{names: ['']}]}",
        "spec.maps[0].names[0] in body should be at least 1 chars long",
    ),
    (
        "{maps: [{names: ['ä']}]}",
        "spec.maps[0].names[0] in body should match",
    ),
    (
        "{maps: [{names: [a, a]}]}",
        "spec.maps[0].names[1]: Duplicate value: \"a\"",
    ),
    (
        "{maps: [{types: [Hsh]}]}",
        "spec.maps[0].types[0]: Unsupported value: \"Hsh\": supported values: \"Hash\"",
    ),
    (
        "{maps: [{ids: [0]}]}",
        "spec.maps[0].ids[0] in body should be greater than or equal to 1",
    ),
    (
        "{maps: [{ids: ['7']}]}",
        "spec.maps[0].ids[0] in body must be of type integer",
    ),
    (
        "{maps: [{ids: [1]}], operations: []}",
        "spec.operations in body should have at least 1 items",
    ),
    (
        "{maps: [{ids: [1]}], operations: [Read]}",
        "spec.operations[0]: Unsupported value: \"Read\"",
    ),
    (
        "{maps: [{ids: [1]}], operations: [Lookup, Lookup]}",
        "spec.operations[1]: Duplicate value: \"Lookup\"",
    ),
    (
        "{maps: [{ids: [1]}], callers: {}}",
        "callers needs commands or excludeCommands; to measure every caller leave callers out",
    ),
    (
        "{maps: [{ids: [1]}], callers: {commands: [a], excludeCommands: [a]}}",
        "a pattern stands in both commands and excludeCommands; take it out of one of them",
    ),
    (
        "{maps: [{ids: [1]}], activeReads: {cpus: all}}",
        "spec.activeReads.cpus in body should match",
    ),
    (
        "{maps: [{ids: [1]}], activeReads: {periodMilliseconds: 1}}",
        "spec.activeReads.periodMilliseconds in body should be greater than or equal to 10",
    ),
    (
        "{maps: [{ids: [1]}], activeReads: {method: Batch}}",
        "spec.activeReads.method: Unsupported value: \"Batch\"",
    ),
    (
        "{maps: [{ids: [1]}], windowSeconds: 5}",
        "spec.windowSeconds in body should be greater than or equal to 10",
    ),
    (
        "{maps: [{ids: [1]}], aggregation: {oneIn: 8}}",
        "oneIn goes with strategy Sampled only; write strategy: Sampled, or leave oneIn out",
    ),
    (
        "{maps: [{ids: [1]}], aggregation: {strategy: Sampled, oneIn: 3}}",
        "spec.aggregation.oneIn: Unsupported value: 3: supported values: ",
    ),
    (
        "{maps: [{ids: [1]}], aggregation: {strategy: Direct, lastOperations: 256}}",
        "lastOperations goes with strategy SlidingWindow only; write strategy: SlidingWindow, or leave lastOperations out",
    ),
    (
        "{maps: [{ids: [1]}], aggregation: {strategy: SlidingWindow, lastOperations: 255}}",
        "spec.aggregation.lastOperations in body should be greater than or equal to 256",
    ),
    (
        "{maps: [{ids: [1]}], windowSeconds: 601}",
        "spec.windowSeconds in body should be less than or equal to 600",
    ),
    (
        "{maps: [{ids: [1]}], windowSeconds: 60s}",
        "spec.windowSeconds in body must be of type integer",
    ),
    (
        "{maps: [{ids: [1]}], nodeSelector: {matchExpressions: [{key: a, operator: In}]}}",
        "operators In and NotIn need values; write values: [...]",
    ),
    (
        "{maps: [{ids: [1]}], nodeSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
        "operators Exists and DoesNotExist take no values; leave values out",
    ),
    (
        "{maps: [{ids: [1]}], nodeSelector: {matchExpressions: [{key: a, operator: Gt, values: ['1']}]}}",
        "Unsupported value: \"Gt\"",
    ),
    (
        "{maps: [{ids: [1]}], objectives: [{name: a, operation: Update, thresholdMicroseconds: 5}]}",
        "an objective is about an operation that is not measured; add it to operations",
    ),
    (
        "{maps: [{ids: [1]}], objectives: [{name: A, operation: Lookup, thresholdMicroseconds: 5}]}",
        "spec.objectives[0].name in body should match",
    ),
    (
        "{maps: [{ids: [1]}], objectives: [{name: a, operation: Lookup}]}",
        "spec.objectives[0].thresholdMicroseconds: Required value",
    ),
    (
        "{maps: [{ids: [1]}], objectives: [{name: a, operation: Lookup, thresholdMicroseconds: 5, percentile: P95}]}",
        "spec.objectives[0].percentile: Unsupported value: \"P95\"",
    ),
    (
        "{maps: [{ids: [1]}], window: 5}",
        "unknown field \"spec.window\"",
    ),
];

/// Specs that no schema can refuse, and what the condition then says.
pub const INVALID: [(&str, &str); 5] = [
    (
        "{maps: [{ids: [1]}], activeReads: {cpus: '3-1'}}",
        "spec.activeReads.cpus: \"3-1\" counts down; write 1-3 instead of 3-1",
    ),
    (
        "{maps: [{ids: [1]}], activeReads: {cpus: '9000'}}",
        "spec.activeReads.cpus: \"9000\" names CPU 9000; the highest number is 8191",
    ),
    (
        "{maps: [{names: ['*xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx']}]}",
        "has more than 15 characters besides \"*\"",
    ),
    (
        "{maps: [{ids: [1]}], nodeSelector: {matchLabels: {'bad key': a}}}",
        "\"bad key\" is no label key; write a name of letters, digits, '-', '_' and '.'",
    ),
    (
        "{maps: [{ids: [1]}], nodeSelector: {matchLabels: {pool: '-x'}}}",
        "\"-x\" is no label value; write at most 63 letters, digits, '-', '_' and '.'",
    ),
];
