//! What kind is told to make.

use std::path::Path;

use serde_json::{Value, json};

/// What nodes get from this machine: sysfs comes with them, these do not.
pub(super) const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/fs/bpf"];

/// One control plane and two workers, as JSON, which is YAML too.
///
/// `own_image` allows settings that only the Kubernetes version of our image surely takes.
pub(super) fn cluster(own_image: bool) -> Value {
    let mounts: Vec<_> = MOUNTS
        .iter()
        .map(|path| json!({"hostPath": path, "containerPath": path}))
        .collect();
    let node = |role: &str| json!({"role": role, "extraMounts": mounts});
    let mut patches = Vec::new();
    // kubelets refuse version 1 of cgroups unless they are told not to.
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        patches.push("kind: KubeletConfiguration\nfailCgroupV1: false\n");
    }
    if own_image {
        // The data need not survive the machine.
        patches.push(
            "kind: ClusterConfiguration\netcd:\n  local:\n    extraArgs:\n    - name: unsafe-no-fsync\n      value: \"true\"\n",
        );
    }
    json!({
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "kind": "Cluster",
        "nodes": [node("control-plane"), node("worker"), node("worker")],
        "kubeadmConfigPatches": patches,
    })
}
