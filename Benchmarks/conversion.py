#!/usr/bin/env python3
"""Print the speed and the peak memory of `mcc convert`, and the speed of `cp` for the same checkpoint.

Runs alternate, outputs are removed after each, and the source is read once before, so that it lies in the page cache. The
least time of each counts. `share` is the speed of the conversion, by the bytes that it writes, over that of `cp`. With --sync
both are timed until the bytes are on the disk.

usage: conversion.py CHECKPOINT FOLDER [--mcc .build/release/mcc] [--forms gguf,safetensors,folder] [--runs 3]
                     [--quantize SPEC] [--sync]
"""
import argparse
import os
import shutil
import subprocess
import time


def size_of(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.remove(path)


def timed(command, output, sync):
    """The seconds, bytes written and peak memory in MiB of a command, whose output is removed."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if sync:
        os.sync()
    seconds = time.perf_counter() - start
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed")
    result = seconds, size_of(output), usage.ru_maxrss / 1024
    remove(output)
    return result


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("folder")
    parser.add_argument("--mcc", default=".build/release/mcc")
    parser.add_argument("--forms", default="gguf,safetensors,folder")
    parser.add_argument("--quantize")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sync", action="store_true")
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    for folder, _, names in os.walk(options.checkpoint):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                while file.read(1 << 24):
                    pass
    copy = os.path.join(options.folder, "copy")
    targets = {
        form: os.path.join(options.folder, "converted" if form == "folder" else f"converted.{form}")
        for form in options.forms.split(",")
    }
    for path in [copy, *targets.values()]:
        remove(path)
    copied, converted = [], {form: [] for form in targets}
    for _ in range(options.runs):
        copied.append(timed(["cp", "-r", options.checkpoint, copy], copy, options.sync))
        for form, path in targets.items():
            command = [options.mcc, "convert", "-q", options.checkpoint, path]
            if options.quantize and form != "safetensors":
                command += ["--quantize", options.quantize]
            converted[form].append(timed(command, path, options.sync))
    seconds, count, _ = min(copied)
    speed = count / seconds
    print(f"cp           {seconds:6.2f} s  {speed / 1e9:5.2f} GB/s")
    for form, runs in converted.items():
        seconds, count, memory = min(runs)
        rate = count / seconds
        print(
            f"{form:12} {seconds:6.2f} s  {rate / 1e9:5.2f} GB/s  share {rate / speed:4.2f}  "
            f"{max(run[2] for run in runs):6.0f} MiB")


if __name__ == "__main__":
    main()
