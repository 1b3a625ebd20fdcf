#!/usr/bin/env python3
"""Runs the node tests of the onnx package (onnx.backend.test) through mcc and compares with their outputs.

usage: onnx_backend.py [--mcc PATH] [--program] [--sample N] [--seed N] [--filter TEXT] [--list] [--jobs N]

Every model goes through the evaluator (`mcc run`), or with --program through a compiled program. A model that mcc refuses
because an input shapes the result is tried again with its inputs, from the second on, as constants. Prints how many tests
pass, how many are refused as unsupported, by operator, and which fail; a wrong answer, a crash or a valid model that is
called damaged is a failure, and the exit status is 1. Needs: pip install numpy onnx
"""
import argparse
import collections
import concurrent.futures
import os
import random
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
from onnx import numpy_helper

warnings.filterwarnings("ignore")
UNSUPPORTED = 69
# What .npy files hold.
TYPES = {np.dtype(t) for t in ("f2", "f4", "f8", "i1", "u1", "i2", "i4", "i8", "?")}


class Refused(Exception):
    pass


class Failed(Exception):
    pass


def command(arguments, limit=120):
    outcome = subprocess.run(arguments, capture_output=True, text=True, timeout=limit)
    if outcome.returncode == UNSUPPORTED:
        raise Refused(outcome.stderr.strip())
    if outcome.returncode != 0:
        raise Failed(f"exit status {outcome.returncode}: {outcome.stderr.strip()}")


def arrays(values):
    for value in values:
        if not isinstance(value, np.ndarray):
            value = np.asarray(value)
        if value.dtype not in TYPES:
            raise Refused(f"unsupported elements of type {value.dtype}")
        yield value


def attempt(options, model, inputs, outputs, rtol, atol, constants):
    """Raises unless mcc computes the outputs."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    given = list(zip([i.name for i in graph.input], inputs))
    if constants:
        for name, value in given[1:]:
            graph.initializer.append(numpy_helper.from_array(value, name))
        kept = [graph.input[0]]
        del graph.input[:]
        graph.input.extend(kept)
        given = given[:1]
    with tempfile.TemporaryDirectory() as folder:
        path, result = os.path.join(folder, "model.onnx"), os.path.join(folder, "y.npz")
        onnx.save(model, path)
        arguments = []
        for number, (name, value) in enumerate(given):
            file = os.path.join(folder, f"{number}.npy")
            np.save(file, value)
            arguments += ["--input", f"{name}={file}"]
        if options.program:
            program = os.path.join(folder, "program")
            command([options.mcc, "compile", path, "-o", program, "--cache-dir", options.cache])
            command([program, *arguments, "--output", result])
        else:
            command([options.mcc, "run", path, *arguments, "--output", result])
        with np.load(result) as archive:
            found = [archive[name] for name in archive.files]
    if len(found) != len(outputs):
        raise Failed(f"{len(found)} outputs, expected {len(outputs)}")
    for number, (own, wanted) in enumerate(zip(found, outputs)):
        if own.dtype != wanted.dtype or own.shape != wanted.shape:
            raise Failed(f"output {number} is {own.dtype}{own.shape}, expected {wanted.dtype}{wanted.shape}")
        if not np.allclose(own, wanted, rtol=rtol, atol=atol, equal_nan=own.dtype.kind == "f"):
            raise Failed(f"output {number} is {own.ravel()[:4]}, expected {wanted.ravel()[:4]}")


def run(options, test):
    """Name, operator, verdict and message."""
    operator = test.model.graph.node[0].op_type if test.model.graph.node else "?"
    verdict, message = "passed", ""
    try:
        for inputs, outputs in test.data_sets:
            inputs, outputs = list(arrays(inputs)), list(arrays(outputs))
            try:
                attempt(options, test.model, inputs, outputs, test.rtol, test.atol, constants=False)
            except Refused:
                if len(inputs) < 2:
                    raise
                attempt(options, test.model, inputs, outputs, test.rtol, test.atol, constants=True)
                verdict = "passed with constants"
    except Refused as error:
        verdict, message = "unsupported", str(error)
    except Failed as error:
        verdict, message = "failed", str(error)
    except subprocess.TimeoutExpired:
        verdict, message = "failed", "takes too long"
    return test.name, operator, verdict, message


def main():
    parser = argparse.ArgumentParser(description="Runs the ONNX backend's node tests through mcc.")
    parser.add_argument("--mcc", default=".build/release/mcc")
    parser.add_argument("--program", action="store_true")
    parser.add_argument("--sample", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--filter", default="")
    parser.add_argument("--list", action="store_true", help="print every test that does not pass")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    from onnx.backend.test.loader import load_model_tests
    tests = [t for t in load_model_tests(kind="node") if options.filter in t.name]
    if options.sample is not None:
        tests = random.Random(options.seed).sample(tests, min(options.sample, len(tests)))
    with tempfile.TemporaryDirectory() as options.cache:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            results = list(pool.map(lambda test: run(options, test), tests))
    counts = collections.Counter(verdict for _, _, verdict, _ in results)
    refused = collections.Counter(operator for _, operator, verdict, _ in results if verdict == "unsupported")
    for name, _, verdict, message in results:
        if verdict == "failed" or options.list and verdict == "unsupported":
            print(f"{verdict}: {name}: {' '.join(message.split())[:300]}")
    if refused:
        print("unsupported by operator:", ", ".join(f"{name} {count}" for name, count in refused.most_common()))
    print(f"{len(results)} tests:", ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
