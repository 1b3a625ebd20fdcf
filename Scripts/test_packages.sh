#!/bin/sh
# Gets what some tests compare with or run in: the Python packages numpy, onnx, tokenizers and gguf, into the folder given, and
# a cross compiler with an emulator for the architecture that this machine is not. Tests that lack them are skipped, or
# fail where MCC_TEST_STRICT=1.
set -u
folder=$1

case $(uname -m) in
  x86_64) cross="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" command=aarch64-linux-gnu-gcc emulator=qemu-aarch64 ;;
  aarch64) cross="gcc-x86-64-linux-gnu libc6-dev-amd64-cross" command=x86_64-linux-gnu-gcc emulator=qemu-x86_64 ;;
  *) cross="" ;;
esac
if [ -n "$cross" ] && ! { command -v $command && command -v $emulator; } >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing: $cross qemu-user" >&2
    DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $cross qemu-user >/dev/null
  else
    echo "tests of other architectures are skipped; they need: sudo apt-get install -y $cross qemu-user" >&2
  fi
fi

command -v python3 >/dev/null 2>&1 || exit 0
PYTHONPATH="$folder" python3 -c "import numpy, onnx, tokenizers, gguf" >/dev/null 2>&1 && exit 0
python3 -m pip install -q --target "$folder" numpy onnx tokenizers gguf >/dev/null 2>&1 ||
  echo "the Python packages numpy, onnx, tokenizers and gguf could not be installed; tests that need them are skipped" >&2
exit 0
