#define _GNU_SOURCE
#include "tokenizer_split.h"

#include <string.h>

#include "unicode.h"
#include "unicode_classes.h"

enum { LETTERS = MCC_UPPER | MCC_LOWER | MCC_LETTER, WORDS = LETTERS | MCC_NUMBER | MCC_SPACE };

/* A character of the text; length 0 at its end. Bytes that are no UTF-8 are characters without a class. */
typedef struct character {
  int32_t code;
  uint32_t class;
  size_t length;
} character;

static inline character character_at(const char *text, size_t size, size_t position) {
  character it = {-1, 0, 0};
  if (position >= size) return it;
  it.length = mcc_character(text + position, size - position, &it.code);
  it.class = mcc_class(it.code);
  return it;
}

static inline bool is_newline(int32_t code) {
  return code == '\r' || code == '\n';
}

/* End of the run of at most `limit` characters with a bit of the mask, from `position` on. */
static size_t end_of_run(const char *text, size_t size, size_t position, uint32_t mask, size_t limit) {
  for (size_t i = 0; i < limit; i++) {
    character next = character_at(text, size, position);
    if ((next.class & mask) == 0) break;
    position += next.length;
  }
  return position;
}

/* End of the run of characters without a bit of the mask. */
static size_t end_of_others(const char *text, size_t size, size_t position, uint32_t mask) {
  for (;;) {
    character next = character_at(text, size, position);
    if (next.length == 0 || (next.class & mask) != 0) return position;
    position += next.length;
  }
}

