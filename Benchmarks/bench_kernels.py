#!/usr/bin/env python3
"""Time all candidates for every kernel of the benchmarked models; fail where a chosen one is more than 5 % behind the best.

usage: bench_kernels.py FOLDER [--threads 2] [--target native] [--mcc .build/release/mcc] [--only NAME ...] [MODEL ...]

The models are those of the table: the Llama of make_llama.py (two layers of it unless FOLDER/llama is there) in w4g32, w4g128,
w8 and bf16, the seven image networks in fp32 and, where samples can be made, three in int8, and a BERT of six layers on 128
tokens. MODEL: other checkpoints instead. --only: those whose names contain a NAME. What is printed is `mcc bench-kernels
MODEL --assert` in short; that command shows all candidates. Needs: pip install numpy onnx onnxruntime
"""
import argparse
import json
import os
import subprocess
import sys

import make_llama
import networks
from pairing import Failed


def llama(options):
    """The folder of the checkpoint; two layers have the shapes of all."""
    whole = os.path.join(options.folder, "llama", "hf")
    if os.path.exists(os.path.join(whole, "model.safetensors")):
        return whole
    small = os.path.join(options.folder, "llama-2-layers")
    if not os.path.exists(os.path.join(small, "model.safetensors")):
        make_llama.write_hugging_face(small, 2)
    return small


def network(options, name):
    return [networks.filled(options, name)]


def int8_network(options, name):
    import make_int8_networks

    model = networks.filled(options, name)
    return [model, "--quantize", "w8", "--calibrate", make_int8_networks.make_samples(model, options.folder)]


def works(options):
    """(name, function that gives the arguments of `mcc bench-kernels`)."""
    for model in options.models:
        yield os.path.basename(model), lambda model=model: [model]
    if options.models:
        return
    for spec in ["w4g32", "w4g128", "w8"]:
        yield f"llama {spec}", lambda spec=spec: [llama(options), "--quantize", spec]
    yield "llama bf16", lambda: [llama(options)]
    for name in networks.IMAGE_NETWORKS:
        yield f"{name} fp32", lambda name=name: network(options, name)
    for name in networks.INT8_NETWORKS:
        yield f"{name} int8", lambda name=name: int8_network(options, name)
    yield "bert 128 fp32", lambda: network(options, "bert_dynamic") + ["--dim", "b=1", "--dim", "s=128"]


def measure(options, arguments):
    """What `mcc bench-kernels` finds; its exit status says whether the choices hold."""
    command = [options.mcc, "bench-kernels", *arguments, "--assert", "--json", "--threads", str(options.threads),
               "--target", options.target, "--cache-dir", os.path.join(options.folder, "machine")]
    run = subprocess.run(command, capture_output=True, text=True)
    try:
        return json.loads(run.stdout)
    except ValueError:
        raise Failed((run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[0]) from None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--target", default="native")
    parser.add_argument("--mcc", default=".build/release/mcc")
    parser.add_argument("--only", action="append", default=[])
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    # The choices follow this machine's measured limits, which an earlier, busy moment may have left in the cache.
    subprocess.run([options.mcc, "targets", "--measure", "--cache-dir", os.path.join(options.folder, "machine")],
                   stdout=subprocess.DEVNULL, check=False)
    failed = 0
    print(f"{'model':<24} {'shapes':>7} {'candidates':>11}  largest ratio of the chosen kernel's time to the best's")
    for name, arguments in works(options):
        if options.only and not any(part in name for part in options.only):
            continue
        try:
            result = measure(options, arguments())
        except (Failed, OSError, ImportError) as error:
            print(f"{name:<24} not measured: {error}", flush=True)
            failed += 1
            continue
        calls = result["calls"]
        worst = max(calls, key=lambda call: call["ratio"])
        chosen = next(item["name"] for item in worst["candidates"] if item["chosen"])
        print(f"{name:<24} {len(calls):>7} {sum(len(call['candidates']) for call in calls):>11}  {worst['ratio']:.3f}  "
              f"{'' if result['passed'] else 'BEHIND '}{chosen}", flush=True)
        failed += not result["passed"]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
