//! The cluster as the operator last saw it: probes, nodes and the agents' DaemonSet, reduced to what matters.
//!
//! Fed with watch events. An event that changes nothing that matters, such as a node's heartbeat or a status of
//! our own, is told apart here, so that nothing is computed for it.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use maplatency_core::{MapLatencyProbe, MapLatencyProbeSpec};

/// Whether an event changed anything that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It did.
    Some,
    /// It did not.
    None,
}

/// Objects of one kind by name.
#[derive(Debug)]
pub struct Mirror<V> {
    current: BTreeMap<String, V>,
    /// Objects of a list under way; they replace the current ones when it is complete.
    listed: BTreeMap<String, V>,
    complete: bool,
}

impl<V> Default for Mirror<V> {
    fn default() -> Self {
        Self {
            current: BTreeMap::new(),
            listed: BTreeMap::new(),
            complete: false,
        }
    }
}

impl<V: PartialEq> Mirror<V> {
    /// The objects, once all were listed for the first time.
    pub fn complete(&self) -> Option<&BTreeMap<String, V>> {
        self.complete.then_some(&self.current)
    }

    fn apply<K: kube::Resource>(&mut self, event: Event<K>, matters: impl Fn(K) -> V) -> Change {
        let changed = match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(object) => {
                self.listed.insert(object.name_any(), matters(object));
                false
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let changed = !self.complete || listed != self.current;
                self.current = listed;
                self.complete = true;
                changed
            }
            Event::Apply(object) => {
                let (name, value) = (object.name_any(), matters(object));
                let changed = self.current.get(&name) != Some(&value);
                self.current.insert(name, value);
                changed
            }
            Event::Delete(object) => self.current.remove(&object.name_any()).is_some(),
        };
        if changed { Change::Some } else { Change::None }
    }
}

/// What matters of a probe for where it is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// The resource's uid.
    pub uid: String,
    /// The generation of the spec.
    pub generation: i64,
    /// The spec.
    pub spec: MapLatencyProbeSpec,
    /// Whether it is there to stay.
    pub life: Life,
}

/// Whether an object is there to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is.
    Live,
    /// It was deleted, and finalizers keep it.
    Deleting,
}

/// The agents' DaemonSet.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployed {
    /// Without its status.
    pub set: DaemonSet,
    /// What matters of its status.
    pub rollout: Rollout,
}

/// How far the agents' pods are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// Pods that there should be.
    pub desired: i32,
    /// Pods that run.
    pub ready: i32,
    /// Pods of the newest template.
    pub updated: i32,
}

/// Labels of a node.
pub type Labels = BTreeMap<String, String>;

/// All three kinds.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Probes by name.
    pub probes: Mirror<Probe>,
    /// Nodes by name.
    pub nodes: Mirror<Labels>,
    /// The agents' DaemonSet, if there is one.
    pub agents: Mirror<Deployed>,
}

impl Inventory {
    /// Takes an event of a probe.
    pub fn probe(&mut self, event: Event<MapLatencyProbe>) -> Change {
        self.probes.apply(event, |it| Probe {
            uid: it.metadata.uid.unwrap_or_default(),
            generation: it.metadata.generation.unwrap_or_default(),
            life: match it.metadata.deletion_timestamp {
                Some(_) => Life::Deleting,
                None => Life::Live,
            },
            spec: it.spec,
        })
    }

    /// Takes an event of a node.
    pub fn node(&mut self, event: Event<PartialObjectMeta<Node>>) -> Change {
        self.nodes
            .apply(event, |it| it.metadata.labels.unwrap_or_default())
    }

    /// Takes an event of the agents' DaemonSet.
    pub fn agents(&mut self, event: Event<DaemonSet>) -> Change {
        self.agents.apply(event, |mut it| {
            let status = it.status.take().unwrap_or_default();
            it.metadata.managed_fields = None;
            it.metadata.resource_version = None;
            Deployed {
                set: it,
                rollout: Rollout {
                    desired: status.desired_number_scheduled,
                    ready: status.number_ready,
                    updated: status.updated_number_scheduled.unwrap_or_default(),
                },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::ObjectMeta;

    fn node(name: &str, label: &str) -> PartialObjectMeta<Node> {
        PartialObjectMeta {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(Labels::from([("pool".to_owned(), label.to_owned())])),
                ..ObjectMeta::default()
            },
            ..PartialObjectMeta::default()
        }
    }

    fn names(inventory: &Inventory) -> Option<Vec<&str>> {
        let nodes = inventory.nodes.complete()?;
        Some(nodes.keys().map(String::as_str).collect())
    }

    #[test]
    fn nothing_is_known_before_the_first_list_is_complete() {
        let mut inventory = Inventory::default();
        inventory.node(Event::Init);
        inventory.node(Event::InitApply(node("a", "x")));
        assert_eq!(names(&inventory), None);
        assert_eq!(inventory.node(Event::InitDone), Change::Some);
        assert_eq!(names(&inventory), Some(vec!["a"]));
    }

    #[test]
    fn a_new_list_drops_what_was_deleted_unseen() {
        let mut inventory = Inventory::default();
        inventory.node(Event::InitDone);
        inventory.node(Event::Apply(node("a", "x")));
        inventory.node(Event::Init);
        inventory.node(Event::InitApply(node("b", "x")));
        assert_eq!(names(&inventory), Some(vec!["a"]));
        assert_eq!(inventory.node(Event::InitDone), Change::Some);
        assert_eq!(names(&inventory), Some(vec!["b"]));
    }

    #[test]
    fn a_heartbeat_changes_nothing_and_a_label_does() {
        let mut inventory = Inventory::default();
        inventory.node(Event::InitDone);
        assert_eq!(inventory.node(Event::Apply(node("a", "x"))), Change::Some);
        assert_eq!(inventory.node(Event::Apply(node("a", "x"))), Change::None);
        assert_eq!(inventory.node(Event::Apply(node("a", "y"))), Change::Some);
        assert_eq!(inventory.node(Event::Delete(node("a", "y"))), Change::Some);
        assert_eq!(inventory.node(Event::Delete(node("a", "y"))), Change::None);
    }
}
