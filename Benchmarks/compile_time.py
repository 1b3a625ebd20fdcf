#!/usr/bin/env python3
"""Print how long `mcc compile` takes on the bundled checkpoint, cold and with cached objects, and how long the passes of -O1
take on a graph of 5000 nodes.

usage: compile_time.py FOLDER [--mcc .build/release/mcc]
"""
import argparse
import os
import re
import shutil
import statistics
import subprocess
import time


def transformer(path, layers=120):
    """Write a transformer in primitives, 43 nodes per layer, with made-up weights; return the number of nodes."""
    lines, state = [], {"names": 0, "seed": 0}

    def node(text):
        state["names"] += 1
        lines.append(f"%v{state['names']} = {text}")
        return f"%v{state['names']}"

    def weight(*shape):
        state["seed"] += 1
        lines.append(f"%w{state['seed']} = constant random(seed = {state['seed']}, deviation = 0.02) : "
                     f"f32[{', '.join(map(str, shape))}]")
        return f"%w{state['seed']}"

    def norm(x):
        square = node(f"multiply({x}, {x})")
        mean = node(f"reduce({square}) {{function = mean, axes = [1], keepDims = true}}")
        root = node(f"rsqrt({node(f'add({mean}, %epsilon)')})")
        return node(f"multiply({node(f'multiply({x}, {root})')}, {weight(64)})")

    def linear(x, rows, columns):
        product = node(f"matmul({x}, {weight(rows, columns)}) {{transposeB = true}}")
        return node(f"add({product}, {weight(rows)})")

    def heads(x):
        parts = node(f"reshape({linear(x, 64, 64)}) {{shape = [16, 4, 16]}}")
        return node(f"transpose({parts}) {{permutation = [1, 0, 2]}}")

    lines += ["%epsilon = constant splat(1e-05) : f32[]", "%quarter = constant splat(0.25) : f32[]"]
    x = "%x"
    for _ in range(layers):
        n = norm(x)
        q, k, v = heads(n), heads(n), heads(n)
        scores = node(f"multiply({node(f'matmul({q}, {k}) {{transposeB = true}}')}, %quarter)")
        mixed = node(f"matmul({node(f'softmax({scores})')}, {v})")
        joined = node(f"reshape({node(f'transpose({mixed}) {{permutation = [1, 0, 2]}}')}) {{shape = [16, 64]}}")
        x = node(f"add({x}, {linear(joined, 64, 64)})")
        m = norm(x)
        gate = linear(m, 128, 64)
        silu = node(f"multiply({gate}, {node(f'sigmoid({gate})')})")
        x = node(f"add({x}, {linear(node(f'multiply({silu}, {linear(m, 128, 64)})'), 64, 128)})")
    body = "\n    ".join(lines)
    with open(path, "w") as file:
        file.write(f"model @transformer {{\n  func @main(%x: f32[16, 64]) -> (y) {{\n    {body}\n    return {x}\n  }}\n}}\n")
    return state["names"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--mcc", default=".build/release/mcc")
    options = parser.parse_args()
    cache = os.path.join(options.folder, "cache")
    program = os.path.join(options.folder, "story")

    def compile_once():
        start = time.perf_counter()
        subprocess.run(
            [options.mcc, "compile", "-q", "Examples/stories260K", "-o", program, "--cache-dir", cache], check=True)
        return time.perf_counter() - start

    cold, warm = [], []
    for _ in range(3):
        shutil.rmtree(cache, ignore_errors=True)
        cold.append(compile_once())
        warm.append(compile_once())
    print(f"mcc compile Examples/stories260K: {statistics.median(cold):.2f} s cold, "
          f"{statistics.median(warm):.2f} s with cached objects")

    graph = os.path.join(options.folder, "transformer.mir")
    nodes = transformer(graph)
    times = []
    for _ in range(5):
        done = subprocess.run(
            [options.mcc, "opt", "--statistics", graph, "-o", os.devnull], check=True, text=True, stderr=subprocess.PIPE)
        found = re.findall(r"\(([\d.]+) (m?s)\)$", done.stderr, re.MULTILINE)
        times.append(sum(float(time) * (1e-3 if unit == "ms" else 1) for time, unit in found))
    print(f"passes of -O1 on {nodes} nodes: {statistics.median(times):.3f} s")


if __name__ == "__main__":
    main()
