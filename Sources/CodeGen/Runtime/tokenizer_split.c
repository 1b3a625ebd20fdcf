#define _GNU_SOURCE
#include "tokenizer_split.h"

#include <string.h>

#include "unicode_tables.h"

size_t mcc_character(const char *text, size_t size, int32_t *code) {
  const unsigned char *byte = (const unsigned char *)text;
  *code = byte[0];
  if (byte[0] < 0x80) return 1;
  size_t length = byte[0] >= 0xF0 ? 4 : byte[0] >= 0xE0 ? 3 : 2;
  int32_t value = byte[0] & (0x7F >> length);
  bool valid = byte[0] >= 0xC2 && byte[0] <= 0xF4 && length <= size;
  for (size_t i = 1; valid && i < length; i++) {
    valid = (byte[i] & 0xC0) == 0x80;
    value = value << 6 | (byte[i] & 0x3F);
  }
  /* Overlong forms, surrogates and what lies beyond Unicode. */
  if (length == 3) valid = valid && value >= 0x800 && !(value >= 0xD800 && value < 0xE000);
  if (length == 4) valid = valid && value >= 0x10000 && value < 0x110000;
  *code = valid ? value : -1;
  return valid ? length : 1;
}

static bool in_ranges(const uint32_t (*ranges)[2], size_t count, uint32_t code) {
  size_t low = 0, high = count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (code > ranges[middle][1]) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < count && code >= ranges[low][0];
}

#define IN_TABLE(table, code) in_ranges(table, sizeof table / sizeof *table, (uint32_t)(code))

bool mcc_is_white_space(int32_t code) {
  if (code < 0x80) return code == ' ' || (code >= '\t' && code <= '\r');
  return IN_TABLE(mcc_white_space, code);
}

/* The classes that the expressions below tell apart: \p{L}, \p{N}, \s, and [^\s\p{L}\p{N}]. */
typedef enum { END, LETTER, NUMBER, SPACE, OTHER } character_class;

static character_class classify(int32_t code) {
  if (code < 0) return OTHER;
  if (code < 0x80) {
    if ((code | 0x20) >= 'a' && (code | 0x20) <= 'z') return LETTER;
    if (code >= '0' && code <= '9') return NUMBER;
    return mcc_is_white_space(code) ? SPACE : OTHER;
  }
  if (IN_TABLE(mcc_letters, code)) return LETTER;
  if (IN_TABLE(mcc_numbers, code)) return NUMBER;
  return mcc_is_white_space(code) ? SPACE : OTHER;
}

typedef struct character {
  int32_t code;
  character_class class;
  size_t length;
} character;

static character character_at(const char *text, size_t size, size_t position) {
  character it = {-1, END, 0};
  if (position >= size) return it;
  it.length = mcc_character(text + position, size - position, &it.code);
  it.class = classify(it.code);
  return it;
}

/* End of the run of at most `limit` characters of the class that starts at `position`. */
static size_t end_of_run(const char *text, size_t size, size_t position, character_class class, size_t limit) {
  for (size_t i = 0; i < limit; i++) {
    character next = character_at(text, size, position);
    if (next.class != class) break;
    position += next.length;
  }
  return position;
}

/* Length of 's|'t|'re|'ve|'m|'ll|'d at the start of the text, or 0. */
static size_t match_contraction(const char *text, size_t size, bool ignore_case) {
  if (text[0] != '\'' || size < 2) return 0;
  /* The one letter beyond ASCII that equals one of these when case is ignored: long s. */
  if (ignore_case && size >= 3 && memcmp(text + 1, "\xC5\xBF", 2) == 0) return 3;
  char first = text[1], second = size >= 3 ? text[2] : 0;
  if (ignore_case) {
    first = (char)(first >= 'A' && first <= 'Z' ? first | 0x20 : first);
    second = (char)(second >= 'A' && second <= 'Z' ? second | 0x20 : second);
  }
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  bool two = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l');
  return two ? 3 : 0;
}

/* \s+(?!\S)|\s+ : a run of white space without its last character if a word follows. */
static size_t match_white_space(const char *text, size_t size) {
  size_t position = 0, last = 0;
  character next;
  while ((next = character_at(text, size, position)).class == SPACE) {
    last = position;
    position += next.length;
  }
  return next.class == END || last == 0 ? position : last;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static size_t first_word_gpt2(const char *text, size_t size) {
  size_t contraction = match_contraction(text, size, false);
  if (contraction > 0) return contraction;
  size_t start = text[0] == ' ' ? 1 : 0;
  character first = character_at(text, size, start);
  if (first.class == END || first.class == SPACE) return match_white_space(text, size);
  return end_of_run(text, size, start, first.class, SIZE_MAX);
}

/*
 * (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+
 * |\s+(?!\S)|\s+
 */
static size_t first_word_llama3(const char *text, size_t size, size_t digits) {
  size_t contraction = match_contraction(text, size, true);
  if (contraction > 0) return contraction;

  character first = character_at(text, size, 0);
  if (first.class == LETTER) return end_of_run(text, size, 0, LETTER, SIZE_MAX);
  if (first.class == NUMBER) return end_of_run(text, size, 0, NUMBER, digits);
  bool is_newline = first.code == '\r' || first.code == '\n';
  character second = character_at(text, size, first.length);
  if (!is_newline && second.class == LETTER) return end_of_run(text, size, first.length, LETTER, SIZE_MAX);

  size_t start = first.code == ' ' ? 1 : 0;
  if ((start == 1 ? second : first).class == OTHER) {
    size_t end = end_of_run(text, size, start, OTHER, SIZE_MAX);
    while (end < size && (text[end] == '\r' || text[end] == '\n')) end++;
    return end;
  }

  size_t after_newline = 0;
  character next;
  for (size_t position = 0; (next = character_at(text, size, position)).class == SPACE;) {
    position += next.length;
    if (next.code == '\r' || next.code == '\n') after_newline = position;
  }
  return after_newline > 0 ? after_newline : match_white_space(text, size);
}

/* Up to the next U+2581. */
static size_t first_word_metaspace(const char *text, size_t size) {
  const char *next = memmem(text + 1, size - 1, "\xE2\x96\x81", 3);
  return next != NULL ? (size_t)(next - text) : size;
}

size_t mcc_first_word(int split, const char *text, size_t size) {
  switch (split) {
    case MCC_SPLIT_GPT2: return first_word_gpt2(text, size);
    case MCC_SPLIT_LLAMA3: return first_word_llama3(text, size, 3);
    case MCC_SPLIT_QWEN2: return first_word_llama3(text, size, 1);
    case MCC_SPLIT_METASPACE: return first_word_metaspace(text, size);
    default: return size;
  }
}
