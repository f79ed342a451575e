#!/usr/bin/env bash
# Builds the images of operator and agent, and says how large they are and which digest the layer with the program has.
#
#   scripts/images.sh              builds them; archives for `kind load image-archive` are left in target/images
#   scripts/images.sh --check      builds the programs twice, in two folders, and fails if the layers differ
#
# BASE names the image to run on and BUILDER the one to compile in. Left out, they are what the Dockerfiles say, if those can
# be pulled; else the programs are compiled here and the base is made of Debian's packages.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(realpath -m "${CARGO_TARGET_DIR:-target}")/images
# Below the sources, as they are a part of what docker is given, and not in target/, which docker would have to search.
programs=images/programs
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
revision=$(git -c safe.directory='*' describe --always --abbrev=40 --match= --dirty 2> /dev/null || echo unknown)
limit=$((40 * 1024 * 1024))

work=$(mktemp -d)
daemon= cgroups=
# shellcheck disable=SC2317 # the trap calls it
finish() {
  if [ -n "$daemon" ]; then
    kill "$daemon" 2> /dev/null || true
    wait "$daemon" 2> /dev/null || true
    # It leaves its cgroups; those that others made or use stay.
    if [ -z "$cgroups" ]; then
      docker_cgroups | while read -r cgroup; do find "$cgroup" -depth -type d -exec rmdir {} + 2> /dev/null || true; done
    fi
  fi
  rm -rf "$work"
}
trap finish EXIT

# A daemon of our own, which changes nothing of the host's network and is gone afterwards.
need_docker() {
  if docker info > /dev/null 2>&1; then return; fi
  if [ "$EUID" != 0 ] || ! command -v dockerd > /dev/null; then
    echo "error: docker does not answer; start its daemon, or run this as root where dockerd is installed" >&2
    exit 1
  fi
  echo "docker does not answer; starting a daemon for the time of this build"
  cgroups=$(docker_cgroups)
  export DOCKER_HOST=unix://$work/docker.sock
  dockerd --host "$DOCKER_HOST" --data-root "$out/docker" --exec-root "$work/exec" --pidfile "$work/pid" \
    --bridge none --iptables=false --ip-forward=false --ip-masq=false > "$work/dockerd.log" 2>&1 < /dev/null &
  daemon=$!
  for _ in $(seq 150); do
    if docker info > /dev/null 2>&1; then return; fi
    kill -0 "$daemon" 2> /dev/null || break
    sleep 0.2
  done
  echo "error: dockerd did not start; its log ends with:" >&2
  tail -n 15 "$work/dockerd.log" >&2
  exit 1
}

docker_cgroups() { find /sys/fs/cgroup -maxdepth 2 -type d -name docker; }

default_of() { sed -n "s/^ARG $1=//p" images/operator.Dockerfile; }
can_get() { # image
  docker image inspect "$1" > /dev/null 2>&1 || timeout 60 docker pull --quiet "$1" > /dev/null 2>&1
}

# Sets the array `arguments` to what docker build is given.
choose_base() {
  local base builder
  base=${BASE:-$(default_of BASE)} builder=${BUILDER:-$(default_of BUILDER)}
  if can_get "$base" && can_get "$builder"; then
    arguments=(--build-arg "BASE=$base" --build-arg "BUILDER=$builder")
    return
  fi
  if [ -n "${BASE:-}${BUILDER:-}" ]; then
    echo "error: cannot get $base and $builder; unset BASE and BUILDER to make a base of Debian's packages" >&2
    exit 1
  fi
  echo "cannot pull $base and $builder: compiling here, on a base made of Debian's packages"
  scripts/image-base.sh "$work/base.tar" "$work/builder.tar"
  docker import "$work/base.tar" maplatency-base:debian > /dev/null
  docker import "$work/builder.tar" maplatency-builder:debian > /dev/null
  # Nothing is compiled in there, so it needs no network.
  arguments=(--network none --build-arg BASE=maplatency-base:debian --build-arg BUILDER=maplatency-builder:debian)
  prebuilt=yes
}

