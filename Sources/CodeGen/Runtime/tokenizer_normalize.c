#include "tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

#include "failure.h"
#include "tokenizer_split.h"
#include "unicode.h"
#include "unicode_classes.h"
#include "unicode_forms.h"

#define COUNT(table) (sizeof table / sizeof *table)

/* Most normalizers work on characters; a byte that is no UTF-8 stands for itself behind all of them. */
enum { FIRST_BYTE = 0x110000 };

static void add_code(mcc_tokenizer *it, uint32_t code) {
  if (it->code_count == it->code_capacity) {
    it->code_capacity = 2 * it->code_capacity + 64;
    it->codes = mcc_reallocate(it->codes, it->code_capacity * sizeof *it->codes);
  }
  it->codes[it->code_count++] = code;
}

static void load_codes(mcc_tokenizer *it, const char *text, size_t size) {
  it->code_count = 0;
  for (size_t i = 0; i < size;) {
    int32_t code;
    size_t length = mcc_character(text + i, size - i, &code);
    add_code(it, code < 0 ? (uint32_t)FIRST_BYTE + (uint8_t)text[i] : (uint32_t)code);
    i += length;
  }
}

static void store_codes(const mcc_tokenizer *it, mcc_text *text) {
  text->count = 0;
  for (size_t i = 0; i < it->code_count; i++) {
    char bytes[4] = {(char)it->codes[i]};
    size_t length = it->codes[i] < FIRST_BYTE ? mcc_write_character(it->codes[i], bytes) : 1;
    mcc_text_append(text, bytes, length);
  }
}

static uint32_t class_of(uint32_t code) {
  return code < FIRST_BYTE ? mcc_class((int32_t)code) : 0;
}

/* ---- forms ---- */

enum {
  FIRST_SYLLABLE = 0xAC00,
  SYLLABLES = 11172,
  FIRST_LEAD = 0x1100,
  LEADS = 19,
  FIRST_VOWEL = 0x1161,
  VOWELS = 21,
  FIRST_TAIL = 0x11A7,
  TAILS = 28,
};

/* The entry of a table of pairs that begins with the code, or NULL. */
static const uint32_t *find_pair(const uint32_t *table, size_t count, uint32_t code) {
  size_t low = 0, high = count / 2;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (table[2 * middle] < code) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < count / 2 && table[2 * low] == code ? table + 2 * low : NULL;
}

static uint32_t combining_class(uint32_t code) {
  return code < 0x300 ? 0 : mcc_run_value(mcc_combining, COUNT(mcc_combining), 8, code);
}

static void add_decomposed(mcc_tokenizer *it, uint32_t code, bool compatible) {
  if (code >= FIRST_SYLLABLE && code < FIRST_SYLLABLE + SYLLABLES) {
    uint32_t syllable = code - FIRST_SYLLABLE, tail = syllable % TAILS;
    add_code(it, FIRST_LEAD + syllable / (VOWELS * TAILS));
    add_code(it, FIRST_VOWEL + syllable / TAILS % VOWELS);
    if (tail > 0) add_code(it, FIRST_TAIL + tail);
    return;
  }
  const uint32_t *entry = NULL;
  if (code >= 0xA0) {
    if (compatible) entry = find_pair(mcc_compatible, COUNT(mcc_compatible), code);
    if (entry == NULL) entry = find_pair(mcc_canonical, COUNT(mcc_canonical), code);
  }
  if (entry == NULL) {
    add_code(it, code);
    return;
  }
  for (uint32_t i = 0; i < (entry[1] & 31); i++) add_code(it, mcc_decompositions[(entry[1] >> 5) + i]);
}

