#!/usr/bin/env bash
# Builds kube-apiserver, kubectl and etcd from their Go modules, for the tests against a real API server.
#
#   e2e/controlplane/build.sh        prints the folder that holds the three binaries, on its last line
#
# The folder lies in the user's cache, outside the sources, and is named after the versions, so that a second
# run finds it and a new version never meets an old binary. KUBEBUILDER_ASSETS, where set, is used instead.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

programs=(etcd kube-apiserver kubectl)
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
bin=${MAPLATENCY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/maplatency}/controlplane/kube-$kube-etcd-$etcd

if [ -z "$(missing_in "$bin")" ]; then
  echo "$bin"
  exit 0
fi

if ! command -v go > /dev/null; then
  echo "error: go is not on the PATH; the API tests build kube-apiserver $kube and etcd $etcd with it" >&2
  echo "  Install Go 1.26 or newer, or set KUBEBUILDER_ASSETS to a folder that holds: ${programs[*]}" >&2
  exit 1
fi

export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-trimpath
mkdir -p "$bin"

# Without this stamp kube-apiserver calls itself v0.0.0-master and refuses version checks.
stamp=''
minor=${kube#v1.}
for package in component-base client-go/pkg; do
  for value in gitVersion="$kube" gitMajor=1 gitMinor="${minor%%.*}" gitTreeState=clean; do
    stamp+=" -X k8s.io/$package/version.$value"
  done
done

# Go prints nothing for minutes, so a line a minute says that it is still at work.
build() { # name, module, flags, package
  local begin=$SECONDS next=60 pid
  echo "building $1 (once; kept in $bin)" >&2
  (cd "$here/$2" && exec go build -tags selinux,notest,grpcnotrace -ldflags "-s -w$3" -o "$bin/.$1.new" "$4") >&2 &
  pid=$!
  while kill -0 $pid 2> /dev/null; do
    sleep 1
    if [ $((SECONDS - begin)) -ge $next ]; then
      echo "  $1: still building after $((SECONDS - begin)) s" >&2
      next=$((next + 60))
    fi
  done
  wait $pid || { echo "error: go could not build $1; its messages are above" >&2; exit 1; }
  # Renamed only when whole, so that an interrupted build is not taken for a finished one.
  mv "$bin/.$1.new" "$bin/$1"
  echo "  $1: $((SECONDS - begin)) s" >&2
}
[ -x "$bin/etcd" ] || build etcd etcd '' go.etcd.io/etcd/server/v3
[ -x "$bin/kube-apiserver" ] || build kube-apiserver kube "$stamp" k8s.io/kubernetes/cmd/kube-apiserver
[ -x "$bin/kubectl" ] || build kubectl kube "$stamp" k8s.io/kubernetes/cmd/kubectl
echo "$bin"
