# Sourced by the scripts that build Go programs for the tests. They are kept in the user's cache, outside the
# sources, in folders named after the content of what they are built from: a second run finds them, and a
# change never meets an old program.
# shellcheck shell=bash

cache=${MAPLATENCY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/maplatency}
export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-trimpath

# The text of flags and the content of files, as 12 hexadecimal digits. Where the files lie does not matter.
content_key() { # text, file...
  local text=$1
  shift
  { echo "$text" && sha256sum "$@" | cut -d' ' -f1; } | sha256sum | cut -c1-12
}

need_go() { # what is built
  command -v go > /dev/null && return
  echo "error: go is not on the PATH, and $1 must be built; install Go 1.26 or newer (https://go.dev/dl)" >&2
  exit 1
}

# Waits until no other process builds into the folder, and keeps others out until this one ends.
lock_folder() {
  mkdir -p "$1"
  exec 9> "$1/.lock"
  flock --nonblock 9 && return
  echo "waiting for another build of $1" >&2
  flock 9
}

# Go prints nothing for minutes, so a line a minute says that it is still at work. Several programs of one
# module are built at once, since compiling what they share is most of the work.
build() { # folder, module, tags, linker flags, NAME=PACKAGE...
  local folder=$1 module=$2 tags=$3 flags=$4 begin=$SECONDS next=60 pid pair
  shift 4
  local names=("${@%%=*}") packages=("${@#*=}") out=$folder/.new/
  need_go "${names[*]}"
  [ $# -gt 1 ] || out+=${names[0]}
  rm -rf "$folder/.new" && mkdir "$folder/.new"
  echo "building ${names[*]} (once; kept in $folder)" >&2
  (cd "$module" && exec go build -tags "$tags" -ldflags "-s -w$flags" -o "$out" "${packages[@]}") >&2 &
  pid=$!
  while kill -0 $pid 2> /dev/null; do
    sleep 1
    if [ $((SECONDS - begin)) -ge $next ]; then
      echo "  still building after $((SECONDS - begin)) s" >&2
      next=$((next + 60))
    fi
  done
  wait $pid || { echo "error: go could not build ${names[*]}; its messages are above" >&2; exit 1; }
  # Moved only when whole, so that an interrupted build is not taken for a finished one.
  for pair in "${names[@]}"; do mv "$folder/.new/$pair" "$folder/$pair"; done
  rmdir "$folder/.new"
  echo "  $((SECONDS - begin)) s" >&2
}
