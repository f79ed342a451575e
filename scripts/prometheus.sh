#!/usr/bin/env bash
# Prints a folder with promtool and prometheus, for the tests of what is exported: one of the PATH, else that of Debian's
# package, which is unpacked into the user's cache and not installed, as it would start a server.
set -euo pipefail

if command -v promtool > /dev/null && command -v prometheus > /dev/null; then
  dirname "$(command -v promtool)"
  exit
fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/maplatency/prometheus
if [ ! -x "$cache/usr/bin/promtool" ]; then
  if ! command -v apt-get > /dev/null || [ "${MAPLATENCY_NO_INSTALL:-0}" != 0 ]; then
    echo "error: promtool and prometheus are not on the PATH, and Debian's package prometheus cannot be fetched here" >&2
    exit 1
  fi
  mkdir -p "$cache"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work"
  (cd "$work" && { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; }) > /dev/null
  dpkg-deb -x "$work"/prometheus_*.deb "$work/tree"
  cp -r "$work/tree/." "$cache"
fi
echo "$cache/usr/bin"
