#include <string.h>

#include "tokenizer_parts.h"
#include "unicode.h"
#include "unicode_graphemes.h"

/* ---- graphemes ---- */

enum { RUN_COUNT = sizeof mcc_grapheme_runs / sizeof *mcc_grapheme_runs, CLASS_BITS = 15 };

static uint32_t grapheme_class(int32_t code) {
  if (code < 0) return MCC_GRAPHEME_CONTROL;
  if (code >= 0xAC00 && code < 0xD7A4) return (code - 0xAC00) % 28 == 0 ? MCC_GRAPHEME_LV : MCC_GRAPHEME_LVT;
  return mcc_run_value(mcc_grapheme_runs, RUN_COUNT, 8, (uint32_t)code);
}

/* What has been read of a grapheme. */
typedef struct grapheme {
  uint32_t last;   /* class of the last character */
  int regional;    /* regional indicators at its end */
  bool pictograph; /* it ends with a pictograph and extending characters, then perhaps a joiner */
  bool consonant;  /* it ends with a consonant and what may stand between two that are joined */
  bool linker;     /* a linker is among those */
} grapheme;

static void begin(grapheme *it, uint32_t class) {
  *it = (grapheme){class & CLASS_BITS, (class & CLASS_BITS) == MCC_GRAPHEME_REGIONAL_INDICATOR,
                   class == MCC_GRAPHEME_PICTOGRAPHIC, class == MCC_GRAPHEME_CONSONANT, false};
}

/* Whether the grapheme goes on with a character of that class (rules GB3 to GB13 of UAX 29). */
static bool continues(const grapheme *it, uint32_t class) {
  uint32_t last = it->last, next = class & CLASS_BITS;
  if (last == MCC_GRAPHEME_CR) return next == MCC_GRAPHEME_LF;
  if (last == MCC_GRAPHEME_LF || last == MCC_GRAPHEME_CONTROL) return false;
  if (next == MCC_GRAPHEME_CR || next == MCC_GRAPHEME_LF || next == MCC_GRAPHEME_CONTROL) return false;
  if (next == MCC_GRAPHEME_EXTEND || next == MCC_GRAPHEME_ZWJ || next == MCC_GRAPHEME_SPACINGMARK) return true;
  if (last == MCC_GRAPHEME_PREPEND) return true;
  if (it->pictograph && last == MCC_GRAPHEME_ZWJ && class == MCC_GRAPHEME_PICTOGRAPHIC) return true;
  if (it->consonant && it->linker && class == MCC_GRAPHEME_CONSONANT) return true;
  bool vowel = next == MCC_GRAPHEME_V, tail = next == MCC_GRAPHEME_T;
  switch (last) {
    case MCC_GRAPHEME_L:
      return vowel || next == MCC_GRAPHEME_L || next == MCC_GRAPHEME_LV || next == MCC_GRAPHEME_LVT;
    case MCC_GRAPHEME_V:
    case MCC_GRAPHEME_LV: return vowel || tail;
    case MCC_GRAPHEME_T:
    case MCC_GRAPHEME_LVT: return tail;
    case MCC_GRAPHEME_REGIONAL_INDICATOR: return next == last && it->regional % 2 == 1;
    default: return false;
  }
}

static void go_on(grapheme *it, uint32_t class) {
  uint32_t next = class & CLASS_BITS;
  bool extends = next == MCC_GRAPHEME_EXTEND || next == MCC_GRAPHEME_ZWJ;
  it->pictograph = class == MCC_GRAPHEME_PICTOGRAPHIC || (it->pictograph && extends && it->last != MCC_GRAPHEME_ZWJ);
  bool links = (class & MCC_GRAPHEME_LINKER) != 0, joins = links || (class & MCC_GRAPHEME_JOINS) != 0;
  it->linker = joins && it->consonant && (it->linker || links);
  it->consonant = class == MCC_GRAPHEME_CONSONANT || (it->consonant && joins);
  it->regional = next == MCC_GRAPHEME_REGIONAL_INDICATOR ? it->regional + 1 : 0;
  it->last = next;
}

