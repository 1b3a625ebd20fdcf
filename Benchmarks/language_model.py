#!/usr/bin/env python3
"""Compare generated language models with llama.cpp, paired and alternating, and print the ratios.

usage: language_model.py FOLDER [--runs 7] [--threads 2] [--mcc .build/release/mcc]

FOLDER comes from make_llama.py. Compiles FOLDER/hf to w4g32 and compares with q4_0.gguf: prefill of 128 tokens, decode
of 32. Prints compile time and peak memory (/usr/bin/time), medians, ratios, and file sizes.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def output(command):
    return subprocess.run(command, check=True, capture_output=True, text=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mcc", default=".build/release/mcc")
    options = parser.parse_args()
    path = lambda name: os.path.join(options.folder, name)
    print(f"threads {options.threads}, {options.runs} alternating runs, medians")
    for spec, peer in [("w4g32", "q4_0.gguf"), ("w8g32", "q8_0.gguf")]:
        program = path(spec)
        report = output(
            ["/usr/bin/time", "-v", options.mcc, "compile", "--json", path("hf"), "--quantize", spec, "-o", program])
        summary = json.loads(report.stdout)
        peak = next(int(line.split()[-1]) for line in report.stderr.splitlines() if "Maximum resident" in line)
        print(f"{spec}: compiled in {summary['seconds']:.1f} s with {peak / 1024:.0f} MiB resident, "
              f"{summary['bits_per_weight']:.2f} bits per weight")
        print(f"  file {os.path.getsize(program) / 2**20:.1f} MiB, {peer} {os.path.getsize(path(peer)) / 2**20:.1f} MiB")
        ours, theirs = [], []
        for _ in range(options.runs):
            ours.append(json.loads(output(
                [program, "bench", "--json", "--prefill", "128", "--decode", "32", "--repeat", "1",
                 "--threads", str(options.threads)]).stdout))
            theirs.append(json.loads(output(
                [sys.executable, os.path.join(HERE, "llama_cpp_bench.py"), path(peer),
                 "--threads", str(options.threads)]).stdout))
        for what in ["prefill", "decode"]:
            key = what + "_tokens_per_second"
            a, b = [run[key] for run in ours], [run[key] for run in theirs]
            ratio = statistics.median(x / y for x, y in zip(a, b))
            print(f"  {what}: mcc {statistics.median(a):.1f} tokens/s, llama.cpp {statistics.median(b):.1f} tokens/s, "
                  f"ratio {ratio:.2f}")
        print(f"  decode reads {statistics.median(run['gigabytes_per_second'] for run in ours):.1f} GB/s")
    print("llama.cpp:", theirs[0]["system"])


if __name__ == "__main__":
    main()
