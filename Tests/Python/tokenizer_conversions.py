#!/usr/bin/env python3
"""Checks the tokenizers that `mcc convert` writes in the programs that read them.

For tokenizers of the kinds of tokenizer_equality.py: the GGUF file in llama.cpp, and the folder made from the GGUF file in the
package `tokenizers`, against the original in `tokenizers`, on seeded text in many scripts. What mcc says it cannot represent is
printed. Needs numpy, tokenizers and llama-cpp-python. Exits with 1 if a text without such a reason differs.

usage: tokenizer_conversions.py MCC FOLDER [LINES [FAMILY...]]
"""
import os
import random
import subprocess
import sys
import unicodedata

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import tokenizer_equality as equality
from tokenizers import AddedToken, Tokenizer

FAMILIES = [
    "gpt2", "gpt-neox", "llama-3", "gpt-4", "qwen2", "o200k", "tekken", "starcoder", "deepseek-coder", "deepseek-v3", "bloom",
    "llama-2", "mistral", "gemma", "bert", "t5",
]
# Algorithms that GGUF files of decoders have in llama.cpp.
IN_LLAMA = set(FAMILIES) - {"t5", "bert"}


def differing(texts, expected, found):
    wrong = [(text, a, b) for text, a, b in zip(texts, expected, found) if a != b]
    for text, a, b in wrong[:2]:
        print(f"    {text!r}\n      expected {a}\n      found    {b}")
    return len(wrong)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    mcc, folder = sys.argv[1:3]
    lines = int(sys.argv[3]) if len(sys.argv) > 3 else 2000
    from llama_cpp import Llama

    rng = random.Random(5)
    texts = [equality.line(rng) for _ in range(lines)]
    # Normalization is said not to be there, and llama.cpp takes texts without zero bytes.
    texts = [unicodedata.normalize("NFC", text).replace("\0", "") for text in texts]
    training = equality.plain_text(random.Random(7), 600)
    failed = False
    for name in sys.argv[4:] or FAMILIES:
        source, path, back = (os.path.join(folder, f"{name}{end}") for end in [".model", ".gguf", ".back"])
        tokenizer = equality.FAMILIES[name](training, 1500)
        tokenizer.add_special_tokens([AddedToken("<|end|>", normalized=False)])
        equality.write_checkpoint(source, tokenizer)
        tokenizer = Tokenizer.from_file(f"{source}/tokenizer.json")
        expected = [item.ids for item in tokenizer.encode_batch(texts, add_special_tokens=False)]
        whole = [item.ids for item in tokenizer.encode_batch(texts)]
        outcome = subprocess.run([mcc, "convert", source, path], capture_output=True, text=True)
        notes = outcome.stderr.strip()
        if outcome.returncode != 0 or "no tokenizer is written" in notes:
            print(f"{name:14} {notes}")
            failed |= outcome.returncode != 0
            continue
        result = f"{name:14}"
        wrong = 0
        if name in IN_LLAMA:
            model = Llama(path, vocab_only=True, verbose=False)
            found = [model.tokenize(text.encode(), add_bos=False, special=True) for text in texts]
            wrong = differing(texts, expected, found)
            result += f" {wrong} of {lines} differ in llama.cpp,"
        subprocess.run([mcc, "convert", "-q", path, back], check=True)
        copy = Tokenizer.from_file(f"{back}/tokenizer.json")
        again = differing(texts, whole, [item.ids for item in copy.encode_batch(texts)])
        print(f"{result} {again} in the folder made from it {notes}", flush=True)
        failed |= wrong + again > 0 and not notes
    sys.exit(1 if failed else 0)


main()
