# The commands of the README. `make help` lists them.

# Without testable imports, tests and program share one release build.
MCC = .build/release/mcc

.PHONY: help prerequisites build demo test test-full test-targets test-architectures test-adapters test-conversions test-tokenizers \
	test-onnx-backend fuzz lint format bench bench-kernels quality clean

help:
	@echo "make demo    build mcc, compile the bundled checkpoint, let it tell a story"
	@echo "make test    run the test suite"
	@echo "make test-full  run test-targets, and every kernel test with kernels in Swift"
	@echo "make test-targets  run every kernel test on every target, where make test takes a sample of most"
	@echo "make test-conversions  check converted files in llama.cpp and ONNX Runtime (installs them with pip)"
	@echo "make test-architectures  compare random decoders of every kind with transformers (needs torch)"
	@echo "make test-adapters  compare merged adapters with peft (needs torch)"
	@echo "make test-tokenizers  100,000 texts through each kind of tokenizer, against the package tokenizers"
	@echo "make test-onnx-backend  run the node tests of the onnx package (installs it with pip)"
	@echo "make build   build .build/release/mcc"
	@echo "make fuzz    give damaged files to every reader, ten minutes each (FUZZ_SECONDS for less), under the address sanitizer"
	@echo "make lint    check formatting"
	@echo "make bench   the table of speeds and memory against llama.cpp, ONNX Runtime and OpenVINO (installs them with pip)"
	@echo "make bench-kernels  whether the chosen kernels of the benchmarked models are the fastest on this machine"
	@echo "make quality  what quantization loses: against llama.cpp's curve, by bits, and with each ingredient left out (half a day; QUALITY=--quick: two hours)"
	@echo "make clean   remove what was built"

prerequisites:
	@Scripts/prerequisites.sh

build: prerequisites
	swift build -c release --product mcc

demo: build
	@mkdir -p build
	$(MCC) compile Examples/stories260K -o build/story
	build/story "Once upon a time"

test: prerequisites
	@Scripts/test_packages.sh build/python
	PYTHONPATH=$$PWD/build/python:$$PYTHONPATH swift test -c release --disable-testable-imports

test-targets: prerequisites
	@Scripts/test_packages.sh build/python
	MCC_TEST_FULL=1 swift test -c release --disable-testable-imports --filter 'KernelTests|ConvTests|PoolTests|ForeignProgramTests'

test-architectures: build
	python3 Tests/Python/architectures.py --mcc $(MCC)

test-adapters: build
	python3 Tests/Python/adapters.py --mcc $(MCC)

test-full: test-targets
	MCC_TEST_KERNELS=swift swift test -c release --disable-testable-imports --filter 'KernelTests|ConvTests|PoolTests'

test-conversions: build
	python3 -m pip install -q numpy safetensors onnx onnxruntime llama-cpp-python tokenizers
	python3 Tests/Python/conversions.py $(MCC) $${MCC_TEST_MODELS:-../shared/models} build/conversions
	python3 Tests/Python/tokenizer_conversions.py $(MCC) build/tokenizer-conversions

test-tokenizers: build
	python3 Tests/tokenizer_equality.py --mcc $(MCC)

test-onnx-backend: build
	@Scripts/test_packages.sh build/python
	PYTHONPATH=$$PWD/build/python:$$PYTHONPATH python3 Tests/Python/onnx_backend.py --mcc $(MCC)
	PYTHONPATH=$$PWD/build/python:$$PYTHONPATH python3 Tests/Python/onnx_backend.py --mcc $(MCC) --program --sample 200

lint:
	swift format lint --strict --recursive Package.swift Sources Passes Formats Tests

format:
	swift format --in-place --recursive Package.swift Sources Passes Formats Tests

fuzz: prerequisites
	ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=64 FUZZ_SECONDS=$${FUZZ_SECONDS:-600} swift test --sanitize=address --scratch-path .build/fuzz --filter FuzzTests

bench: build
	Benchmarks/run.sh $(BENCH)

bench-kernels: build
	Benchmarks/run.sh $(or $(BENCH),build/benchmarks) --kernels

quality: build
	python3 Benchmarks/quality.py build/quality --mcc $(MCC) $(QUALITY)

clean:
	rm -rf .build build
