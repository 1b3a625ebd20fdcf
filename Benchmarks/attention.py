#!/usr/bin/env python3
"""Time attention with products of bytes against that in f32, through `mcc bench-kernels`.

usage: attention.py FOLDER [--mcc .build/release/mcc] [--target native] [--threads 1] [--lengths 1024 2048 4096] [--heads 32 64 128]

For each length and head size: as many queries as keys, eight heads, all keys seen or causal. Printed are the milliseconds of the
fastest kernel in f32, of that in bytes, their ratio, and whether a compilation with `at8` takes the bytes.
"""
import argparse
import json
import os
import subprocess

MODEL = """model @attention {{
  func @main (%q: f32[1, {n}, {width}], %k: f32[1, {n}, {width}], %v: f32[1, {n}, {width}]) -> (y: f32[1, {n}, {width}]) {{
    %y = attention(%q, %k, %v) {{heads = 8, kvHeads = 8, scale = {scale}, causal = {causal}, int8 = {{block = 64, smooth = true}}}}
    return %y
  }}
}}
"""


def measure(options, length, head, causal):
    """(milliseconds in f32, in bytes, whether the bytes are chosen)."""
    path = os.path.join(options.folder, "attention.mir")
    with open(path, "w") as file:
        file.write(MODEL.format(n=length, width=8 * head, scale=head ** -0.5, causal=str(causal).lower()))
    command = [options.mcc, "bench-kernels", path, "--json", "--threads", str(options.threads), "--target", options.target,
               "--cache-dir", os.path.join(options.folder, "machine")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    candidates = [item for call in json.loads(run.stdout)["calls"] for item in call["candidates"]]
    bytewise = [item for item in candidates if item["name"].startswith("mcc_attention_int8")]
    others = [item for item in candidates if item not in bytewise]

    def milliseconds(items):
        return 1e3 * min(item["seconds"] for item in items)

    return milliseconds(others), milliseconds(bytewise), any(item["chosen"] for item in bytewise)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--mcc", default=".build/release/mcc")
    parser.add_argument("--target", default="native")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--heads", type=int, nargs="+", default=[32, 64, 128])
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    print(f"{'keys':>6} {'head':>5} {'causal':>7} {'f32 ms':>9} {'int8 ms':>9} {'ratio':>6}  chosen")
    for causal in [False, True]:
        for head in options.heads:
            for length in options.lengths:
                real, rounded, chosen = measure(options, length, head, causal)
                print(f"{length:>6} {head:>5} {'yes' if causal else 'no':>7} {real:>9.2f} {rounded:>9.2f} "
                      f"{real / rounded:>6.2f}  {'int8' if chosen else 'f32'}", flush=True)


if __name__ == "__main__":
    main()
