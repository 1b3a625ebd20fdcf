#!/usr/bin/env python3
"""Writes the Unicode tables that the tokenizer of a generated program needs.

Usage: Scripts/make_unicode_tables.py classes > Sources/CodeGen/Runtime/unicode_classes.h
       Scripts/make_unicode_tables.py forms > Sources/CodeGen/Runtime/unicode_forms.h
       Scripts/make_unicode_tables.py graphemes > Sources/CodeGen/Runtime/unicode_graphemes.h

Nearly everything is asked of the package `tokenizers`, whose parts follow different versions of Unicode. Combining
classes and one-step decompositions, which no version may change, come from `unicodedata2` (Unicode 16), properties of
graphemes from the package `regex`.
"""

import sys

import unicodedata2
from tokenizers import Regex, __version__, normalizers, pre_tokenizers

CODES = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
HANGUL = range(0xAC00, 0xD7A4)


def runs(value_of, first=0):
    """Runs (first code, value) of equal values, from `first` on; surrogates have the value of their predecessor."""
    found = []
    for code in range(first, sys.maxunicode + 1):
        if 0xD800 <= code < 0xE000:
            continue
        value = value_of(code)
        if not found or found[-1][1] != value:
            found.append((code, value))
    return found


def numbers(name, type, comment, values):
    print(f"\n/* {comment} */\nstatic const {type} {name}[{len(values)}] = {{")
    line = "   "
    for value in values:
        entry = f" {value},"
        if len(line) + len(entry) > 118:
            print(line)
            line = "   "
        line += entry
    print(line + "\n};")


def header(guard, what):
    print(f"/* {what}, as tokenizers {__version__} has it. Made by Scripts/make_unicode_tables.py. */")
    print(f"#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>")


def results(normalizer):
    """What each character becomes between two letters, if it is not itself."""
    found = {}
    for code in CODES:
        text = normalizer.normalize_str("a" + chr(code) + "a")[1:-1]
        if text != chr(code):
            found[code] = text
    return found


def bert(**option):
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return results(normalizers.BertNormalizer(**{**off, **option}))


def matches(expression):
    """The characters that a regular expression of one character matches."""
    normalizer = normalizers.Replace(Regex(expression), "")
    found = set()
    for start in range(0, len(CODES), 256):
        text = "".join(map(chr, CODES[start:start + 256]))
        left = normalizer.normalize_str(text)
        if len(left) < len(text):
            found |= set(map(ord, text)) - set(map(ord, left))
    return found


def alone(splitter, neighbour):
    """The characters that a pre-tokenizer parts from a neighbour on both sides, or drops."""
    return {code for code in CODES
            if len(splitter.pre_tokenize_str(neighbour + chr(code) + neighbour)) > 1}


# The bits of a class.
CLASSES = ["UPPER", "LOWER", "LETTER", "MARK", "NUMBER", "PUNCTUATION", "SYMBOL", "SPACE", "DELIMITER", "NUMERIC", "WORD",
           "NONSPACING", "REMOVED", "ACCENT", "DECIMAL", "IDENTIFIER"]


def write_classes():
    delimiter = alone(pre_tokenizers.Punctuation("isolated"), "a")
    word = set(CODES) - alone(pre_tokenizers.Whitespace(), "a")
    sets = [
        matches(r"[\p{Lu}\p{Lt}]"), matches(r"\p{Ll}"), matches(r"[\p{Lm}\p{Lo}]"), matches(r"\p{M}"), matches(r"\p{N}"),
        matches(r"\p{P}"), matches(r"\p{S}"), matches(r"\s"), delimiter, alone(pre_tokenizers.Digits(True), "a"), word,
        {code for code, text in bert(strip_accents=True).items() if not text},
        {code for code, text in bert(clean_text=True).items() if not text},
        {code for code, text in results(normalizers.StripAccents()).items() if not text},
        matches(r"\d"), matches(r"\w"),
    ]
    assert alone(pre_tokenizers.WhitespaceSplit(), "a") == sets[7]
    assert alone(pre_tokenizers.BertPreTokenizer(), "a") == sets[7] | delimiter
    flags = []

    def index(code):
        value = sum(1 << bit for bit, members in enumerate(sets) if code in members)
        if value not in flags:
            flags.append(value)
        return flags.index(value)

    found = runs(index)
    header("MCC_UNICODE_CLASSES_H", "Classes of characters")
    comments = [
        "\\p{Lu} and \\p{Lt}", "\\p{Ll}", "\\p{Lm} and \\p{Lo}", "\\p{M}", "\\p{N}", "\\p{P}", "\\p{S}", "\\s: White_Space",
        "the punctuation of the pre-tokenizers BertPreTokenizer and Punctuation", "digits of the pre-tokenizer Digits",
        "\\w of the pre-tokenizer Whitespace", "accents of BertNormalizer", "control characters of BertNormalizer",
        "accents of StripAccents", "\\d", "\\w in an expression"]
    print("\nenum {")
    for bit, (name, comment) in enumerate(zip(CLASSES, comments)):
        print(f"  MCC_{name} = {1 << bit},".ljust(28) + f" /* {comment} */")
    print("};")
    numbers("mcc_class_flags", "uint16_t", "The bits of each class.", flags)
    numbers("mcc_class_runs", "uint32_t", "Runs of characters: 256 times the first code, plus the class, up to the next.",
            [code << 8 | value for code, value in found])
    print("\n#endif")


