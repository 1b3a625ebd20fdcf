#!/usr/bin/env python3
"""Writes the tables of Unicode classes that the tokenizer of a generated program needs.

Usage: Scripts/make_unicode_tables.py > Sources/CodeGen/Runtime/unicode_tables.h

The classes are those of the expressions that cut text into words: \\p{L}, \\p{N} and \\s (White_Space), from the
Unicode database of the package unicodedata2 if it is installed (version 16 equals what the Rust `tokenizers` 0.23 use),
else of the running Python.
"""

import sys

try:
    import unicodedata2 as unicodedata
except ImportError:
    import unicodedata

WHITE_SPACE = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F,
               0x3000}


def ranges(member):
    """Maximal runs of code points from U+0080 for which `member` holds."""
    found, start = [], None
    for code in range(0x80, sys.maxunicode + 2):
        inside = code <= sys.maxunicode and member(code)
        if inside and start is None:
            start = code
        elif not inside and start is not None:
            found.append((start, code - 1))
            start = None
    return found


def table(name, comment, member):
    found = ranges(member)
    print(f"\n/* {comment} */")
    print(f"static const uint32_t {name}[{len(found)}][2] = {{")
    line = "   "
    for first, last in found:
        entry = f" {{0x{first:X}, 0x{last:X}}},"
        if len(line) + len(entry) > 118:
            print(line)
            line = "   "
        line += entry
    print(line + "\n};")


print(f"/* Unicode {unicodedata.unidata_version}: first and last code point of each run from U+0080 on.")
print("   Made by Scripts/make_unicode_tables.py. */")
print("#ifndef MCC_UNICODE_TABLES_H\n#define MCC_UNICODE_TABLES_H\n\n#include <stdint.h>")
table("mcc_letters", "Categories Lu, Ll, Lt, Lm, Lo.", lambda code: unicodedata.category(chr(code))[0] == "L")
table("mcc_numbers", "Categories Nd, Nl, No.", lambda code: unicodedata.category(chr(code))[0] == "N")
table("mcc_white_space", "Property White_Space.", lambda code: code in WHITE_SPACE)
print("\n#endif")
