#!/usr/bin/env python3
"""Print how long `mcc compile` takes on the bundled checkpoint, cold and with cached objects.

usage: compile_time.py FOLDER [--mcc .build/release/mcc]
"""
import argparse
import os
import shutil
import statistics
import subprocess
import time


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


if __name__ == "__main__":
    main()
