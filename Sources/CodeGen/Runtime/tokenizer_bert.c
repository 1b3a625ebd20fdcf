#include "tokenizer_parts.h"

#include <string.h>

#include "tokenizer_split.h"
#include "unicode_bert.h"

/* The row whose run holds the code, or NULL. A row has `width` numbers, first and last code of a run before others. */
static const uint32_t *find_run(const uint32_t *rows, size_t count, size_t width, uint32_t code) {
  size_t low = 0, high = count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (code > rows[middle * width + 1]) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < count && code >= rows[low * width] ? rows + low * width : NULL;
}

#define FIND_RUN(table, code) find_run(&table[0][0], sizeof table / sizeof *table, sizeof *table / sizeof **table, code)

/* The row of mcc_bert_parts that begins with the code, or NULL. */
static const uint32_t *find_parts(uint32_t code) {
  size_t low = 0, high = sizeof mcc_bert_parts / sizeof *mcc_bert_parts;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (mcc_bert_parts[middle][0] == code) return mcc_bert_parts[middle];
    if (mcc_bert_parts[middle][0] < code) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return NULL;
}

/* The blocks of ideographs that BERT sets apart, the gap at U+2B820 as in the reference implementation. */
static bool is_ideograph(uint32_t code) {
  static const uint32_t blocks[][2] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},  {0x20000, 0x2A6DF},
                                       {0x2A700, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
  return code >= 0x3400 && FIND_RUN(blocks, code) != NULL;
}

static size_t write_utf8(uint32_t code, char *text) {
  if (code < 0x80) {
    text[0] = (char)code;
    return 1;
  }
  size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  for (size_t i = length - 1; i > 0; i--, code >>= 6) text[i] = (char)(0x80 | (code & 0x3F));
  text[0] = (char)((0xF00 >> length & 0xFF) | code);
  return length;
}

/* The word being read: `normalized` holds two bytes for the mark of a continuation, then the word. */
enum { MARK_BYTES = 2 };

typedef struct word {
  mcc_tokenizer *tokenizer;
  mcc_ids *ids;
  uint32_t characters;
} word;

/*
 * The longest token at the start of the word, then the longest at the start of the rest, and so on; tokens inside of a
 * word begin with "##". A word that cannot be covered, or is longer than the limit, is one unknown token.
 */
static void end_word(word *it) {
  mcc_tokenizer *tokenizer = it->tokenizer;
  char *text = tokenizer->normalized.data;
  size_t size = tokenizer->normalized.count, start = MARK_BYTES;
  if (it->characters == 0) return;
  int64_t before = it->ids->count;
  bool covered = it->characters <= tokenizer->header.word_limit;
  while (covered && start < size) {
    size_t first = start;
    if (start > MARK_BYTES) {
      /* What stood there has become a token already. */
      first -= MARK_BYTES;
      memset(text + first, '#', MARK_BYTES);
    }
    size_t end = size;
    int32_t id = -1;
    while (end > start && (id = mcc_find_token(tokenizer, text + first, end - first)) < 0) {
      do end--;
      while (end > start && ((uint8_t)text[end] & 0xC0) == 0x80);
    }
    covered = id >= 0;
    if (covered) mcc_ids_append(it->ids, id);
    start = end;
  }
  if (!covered) {
    it->ids->count = before;
    if (mcc_is_token(tokenizer, tokenizer->header.unknown)) mcc_ids_append(it->ids, tokenizer->header.unknown);
  }
  it->characters = 0;
  tokenizer->normalized.count = MARK_BYTES;
}

/* Takes up one character of the normalized text. */
static void add_character(word *it, uint32_t code) {
  if (mcc_is_white_space((int32_t)code)) {
    end_word(it);
    return;
  }
  bool alone = FIND_RUN(mcc_bert_punctuation, code) != NULL;
  if (alone) end_word(it);
  char bytes[4];
  mcc_text_append(&it->tokenizer->normalized, bytes, write_utf8(code, bytes));
  it->characters++;
  if (alone) end_word(it);
}

static void add_lowered(word *it, uint32_t code) {
  if (!mcc_tokenizer_has(it->tokenizer, MCC_TOKENIZER_LOWER_CASE)) {
    add_character(it, code);
    return;
  }
  if (code == 0x130) {
    add_character(it, 'i');
    add_character(it, 0x307);
    return;
  }
  const uint32_t *run = FIND_RUN(mcc_bert_lower, code);
  add_character(it, run != NULL && (code - run[0]) % run[2] == 0 ? code + run[3] : code);
}

/* The canonical decomposition without accents. */
static void add_without_accents(word *it, uint32_t code) {
  enum { FIRST_SYLLABLE = 0xAC00, SYLLABLES = 11172, VOWELS = 21, TAILS = 28 };
  if (code < 0x80 || !mcc_tokenizer_has(it->tokenizer, MCC_TOKENIZER_STRIP_ACCENTS)) {
    add_lowered(it, code);
  } else if (code >= FIRST_SYLLABLE && code < FIRST_SYLLABLE + SYLLABLES) {
    uint32_t syllable = code - FIRST_SYLLABLE, tail = syllable % TAILS;
    add_lowered(it, 0x1100 + syllable / (VOWELS * TAILS));
    add_lowered(it, 0x1161 + syllable / TAILS % VOWELS);
    if (tail > 0) add_lowered(it, 0x11A7 + tail);
  } else if (FIND_RUN(mcc_bert_marks, code) == NULL) {
    const uint32_t *parts = find_parts(code);
    if (parts == NULL) add_lowered(it, code);
    for (int i = 1; parts != NULL && i < 4 && parts[i] != 0; i++) add_lowered(it, parts[i]);
  }
}

void mcc_encode_word_pieces(mcc_tokenizer *tokenizer, const char *text, size_t size, mcc_ids *ids) {
  word it = {tokenizer, ids, 0};
  tokenizer->normalized.count = 0;
  mcc_text_append(&tokenizer->normalized, "##", MARK_BYTES);
  for (size_t i = 0; i < size;) {
    int32_t code;
    i += mcc_character(text + i, size - i, &code);
    if (code < 0) code = 0xFFFD;
    if (mcc_tokenizer_has(tokenizer, MCC_TOKENIZER_CLEAN_TEXT) && FIND_RUN(mcc_bert_removed, (uint32_t)code) != NULL) {
      continue;
    }
    bool apart = mcc_tokenizer_has(tokenizer, MCC_TOKENIZER_SPACE_IDEOGRAPHS) && is_ideograph((uint32_t)code);
    if (apart) end_word(&it);
    add_without_accents(&it, (uint32_t)code);
    if (apart) end_word(&it);
  }
  end_word(&it);
}
