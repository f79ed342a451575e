//! Which maps an entry of `spec.maps` matches.

use crate::crd::spec::{HeldBy, MapSelector};
use crate::glob::Glob;
use crate::path_glob::PathGlob;
use crate::vocabulary::{MapIdentity, MapType};

use super::problems::{COMMANDS, Empty, Problems, Room, check_globs};

const NAMES: Room = Room {
    items: 16,
    characters: 63,
};
const PATHS: Room = Room {
    items: 16,
    characters: 255,
};
const CGROUPS: Room = Room {
    items: 8,
    characters: 255,
};

/// What ties a map to user space. By default nothing does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ties<'a> {
    /// Paths at which it is pinned.
    pub pins: &'a [String],
    /// Processes that hold it open.
    pub holders: &'a [Holder],
}

/// A process that holds a map open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The command of its main thread, at most 15 bytes.
    pub command: String,
    /// The end of its memory cgroup's path, at most four names; empty at the root.
    pub cgroup: String,
}

/// One entry of `spec.maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapMatcher {
    names: Option<Vec<Glob>>,
    types: Option<Vec<MapType>>,
    ids: Option<Vec<u32>>,
    pub(super) pin_paths: Option<Vec<PathGlob>>,
    pub(super) held_by: Option<HolderMatcher>,
}

/// `spec.maps[].heldBy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HolderMatcher {
    commands: Option<Vec<Glob>>,
    cgroups: Option<Vec<PathGlob>>,
}

impl HolderMatcher {
    fn matches(&self, holder: &Holder) -> bool {
        let command = self
            .commands
            .as_ref()
            .is_none_or(|all| all.iter().any(|it| it.matches(&holder.command)));
        let cgroup = self
            .cgroups
            .as_ref()
            .is_none_or(|all| all.iter().any(|it| it.matches(&holder.cgroup)));
        command && cgroup
    }
}

impl MapMatcher {
    pub(super) fn matches(&self, map: &MapIdentity, ties: Ties<'_>) -> bool {
        let name = self
            .names
            .as_ref()
            .is_none_or(|all| all.iter().any(|it| it.matches(&map.name)));
        let map_type = self
            .types
            .as_ref()
            .is_none_or(|all| map.map_type.is_some_and(|it| all.contains(&it)));
        let id = self.ids.as_ref().is_none_or(|all| all.contains(&map.id));
        let pinned = self.pin_paths.as_ref().is_none_or(|all| {
            let pins = |glob: &PathGlob| ties.pins.iter().any(|it| glob.matches(it));
            all.iter().any(pins)
        });
        let held = self
            .held_by
            .as_ref()
            .is_none_or(|wanted| ties.holders.iter().any(|it| wanted.matches(it)));
        name && map_type && id && pinned && held
    }
}

pub(super) fn check_maps(
    at: usize,
    selector: &MapSelector,
    problems: &mut Problems,
) -> Option<MapMatcher> {
    let path = format!("spec.maps[{at}]");
    let MapSelector {
        names,
        types,
        ids,
        pin_paths,
        held_by,
    } = selector;
    let given = [
        names.is_some(),
        types.is_some(),
        ids.is_some(),
        pin_paths.is_some(),
        held_by.is_some(),
    ];
    if !given.contains(&true) {
        problems.add(
            path,
            "needs names, types, ids, pinPaths or heldBy; to match every map write names: [\"*\"]",
        );
        return None;
    }
    let empty = Empty::among(given);
    if let Some(types) = types {
        problems.set(&format!("{path}.types"), types, 33, empty);
    }
    let ids = ids.as_ref().map(|ids| {
        problems.set(&format!("{path}.ids"), ids, 64, empty);
        ids.iter()
            .enumerate()
            .map(|(n, id)| problems.range(&format!("{path}.ids[{n}]"), *id, 1, 2_147_483_647))
            .map(|id| u32::try_from(id).unwrap_or(u32::MAX))
            .collect()
    });
    let names = names
        .as_ref()
        .map(|it| check_globs(&format!("{path}.names"), it, NAMES, empty, problems));
    let pin_paths = pin_paths
        .as_ref()
        .map(|it| check_pin_paths(&format!("{path}.pinPaths"), it, empty, problems));
    let held_by = held_by
        .as_ref()
        .map(|it| check_holders(&format!("{path}.heldBy"), it, problems));
    Some(MapMatcher {
        names,
        types: types.clone(),
        ids,
        pin_paths,
        held_by,
    })
}

fn check_pin_paths(
    path: &str,
    patterns: &[String],
    empty: Empty,
    problems: &mut Problems,
) -> Vec<PathGlob> {
    for (n, pattern) in patterns.iter().enumerate() {
        if !pattern.is_empty() && !pattern.starts_with('/') {
            let advice = format!(
                "{pattern:?} does not begin with /; write a whole path, such as \"/sys/fs/bpf/tc/globals/*\""
            );
            problems.add(format!("{path}[{n}]"), advice);
        }
    }
    check_globs(path, patterns, PATHS, empty, problems)
}

fn check_holders(path: &str, held_by: &HeldBy, problems: &mut Problems) -> HolderMatcher {
    let HeldBy { commands, cgroups } = held_by;
    if commands.is_none() && cgroups.is_none() {
        problems.add(
            path,
            "needs commands or cgroups; to match maps whoever holds them leave heldBy out",
        );
    }
    let empty = Empty::among([commands.is_some(), cgroups.is_some()]);
    let commands = commands
        .as_ref()
        .map(|it| check_globs(&format!("{path}.commands"), it, COMMANDS, empty, problems));
    let cgroups = cgroups.as_ref().map(|it| {
        for (n, pattern) in it.iter().enumerate() {
            if pattern.starts_with('/') {
                let advice = format!(
                    "{pattern:?} begins with /, but only the end of a cgroup's path is known; write \"**{pattern}\""
                );
                problems.add(format!("{path}.cgroups[{n}]"), advice);
            }
        }
        check_globs(&format!("{path}.cgroups"), it, CGROUPS, empty, problems)
    });
    HolderMatcher { commands, cgroups }
}