def case_runs(lower):
    """Runs first, last, step, difference of characters `step` apart whose codes grow by `difference` modulo 2^32."""
    found = []
    for code, text in sorted(lower.items()):
        if len(text) != 1:
            assert code == 0x130
            continue
        difference = (ord(text) - code) % (1 << 32)
        if found:
            first, last, step, other = found[-1]
            distance = code - last
            if other == difference and (distance == step or (first == last and distance <= 2)):
                found[-1] = (first, code, distance, difference)
                continue
        found.append((code, code, 1, difference))
    return [number for row in found for number in row]


def combining_class(code, decompose):
    """The canonical combining class, 0 if the package does not know that the character has one."""
    value = unicodedata2.combining(chr(code))
    if value == 0:
        return 0
    low, high = "\u0334", "\u0345"  # of the classes 1 and 240
    text = "a" + chr(code) + low if value > 1 else "a" + high + chr(code)
    return value if decompose.normalize_str(text) == text[0] + text[2] + text[1] else 0


def write_forms():
    canonical = {code: text for code, text in results(normalizers.NFD()).items() if code not in HANGUL}
    compatible = {code: text for code, text in results(normalizers.NFKD()).items()
                  if code not in HANGUL and canonical.get(code) != text}
    compose, decompose = normalizers.NFC(), normalizers.NFD()
    pairs = []
    for code in CODES:
        parts = unicodedata2.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            first, second = (int(part, 16) for part in parts)
            if compose.normalize_str(chr(first) + chr(second)) == chr(code):
                pairs.append((first, second, code))
    pool = ""
    entries = {}
    texts = set(canonical.values()) | set(compatible.values())
    for text in sorted(texts, key=lambda text: (-len(text), text)):
        place = pool.find(text)
        if place < 0:
            place = len(pool)
            pool += text
        entries[text] = place
    header("MCC_UNICODE_FORMS_H", "Normalization forms and lower case")

    def table(name, comment, mapping):
        numbers(name, "uint32_t", comment, [number for code, text in sorted(mapping.items())
                                            for number in (code, entries[text] << 5 | len(text))])

    table("mcc_canonical", "Canonical decompositions but those of Hangul: the code; 32 times the place, plus the length.",
          canonical)
    table("mcc_compatible", "Compatibility decompositions that differ from them.", compatible)
    numbers("mcc_decompositions", "uint32_t", "Where they lie.", [ord(character) for character in pool])
    numbers("mcc_compositions", "uint32_t", "Two characters and what they make, in order.",
            [number for pair in sorted(pairs) for number in pair])
    numbers("mcc_combining", "uint32_t", "Runs of combining classes: 256 times the first code, plus the class.",
            [code << 8 | value for code, value in runs(lambda code: combining_class(code, decompose))])
    numbers("mcc_lower", "uint32_t", "Runs of capital letters: first, last, step, and what to add modulo 2^32.",
            case_runs(results(normalizers.Lowercase())))
    assert results(normalizers.Lowercase()) == bert(lowercase=True)
    nmt = results(normalizers.Nmt())
    numbers("mcc_nmt", "uint32_t", "Runs of the normalizer Nmt: twice the first code, plus what becomes of it.",
            [code << 2 | value for code, value in
             runs(lambda code: {"": 1, " ": 2}[nmt[code]] if code in nmt else 0)])
    print("\n#endif")


def write_graphemes():
    import regex

    names = ["Other", "CR", "LF", "Control", "Extend", "ZWJ", "Regional_Indicator", "Prepend", "SpacingMark", "L", "V",
             "T", "LV", "LVT"]
    patterns = [regex.compile(r"\p{Grapheme_Cluster_Break=%s}" % name) for name in names[1:]]
    pictographic = regex.compile(r"\p{Extended_Pictographic}")
    consonant = regex.compile(r"\p{Indic_Conjunct_Break=Consonant}")
    linker = regex.compile(r"\p{Indic_Conjunct_Break=Linker}")
    conjunct_extend = regex.compile(r"\p{Indic_Conjunct_Break=Extend}")

    def value(code):
        if code in HANGUL:
            return 12 if (code - 0xAC00) % 28 == 0 else 13
        character = chr(code)
        for index, pattern in enumerate(patterns):
            if pattern.match(character):
                if linker.match(character):
                    return index + 1 | 32
                return index + 1 | (64 if conjunct_extend.match(character) else 0)
        if consonant.match(character):
            return 16
        return 14 if pictographic.match(character) else 0

    found = [run for run in runs(value) if run[0] not in HANGUL or run[0] == 0xAC00]
    header("MCC_UNICODE_GRAPHEMES_H", "Where graphemes end (UAX 29)")
    print("\nenum {")
    for index, name in enumerate(names + ["Pictographic"]):
        print(f"  MCC_GRAPHEME_{name.upper()} = {index},")
    print("  MCC_GRAPHEME_CONSONANT = 16, /* Indic_Conjunct_Break; the two others are bits beside a class */")
    print("  MCC_GRAPHEME_LINKER = 32,\n  MCC_GRAPHEME_JOINS = 64,\n};")
    numbers("mcc_grapheme_runs", "uint32_t", "Runs: 256 times the first code, plus the class; Hangul syllables as LV.",
            [code << 8 | value for code, value in found])
    print("\n#endif")


FORMS = {"classes": write_classes, "forms": write_forms, "graphemes": write_graphemes}
if len(sys.argv) != 2 or sys.argv[1] not in FORMS:
    sys.exit(f"usage: {sys.argv[0]} {'|'.join(FORMS)}")
FORMS[sys.argv[1]]()
