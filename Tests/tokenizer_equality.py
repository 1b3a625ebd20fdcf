#!/usr/bin/env python3
"""Compares the tokenizers of generated programs with the package `tokenizers`, on seeded text in many scripts.

Usage: Tests/tokenizer_equality.py [--mcc PATH] [--lines N] [--seed N] [--family NAME]... [--keep FOLDER]

For each family a tokenizer with the published steps of a well-known model is trained on generated text, compiled with a
tiny network, and asked to encode each line with and without the tokens around a text, and to decode lists of ids: those
of the lines and random ones, which give invalid UTF-8. Ends with status 1 if anything differs.
"""

import argparse
import base64
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import numpy
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import processors

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CAPITALS, SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
LEAD = r"[^\r\n\p{L}\p{N}]?"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = f"{LEAD}{CAPITALS}*{SMALL}+{ENDING}|{LEAD}{CAPITALS}+{SMALL}*{ENDING}|\\p{{N}}{{1,3}}{REST}"
TEKKEN = f"{LEAD}{CAPITALS}*{SMALL}+|{LEAD}{CAPITALS}+{SMALL}*|\\p{{N}}{REST}"
DEEPSEEK3 = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
             r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"

# ---- text ----

SCRIPTS = [
    (0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x17F), (0x180, 0x24F), (0x370, 0x3FF), (0x400, 0x52F), (0x531, 0x587),
    (0x5D0, 0x5EA), (0x620, 0x6D3), (0x700, 0x74F), (0x905, 0x94D), (0x985, 0x9CD), (0xA05, 0xA4D), (0xB85, 0xBCD),
    (0xC05, 0xC4D), (0xD05, 0xD4D), (0xE01, 0xE4E), (0xE81, 0xECD), (0xF40, 0xF84), (0x1000, 0x1039), (0x10A0, 0x10FF),
    (0x1100, 0x11FF), (0x1200, 0x1248), (0x13A0, 0x13F5), (0x1780, 0x17D3), (0x1820, 0x1878), (0x1E00, 0x1EFF),
    (0x1F00, 0x1FFE), (0x3041, 0x3096), (0x30A0, 0x30FF), (0x3105, 0x312F), (0x4E00, 0x9FFF), (0xA000, 0xA48C),
    (0xAC00, 0xD7A3), (0xFB00, 0xFB4F), (0xFE70, 0xFEFC), (0xFF01, 0xFFEE), (0x10400, 0x1044F), (0x12000, 0x1236E),
    (0x1D400, 0x1D7FF), (0x1E900, 0x1E943), (0x20000, 0x2A6D6),
]
WORDS = ("the of and to in is that it for was on are as with his they at be this from have or by one had not but what "
         "all were when your can said there use an each which she do how their if will up other about out many then "
         "them these so some her would make like him into time has look two more write go see number no way could "
         "people my than first water been call who oil its now find long down day did get come made may part Tokenizer "
         "encoding Unicode HTTPServer camelCase snake_case IT'S we'll DON'T you've I'm he'd o'clock naïve café résumé "
         "Straße Ångström İstanbul ſ's 'S 'LL 've'RE don't,won't").split()
CODE = ["def f(x):", "    return x + 1", "for (int i = 0; i < n; i++) {", "}", "#include <stdio.h>", "x = [1, 2, 3]",
        "if err != nil {", "\treturn nil, err", "SELECT * FROM t WHERE a = 'b';", "<div class=\"x\">", "</div>",
        "http://example.com/a?b=c&d=%20", "a->b->c();", "/* comment */", "// TODO", "λx.x", "fn main() -> Result<()> {",
        "$PATH", "`ls -l`", "0xDEADBEEF", "1e-9", "3.14159", "1_000_000", "12345678901234567890", "100%", "#!/bin/sh"]
EMOJI = ["😀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "🇩🇪🇫🇷🇯", "❤️", "☺", "1️⃣", "🧑🏿‍🚀", "🤷‍♀️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "♻️", "©️"]
SPACES = [" ", "  ", "   ", " " * 7, " " * 33, "\t", "\t\t", "\n", "\r\n", "\n\n", "\r", "\u00a0", "\u3000", "\u2003",
          "\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\u200b", "\ufeff", "\u1680", "\u202f", "\u180e", " \n ", "\n  "]
