#!/usr/bin/env bash
# Fetches the real servers that tests run, unpacks them from Debian's packages into a cache, and prints where they are.
# Changes nothing in the system, and needs no root: apt works in folders of its own.
set -euo pipefail

parts=${ZONEWARD_PARTS:-${XDG_CACHE_HOME:-$HOME/.cache}/zoneward-parts}
wanted=(prometheus-2 promtool prometheus-3 victoria-metrics)

complete() {
  local name
  for name in "${wanted[@]}"; do [ -x "$parts/$name" ] || return 1; done
}

fail() {
  cat >&2 <<TEXT
tests/parts.sh: $1
Tests need these executables in $parts:
  prometheus-2, promtool     Prometheus 2.42 or a later 2.x, and its promtool
  prometheus-3,   Prometheus 3.x, and its promtool
  victoria-metrics           VictoriaMetrics, single node
Put them there by hand under these names, or into another folder named by ZONEWARD_PARTS.
TEXT
  exit 1
}

# The mirror that the system uses for Debian itself.
mirror() {
  { cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true; } |
    sed -nE 's,^[^#]*(https?://[^ ]+/debian)/?( .*)?$,\1,p' | sed -n 1p
}

# package DISTRIBUTION NAME: unpacks a package of a distribution into $work/DISTRIBUTION.
package() {
  local apt=$work/apt-$1 log=$work/$1.log
  if [ ! -d "$apt" ]; then
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$work/$1"
    : >"$apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $1 main" >"$apt/sources.list"
    apt_in "$apt" update >"$log" 2>&1 || { tail -n 5 "$log" >&2; fail "apt-get update of $1 failed"; }
  fi
  (cd "$work" && apt_in "$apt" download "$2") >"$log" 2>&1 || { tail -n 5 "$log" >&2; fail "$2 of $1 can't be downloaded"; }
  dpkg-deb -x "$work/$2"_*.deb "$work/$1"
  rm "$work/$2"_*.deb
}

apt_in() {
  local folder=$1
  shift
  apt-get -o Dir::State="$folder" -o Dir::State::lists="$folder/lists" -o Dir::State::status="$folder/status" \
    -o Dir::Cache="$folder/cache" -o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o APT::Sandbox::User="$(id -un)" "$@"
}

# provide NAME FILE: moved at once, so that an interrupted run leaves nothing half done.
provide() {
  cp "$work/$2" "$parts/.$1.$$"
  mv "$parts/.$1.$$" "$parts/$1"
}

if ! complete; then
  for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || fail "there is no $tool here to fetch Debian's packages with"
  done
  site=$(mirror)
  [ -n "$site" ] || fail "apt has no Debian mirror configured"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$parts"
  echo "fetching Prometheus 2 and 3 and VictoriaMetrics into $parts" >&2
  package bookworm prometheus
  package bookworm victoria-metrics
  package sid prometheus
  provide prometheus-2 bookworm/usr/bin/prometheus
  provide promtool bookworm/usr/bin/promtool
  provide victoria-metrics bookworm/usr/bin/victoria-metrics
  provide prometheus-3 sid/usr/bin/prometheus
fi
echo "$parts"