/* Length of 's|'t|'re|'ve|'m|'ll|'d at the start of the text, or 0. */
static size_t match_contraction(const char *text, size_t size, bool ignore_case) {
  if (size < 2 || text[0] != '\'') return 0;
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
  while (((next = character_at(text, size, position)).class & MCC_SPACE) != 0) {
    last = position;
    position += next.length;
  }
  return next.length == 0 || last == 0 ? position : last;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t match_lines(const char *text, size_t size) {
  size_t after_newline = 0;
  character next;
  for (size_t position = 0; ((next = character_at(text, size, position)).class & MCC_SPACE) != 0;) {
    position += next.length;
    if (is_newline(next.code)) after_newline = position;
  }
  return after_newline > 0 ? after_newline : match_white_space(text, size);
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static size_t match_gpt2(const char *text, size_t size) {
  size_t contraction = match_contraction(text, size, false);
  if (contraction > 0) return contraction;
  size_t start = text[0] == ' ' ? 1 : 0;
  character first = character_at(text, size, start);
  if (first.length == 0 || (first.class & MCC_SPACE) != 0) return match_white_space(text, size);
  if ((first.class & LETTERS) != 0) return end_of_run(text, size, start, LETTERS, SIZE_MAX);
  if ((first.class & MCC_NUMBER) != 0) return end_of_run(text, size, start, MCC_NUMBER, SIZE_MAX);
  return end_of_others(text, size, start, WORDS);
}

/* ` ?[^\s\p{L}\p{N}]+[\r\n]*`, or with more characters behind; `others` are those that the set leaves out. */
static size_t match_others(const char *text, size_t size, uint32_t others, bool slash) {
  size_t start = text[0] == ' ' ? 1 : 0, end = end_of_others(text, size, start, others);
  if (end == start) return 0;
  while (end < size && (is_newline(text[end]) || (slash && text[end] == '/'))) end++;
  return end;
}

/*
 * (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+
 * |\s+(?!\S)|\s+
 *
 * `letters` is what stands in the place of \p{L}.
 */
static size_t match_llama3(const char *text, size_t size, uint32_t letters, size_t digits) {
  size_t contraction = match_contraction(text, size, true);
  if (contraction > 0) return contraction;
  character first = character_at(text, size, 0);
  if (!is_newline(first.code) && (first.class & (LETTERS | MCC_NUMBER)) == 0) {
    size_t end = end_of_run(text, size, first.length, letters, SIZE_MAX);
    if (end > first.length) return end;
  }
  if ((first.class & letters) != 0) return end_of_run(text, size, 0, letters, SIZE_MAX);
  if ((first.class & MCC_NUMBER) != 0) return end_of_run(text, size, 0, MCC_NUMBER, digits);
  size_t end = match_others(text, size, WORDS | letters, false);
  return end > 0 ? end : match_lines(text, size);
}

enum { CAPITALS = MCC_UPPER | MCC_LETTER | MCC_MARK, SMALL = MCC_LOWER | MCC_LETTER | MCC_MARK };

/*
 * [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+ from `start` on: its end, or `start`. The first run gives
 * back what the second one needs, which is the last character that both may have.
 */
static size_t match_word(const char *text, size_t size, size_t start) {
  size_t shared = start, position = start;
  for (;;) {
    character next = character_at(text, size, position);
    if ((next.class & CAPITALS) == 0) break;
    position += next.length;
    if ((next.class & SMALL) != 0) shared = position;
  }
  size_t end = end_of_run(text, size, position, SMALL, SIZE_MAX);
  return end > position ? end : shared;
}

/* [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]* likewise. */
static size_t match_capitals(const char *text, size_t size, size_t start) {
  size_t end = end_of_run(text, size, start, CAPITALS, SIZE_MAX);
  return end > start ? end_of_run(text, size, end, SMALL, SIZE_MAX) : start;
}

/*
 * [^\r\n\p{L}\p{N}]? and one of the two above, with (?i:'s|'t|'re|'ve|'m|'ll|'d)? behind if `contracts`, the first one
 * first; |\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
 */
static size_t match_o200k(const char *text, size_t size, size_t digits, bool contracts) {
  character first = character_at(text, size, 0);
  bool led = !is_newline(first.code) && (first.class & (LETTERS | MCC_NUMBER)) == 0;
  for (int form = 0; form < 2; form++) {
    for (int lead = led ? 1 : 0; lead >= 0; lead--) {
      size_t start = lead > 0 ? first.length : 0;
      size_t end = form == 0 ? match_word(text, size, start) : match_capitals(text, size, start);
      if (end > start) return end + (contracts ? match_contraction(text + end, size - end, true) : 0);
    }
  }
  if ((first.class & MCC_NUMBER) != 0) return end_of_run(text, size, 0, MCC_NUMBER, digits);
  size_t end = match_others(text, size, WORDS, true);
  return end > 0 ? end : match_lines(text, size);
}

static bool is_ascii_letter(char byte) {
  return (byte | 0x20) >= 'a' && (byte | 0x20) <= 'z';
}

/*
 * [!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+
 * |\s+(?!\S)|\s+ ; 0 if none of them.
 */
static size_t match_deepseek3(const char *text, size_t size) {
  enum { SIGNS = MCC_PUNCTUATION | MCC_SYMBOL };
  character first = character_at(text, size, 0);
  if (first.code > 0 && first.code < 0x80 && (first.class & SIGNS) != 0 && size > 1 && is_ascii_letter(text[1])) {
    size_t end = 1;
    while (end < size && is_ascii_letter(text[end])) end++;
    return end;
  }
  if (!is_newline(first.code) && (first.class & (LETTERS | SIGNS)) == 0) {
    size_t end = end_of_run(text, size, first.length, LETTERS | MCC_MARK, SIZE_MAX);
    if (end > first.length) return end;
  }
  if ((first.class & (LETTERS | MCC_MARK)) != 0) return end_of_run(text, size, 0, LETTERS | MCC_MARK, SIZE_MAX);
  size_t start = text[0] == ' ' ? 1 : 0, end = end_of_run(text, size, start, SIGNS, SIZE_MAX);
  if (end > start) {
    while (end < size && is_newline(text[end])) end++;
    return end;
  }
  return (first.class & MCC_SPACE) != 0 ? match_lines(text, size) : 0;
}

/* <\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+ , the first two only
   with `marks_too`; 0 if none of them. */
static size_t match_clip(const char *text, size_t size, bool marks_too) {
  static const char *const marks[] = {"<|startoftext|>", "<|endoftext|>"};
  for (int i = 0; i < 2 && marks_too; i++) {
    size_t length = strlen(marks[i]);
    if (size >= length && memcmp(text, marks[i], length) == 0) return length;
  }
  size_t contraction = match_contraction(text, size, false);
  if (contraction > 0) return contraction;
  character first = character_at(text, size, 0);
  if ((first.class & LETTERS) != 0) return end_of_run(text, size, 0, LETTERS, SIZE_MAX);
  if ((first.class & MCC_NUMBER) != 0) return first.length;
  return end_of_others(text, size, 0, WORDS);
}

/* \w+|[^\w\s]+ */
static size_t match_words(const char *text, size_t size) {
  size_t end = end_of_run(text, size, 0, MCC_WORD, SIZE_MAX);
  return end > 0 ? end : end_of_others(text, size, 0, MCC_WORD | MCC_SPACE);
}

/* ---- runs ---- */

enum { RUN_SPACE, RUN_LEAST, RUN_MOST, RUN_BITS, RUN_CLASSES, RUN_RANGES };

typedef struct run_rule {
  const uint32_t *numbers;
  uint32_t count;
} run_rule;

static bool run_has(run_rule rule, character it) {
  bool found = (it.class & rule.numbers[RUN_CLASSES]) != 0;
  for (uint32_t i = RUN_RANGES; i + 1 < rule.count && !found; i += 2) {
    found = it.code >= 0 && (uint32_t)it.code >= rule.numbers[i] && (uint32_t)it.code <= rule.numbers[i + 1];
  }
  return it.length > 0 && found != ((rule.numbers[RUN_BITS] & MCC_RUN_NEGATED) != 0);
}

static size_t match_run(run_rule rule, const char *text, size_t size) {
  uint32_t space = rule.numbers[RUN_SPACE], most = rule.numbers[RUN_MOST];
  character first = character_at(text, size, 0);
  bool spaced = space == 1 ? first.code == ' ' : space == 2 && (first.class & MCC_SPACE) != 0;
  for (int with = spaced ? 1 : 0; with >= 0; with--) {
    size_t position = with > 0 ? first.length : 0, count = 0;
    character next;
    while ((most == 0 || count < most) && run_has(rule, next = character_at(text, size, position))) {
      position += next.length;
      count++;
    }
    bool ends = (rule.numbers[RUN_BITS] & MCC_RUN_AT_END) == 0 || position == size;
    if (count > 0 && count >= rule.numbers[RUN_LEAST] && ends) return position;
  }
  return 0;
}

/* ---- finding ---- */

/* Length of the match at the start of the text, or 0. */
static size_t match(const mcc_tokenizer *it, const mcc_step *step, const char *text, size_t size) {
  switch (step->rule) {
    case MCC_RULE_RUN: return match_run((run_rule){it->numbers + step->text, step->length}, text, size);
    case MCC_RULE_WORDS: return match_words(text, size);
    case MCC_RULE_GPT2: return match_gpt2(text, size);
    case MCC_RULE_LLAMA3: return match_llama3(text, size, LETTERS, 3);
    case MCC_RULE_QWEN2: return match_llama3(text, size, LETTERS, 1);
    case MCC_RULE_QWEN35: return match_llama3(text, size, LETTERS | MCC_MARK, 1);
    case MCC_RULE_O200K: return match_o200k(text, size, 3, true);
    case MCC_RULE_TEKKEN: return match_o200k(text, size, 1, false);
    case MCC_RULE_DEEPSEEK3: return match_deepseek3(text, size);
    case MCC_RULE_CLIP: return match_clip(text, size, true);
    case MCC_RULE_CLIP_WORDS: return match_clip(text, size, false);
    default: return 0;
  }
}

bool mcc_find_match(const mcc_tokenizer *it, const mcc_step *step, const char *text, size_t size, size_t from,
                    size_t *start, size_t *end) {
  if (step->rule == MCC_RULE_TEXT) {
    const char *wanted = it->strings + step->text;
    const char *found = from < size ? memmem(text + from, size - from, wanted, step->length) : NULL;
    if (found == NULL) return false;
    *start = (size_t)(found - text);
    *end = *start + step->length;
    return true;
  }
  while (from < size) {
    size_t length = match(it, step, text + from, size - from);
    if (length > 0) {
      *start = from;
      *end = from + length;
      return true;
    }
    int32_t code;
    from += mcc_character(text + from, size - from, &code);
  }
  return false;
}
