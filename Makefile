# The commands of the README. `make help` lists them.

# Without testable imports, tests and program share one release build.
MCC = .build/release/mcc

.PHONY: help prerequisites build demo test test-full test-targets test-onnx-backend lint format bench clean

help:
	@echo "make demo    build mcc, compile the bundled checkpoint, let it tell a story"
	@echo "make test    run the test suite"
	@echo "make test-full  run test-targets, and every kernel test with kernels in Swift"
	@echo "make test-targets  run every kernel test under emulation, where make test takes a sample"
	@echo "make test-onnx-backend  run the node tests of the onnx package (installs it with pip)"
	@echo "make build   build .build/release/mcc"
	@echo "make lint    check formatting"
	@echo "make bench   the table of speeds and memory against llama.cpp, ONNX Runtime and OpenVINO (installs them with pip)"
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

test-full: test-targets
	MCC_TEST_KERNELS=swift swift test -c release --disable-testable-imports --filter 'KernelTests|ConvTests|PoolTests'

test-onnx-backend: build
	@Scripts/test_packages.sh build/python
	PYTHONPATH=$$PWD/build/python:$$PYTHONPATH python3 Tests/Python/onnx_backend.py --mcc $(MCC)

lint:
	swift format lint --strict --recursive Package.swift Sources Passes Formats Tests

format:
	swift format --in-place --recursive Package.swift Sources Passes Formats Tests

bench: build
	Benchmarks/run.sh $(BENCH)

clean:
	rm -rf .build build
