#!/usr/bin/env python3
"""Compare the tokenizers of generated programs with the package `tokenizers` on one thread: loading and encoding.

usage: tokenizer_speed.py FOLDER [--mcc .build/release/mcc] [--vocabulary 128000] [--megabytes 16] [--runs 7] [--text FOLDER]

Trains tokenizers with the steps of known models (kept in FOLDER) on the sources of Python's standard library, or on the
files of --text, and encodes that text, line by line. Loading is what `mcc compile` takes to import a checkpoint that is
little more than its tokenizer, and what a program takes to start. Printing the ids counts against mcc. Needs: pip install
numpy tokenizers
"""
import argparse
import json
import os
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "Tests"))
import tokenizer_equality as equality
from pairing import HEAD, alternate, line, output, row
from tokenizers import Tokenizer

FAMILIES = ["llama-3", "gpt2", "o200k", "mistral", "bert", "xlm-roberta"]


def text_lines(folder, limit):
    """The lines of the files under a folder, in the order of their names, up to a number of bytes."""
    lines, size = [], 0
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.endswith((".pyc", ".so", ".a", ".exe", ".zip", ".gz")):
                continue
            try:
                with open(os.path.join(base, name), encoding="utf-8") as file:
                    found = [text for text in file.read().split("\n") if text and "\0" not in text]
            except (OSError, UnicodeDecodeError):
                continue
            lines += found
            size += sum(len(text.encode()) + 1 for text in found)
            if size >= limit:
                return lines, size
    return lines, size


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(options, name, lines, size):
    folder = os.path.join(options.folder, f"{name}.model")
    path = os.path.join(folder, "tokenizer.json")
    if not os.path.exists(path):
        equality.write_checkpoint(folder, equality.FAMILIES[name](lines, options.vocabulary))
    texts = os.path.join(options.folder, "texts")
    with open(texts, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(text + "\n" for text in lines)
    empty = os.path.join(options.folder, "empty")
    open(empty, "w").close()
    program = os.path.join(options.folder, name)
    summary = json.loads(output([options.mcc, "compile", "--json", folder, "-o", program]))
    tokenizer = Tokenizer.from_file(path)
    entries = tokenizer.get_vocab_size(with_added_tokens=True)

    def run(file):
        with open(os.devnull, "w") as sink:
            subprocess.run([program, "tokens", "--file", file], stdout=sink, check=True)

    starts, whole, theirs, loads = alternate(
        options.runs, lambda: seconds(lambda: run(empty)), lambda: seconds(lambda: run(texts)),
        lambda: seconds(lambda: tokenizer.encode_batch_fast(lines)), lambda: seconds(lambda: Tokenizer.from_file(path)))
    middle = lambda values: sorted(values)[len(values) // 2]
    ours = [a - b for a, b in zip(whole, starts)]
    imported = next(stage["seconds"] for stage in summary["stages"] if stage["name"] == "import")
    print(line(row(f"{name}: encode, {entries} tokens", size / middle(ours) / 1e6, size / middle(theirs) / 1e6,
                   middle([b / a for a, b in zip(ours, theirs)]), 1.0, "MB/s")))
    print(line(row(f"{name}: import into mcc / 0.2 s", imported * 1e3, 200.0, 0.2 / imported, 1.0, "ms")))
    print(line(row(f"{name}: start of a program / loading", middle(starts) * 1e3, middle(loads) * 1e3,
                   middle([b / a for a, b in zip(starts, loads)]), None, "ms")), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--mcc", default=".build/release/mcc")
    parser.add_argument("--vocabulary", type=int, default=128_000)
    parser.add_argument("--megabytes", type=float, default=16)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--text", default=os.path.dirname(os.__file__))
    parser.add_argument("--family", action="append", choices=sorted(equality.FAMILIES), help="these alone")
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    lines, size = text_lines(options.text, int(options.megabytes * 1e6))
    print(f"{size / 1e6:.1f} MB in {len(lines)} lines, one thread, medians of {options.runs} alternating runs")
    print(HEAD)
    for name in options.family or FAMILIES:
        measure(options, name, lines, size)


if __name__ == "__main__":
    main()
