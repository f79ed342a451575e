#!/usr/bin/env bash
# Builds what a cluster of kind needs beside Kubernetes and etcd, which e2e/controlplane/build.sh builds.
#
#   e2e/kind/build.sh NAME...      kind, crictl, coredns, netd, pause, peer; prints a line `NAME=PATH` for each
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../controlplane/go.sh"

crictl_version=$(sed -n 's#^[[:space:]]*sigs.k8s.io/cri-tools \(v[0-9.]*\).*#\1#p' "$here/crictl/go.mod")

program() { # name: builds it unless it is there, and prints where it is
  local name=$1 package=. flags='' folder
  case $name in
    kind) package=sigs.k8s.io/kind ;;
    crictl)
      package=sigs.k8s.io/cri-tools/cmd/crictl
      flags=" -X sigs.k8s.io/cri-tools/pkg/version.Version=$crictl_version"
      ;;
    coredns | netd | pause | peer) ;;
    *) echo "error: unknown program $name; one of kind, crictl, coredns, netd, pause and peer" >&2; exit 2 ;;
  esac
  folder=$cache/kind/$name-$(content_key "$flags" "$here/$name"/*)
  if [ ! -x "$folder/$name" ]; then
    lock_folder "$folder"
    if [ -x "$folder/$name" ]; then
      : # by the process that was waited for
    elif [ "$name" = pause ]; then
      cc -O2 -static -s -Wall -Wextra -Werror -o "$folder/.new" "$here/pause/pause.c"
      mv "$folder/.new" "$folder/pause"
    else
      build "$folder" "$here/$name" '' "$flags" "$name=$package"
    fi
  fi
  echo "$name=$folder/$name"
}
for name in "${@:?name at least one program}"; do program "$name"; done
