#!/bin/sh
# Installs the Debian packages that mcc needs to build, where they are missing and apt-get may be used;
# otherwise prints the one command to run.
set -eu
packages="libopenblas-dev libjson-c-dev libzstd-dev zlib1g-dev pkg-config"
missing=""
for package in $packages; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
if ! command -v swift >/dev/null 2>&1; then
  echo "mcc needs a Swift 6.3 toolchain (https://www.swift.org/install/linux/)" >&2
  exit 1
fi
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing:$missing" >&2
  DEBIAN_FRONTEND=noninteractive apt-get update -qq
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null
else
  echo "some packages are missing; run: sudo apt-get install -y$missing" >&2
  exit 1
fi
