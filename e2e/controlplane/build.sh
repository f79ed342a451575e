#!/usr/bin/env bash
# Builds Kubernetes and etcd from their Go modules.
#
#   e2e/controlplane/build.sh           etcd, kube-apiserver and kubectl, for the tests against a real API server
#   e2e/controlplane/build.sh --node    these and all else that the nodes of a cluster run
#
# Prints the folder that holds them, on its last line. KUBEBUILDER_ASSETS, where set, is used instead; not with
# --node, as all programs of a node must be of one version.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/go.sh"

programs=(etcd kube-apiserver kubectl)
case "${1:-} $#" in
  ' 0') ;;
  '--node 1')
    programs+=(kube-controller-manager kube-proxy kube-scheduler kubeadm kubelet)
    unset KUBEBUILDER_ASSETS
    ;;
  *) echo "error: unknown arguments $*; none, or --node" >&2; exit 2 ;;
esac
missing_in() { # folder: prints the programs it lacks
  local program
  for program in "${programs[@]}"; do [ -x "$1/$program" ] || echo "$program"; done
}

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
  missing=$(missing_in "$KUBEBUILDER_ASSETS" | paste -sd' ')
  if [ -n "$missing" ]; then
    echo "error: KUBEBUILDER_ASSETS is $KUBEBUILDER_ASSETS, which lacks: $missing" >&2
    echo "  Put them there, or unset KUBEBUILDER_ASSETS and they are built from source." >&2
    exit 1
  fi
  echo "$KUBEBUILDER_ASSETS"
  exit 0
fi

version_of() { sed -n "s#^[[:space:]]*$2 \(v[0-9.]*\).*#\1#p" "$here/$1/go.mod" | head -1; }
kube=$(version_of kube k8s.io/kubernetes)
etcd=$(version_of etcd go.etcd.io/etcd/server/v3)

# Without this stamp the programs call themselves v0.0.0-master and refuse version checks.
stamp=''
minor=${kube#v1.}
for package in component-base client-go/pkg; do
  for value in gitVersion="$kube" gitMajor=1 gitMinor="${minor%%.*}" gitTreeState=clean; do
    stamp+=" -X k8s.io/$package/version.$value"
  done
done
tags=selinux,notest,grpcnotrace

key=$(content_key "$tags$stamp" "$here"/{kube,etcd}/go.{mod,sum})
bin=$cache/controlplane/kube-$kube-etcd-$etcd-$key
if [ -n "$(missing_in "$bin")" ]; then
  lock_folder "$bin"
  [ -x "$bin/etcd" ] || build "$bin" "$here/etcd" "$tags" '' etcd=go.etcd.io/etcd/server/v3
  missing=()
  for program in $(missing_in "$bin"); do missing+=("$program=k8s.io/kubernetes/cmd/$program"); done
  [ "${#missing[@]}" = 0 ] || build "$bin" "$here/kube" "$tags" "$stamp" "${missing[@]}"
fi
echo "$bin"