/* Sorts each run of marks by combining class; equal ones keep their order. */
static void order_marks(mcc_tokenizer *it) {
  for (size_t i = 0; i < it->code_count; i++) {
    if (combining_class(it->codes[i]) == 0) continue;
    size_t end = i + 1;
    /* A long run is sorted by counting: insertion would be quadratic. */
    while (end < it->code_count && combining_class(it->codes[end]) != 0) end++;
    if (end - i > 64) {
      uint32_t *copy = mcc_allocate((end - i) * sizeof *copy);
      size_t counts[257] = {0};
      memcpy(copy, it->codes + i, (end - i) * sizeof *copy);
      for (size_t k = 0; k < end - i; k++) counts[combining_class(copy[k]) + 1]++;
      for (int k = 1; k < 257; k++) counts[k] += counts[k - 1];
      for (size_t k = 0; k < end - i; k++) it->codes[i + counts[combining_class(copy[k])]++] = copy[k];
      free(copy);
    } else {
      for (size_t k = i + 1; k < end; k++) {
        uint32_t moved = it->codes[k], moved_class = combining_class(moved);
        size_t place = k;
        for (; place > i && combining_class(it->codes[place - 1]) > moved_class; place--) {
          it->codes[place] = it->codes[place - 1];
        }
        it->codes[place] = moved;
      }
    }
    i = end - 1;
  }
}

