#!/usr/bin/env bash
# Makes the image of a kind node out of Debian packages, kind's own files and programs built from Go modules, for
# machines that can pull no image. It is loaded into Docker, and its name is printed on the last line.
#
#   e2e/kind/node-image.sh          as root; a Docker daemon must answer
#
# The name says what the image was made of, so that one which is there already need not be made again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../controlplane/go.sh"

# systemd 252 of bookworm boots on cgroup v1 as well as on v2; later ones refuse v1.
suite=bookworm
packages=(
  systemd systemd-sysv dbus procps kmod util-linux mount
  iproute2 iptables nftables conntrack ethtool socat
  containerd runc containernetworking-plugins
  ca-certificates curl jq e2fsprogs
)

begin=$SECONDS
step() { echo "  $((SECONDS - begin)) s: $*" >&2; }
fail() { echo "error: $*" >&2; exit 1; }

kube=$("$here/../controlplane/build.sh" --node | tail -n1)
declare -A program
while IFS='=' read -r name path; do program[$name]=$path; done < <("$here/build.sh" kind crictl coredns netd pause)
[ "${#program[@]}" = 5 ] || exit 1
version=$("$kube/kubeadm" version -o short)

key=$(content_key "${kube##*/} ${program[*]#"$cache"} $suite ${packages[*]}" "$here"/{node-image,image}.sh "$here"/node/*)
repository=localhost/maplatency-node
image=$repository:$version-$key
made_before() {
  docker image inspect "$image" > /dev/null 2>&1 || return
  echo "$image"
  exit 0
}
made_before || true

[ "$EUID" = 0 ] || fail "only root can make a node image (debootstrap, chroot)"
begin=$SECONDS
lock_folder "$cache/kind"
made_before || true # by the process that was waited for
echo "making the node image $image (once)" >&2
# Of a run that was killed.
rm -rf --one-file-system "$cache"/kind/node-??????
work=$(mktemp -d -p "$cache/kind" node-XXXXXX)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root images=$work/images
mkdir -p "$root" "$images"

debian() { # the base of every node, kept as an archive
  local base mirror
  base=$cache/kind/debian-$suite-$(content_key "${packages[*]}").tar
  if [ ! -f "$base" ]; then
    command -v debootstrap > /dev/null || fail "debootstrap is missing; on Debian: apt-get install debootstrap"
    # From where this machine gets its own packages, if they are of that release.
    mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' "Created-By: Packages" 2> /dev/null |
      awk -v suite=$suite '$1 == suite { print $2; exit }')
    step "debootstrap of Debian $suite"
    debootstrap --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" $suite "$work/debian" \
      ${mirror:+"$mirror"} > "$work/debootstrap.log" 2>&1 ||
      { tail -n20 "$work/debootstrap.log" "$work"/debian/debootstrap/debootstrap.log >&2; fail "debootstrap failed"; }
    (cd "$work/debian" && rm -rf debootstrap var/cache/apt/* var/lib/apt/lists/* etc/apt/sources.list* var/log/* \
      usr/share/{doc,info,locale,man,zoneinfo}/*)
    tar -C "$work/debian" -cf "$base.new" .
    mv "$base.new" "$base"
    rm -rf "$work/debian"
  fi
  tar -C "$root" -xf "$base"
}

# What kind's images/base/Dockerfile does, of the same version as the program.
kind_files() {
  local files wants
  files=$(cd "$here/kind" && go mod download sigs.k8s.io/kind && go list -m -f '{{.Dir}}' sigs.k8s.io/kind)/images/base/files
  cp -r --no-preserve=mode "$files"/{etc,kind,usr} "$root/"
  chmod 755 "$root"/usr/local/bin/* "$root"/kind/bin/*
  rm "$root"/etc/systemd/system/containerd-fuse-overlayfs.service
  for wants in etc/systemd/system/*.wants lib/systemd/system/{multi-user,local-fs,basic}.target.wants; do
    rm -f "$root/"$wants/*
  done
  rm -f "$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}* \
    "$root"/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service
  echo "ReadKMsg=no" >> "$root/etc/systemd/journald.conf"
  chroot "$root" systemctl -q enable kubelet.service containerd.service undo-mount-hacks.service
  chroot "$root" systemctl -q mask systemd-binfmt.service
  chroot "$root" ctr oci spec |
    jq '.hooks.createContainer += [{path: "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
      > "$root/etc/containerd/cri-base.json"
}

# What differs between kind's image and Debian's packages.
adapt() {
  local name
  # kind's units and configuration name these paths.
  for name in containerd containerd-shim-runc-v2 ctr; do ln -s "/usr/bin/$name" "$root/usr/local/bin/$name"; done
  mkdir -p "$root/opt/cni" "$root/etc/kubernetes/manifests" "$root/kind/manifests"
  ln -s /usr/lib/cni "$root/opt/cni/bin"
  ln -sf /usr/lib/systemd/systemd "$root/sbin/init"
  # Every node makes its own.
  rm -f "$root"/etc/machine-id "$root"/var/lib/dbus/machine-id
  # These are of the whole machine, and not for a node to change.
  rm -f "$root"/usr/lib/sysctl.d/* "$root"/etc/sysctl.d/99-sysctl.conf
  # Where root itself may not lower a score (no CAP_SYS_RESOURCE), runc would fail.
  sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' "$root/etc/containerd/config.toml"
}

kubernetes() {
  install -m 755 "$kube"/{kubeadm,kubectl,kubelet} "$root/usr/bin/"
  install -m 755 "${program[crictl]}" "$root/usr/local/bin/"
  echo -n "$version" > "$root/kind/version"
  install -m 644 "$here/node/network.yaml" "$root/kind/manifests/default-cni.yaml"
  install -m 644 "$here/node/storage.yaml" "$root/kind/manifests/default-storage.yaml"
}

container_image() { # name, program, path in the image
  local tree=$images/${2##*/}
  install -D -m 755 "$2" "$tree$3"
  mkdir -p "$tree/tmp" "$tree/etc"
  "$here/image.sh" "$1" "$tree" "{\"Entrypoint\": [\"$3\"]}" > "$tree.tar"
  rm -rf "$tree"
}

