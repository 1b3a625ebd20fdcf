#!/usr/bin/env python3
"""Writes the tables of Unicode classes that the tokenizer of a generated program needs.

Usage: Scripts/make_unicode_tables.py > Sources/CodeGen/Runtime/unicode_tables.h
       Scripts/make_unicode_tables.py bert > Sources/CodeGen/Runtime/unicode_bert.h

The classes are those of the expressions that cut text into words: \\p{L}, \\p{N} and \\s (White_Space), from the
Unicode database of the package unicodedata2 if it is installed (version 16 equals what the Rust `tokenizers` 0.23 use),
else of the running Python.

The second form asks the package `tokenizers` what its BERT normalizer and pre-tokenizer do with each character, because
their tables are of older versions of Unicode, each of another one.
"""

import sys

try:
    import unicodedata2 as unicodedata
except ImportError:
    import unicodedata

WHITE_SPACE = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F,
               0x3000}


def ranges(member, first=0x80):
    """Maximal runs of code points from `first` for which `member` holds."""
    found, start = [], None
    for code in range(first, sys.maxunicode + 2):
        inside = code <= sys.maxunicode and member(code)
        if inside and start is None:
            start = code
        elif not inside and start is not None:
            found.append((start, code - 1))
            start = None
    return found


def rows(name, comment, found):
    """An array of arrays of numbers of equal length."""
    print(f"\n/* {comment} */")
    print(f"static const uint32_t {name}[{len(found)}][{len(found[0])}] = {{")
    line = "   "
    for row in found:
        entry = " {" + ", ".join(f"0x{number:X}" for number in row) + "},"
        if len(line) + len(entry) > 118:
            print(line)
            line = "   "
        line += entry
    print(line + "\n};")


def table(name, comment, member, first=0x80):
    rows(name, comment, ranges(member, first))


def write_classes():
    print(f"/* Unicode {unicodedata.unidata_version}: first and last code point of each run from U+0080 on.")
    print("   Made by Scripts/make_unicode_tables.py. */")
    print("#ifndef MCC_UNICODE_TABLES_H\n#define MCC_UNICODE_TABLES_H\n\n#include <stdint.h>")
    table("mcc_letters", "Categories Lu, Ll, Lt, Lm, Lo.", lambda code: unicodedata.category(chr(code))[0] == "L")
    table("mcc_numbers", "Categories Nd, Nl, No.", lambda code: unicodedata.category(chr(code))[0] == "N")
    table("mcc_white_space", "Property White_Space.", lambda code: code in WHITE_SPACE)
    print("\n#endif")


def bert_results(**option):
    """For each character that BertNormalizer changes with one option set, what it becomes."""
    from tokenizers import normalizers

    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    normalizer = normalizers.BertNormalizer(**{**off, **option})
    results = {}
    for code in range(sys.maxunicode + 1):
        if 0xD800 <= code < 0xE000:
            continue
        text = normalizer.normalize_str("a" + chr(code) + "a")[1:-1]
        if text != chr(code):
            results[code] = [ord(character) for character in text]
    return results


def case_runs(results):
    """Runs first, last, step, difference of characters `step` apart whose codes grow by `difference` modulo 2^32."""
    found = []
    for code, text in sorted(results.items()):
        if len(text) != 1:
            continue
        difference = (text[0] - code) % (1 << 32)
        if found:
            first, last, step, other = found[-1]
            distance = code - last
            if other == difference and (distance == step or (first == last and distance <= 2)):
                found[-1] = (first, code, distance, difference)
                continue
        found.append((code, code, 1, difference))
    return found


def write_bert():
    from tokenizers import __version__, pre_tokenizers

    cleaned = bert_results(clean_text=True)
    stripped = bert_results(strip_accents=True)
    lower = bert_results(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()

    def is_alone(code):
        if 0xD800 <= code < 0xE000:
            return False
        return len(splitter.pre_tokenize_str("a" + chr(code) + "a")) == 3

    print(f"/* What the BERT normalizer and pre-tokenizer of tokenizers {__version__} do with each character.")
    print("   Made by Scripts/make_unicode_tables.py. */")
    print("#ifndef MCC_UNICODE_BERT_H\n#define MCC_UNICODE_BERT_H\n\n#include <stdint.h>")
    table("mcc_bert_removed", "Left out as control characters: runs, first and last.",
          lambda code: cleaned.get(code) == [], first=0)
    table("mcc_bert_punctuation", "Words of their own: runs, first and last.", is_alone, first=0)
    table("mcc_bert_marks", "Left out as accents: runs, first and last.", lambda code: stripped.get(code) == [])
    parts = [(code, *text, *[0] * (3 - len(text))) for code, text in sorted(stripped.items())
             if text and not 0xAC00 <= code < 0xD7A4]
    rows("mcc_bert_parts", "A character and what is left of its canonical decomposition, Hangul syllables apart.", parts)
    rows("mcc_bert_lower", "Runs of capital letters: first, last, step, and what to add modulo 2^32.", case_runs(lower))
    print("\n#endif")


if sys.argv[1:] == ["bert"]:
    write_bert()
elif not sys.argv[1:]:
    write_classes()
else:
    sys.exit(f"usage: {sys.argv[0]} [bert]")
