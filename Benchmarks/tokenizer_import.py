#!/usr/bin/env python3
"""How long mcc takes to import a tokenizer of the size of Llama 3's, against loading by the package `tokenizers`.

usage: tokenizer_import.py FOLDER [--mcc .build/release/mcc] [--entries 128000] [--merges 280000] [--runs 9]

Makes up vocabularies in FOLDER, with the splitting rule and the byte-level steps of Llama 3: random tokens, each another one
and a letter, and of the ways to make a token of two others the first ones, until there are enough merges. The form is that which
the package saves: indented, merges as pairs; once more with merges as texts, as older files have them; and a unigram model. The
time of mcc is that of its stage `import`, with a network of one layer beside the tokenizer. Needs: pip install numpy
tokenizers
"""
import argparse
import json
import os
import random
import statistics
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "Tests"))
import tokenizer_equality as equality
from pairing import HEAD, alternate, line, output, row
from tokenizers import Tokenizer

BAR = 0.2


def shown_bytes():
    """The characters by which GPT-2 shows bytes, in the order of its vocabulary."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return [chr(byte) for byte in plain] + [chr(0x100 + index) for index in range(len(others))]


def vocabulary(entries, merges):
    """Tokens, and merges of pairs of them in the order of their results."""
    rng = random.Random(11)
    tokens = shown_bytes()
    known = set(tokens)
    common = [*"etaoinshrdlucmfwypvbgk", "\u0120", "\u0120"]
    pool = common * 40 + tokens
    while len(tokens) < entries:
        joined = rng.choice(pool) + rng.choice(common)
        if joined not in known:
            known.add(joined)
            tokens.append(joined)
            # Longer ones are joined no further.
            if len(joined) < 9:
                pool.append(joined)
    ways = [[(token[:cut], token[cut:]) for cut in range(1, len(token)) if token[:cut] in known and token[cut:] in known]
            for token in tokens]
    # Each token has one way to it before tokens have others.
    pairs = [pair for count in (slice(0, 1), slice(1, None)) for way in ways for pair in way[count]]
    return tokens, pairs[:merges]


def write(folder, name, model, indent):
    document = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": len(model["vocab"]) + index, "content": f"<|reserved_{index}|>", "single_word": False,
                          "lstrip": False, "rstrip": False, "normalized": False, "special": True} for index in range(256)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": equality.LLAMA3}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": model,
    }
    path = os.path.join(folder, name)
    os.makedirs(path, exist_ok=True)
    if model["type"] == "Unigram":
        document["pre_tokenizer"] = document["decoder"] = None
    file = os.path.join(path, "tokenizer.json")
    with open(file, "w", encoding="utf-8") as output_file:
        json.dump(document, output_file, ensure_ascii=False, indent=indent)
    # The network comes from the same place as that of the tests of equality, which also writes its own tokenizer file.
    saved = os.path.join(path, "source.json")
    os.replace(file, saved)
    equality.write_checkpoint(path, Tokenizer.from_file(saved))
    os.replace(saved, file)
    return path


def measure(options, name, folder):
    file = os.path.join(folder, "tokenizer.json")

    def ours():
        text = output([options.mcc, "compile", "--json", "--stop-after", "import", folder, "-o",
                       os.path.join(options.folder, "import.mir")])
        return next(stage["seconds"] for stage in json.loads(text)["stages"] if stage["name"] == "import")

    def theirs():
        start = time.perf_counter()
        Tokenizer.from_file(file)
        return time.perf_counter() - start

    mcc, package = alternate(options.runs, ours, theirs)
    work = f"{name}, {os.path.getsize(file) / 1e6:.1f} MB"
    median = statistics.median(mcc)
    print(line(row(work + ": import / package", median * 1e3, statistics.median(package) * 1e3,
                   statistics.median(b / a for a, b in zip(mcc, package)), None, "ms")))
    print(line(row(work + f": import / {BAR} s", median * 1e3, BAR * 1e3, BAR / median, 1.0, "ms",
                   note=f"fastest {min(mcc) * 1e3:.0f} ms")), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--mcc", default=".build/release/mcc")
    parser.add_argument("--entries", type=int, default=128_000)
    parser.add_argument("--merges", type=int, default=280_000)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    tokens, pairs = vocabulary(options.entries, options.merges)
    print(f"{len(tokens)} tokens, {len(pairs)} merges, medians of {options.runs} alternating runs")
    print(HEAD)
    bpe = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
           "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
           "vocab": {token: index for index, token in enumerate(tokens)}}
    rng = random.Random(12)
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": [[token, -rng.uniform(2, 20)] for token in tokens]}
    for name, model, indent in [("merges as pairs", dict(bpe, merges=pairs), 2),
                                ("merges as texts", dict(bpe, merges=[" ".join(pair) for pair in pairs]), None),
                                ("unigram", unigram, 2)]:
        measure(options, name, write(options.folder, name.replace(" ", "-"), model, indent))


if __name__ == "__main__":
    main()