ODD = ["\x01", "\x02", "\x1b[0m", "\x7f", "\x80", "\x9f", "\u00ad", "\u200c", "\u200d", "\u200e", "\u202e", "\u2060",
       "\ufffd", "\ufffe", "\ue000", "\U000e0001", "\U0010ffff", "\u0378", "\u0301", "\u0327\u0301", "\u0301\u0327",
       "\u0316\u0300\u0334", "\u0345", "e\u0301", "a\u0323\u0302", "\u1100\u1161\u11a8", "\u1161", "\u0958", "\u212b",
       "\u2126", "\u1e9b\u0323", "\ufb01", "\u00bd", "\u2460", "\u2167", "\ufdfa", "\u3392", "\uff76\uff9e", "\u0130",
       "\u01c5", "\u1fb3", "\u0f73", "\u0f81", "\U0001d15e", "\U0002f800", "\u0e33", "\u0903", "\u094d", "\u0915\u094d\u0937",
       "\u0600", "\u0600a", "\u1b35", "\u302e", "\U0001d165"]
MARKED = ["<s>", "</s>", "<unk>", "<pad>", "<|end|>", "<|end|><|end|>", " <mask> ", "<mask>", "[CLS]", "[SEP]", "[MASK]",
          "[UNK]", "norm\u00e9", "NORM\u00c9", "word", "sword", "word.", " word ", "<0x0A>", "<0xE2>", "\u2581",
          "\u2581\u2581a", "##ing", "</w>", "<|startoftext|>", "<|endoftext|>", "<s", "<|en", "\u0120a", "Ġ"]
SIGNS = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["...", "!!!", "?!", "--", "''", "``", "€", "£", "→", "∑", "«", "»",
                                                      "。", "，", "、", "¿", "—", "“", "”", "…", "÷", "।", "۔", "،", "٪"]


