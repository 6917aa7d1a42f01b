#!/usr/bin/env bash
# Puts the real servers that the tests run into a folder, unpacked from Debian's packages, and prints that folder alone.
# Needs no root and leaves the system as it is: apt works in folders of its own, with the system's mirrors and proxies.
set -euo pipefail

# Name in the folder, distribution, package, executable. Bookworm has no Prometheus 3.
parts='prometheus-2 bookworm prometheus prometheus
promtool bookworm prometheus promtool
prometheus-3 sid prometheus prometheus
victoria-metrics bookworm victoria-metrics victoria-metrics'

folder=${ZONEWARD_PARTS:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/zoneward-parts}
[[ $folder == /* ]] || folder=$PWD/$folder

missing() {
  while read -r name _; do [ -x "$folder/$name" ] || echo -n " $name"; done <<<"$parts"
}

fail() {
  cat >&2 <<TEXT
tests/parts.sh: $1
Missing in $folder:$(missing)
By hand: put executables of these names into a folder, and set ZONEWARD_PARTS to that folder.
  prometheus-2, promtool  Prometheus 2.42, from https://github.com/prometheus/prometheus/releases
  prometheus-3            Prometheus 3.x, from the same page
  victoria-metrics        single-node, from https://github.com/VictoriaMetrics/VictoriaMetrics/releases
TEXT
  exit 1
}

if [ -z "$(missing)" ]; then echo "$folder" && exit; fi

codename=$(. /etc/os-release 2>/dev/null && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-sid}") ||
  fail "this is not Debian, so its packages can't be fetched"
for tool in apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || fail "there is no $tool here, which fetching Debian's packages takes"
done

# Where the system takes Debian from, even if `apt-get update` has never run. Another vendor's repository of the same shape
# may be among them: apt takes nothing from it, as Debian has not signed it.
mirrors=$(apt-get indextargets --no-release-info --format '$(RELEASE) $(REPO_URI)' 'Identifier: Packages' 'Component: main' |
  sed -nE "s/^($codename|(old)*stable|testing|unstable|sid) //p" | sort -u) || true
[ -n "$mirrors" ] || fail "apt's sources name no mirror of Debian's main component"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
options="target=Packages$([ ! -r $keyring ] || echo " signed-by=$keyring")"

# Inside the folder, so that an executable appears by one rename: whole or not at all, with several runs at once, too.
{ mkdir -p "$folder" && work=$(mktemp -d "$folder/.new.XXXXXX"); } 2>/dev/null || fail "$folder can't be written to"
trap 'rm -rf "$work"' EXIT
find "$folder" -maxdepth 1 -name '.new.*' -mmin +60 -exec rm -rf {} + # of runs that were killed

# configure FOLDER DISTRIBUTION: the system's hooks are off, as some clean its caches; so are its pins and its default
# release, which would choose among these packages.
configure() {
  mkdir -p "$1/lists/partial" "$1/archives/partial"
  : >"$1/status"
  for mirror in $mirrors; do echo "deb [$options] $mirror $2 main"; done >"$1/sources.list"
  cat >"$1/apt.conf" <<CONF
#clear APT::Update;
#clear APT::Default-Release;
APT::Sandbox::User "root";
Dir::State "$1";
Dir::State::lists "$1/lists";
Dir::State::status "$1/status";
Dir::Cache "$1";
Dir::Cache::archives "$1/archives";
Dir::Etc { sourcelist "$1/sources.list"; sourceparts "/dev/null"; preferences "/dev/null"; preferencesparts "/dev/null"; };
CONF
}

# fetch DISTRIBUTION PACKAGE: whether the update succeeded shows in the download; one bad mirror of several is no failure.
fetch() {
  local own=$work/$1
  [ ! -d "$own/$2" ] || return 0
  echo "fetching $2 of Debian $1" >&2
  [ -d "$own" ] || { configure "$own" "$1" && apt-get -c "$own/apt.conf" -q update || true; } >"$own.log" 2>&1
  (cd "$own" && apt-get -c apt.conf -q download "$2" && dpkg-deb -x "$2"_*.deb "$2") >>"$own.log" 2>&1 ||
    { tail -n 8 "$own.log" >&2 && fail "$2 of Debian $1 can't be fetched"; }
}

while read -r name release package executable; do
  [ ! -x "$folder/$name" ] || continue
  fetch "$release" "$package" </dev/null
  cp -l "$work/$release/$package/usr/bin/$executable" "$work/$name"
  "$work/$name" --version >"$work/log" 2>&1 || { tail -n 8 "$work/log" >&2 && fail "$name of Debian $release doesn't run"; }
  mv -f "$work/$name" "$folder/$name"
done <<<"$parts"
echo "$folder"
