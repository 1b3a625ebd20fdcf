#!/usr/bin/env python3
"""Runs the tests of the onnx package (onnx.backend.test) through mcc and compares with their outputs.

usage: onnx_backend.py [--mcc PATH] [--kind KIND] [--program] [--sample N] [--seed N] [--filter TEXT] [--list] [--jobs N]

Every model goes through the evaluator (`mcc run`), or with --program through a compiled program. A model that mcc refuses
because an input shapes the result is tried again with its inputs, from the second on, as constants. Prints how many tests
pass and how many are refused, with the reasons; and every test that is wrong: another answer, a crash, or a valid model that
is called damaged. The exit status is 1 if there is one. Needs: pip install numpy onnx
"""
import argparse
import collections
import concurrent.futures
import glob
import os
import random
import re
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
from onnx import numpy_helper

warnings.filterwarnings("ignore")
USAGE, UNSUPPORTED = 64, 69
# What .npy files hold and mcc reads.
TYPES = {np.dtype(t) for t in ("f2", "f4", "f8", "i1", "u1", "i2", "i4", "i8", "?")}


class Refused(Exception):
    """mcc says that it does not do this, or the test cannot be put to it."""


class Wrong(Exception):
    """Anything else than a refusal or the outputs of the test."""


def command(arguments, limit=120):
    outcome = subprocess.run(arguments, capture_output=True, text=True, errors="replace", timeout=limit)
    text = outcome.stderr.strip()
    # An open size that the command line must give is a refusal, too.
    if outcome.returncode == UNSUPPORTED or outcome.returncode == USAGE and "--dim" in text:
        raise Refused(text)
    if outcome.returncode != 0:
        raise Wrong(f"exit status {outcome.returncode}: {text}")


def arrays(values):
    result = []
    for value in values:
        if value is None or isinstance(value, (list, tuple, dict)):
            raise Refused("sequences and optional values are no tensors")
        value = np.asarray(value)
        if value.dtype not in TYPES:
            raise Refused(f"elements of type {value.dtype}")
        result.append(value)
    return result


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
        raise Wrong(f"{len(found)} outputs, expected {len(outputs)}")
    for number, (own, wanted) in enumerate(zip(found, outputs)):
        if own.dtype != wanted.dtype or own.shape != wanted.shape:
            raise Wrong(f"output {number} is {own.dtype}{own.shape}, expected {wanted.dtype}{wanted.shape}")
        if own.dtype == np.float16:
            # What is expected was rounded to 11 bits after every operation, in another order: four steps.
            rtol = max(rtol, 4 / 2048)
        if not np.allclose(own, wanted, rtol=rtol, atol=atol, equal_nan=own.dtype.kind == "f"):
            places = np.flatnonzero(~np.isclose(own, wanted, rtol=rtol, atol=atol, equal_nan=own.dtype.kind == "f"))
            raise Wrong(
                f"output {number} is {own.ravel()[places[:4]]} at {places[:4]} ({len(places)} of {own.size}), "
                f"expected {wanted.ravel()[places[:4]]}")


def run(options, test):
    """Name, operator, verdict and message."""
    operator = test.model.graph.node[0].op_type if test.model.graph.node else "?"
    verdict, message = "passed", ""
    try:
        for inputs, outputs in test.data_sets:
            inputs, outputs = arrays(inputs), arrays(outputs)
            try:
                attempt(options, test.model, inputs, outputs, test.rtol, test.atol, constants=False)
            except Refused:
                if len(inputs) < 2:
                    raise
                attempt(options, test.model, inputs, outputs, test.rtol, test.atol, constants=True)
                verdict = "passed with constant inputs"
    except Refused as error:
        verdict, message = "refused", str(error)
    except Wrong as error:
        verdict, message = "wrong", str(error)
    except subprocess.TimeoutExpired:
        verdict, message = "wrong", "takes too long"
    return test.name, operator, verdict, message


def reason(message):
    """What is common to refusals: the sentence without names of nodes and files, and without numbers."""
    line = message.split("\n")[0]
    line = re.sub(r"^.*?error: ", "", line)
    line = re.sub(r" in node '.*| \(?/tmp/.*", "", line)
    line = re.sub(r"\[[^\]]*\]", "[...]", line)
    return re.sub(r"-?\d+(\.\d+)?", "N", line)


def tensors(pattern):
    """The tensors of the files that fit, in the order of their numbers."""
    result = []
    for path in sorted(glob.glob(pattern), key=lambda p: int(re.findall(r"\d+", os.path.basename(p))[-1])):
        tensor = onnx.TensorProto()
        with open(path, "rb") as file:
            data = file.read()
        try:
            tensor.ParseFromString(data)
            result.append(numpy_helper.to_array(tensor))
        except Exception:
            # A sequence or an optional value.
            result.append(None)
    return result


def load(kind):
    """The tests of a kind; those whose models lie in folders are read."""
    # Inputs of the node tests are made when these are loaded.
    np.random.seed(0)
    from onnx.backend.test.loader import load_model_tests
    tests = load_model_tests(kind=kind)
    for test in tests:
        if test.model is None and test.model_dir:
            test.model = onnx.load(os.path.join(test.model_dir, "model.onnx"))
            folders = sorted(glob.glob(os.path.join(test.model_dir, "test_data_set_*")))
            test.data_sets = [(tensors(f + "/input_*.pb"), tensors(f + "/output_*.pb")) for f in folders]
    return sorted((test for test in tests if test.model is not None), key=lambda test: test.name)


def main():
    parser = argparse.ArgumentParser(description="Runs the tests of the ONNX backend through mcc.")
    parser.add_argument("--mcc", default=".build/release/mcc")
    parser.add_argument("--kind", default="node", choices=["node", "simple", "pytorch-operator", "pytorch-converted"])
    parser.add_argument("--program", action="store_true", help="compile programs instead of evaluating")
    parser.add_argument("--sample", type=int, help="take so many tests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--filter", default="", help="take tests with this in their names")
    parser.add_argument("--list", action="store_true", help="print every test that does not pass")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    tests = [test for test in load(options.kind) if options.filter in test.name]
    if options.sample is not None:
        tests = random.Random(options.seed).sample(tests, min(options.sample, len(tests)))
    with tempfile.TemporaryDirectory() as options.cache:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            results = list(pool.map(lambda test: run(options, test), tests))
    counts = collections.Counter(verdict for _, _, verdict, _ in results)
    reasons = collections.defaultdict(collections.Counter)
    for name, operator, verdict, message in results:
        if verdict == "refused":
            reasons[reason(message)][operator] += 1
        if verdict == "wrong" or options.list and verdict == "refused":
            print(f"{verdict}: {name}: {' '.join(message.split())[:300]}")
    for text, operators in sorted(reasons.items(), key=lambda item: -sum(item[1].values())):
        most = ", ".join(f"{name} {count}" for name, count in operators.most_common(4))
        print(f"refused {sum(operators.values())}: {text} ({most}{', ...' if len(operators) > 4 else ''})")
    print(f"{len(results)} tests:", ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