def number(rng):
    digits = rng.choice(["0123456789"] * 5 + ["٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "𝟎𝟏𝟐𝟑𝟒", "①②③", "½¼²³", "Ⅷⅷ〇"])
    return "".join(rng.choice(digits) for _ in range(rng.randint(1, 8)))


def script_word(rng):
    first, last = rng.choice(SCRIPTS)
    length = rng.randint(1, 10)
    return "".join(chr(rng.randint(first, last)) for _ in range(length))


def anything(rng):
    ranges = [(1, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF), (0x2000, 0x2BFF)]
    return "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 4)))


MAKERS = [(lambda rng: rng.choice(WORDS), 12), (script_word, 8), (lambda rng: rng.choice(SPACES), 5),
          (lambda rng: rng.choice(SIGNS), 5), (number, 3), (lambda rng: rng.choice(CODE), 2),
          (lambda rng: rng.choice(EMOJI), 2), (lambda rng: rng.choice(ODD), 3), (lambda rng: rng.choice(MARKED), 2),
          (anything, 2), (lambda rng: rng.choice("aAzZ'.! \u00e9") * rng.randint(2, 40), 1)]
CHOICES = [maker for maker, weight in MAKERS for _ in range(weight)]


def line(rng):
    """One text without zero bytes; of them files of texts are made."""
    words = []
    for _ in range(rng.randint(0, 14)):
        words.append(rng.choice(CHOICES)(rng))
        if rng.random() < 0.6:
            words.append(" ")
    return "".join(words)


def plain_text(rng, count):
    """Text to train on: words in many scripts, most of them often."""
    pool = WORDS * 3 + [script_word(rng) for _ in range(400)] + CODE + EMOJI + SIGNS
    return ["".join(rng.choice(pool) + rng.choice([" ", " ", " ", "", "\n", ", "]) for _ in range(20))
            for _ in range(count)]


# ---- families ----

BYTES = pre_tokenizers.ByteLevel.alphabet()


def sequence(*steps):
    return pre_tokenizers.Sequence(list(steps))


def split(expression, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(expression), behavior, invert)


def byte_level(splitter, normalizer=None, processor=None, **options):
    """Byte pair encoding over bytes."""
    def make(texts, size):
        tokenizer = Tokenizer(models.BPE(**options))
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = splitter
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=BYTES, special_tokens=["<s>", "</s>", "<|end|>"],
                                      show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.post_processor = processor or processors.ByteLevel(trim_offsets=False)
        return tokenizer
    return make


def no_regex(prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)


def character_bpe(normalizer, splitter, decoder, byte_fallback=True, trained=None, suffix=None, prefix=None, unk="<unk>",
                  fuse=True):
    """Byte pair encoding over characters; byte tokens are put into the vocabulary before training."""
    def make(texts, size):
        options = {"end_of_word_suffix": suffix} if suffix else {}
        options |= {"continuing_subword_prefix": prefix} if prefix else {}
        tokenizer = Tokenizer(models.BPE(unk_token=unk, fuse_unk=fuse, byte_fallback=byte_fallback, **options))
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = trained or pre_tokenizers.Split("▁", "merged_with_next")
        special = ["<unk>", "<s>", "</s>"] + ([f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else [])
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False, limit_alphabet=300,
                                      **options)
        tokenizer.train_from_iterator(texts, trainer)
        tree = json.loads(tokenizer.to_str())
        tree["added_tokens"] = [token for token in tree["added_tokens"] if not token["content"].startswith("<0x")]
        tree["pre_tokenizer"] = None
        tree["model"].update(unk_token=unk, fuse_unk=fuse, byte_fallback=byte_fallback)
        tokenizer = Tokenizer.from_str(json.dumps(tree))
        if splitter is not None:
            tokenizer.pre_tokenizer = splitter
        tokenizer.decoder = decoder
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B",
                                                                 special_tokens=[("<s>", 1)])
        return tokenizer
    return make


def unigram(normalizer, splitter, decoder, byte_fallback=False):
    def make(texts, size):
        tokenizer = Tokenizer(models.Unigram())
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = splitter
        special = ["<pad>", "</s>", "<unk>"] + ([f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else [])
        # All characters are in the vocabulary.
        trainer = trainers.UnigramTrainer(vocab_size=size + 3000, special_tokens=special, unk_token="<unk>", show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        tree = json.loads(tokenizer.to_str())
        tree["added_tokens"] = [token for token in tree["added_tokens"] if not token["content"].startswith("<0x")]
        tree["model"]["byte_fallback"] = byte_fallback
        tokenizer = Tokenizer.from_str(json.dumps(tree))
        tokenizer.decoder = decoder
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>",
                                                                 special_tokens=[("</s>", 1)])
        return tokenizer
    return make


def word_piece(normalizer, splitter, cleanup=True):
    def make(texts, size):
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = splitter
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
                                            show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.decoder = decoders.WordPiece(cleanup=cleanup)
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
        return tokenizer
    return make


def word_level(texts, size):
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(vocab_size=size, special_tokens=["<unk>", "</s>"],
                                                                   show_progress=False))
    return tokenizer


def charsmap():
    """A small map of SentencePiece, with the double array of the library Darts."""
    rules = {"\uff21": "A", "\ufb01": "fi", "\u00a0": " ", "\t": " ", "\n": " ", "\r": " ", "\u3000": " ", "e\u0301": "\u00e9",
             "\u200d": "", "\u00ad": "", "\u2460": "1", "\u212b": "\u00c5", "\u01c5": "D\u017e", "\u1100\u1161": "\uac00",
             "\u0958": "\u0915\u093c", "\x7f": "", "\u2026": "...", "a\u0323\u0302": "\u1ead", "\ufdfa": "salam", "\u0e33": "x"}
    texts, places = b"", {}
    for key, text in rules.items():
        places[key.encode()] = len(texts)
        texts += text.encode() + b"\0"
    keys = sorted(places)
    units, used = {0: 0}, {0}

    def place(node, depth, group):
        labels = sorted({key[depth] if depth < len(key) else 0 for key in group})
        offset = 1
        while any((offset ^ label ^ 0) in used or (node ^ offset ^ label) in used for label in labels) or (
                offset >= 1 << 21):
            offset += 1
        units[node] |= offset << 10
        base = node ^ offset
        for label in labels:
            used.add(base ^ label)
        for label in labels:
            child = base ^ label
            if label == 0:
                units[node] |= 1 << 8
                units[child] = 1 << 31 | places[next(key for key in group if len(key) == depth)]
            else:
                units[child] = label
                place(child, depth + 1, [key for key in group if depth < len(key) and key[depth] == label])

    place(0, 0, keys)
    array = b"".join(struct.pack("<I", units.get(index, 0)) for index in range(max(units) + 256))
    return base64.b64encode(struct.pack("<I", len(array)) + array + texts).decode()


def precompiled():
    return normalizers.Precompiled(base64.b64decode(charsmap()))


def metaspace(scheme="always", split=True):
    return pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)


SPACES_BACK = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
ROBERTA = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))

