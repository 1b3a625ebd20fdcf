#!/bin/sh
# Measures what the README reports, peers side by side. Needs about 12 GB of disk and an hour; arguments go to table.py.
# usage: Benchmarks/run.sh [FOLDER [--quick] [--only llama fp32 int8 encoder] ...]   (default: build/benchmarks)
#        Benchmarks/run.sh FOLDER --kernels   the candidates for every kernel (bench_kernels.py), without peers
set -eu
cd "$(dirname "$0")/.."
folder=${1:-build/benchmarks}
[ $# -gt 0 ] && shift
mkdir -p "$folder"
if [ "${1:-}" = --kernels ]; then
  shift
  if [ ! -x "$folder/python/bin/python3" ] && ! python3 -c 'import numpy, onnx, onnxruntime' 2>/dev/null; then
    python3 -m venv "$folder/kernels"
    "$folder/kernels/bin/pip" install -q numpy onnx onnxruntime
  fi
  for python in "$folder/python/bin/python3" "$folder/kernels/bin/python3" python3; do
    command -v "$python" >/dev/null && exec "$python" Benchmarks/bench_kernels.py "$folder" "$@"
  done
fi
if [ ! -x "$folder/python/bin/python3" ]; then
  python3 -m venv "$folder/python"
  "$folder/python/bin/pip" install -q numpy onnx onnxruntime openvino gguf scikit-build-core cmake ninja
  CMAKE_ARGS="-DGGML_NATIVE=ON" "$folder/python/bin/pip" install -q --no-binary llama-cpp-python llama-cpp-python
fi
python="$folder/python/bin/python3"
# llama.cpp's smallest command-line program, from the sources of the same version, on the libraries of the package.
if [ ! -x "$folder/llama-simple" ]; then
  version=$("$python" -c 'import llama_cpp; print(llama_cpp.__version__)')
  library=$("$python" -c 'import llama_cpp, os; print(os.path.join(os.path.dirname(llama_cpp.__file__), "lib"))')
  if [ ! -d "$folder/llama_cpp_python-$version" ]; then
    "$folder/python/bin/pip" download -q --no-deps --no-build-isolation --no-binary :all: -d "$folder" \
      "llama-cpp-python==$version" || true
    tar -C "$folder" -xzf "$folder/llama_cpp_python-$version.tar.gz" || true
  fi
  source="$folder/llama_cpp_python-$version/vendor/llama.cpp"
  c++ -O2 -std=c++17 -I "$source/include" -I "$source/ggml/include" "$source/examples/simple/simple.cpp" \
    -o "$folder/llama-simple" -L "$library" "-Wl,-rpath,$library" -lllama -lggml -lggml-base ||
    echo "llama-simple cannot be built; the time to the first token is not measured" >&2
fi
case " $* " in
*" --only "*) ;;
*) "$python" Benchmarks/make_llama.py "$folder/llama" ;;
esac
"$python" Benchmarks/table.py "$folder" --llama-simple "$folder/llama-simple" --json "$folder/table.json" --markdown "$folder/table.md" "$@"
"$python" Benchmarks/compile_time.py "$folder"
