#!/bin/sh
# Measures what the README reports, peers side by side. Needs about 8 GB of disk and half an hour.
# usage: Benchmarks/run.sh [FOLDER]   (default: build/benchmarks)
set -eu
cd "$(dirname "$0")/.."
folder=${1:-build/benchmarks}
mkdir -p "$folder"
if [ ! -x "$folder/python/bin/python3" ]; then
  python3 -m venv "$folder/python"
  "$folder/python/bin/pip" install -q numpy onnx onnxruntime gguf
  CMAKE_ARGS="-DGGML_NATIVE=ON" "$folder/python/bin/pip" install -q llama-cpp-python
fi
python="$folder/python/bin/python3"
echo "== Llama of 1.1 B parameters against llama.cpp"
"$python" Benchmarks/make_llama.py "$folder/llama"
"$python" Benchmarks/language_model.py "$folder/llama"
echo "== ONNX networks against ONNX Runtime"
"$python" Benchmarks/networks.py "$folder"
echo "== mcc itself"
"$python" Benchmarks/compile_time.py "$folder"