FAMILIES = {
    "gpt2": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "roberta": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), processor=ROBERTA),
    "gpt-neox": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC()),
    "llama-3": byte_level(sequence(split(LLAMA3), no_regex()), ignore_merges=True),
    "gpt-4": byte_level(sequence(split(LLAMA3, "removed", True), no_regex())),
    "qwen2": byte_level(sequence(split(QWEN2), no_regex()), normalizers.NFC()),
    "qwen3.5": byte_level(sequence(split(QWEN35), no_regex()), normalizers.NFC()),
    "o200k": byte_level(sequence(split(O200K, "removed", True), no_regex()), ignore_merges=True),
    "tekken": byte_level(sequence(split(TEKKEN), no_regex())),
    "starcoder": byte_level(sequence(pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False))),
    "deepseek-coder": byte_level(sequence(split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"),
                                          split("[一-龥ࠀ-一가-퟿]+"), pre_tokenizers.Digits(True), no_regex())),
    "deepseek-v3": byte_level(sequence(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK3), no_regex())),
    "falcon": byte_level(sequence(pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(False),
                                  pre_tokenizers.Digits(False), split("[0-9][0-9][0-9]"))),
    "bloom": byte_level(sequence(split(BLOOM), no_regex())),
    "llama-2": character_bpe(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None,
                             decoders.Sequence(SPACES_BACK + [decoders.Strip(" ", 1, 0)])),
    "mistral": character_bpe(None, metaspace("first", False), decoders.Sequence(SPACES_BACK + [decoders.Strip(" ", 1, 0)]),
                             trained=metaspace("first")),
    "gemma": character_bpe(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"),
                           decoders.Sequence(SPACES_BACK)),
    "no-fallback": character_bpe(normalizers.Replace(" ", "▁"), None, decoders.Sequence(SPACES_BACK), byte_fallback=False),
    "unfused": character_bpe(None, pre_tokenizers.WhitespaceSplit(), decoders.BPEDecoder(), byte_fallback=False, fuse=False,
                             trained=pre_tokenizers.WhitespaceSplit()),
    "clip": character_bpe(
        normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]),
        split(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", "removed", True), decoders.BPEDecoder("</w>"),
        byte_fallback=False, suffix="</w>", trained=pre_tokenizers.Whitespace()),
    "openai-gpt": character_bpe(normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), decoders.BPEDecoder("</w>"),
                                byte_fallback=False, suffix="</w>", trained=pre_tokenizers.BertPreTokenizer()),
    "marked": character_bpe(normalizers.NFKC(), pre_tokenizers.Whitespace(), decoders.WordPiece(cleanup=False),
                            byte_fallback=False, prefix="##", trained=pre_tokenizers.Whitespace()),
    "t5": unigram(normalizers.Sequence([precompiled(), normalizers.Replace(Regex(" {2,}"), " ")]), metaspace(),
                  decoders.Metaspace()),
    "xlm-roberta": unigram(precompiled(), sequence(pre_tokenizers.WhitespaceSplit(), metaspace()), decoders.Metaspace()),
    "albert": unigram(normalizers.Sequence([normalizers.Replace("``", '"'), normalizers.Replace("''", '"'),
                                            normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(),
                                            precompiled()]), metaspace(), decoders.Metaspace()),
    "deberta": unigram(normalizers.Sequence([normalizers.Strip(), precompiled()]), metaspace("first"),
                       decoders.Metaspace(prepend_scheme="first")),
    "unigram-bytes": unigram(normalizers.Nmt(), metaspace("never"), decoders.Sequence(SPACES_BACK), byte_fallback=True),
    "unigram-whole": unigram(normalizers.Sequence([normalizers.NFD(), normalizers.Nmt()]), metaspace("always", False),
                             decoders.Metaspace()),
    "bert": word_piece(normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()),
    "bert-cased": word_piece(normalizers.BertNormalizer(lowercase=False), pre_tokenizers.BertPreTokenizer(), cleanup=False),
    "bert-accents": word_piece(normalizers.BertNormalizer(strip_accents=False, clean_text=False,
                                                          handle_chinese_chars=False), pre_tokenizers.BertPreTokenizer()),
    "word-level": word_level,
}


def add_tokens(tokenizer):
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("<|end|>", normalized=False)])
    tokenizer.add_tokens([AddedToken("normé", normalized=True), AddedToken("word", single_word=True, normalized=False),
                          AddedToken("<pad>", rstrip=True, normalized=False)])


# ---- programs ----

