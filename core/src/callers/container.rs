//! The pod and the container that a cgroup belongs to, by its name.
//!
//! Kubelet names the cgroups of pods, and the container runtime those of containers, each in two ways: as systemd
//! names its units, or as plain directories (the `cgroupDriver` of both). The names are the same on both versions of
//! cgroups. Sources: `pkg/kubelet/cm/cgroup_manager_linux.go` of Kubernetes, and the documentation of containerd,
//! CRI-O and Docker on their cgroup drivers.

/// What a cgroup's name tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Container {
    /// The uid of the pod.
    pub pod_uid: Option<String>,
    /// The container runtime's id, 64 hexadecimal digits.
    pub container_id: Option<String>,
}

/// What the runtimes write before the id of a container.
const PREFIXES: [&str; 4] = ["cri-containerd-", "crio-", "docker-", "libpod-"];

/// Finds the container of a cgroup. `names` are its own name and those of the cgroups above it.
pub fn container_of(names: &[&str]) -> Container {
    Container {
        pod_uid: names.iter().find_map(|it| pod_uid(it)),
        container_id: names.iter().find_map(|it| container_id(it)),
    }
}

/// `pod1b4e28ba-2fa1-11d2-883f-0016d3cca427`, or `kubepods-burstable-pod1b4e28ba_2fa1_….slice`.
fn pod_uid(name: &str) -> Option<String> {
    let unit = name
        .strip_suffix(".slice")
        .and_then(|it| it.rsplit('-').next());
    let uid = unit.unwrap_or(name).strip_prefix("pod")?.replace('_', "-");
    // A static pod's uid is a hash of its manifest.
    let is_uid = uid.len() == 36 && uid.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    let is_hash = uid.len() == 32;
    let is_hexadecimal = uid.bytes().all(|it| it.is_ascii_hexdigit() || it == b'-');
    (is_hexadecimal && (is_uid || is_hash)).then_some(uid)
}

/// 64 digits, alone or as `cri-containerd-….scope`.
fn container_id(name: &str) -> Option<String> {
    let unit = name.strip_suffix(".scope").unwrap_or(name);
    let id = PREFIXES
        .iter()
        .find_map(|it| unit.strip_prefix(it))
        .unwrap_or(unit);
    let is_id = id.len() == 64 && id.bytes().all(|it| it.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "1b4e28ba-2fa1-11d2-883f-0016d3cca427";
    const HASH: &str = "0123456789abcdef0123456789abcdef";
    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// Path as under the mount of the memory controller, uid of the pod, whether there is a container.
    const PATHS: [(&str, &str, Option<&str>, bool); 15] = [
        (
            "systemd, containerd, burstable",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_.slice/cri-containerd-I.scope",
            Some(UID),
            true,
        ),
        (
            "systemd, containerd, guaranteed",
            "/kubepods.slice/kubepods-podU_.slice/cri-containerd-I.scope",
            Some(UID),
            true,
        ),
        (
            "systemd in kind",
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podU_.slice/cri-containerd-I.scope",
            Some(UID),
            true,
        ),
        (
            "systemd, CRI-O",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_.slice/crio-I.scope",
            Some(UID),
            true,
        ),
        (
            "systemd, CRI-O with a cgroup below",
            "/kubepods.slice/kubepods-podU_.slice/crio-I.scope/container",
            Some(UID),
            true,
        ),
        (
            "systemd, CRI-O's monitor",
            "/kubepods.slice/kubepods-podU_.slice/crio-conmon-I.scope",
            Some(UID),
            false,
        ),
        (
            "cgroupfs, containerd",
            "/kubepods/burstable/podU/I",
            Some(UID),
            true,
        ),
        ("cgroupfs, guaranteed", "/kubepods/podU/I", Some(UID), true),
        (
            "cgroupfs in kind",
            "/kubelet/kubepods/besteffort/podU/I",
            Some(UID),
            true,
        ),
        ("cgroupfs, CRI-O", "/kubepods/podU/crio-I", Some(UID), true),
        (
            "a static pod",
            "/kubepods/burstable/podH/I",
            Some(HASH),
            true,
        ),
        ("Docker, cgroupfs", "/docker/I", None, true),
        (
            "Docker, systemd",
            "/system.slice/docker-I.scope",
            None,
            true,
        ),
        ("a service", "/system.slice/nginx.service", None, false),
        (
            "names that only begin alike",
            "/podman/pods/podium.slice/docker-short.scope",
            None,
            false,
        ),
    ];

    #[test]
    fn pods_and_containers_are_found_in_paths_of_every_shape() {
        for (what, path, pod, is_container) in PATHS {
            let path = path
                .replace("U_", &UID.replace('-', "_"))
                .replace("podU", &format!("pod{UID}"))
                .replace("podH", &format!("pod{HASH}"))
                .replace("-I", &format!("-{ID}"))
                .replace("/I", &format!("/{ID}"));
            let mut names: Vec<&str> = path.split('/').skip(1).collect();
            names.reverse();
            names.truncate(4);
            let expected = Container {
                pod_uid: pod.map(str::to_owned),
                container_id: is_container.then(|| ID.to_owned()),
            };
            assert_eq!(container_of(&names), expected, "{what}");
        }
    }

    #[test]
    fn the_root_is_no_container() {
        assert_eq!(container_of(&[]), Container::default());
    }
}
