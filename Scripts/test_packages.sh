#!/bin/sh
# Puts the Python packages that some tests compare with (numpy, onnx) into the folder given, if Python lacks them and
# pip can get them. Without them those tests are skipped, or fail where MCC_TEST_STRICT=1.
set -u
folder=$1
command -v python3 >/dev/null 2>&1 || exit 0
PYTHONPATH="$folder" python3 -c "import numpy, onnx" >/dev/null 2>&1 && exit 0
python3 -m pip install -q --target "$folder" numpy onnx >/dev/null 2>&1 ||
  echo "the Python packages numpy and onnx could not be installed; tests that need them are skipped" >&2
exit 0