def write_checkpoint(folder, tokenizer):
    """The smallest Llama with this vocabulary."""
    size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 8,
              "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": size,
              "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True,
              "torch_dtype": "float32"}
    shapes = {"model.embed_tokens.weight": [size, 8], "model.norm.weight": [8]}
    layer = "model.layers.0."
    for name in ["input_layernorm", "post_attention_layernorm"]:
        shapes[f"{layer}{name}.weight"] = [8]
    for name in ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.q_proj", "self_attn.k_proj",
                 "self_attn.v_proj", "self_attn.o_proj"]:
        shapes[f"{layer}{name}.weight"] = [8, 8]
    header, offset = {}, 0
    for name, shape in shapes.items():
        count = int(numpy.prod(shape)) * 4
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + count]}
        offset += count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + bytes(offset))
    with open(f"{folder}/config.json", "w") as file:
        json.dump(config, file)
    tokenizer.save(f"{folder}/tokenizer.json")


def run(command, **options):
    result = subprocess.run(command, capture_output=True, **options)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: {result.stderr.decode()}")
    return result.stdout


def compile_program(mcc, folder, name):
    program = f"{folder}/{name}"
    run([mcc, "compile", f"{folder}/{name}.model", "-o", program, "--quiet"])
    return program


def encode(program, path, *options):
    lines = run([program, "tokens", "--zero", "--file", path, *options]).decode().split("\n")[:-1]
    return [[int(number) for number in line.split()] for line in lines]


def decode(program, path, *options):
    return run([program, "tokens", "--decode", "--zero", "--file", path, *options]).split(b"\0")[:-1]


def write_texts(path, texts):
    with open(path, "wb") as file:
        for text in texts:
            file.write(text.encode() + b"\0")


def compare(what, given, expected, found):
    wrong = [index for index in range(len(expected)) if index >= len(found) or expected[index] != found[index]]
    for index in wrong[:3]:
        print(f"  {what} differs: {given[index]!r}\n    expected {expected[index]!r}\n    found    "
              f"{found[index] if index < len(found) else None!r}")
    return len(wrong)


def check(name, make, options, folder, texts, training):
    tokenizer = make(training, options.vocabulary)
    add_tokens(tokenizer)
    write_checkpoint(f"{folder}/{name}.model", tokenizer)
    program = compile_program(options.mcc, folder, name)
    write_texts(f"{folder}/texts", texts)
    tokenizer = Tokenizer.from_file(f"{folder}/{name}.model/tokenizer.json")
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    whole = [item.ids for item in tokenizer.encode_batch(texts)]
    plain = [item.ids for item in tokenizer.encode_batch(texts, add_special_tokens=False)]
    wrong = compare("encoding", texts, whole, encode(program, f"{folder}/texts"))
    wrong += compare("plain encoding", texts, plain, encode(program, f"{folder}/texts", "--plain"))
    rng = random.Random(options.seed + 1)
    lists = whole + [[rng.randrange(size) for _ in range(rng.randint(0, 12))] for _ in range(len(texts) // 4)]
    # Zero bytes end texts.
    lists = [ids for ids in lists if "\0" not in tokenizer.decode(ids, skip_special_tokens=False)]
    write_texts(f"{folder}/ids", [",".join(map(str, ids)) for ids in lists])
    for flag, skips in [([], True), (["--special"], False)]:
        expected = [text.encode() for text in tokenizer.decode_batch(lists, skip_special_tokens=skips)]
        wrong += compare("decoding", lists, expected, decode(program, f"{folder}/ids", *flag))
    return wrong, 2 * len(texts) + 2 * len(lists)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mcc", default=".build/release/mcc", help="the compiler")
    parser.add_argument("--lines", type=int, default=100_000, help="texts for each family")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vocabulary", type=int, default=1500, help="tokens of each tokenizer")
    parser.add_argument("--family", action="append", choices=FAMILIES, help="these alone")
    parser.add_argument("--keep", help="folder for the files, kept")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    texts = ["", " ", "\n"] + [line(rng) for _ in range(options.lines - 3)]
    training = plain_text(random.Random(7), 600)
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or temporary
        os.makedirs(folder, exist_ok=True)
        for name in options.family or FAMILIES:
            start = time.time()
            wrong, count = check(name, FAMILIES[name], options, folder, texts, training)
            failed += wrong
            print(f"{name}: {wrong} of {count} results differ ({time.time() - start:.1f} s)", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