/* What two characters make together, or 0. */
static uint32_t compose_pair(uint32_t first, uint32_t second) {
  if (first >= FIRST_LEAD && first < FIRST_LEAD + LEADS && second >= FIRST_VOWEL && second < FIRST_VOWEL + VOWELS) {
    return FIRST_SYLLABLE + ((first - FIRST_LEAD) * VOWELS + second - FIRST_VOWEL) * TAILS;
  }
  if (first >= FIRST_SYLLABLE && first < FIRST_SYLLABLE + SYLLABLES && (first - FIRST_SYLLABLE) % TAILS == 0 &&
      second > FIRST_TAIL && second < FIRST_TAIL + TAILS) {
    return first + second - FIRST_TAIL;
  }
  if (second < 0x300) return 0;
  size_t low = 0, high = COUNT(mcc_compositions) / 3;
  while (low < high) {
    size_t middle = (low + high) / 2;
    const uint32_t *entry = mcc_compositions + 3 * middle;
    if (entry[0] < first || (entry[0] == first && entry[1] < second)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  const uint32_t *entry = mcc_compositions + 3 * low;
  return low < COUNT(mcc_compositions) / 3 && entry[0] == first && entry[1] == second ? entry[2] : 0;
}

static void compose(mcc_tokenizer *it) {
  size_t kept = 0, starter = SIZE_MAX;
  uint32_t last_class = 0; /* of the last character kept behind the starter */
  for (size_t i = 0; i < it->code_count; i++) {
    uint32_t code = it->codes[i], class = combining_class(code);
    bool adjacent = starter != SIZE_MAX && kept == starter + 1;
    if (starter != SIZE_MAX && (adjacent || (last_class < class && last_class != 0))) {
      uint32_t made = compose_pair(it->codes[starter], code);
      if (made != 0) {
        it->codes[starter] = made;
        continue;
      }
    }
    if (class == 0) starter = kept;
    last_class = class;
    it->codes[kept++] = code;
  }
  it->code_count = kept;
}

static void normalize_form(mcc_tokenizer *it, bool compatible, bool composes) {
  size_t count = it->code_count;
  uint32_t *codes = it->codes;
  it->codes = NULL;
  it->code_count = it->code_capacity = 0;
  for (size_t i = 0; i < count; i++) add_decomposed(it, codes[i], compatible);
  free(codes);
  order_marks(it);
  if (composes) compose(it);
}

/* ---- characters ---- */

/* Leaves out the characters of the classes. */
static void remove_classes(mcc_tokenizer *it, uint32_t classes) {
  size_t kept = 0;
  for (size_t i = 0; i < it->code_count; i++) {
    if ((class_of(it->codes[i]) & classes) == 0) it->codes[kept++] = it->codes[i];
  }
  it->code_count = kept;
}

static uint32_t lower_case(uint32_t code) {
  if (code < 0x80) return code >= 'A' && code <= 'Z' ? code + 32 : code;
  size_t low = 0, high = COUNT(mcc_lower) / 4;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (code > mcc_lower[4 * middle + 1]) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  const uint32_t *run = mcc_lower + 4 * low;
  bool found = low < COUNT(mcc_lower) / 4 && code >= run[0] && (code - run[0]) % run[2] == 0;
  return found ? code + run[3] : code;
}

/* Puts a character before or behind each of those for which `wanted` holds. */
static void insert_codes(mcc_tokenizer *it, bool (*wanted)(uint32_t), uint32_t before, uint32_t behind) {
  size_t count = 0;
  for (size_t i = 0; i < it->code_count; i++) count += wanted(it->codes[i]);
  if (count == 0) return;
  size_t old = it->code_count, each = (size_t)(before != 0) + (size_t)(behind != 0);
  for (size_t i = 0; i < count * each; i++) add_code(it, 0);
  for (size_t i = old, place = it->code_count; i-- > 0;) {
    uint32_t code = it->codes[i];
    bool found = wanted(code);
    if (found && behind != 0) it->codes[--place] = behind;
    it->codes[--place] = code;
    if (found && before != 0) it->codes[--place] = before;
  }
}

static bool is_dotted_capital(uint32_t code) {
  return code == 0x130;
}

static void lower_codes(mcc_tokenizer *it) {
  /* U+0130 becomes i with a dot above, the only one that becomes two. */
  insert_codes(it, is_dotted_capital, 0, 0x307);
  for (size_t i = 0; i < it->code_count; i++) it->codes[i] = it->codes[i] == 0x130 ? 'i' : lower_case(it->codes[i]);
}

/* The blocks of ideographs that BERT sets apart, the gap at U+2B820 as in the reference implementation. */
static bool is_ideograph(uint32_t code) {
  static const uint32_t blocks[][2] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},  {0x20000, 0x2A6DF},
                                       {0x2A700, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
  if (code < 0x3400) return false;
  for (size_t i = 0; i < COUNT(blocks); i++) {
    if (code >= blocks[i][0] && code <= blocks[i][1]) return true;
  }
  return false;
}

static void normalize_bert(mcc_tokenizer *it, uint32_t options) {
  if ((options & 1) != 0) {
    remove_classes(it, MCC_REMOVED);
    for (size_t i = 0; i < it->code_count; i++) {
      if ((class_of(it->codes[i]) & MCC_SPACE) != 0) it->codes[i] = ' ';
    }
  }
  if ((options & 2) != 0) insert_codes(it, is_ideograph, ' ', ' ');
  if ((options & 4) != 0) {
    normalize_form(it, false, false);
    remove_classes(it, MCC_NONSPACING);
  }
  if ((options & 8) != 0) lower_codes(it);
}

static void normalize_nmt(mcc_tokenizer *it) {
  size_t kept = 0;
  for (size_t i = 0; i < it->code_count; i++) {
    uint32_t code = it->codes[i];
    uint32_t value = code < FIRST_BYTE ? mcc_run_value(mcc_nmt, COUNT(mcc_nmt), 2, code) : 0;
    if (value != 1) it->codes[kept++] = value == 2 ? ' ' : code;
  }
  it->code_count = kept;
}

/* Applies a step that works on characters. */
static void normalize_codes(mcc_tokenizer *it, const mcc_step *step) {
  switch (step->kind) {
    case MCC_NORMALIZE_NFC: normalize_form(it, false, true); break;
    case MCC_NORMALIZE_NFD: normalize_form(it, false, false); break;
    case MCC_NORMALIZE_NFKC: normalize_form(it, true, true); break;
    case MCC_NORMALIZE_NFKD: normalize_form(it, true, false); break;
    case MCC_NORMALIZE_LOWERCASE: lower_codes(it); break;
    case MCC_NORMALIZE_STRIP_ACCENTS: remove_classes(it, MCC_ACCENT); break;
    case MCC_NORMALIZE_NMT: normalize_nmt(it); break;
    default: normalize_bert(it, step->a); break;
  }
}

/* Whether a step that works on characters changes nothing, by a look at the bytes. */
static bool leaves_text(const mcc_step *step, const char *text, size_t size) {
  /* Below U+00A0 nothing decomposes, below U+0300 nothing composes. */
  unsigned char first = step->kind == MCC_NORMALIZE_NFC ? 0xCC : 0x80;
  if (step->kind > MCC_NORMALIZE_NFKD && step->kind != MCC_NORMALIZE_STRIP_ACCENTS) return false;
  for (size_t i = 0; i < size; i++) {
    if ((unsigned char)text[i] >= first) return false;
  }
  return true;
}

/* ---- bytes ---- */

static bool ends_strip(const mcc_tokenizer *it, const mcc_step *step, const char *text, size_t length) {
  if (step->length > 0) return length != step->length || memcmp(text, it->strings + step->text, length) != 0;
  int32_t code;
  mcc_character(text, length, &code);
  return !mcc_is_white_space(code);
}

static const char *strip(mcc_tokenizer *it, const mcc_step *step, const char *text, size_t *size) {
  size_t start = 0, end = *size;
  int32_t code;
  while (step->a != 0 && start < end) {
    size_t length = mcc_character(text + start, end - start, &code);
    if (ends_strip(it, step, text + start, length)) break;
    start += length;
  }
  while (step->b != 0 && end > start) {
    size_t last = end - 1;
    while (last > start && ((uint8_t)text[last] & 0xC0) == 0x80) last--;
    if (mcc_character(text + last, end - last, &code) != end - last) break;
    if (ends_strip(it, step, text + last, end - last)) break;
    end = last;
  }
  if (start > 0) it->stripped = true;
  *size = end - start;
  return text + start;
}

uint32_t mcc_character_of_byte(uint8_t byte) {
  bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
  if (printable) return byte;
  return byte <= 0x20 ? 0x100u + byte : byte <= 0xA0 ? 0x121u + byte - 0x7F : 0x143;
}

int mcc_byte_of_character(int32_t code) {
  if ((code >= 0x21 && code <= 0x7E) || (code >= 0xA1 && code <= 0xFF && code != 0xAD)) return code;
  if (code >= 0x100 && code <= 0x120) return code - 0x100;
  if (code >= 0x121 && code <= 0x142) return code - 0x121 + 0x7F;
  return code == 0x143 ? 0xAD : -1;
}

static void replace(const mcc_tokenizer *it, const mcc_step *step, const char *text, size_t size, mcc_text *output) {
  size_t position = 0, start, end;
  while (mcc_find_match(it, step, text, size, position, &start, &end)) {
    mcc_text_append(output, text + position, start - position);
    mcc_text_append(output, it->strings + step->content, step->content_length);
    position = end;
  }
  mcc_text_append(output, text + position, size - position);
}

/* Applies a step that works on bytes; the result may be the text or a part of it. */
static const char *normalize_bytes(mcc_tokenizer *it, const mcc_step *step, const char *text, size_t *size,
                                   bool at_start, mcc_text *output) {
  if (step->kind == MCC_NORMALIZE_PREPEND && step->a != 0 && !at_start) return text;
  if (step->kind == MCC_NORMALIZE_STRIP) return strip(it, step, text, size);
  if (*size == 0) return text;
  output->count = 0;
  switch (step->kind) {
    case MCC_NORMALIZE_REPLACE: replace(it, step, text, *size, output); break;
    case MCC_NORMALIZE_PREPEND:
      mcc_text_append(output, it->strings + step->content, step->content_length);
      mcc_text_append(output, text, *size);
      break;
    case MCC_NORMALIZE_CHARSMAP:
      mcc_apply_charsmap(it->strings + step->text, step->length, step->a != 0, text, *size, output);
      break;
    default:
      for (size_t i = 0; i < *size; i++) {
        char bytes[4];
        mcc_text_append(output, bytes, mcc_write_character(mcc_character_of_byte((uint8_t)text[i]), bytes));
      }
  }
  *size = output->count;
  return output->count > 0 ? output->data : "";
}

const char *mcc_normalize(mcc_tokenizer *it, const char *text, size_t *size, bool at_start) {
  bool coded = false;
  int buffer = 0;
  it->stripped = false;
  for (uint32_t i = 0; i <= it->header.normalizers.count; i++) {
    bool last = i == it->header.normalizers.count;
    const mcc_step *step = it->normalizers + i;
    if (!last && step->kind <= MCC_NORMALIZE_BERT) {
      if (!coded && leaves_text(step, text, *size)) continue;
      if (!coded) load_codes(it, text, *size);
      coded = true;
      normalize_codes(it, step);
      continue;
    }
    if (coded) {
      store_codes(it, &it->buffers[buffer]);
      *size = it->buffers[buffer].count;
      text = *size > 0 ? it->buffers[buffer].data : "";
      buffer ^= 1;
      coded = false;
    }
    if (last) break;
    const char *result = normalize_bytes(it, step, text, size, at_start, &it->buffers[buffer]);
    if (result == it->buffers[buffer].data) buffer ^= 1;
    text = result;
  }
  return text;
}