# kube-proxy runs iptables and conntrack, which come with their libraries and those of iptables' modules.
kube_proxy_tree() {
  local tree=$images/kube-proxy file link
  local files=(/usr/sbin/xtables-nft-multi /usr/sbin/conntrack)
  mapfile -t -O 2 files < <(cd "$root" && find usr/lib/*/xtables -name '*.so' -printf '/%p\n')
  mkdir -p "$tree"/usr/{bin,lib,lib64,sbin} "$tree/run"
  for link in bin lib lib64 sbin; do ln -s "usr/$link" "$tree/$link"; done
  while read -r file; do
    mkdir -p "$tree${file%/*}" && cp -L "$root$file" "$tree$file"
  done < <({ printf '%s\n' "${files[@]}"; chroot "$root" ldd "${files[@]}" | grep -o '/[^ :]*'; } | sort -u)
  for link in {iptables,ip6tables}{,-save,-restore}; do ln -s xtables-nft-multi "$tree/usr/sbin/$link"; done
}

# The images under the names that kubeadm looks for, and that of the network.
container_images() {
  local name component
  for name in $("$kube/kubeadm" config images list --kubernetes-version "$version" 2> /dev/null); do
    component=${name##*/} component=${component%:*}
    case $component in
      coredns) container_image "$name" "${program[coredns]}" /coredns ;;
      pause)
        container_image "$name" "${program[pause]}" /pause
        sed -i "s#sandbox_image = .*#sandbox_image = \"$name\"#" "$root/etc/containerd/config.toml"
        ;;
      kube-proxy)
        kube_proxy_tree
        container_image "$name" "$kube/kube-proxy" /usr/local/bin/kube-proxy
        ;;
      *) container_image "$name" "$kube/$component" "/usr/local/bin/$component" ;;
    esac
  done
  container_image localhost/netd:node "${program[netd]}" /netd
}

# By the containerd of the image itself, so that no other version touches its store.
preload() {
  printf 'version = 2\nstate = "/run/preload"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' > "$images/config.toml"
  cat > "$images/preload" << 'P'
containerd --config /mnt/config.toml > /mnt/containerd.log 2>&1 &
for _ in $(seq 100); do ctr version > /dev/null 2>&1 && break; sleep 0.1; done
for archive in /mnt/*.tar; do ctr -n k8s.io images import --no-unpack "$archive" > /dev/null || exit; done
kill %1 && wait
P
  # The mounts and processes end with their namespaces.
  unshare --mount --pid --fork --kill-child bash -euc '
    mount -t proc proc "$1/proc"
    mount --bind "$2" "$1/mnt"
    chroot "$1" bash /mnt/preload' - "$root" "$images" ||
    { tail -n20 "$images/containerd.log" >&2; fail "containerd did not take the images; its log ends above"; }
  rm -rf "$images" "$root"/run/*
}

debian
step "kind's files"
kind_files
adapt
kubernetes
step "images of Kubernetes"
container_images
preload
step "loading it into Docker"
"$here/image.sh" "$image" "$root" \
  '{"Env": ["container=docker"], "StopSignal": "SIGRTMIN+3", "Entrypoint": ["/usr/local/bin/entrypoint", "/sbin/init"]}' |
  docker load > /dev/null
# Only the newest is of use.
for old in $(docker image ls -q --filter "reference=$repository" --filter "before=$image"); do
  docker image rm "$old" > /dev/null 2>&1 || true
done
step "done, $(docker image inspect -f '{{.Size}}' "$image" | awk '{ printf "%.0f", $1 / 1e6 }') MB"
echo "$image"
