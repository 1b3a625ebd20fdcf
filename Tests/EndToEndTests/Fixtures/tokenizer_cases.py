#!/usr/bin/env python3
"""Writes tokenizer_cases.json: what the package `tokenizers` 0.23 makes of some texts.

Usage: tokenizer_cases.py MODELS > tokenizer_cases.json

MODELS holds stories260K/hf/tokenizer.json, pycode7m/tokenizer.json and minilm/tokenizer.json. "gpt2" is the latter as it is; "llama3" and
"qwen2" are the same vocabulary with the expressions of these models, "whole" with ignore_merges and the merges in
reverse, so that words that are tokens matter. "bert" is MiniLM's without truncation and padding; "cased" and "raw" are
it with other settings of the normalizer.
"""

import json
import random
import sys

from tokenizers import Tokenizer

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")

WRITTEN = [
    "", " ", "  ", "Once upon a time", " leading", "trailing ", "two  spaces", "   three", "a\nb", "a\r\n\r\nb",
    "\n\n\n",
    "\t\tdef f(self):\n\t\treturn x\n", "x = 12345 + 678.9e-10", "It's we'll they've I'm he'd can't you're",
    "IT'S WE'LL THEY'VE I'M HE'D CAN'T YOU'RE", "'\u017ft 's", "don''t",
    "caf\u00e9 cafe\u0301", "na\u00efve \u0130stanbul",
    "\u6f22\u5b57\u304b\u306a \u4ea4\u3058\u308a", "\u0645\u0631\u062d\u0628\u0627 \u0661\u0662\u0663\u0664",
    "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 ok",
    "\u00bd \u2167 \u00b2 \u2460", "\u00a0nbsp\u00a0\u00a0x", "\u3000wide\u3000", "a\u2028b\u2029c", "\u0085next\u0085",
    "\ufeffbom", "\u200bzero", "\x00nul\x01\x7f", "\x1c\x1f", "\ue000 private \U0010ffff",
    "<s>x</s>y<unk>", "<s", "<s><s>",
    "<|endoftext|>", "a<|endoftext|>b <|endoftext|> c", "<|endof", "<0x0A>", "\u2581under\u2581score", " \u2581 ",
    "!!!???...", "a.b,c;d:e", "[](){}<>", "http://example.com/a?b=c&d=%20", "snake_case camelCase PascalCase UPPER",
    "0 00 000 0000 00000", "1,234,567.89", "\u0967\u0968\u0969\u096a", "$1.50 \u20ac2 \u00a33", "#include <stdio.h>\n",
    "    for i in range(10):\n        print(i)\n\n\n", "a" * 40, " " * 33 + "x",
    "\n" * 5 + " x", "x \n \n y", "\r\r\n \r",
    "[CLS] x[SEP]y [MASK]ing [PAD] [UNK]", "[cls] [ MASK ]", "unaffable embeddings", "x" * 100 + " " + "x" * 101,
    "\u1ed6\u1ebe \u0110\u1eb7ng Th\u1ecb \u00c5ngstr\u00f6m \u0391\u03a3 \u03a3\u03bf\u03c6\u03af\u03b1\u03a3 \u0401\u0436\u0438\u043a \u0419",
    "\ud55c\uad6d\uc5b4 \uac00\uac01 \u1112\u1161\u11ab", "\u30ac\u30d1\u30fb\uff76\uff9e \uff21\uff22", "\uf900\u2f9f4\U0002f800 \u9fa6",
    "\u00bfqu\u00e9? \u2014\u201cx\u201d\u2026 \u00a7\u00b6 ^`$+<=>~|", "\u0340\u037e\u1fef\u212b\u2126", "\u09cb\u0ddd \U0001d161",
    "\ufffd x\ufffdy", "a\u00adb\u200cc\u202ed\u2060", "\u13a0\u10a0\u2c00\U00010400 \u01c5 \ua64a", "\x0b\x0cv\x85",
]


def random_text(rng):
    pieces = ["a", "B", "the", "self", "'s", "'LL", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u00e9", "\u6f22",
              "\u00df", "7", "42", "1234", "\u0663", "!", "..", "<s>", "<|endoftext|>", "\u2581", "\U0001f600", "_",
              "\u200d", "\u0301"]
    if rng.random() < 0.7:
        return "".join(rng.choice(pieces) for _ in range(rng.randint(1, 16)))
    ranges = [(0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)]
    return "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 8)))


def tokenizers(models):
    with open(f"{models}/pycode7m/tokenizer.json") as file:
        text = file.read()
    yield "stories", Tokenizer.from_file(f"{models}/stories260K/hf/tokenizer.json")
    yield "gpt2", Tokenizer.from_str(text)
    for name, expression in [("llama3", LLAMA3), ("qwen2", QWEN2), ("whole", LLAMA3)]:
        tree = json.loads(text)
        split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, level]}
        if name == "whole":
            tree["model"]["ignore_merges"] = True
            tree["model"]["merges"].reverse()
        yield name, Tokenizer.from_str(json.dumps(tree))
    with open(f"{models}/minilm/tokenizer.json") as file:
        tree = json.load(file)
    tree["truncation"] = tree["padding"] = None
    yield "bert", Tokenizer.from_str(json.dumps(tree))
    tree["normalizer"].update(lowercase=False, strip_accents=True)
    yield "cased", Tokenizer.from_str(json.dumps(tree))
    tree["normalizer"].update(clean_text=False, handle_chinese_chars=False, lowercase=True, strip_accents=False)
    yield "raw", Tokenizer.from_str(json.dumps(tree))


def main():
    rng = random.Random(1)
    texts = WRITTEN + [random_text(rng) for _ in range(120)]
    made = dict(tokenizers(sys.argv[1]))
    print("[")
    for index, text in enumerate(texts):
        case = {"text": text} | {name: tokenizer.encode(text).ids for name, tokenizer in made.items()}
        print(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + ("," if index + 1 < len(texts) else ""))
    print("]")


if __name__ == "__main__":
    main()