build() { # operator or agent, context, further arguments...
  local name=maplatency-$1 context=$2 file=$2/images/$1.Dockerfile
  shift 2
  docker build "$@" --quiet --file "$file" --tag "$name:$version" "${arguments[@]}" \
    ${prebuilt:+--build-arg PREBUILT=$programs} \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" "$context" > /dev/null
}

last_layer() { # image
  docker image inspect --format '{{range .RootFS.Layers}}{{println .}}{{end}}' "$1" | grep . | tail -n 1
}

# Fails unless the image says what it is, lists the crates in it, and, for the operator, does not run as root.
contents() { # operator or agent
  local name=maplatency-$1 label container crates user
  for label in title description licenses version revision; do
    [ -n "$(docker image inspect --format "{{index .Config.Labels \"org.opencontainers.image.$label\"}}" "$name:$version")" ] ||
      { echo "error: $name lacks the label org.opencontainers.image.$label" >&2; exit 1; }
  done
  container=$(docker create --network none "$name:$version")
  docker cp "$container:/sbom.cdx.json" - > "$work/sbom.tar"
  docker rm "$container" > /dev/null
  crates=$(tar -xOf "$work/sbom.tar" | python3 -c 'import json, sys
sbom = json.load(sys.stdin)
print(len(sbom["components"]) if sbom["bomFormat"] == "CycloneDX" else 0)')
  [ "$crates" -gt 50 ] || { echo "error: the SBOM of $name lists $crates crates" >&2; exit 1; }
  user=$(docker image inspect --format '{{.Config.User}}' "$name:$version")
  [ "$1" = agent ] || [ "${user%%:*}" -gt 0 ] 2> /dev/null ||
    { echo "error: $name runs as user '$user', which is root" >&2; exit 1; }
}

# Its layers as a registry would hold them.
report() { # operator or agent
  local name=maplatency-$1 size said
  said=$(docker run --rm --read-only --network none "$name:$version" --version) ||
    { echo "error: $name does not run on its base" >&2; exit 1; }
  [ "$said" = "$name $version" ] || { echo "error: $name says that it is $said" >&2; exit 1; }
  contents "$1"
  docker save --output "$out/$name.tar" "$name:$version"
  size=$(gzip --stdout "$out/$name.tar" | wc -c)
  printf '%s:%s\n  layer with the program  %s\n  compressed              %s MiB\n  archive                 %s\n' "$name" "$version" \
    "$(last_layer "$name:$version")" "$(awk "BEGIN { printf \"%.1f\", $size / 1048576 }")" "$out/$name.tar"
  if [ "$size" -gt "$limit" ]; then
    echo "error: $name is larger than 40 MiB" >&2
    exit 1
  fi
}

# Sources as git knows them, with what is not committed yet, in a folder of another name.
copy_sources() { # folder
  mkdir -p "$1"
  git -c safe.directory='*' ls-files --cached --others --exclude-standard -z |
    tar --null --ignore-failed-read --files-from=- -cf - 2> /dev/null | tar -xf - -C "$1"
}

check() {
  local part digest
  local -A first=()
  for folder in "$work/one" "$work/another/place"; do
    copy_sources "$folder"
    (
      cd "$folder"
      unset CARGO_TARGET_DIR
      if [ -n "$prebuilt" ]; then scripts/image-programs.sh "$programs"; fi
    )
    for part in operator agent; do
      # Layers of an earlier build prove nothing.
      build "$part" "$folder" --no-cache
      digest=$(last_layer "maplatency-$part:$version")
      echo "maplatency-$part built in $folder: $digest"
      if [ "${first[$part]:=$digest}" != "$digest" ]; then
        echo "error: two builds of maplatency-$part differ" >&2
        exit 1
      fi
    done
  done
  echo "two builds in two folders gave the same layers"
}

arguments=() prebuilt=
mkdir -p "$out"
need_docker
choose_base
if [ "${1:-}" = --check ]; then
  check
else
  if [ -n "$prebuilt" ]; then scripts/image-programs.sh "$programs"; fi
  for part in operator agent; do
    build "$part" .
    report "$part"
  done
fi