static size_t grapheme_length(const char *text, size_t size) {
  int32_t code;
  size_t length = mcc_character(text, size, &code);
  grapheme it;
  begin(&it, grapheme_class(code));
  while (length < size) {
    size_t next = mcc_character(text + length, size - length, &code);
    uint32_t class = grapheme_class(code);
    if (!continues(&it, class)) break;
    go_on(&it, class);
    length += next;
  }
  return length;
}

/* ---- the map ---- */

/*
 * A map of SentencePiece: a u32, the size of what follows; a double array of u32 units (the library Darts); then the
 * replacements, each ended by a zero. Nothing in it is trusted.
 */
typedef struct charsmap {
  const char *units, *texts;
  size_t unit_count, text_size;
} charsmap;

static charsmap charsmap_of(const char *map, size_t size) {
  uint32_t bytes = 0;
  charsmap it = {0};
  if (size < sizeof bytes) return it;
  memcpy(&bytes, map, sizeof bytes);
  if (bytes > size - sizeof bytes) return it;
  it.units = map + sizeof bytes;
  it.unit_count = bytes / 4;
  it.texts = it.units + bytes;
  it.text_size = size - sizeof bytes - bytes;
  return it;
}

static uint32_t unit_at(const charsmap *it, size_t place) {
  uint32_t unit = 0;
  if (place < it->unit_count) memcpy(&unit, it->units + 4 * place, 4);
  return unit;
}

/* Finds the shortest or the longest key at the start of the text; returns its length, or 0, and its value. */
static size_t find_key(const charsmap *it, const char *text, size_t size, bool shortest, uint32_t *value) {
  size_t place = 0, found = 0;
  uint32_t unit = unit_at(it, 0);
  for (size_t i = 0; i < size; i++) {
    uint8_t byte = (uint8_t)text[i];
    if (byte == 0) break;
    place ^= (unit >> 10) << ((unit & 0x200) >> 6);
    place ^= byte;
    unit = unit_at(it, place);
    if ((unit & 0x800000FF) != byte) break;
    if ((unit >> 8 & 1) != 0) {
      uint32_t leaf = unit_at(it, place ^ (unit >> 10) << ((unit & 0x200) >> 6));
      *value = leaf & 0x7FFFFFFF;
      found = i + 1;
      if (shortest) break;
    }
  }
  return found;
}

static void append_value(const charsmap *it, uint32_t value, mcc_text *output) {
  if (value >= it->text_size) return;
  const char *text = it->texts + value, *end = memchr(text, 0, it->text_size - value);
  mcc_text_append(output, text, end != NULL ? (size_t)(end - text) : it->text_size - value);
}

/* By graphemes, the whole of which its shortest key replaces if it has at most five bytes; else by characters. */
static void apply_by_graphemes(const charsmap *it, const char *text, size_t size, mcc_text *output) {
  for (size_t i = 0, length; i < size; i += length) {
    length = grapheme_length(text + i, size - i);
    uint32_t value;
    if (length < 6 && find_key(it, text + i, length, true, &value) > 0) {
      append_value(it, value, output);
      continue;
    }
    for (size_t k = 0, part; k < length; k += part) {
      int32_t code;
      part = mcc_character(text + i + k, length - k, &code);
      if (find_key(it, text + i + k, part, true, &value) > 0) {
        append_value(it, value, output);
      } else {
        mcc_text_append(output, text + i + k, part);
      }
    }
  }
}

void mcc_apply_charsmap(const char *map, size_t map_size, bool graphemes, const char *text, size_t size,
                        mcc_text *output) {
  charsmap it = charsmap_of(map, map_size);
  if (graphemes) {
    apply_by_graphemes(&it, text, size, output);
    return;
  }
  for (size_t i = 0; i < size;) {
    uint32_t value;
    int32_t code;
    size_t length = find_key(&it, text + i, size - i, false, &value);
    if (length > 0) {
      append_value(&it, value, output);
    } else {
      length = mcc_character(text + i, size - i, &code);
      mcc_text_append(output, code < 0 ? "\xEF\xBF\xBD" : text + i, code < 0 ? 3 : length);
    }
    i += length;
  }
}
