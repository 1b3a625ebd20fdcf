#!/usr/bin/env python3
"""Compare generated tensor networks with ONNX Runtime, paired and alternating, and print the ratios.

usage: networks.py FOLDER [--runs 7] [--threads 2] [--mcc .build/release/mcc] [MODEL.onnx ...]

Without models: resnet50 and mobilenet_v2 from MCC_TEST_MODELS (default ../shared/models), filled with seeded weights.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import onnxruntime


def peer(model, threads, repeat=20):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = {i.name: np.random.default_rng(0).standard_normal(
        [d if isinstance(d, int) else 1 for d in i.shape], dtype=np.float32) for i in session.get_inputs()}
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        session.run(None, inputs)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mcc", default=".build/release/mcc")
    options = parser.parse_intermixed_args()
    models = options.models
    if not models:
        source = os.path.join(os.environ.get("MCC_TEST_MODELS", "../shared/models"), "onnx")
        for name in ["resnet50", "mobilenet_v2"]:
            target = os.path.join(options.folder, name + ".onnx")
            subprocess.run(
                [sys.executable, os.path.join(source, "fill_weights.py"), os.path.join(source, name + ".onnx"), target],
                check=True)
            models.append(target)
    for model in models:
        name = os.path.basename(model)[:-len(".onnx")]
        program = os.path.join(options.folder, name)
        subprocess.run([options.mcc, "compile", "-q", model, "-o", program], check=True)
        ours, theirs = [], []
        for _ in range(options.runs):
            result = subprocess.run(
                [program, "bench", "--json", "--threads", str(options.threads)], check=True, capture_output=True, text=True)
            ours.append(json.loads(result.stdout)["milliseconds"]["median"])
            theirs.append(peer(model, options.threads))
        ratio = statistics.median(b / a for a, b in zip(ours, theirs))
        print(f"{name}: mcc {statistics.median(ours):.2f} ms, ONNX Runtime {statistics.median(theirs):.2f} ms, "
              f"speed ratio {ratio:.2f} ({options.threads} threads)")


if __name__ == "__main__":
    main()
