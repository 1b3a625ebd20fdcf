#include "tokenizer_parts.h"

#include <string.h>

#include "failure.h"
#include "tokenizer_split.h"

static void add_symbol(mcc_tokenizer *it, int32_t *count, int32_t id, size_t start, size_t length) {
  it->symbols[*count] = (mcc_symbol_part){id, *count - 1, *count + 1, (uint32_t)start, (uint32_t)length};
  ++*count;
}

/* Whether all bytes have byte tokens. */
static bool has_byte_tokens(const mcc_tokenizer *it, const char *bytes, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (it->byte_ids[(uint8_t)bytes[i]] < 0) return false;
  }
  return mcc_tokenizer_has(it, MCC_TOKENIZER_BYTE_FALLBACK);
}

/* The symbols that the merging of a word starts from. */
static int32_t split_into_symbols(mcc_tokenizer *it, const char *word, size_t size) {
  int32_t count = 0;
  if (it->header.kind == MCC_KIND_BYTES) {
    for (size_t i = 0; i < size; i++) add_symbol(it, &count, it->byte_ids[(uint8_t)word[i]], i, 1);
  } else {
    for (size_t i = 0, length; i < size; i += length) {
      int32_t code;
      length = mcc_character(word + i, size - i, &code);
      int32_t id = mcc_find_token(it, word + i, length);
      /* By rank, byte tokens take part in merges; by score, unknown characters may still merge into a token. */
      if (id < 0 && it->scores == NULL && has_byte_tokens(it, word + i, length)) {
        for (size_t k = 0; k < length; k++) add_symbol(it, &count, it->byte_ids[(uint8_t)word[i + k]], i + k, 1);
      } else {
        add_symbol(it, &count, id, i, length);
      }
    }
  }
  it->symbols[count - 1].next = -1;
  return count;
}

static void encode_word(mcc_tokenizer *it, const char *word, size_t size, mcc_ids *ids) {
  if (mcc_tokenizer_has(it, MCC_TOKENIZER_IGNORE_MERGES)) {
    int32_t id = mcc_find_token(it, word, size);
    if (id >= 0) {
      mcc_ids_append(ids, id);
      return;
    }
  }
  if (size > it->symbol_capacity) {
    it->symbol_capacity = size + 64;
    it->symbols = mcc_reallocate(it->symbols, it->symbol_capacity * sizeof *it->symbols);
  }
  int32_t count = split_into_symbols(it, word, size);
  mcc_merge_symbols(it, word, count);

  bool fuse = mcc_tokenizer_has(it, MCC_TOKENIZER_FUSE_UNKNOWN), after_unknown = false;
  for (int32_t i = 0; i >= 0; i = it->symbols[i].next) {
    const char *text = word + it->symbols[i].start;
    uint32_t length = it->symbols[i].length;
    bool unknown = false;
    if (it->symbols[i].id >= 0) {
      mcc_ids_append(ids, it->symbols[i].id);
    } else if (has_byte_tokens(it, text, length)) {
      for (uint32_t k = 0; k < length; k++) mcc_ids_append(ids, it->byte_ids[(uint8_t)text[k]]);
    } else {
      unknown = true;
      bool fused = fuse && after_unknown;
      if (mcc_is_token(it, it->header.unknown) && !fused) mcc_ids_append(ids, it->header.unknown);
    }
    after_unknown = unknown;
  }
}

/* Encodes text that holds no special tokens. */
static void encode_piece(mcc_tokenizer *it, const char *text, size_t size, bool at_start, mcc_ids *ids) {
  if (size == 0) return;
  if (it->header.kind == MCC_KIND_WORD_PIECES) {
    mcc_encode_word_pieces(it, text, size, ids);
    return;
  }
  bool escape = mcc_tokenizer_has(it, MCC_TOKENIZER_ESCAPE_SPACES);
  const char *space = escape ? "\xE2\x96\x81" : " ";
  size_t space_length = escape ? 3 : 1;
  bool starts_with_space = text[0] == ' ' || (escape && size >= 3 && memcmp(text, space, 3) == 0);
  bool prefix = it->header.prefix == MCC_PREFIX_EACH_PIECE || (it->header.prefix == MCC_PREFIX_START && at_start);
  if (prefix && starts_with_space && mcc_tokenizer_has(it, MCC_TOKENIZER_SINGLE_PREFIX)) prefix = false;

  if (prefix || escape) {
    it->normalized.count = 0;
    if (prefix) mcc_text_append(&it->normalized, space, space_length);
    for (size_t i = 0; i < size;) {
      const char *next = escape ? memchr(text + i, ' ', size - i) : NULL;
      size_t end = next != NULL ? (size_t)(next - text) : size;
      mcc_text_append(&it->normalized, text + i, end - i);
      if (end < size) mcc_text_append(&it->normalized, space, space_length);
      i = end + (end < size ? 1 : 0);
    }
    text = it->normalized.data;
    size = it->normalized.count;
  }
  for (size_t i = 0; i < size;) {
    size_t length = mcc_first_word((int)it->header.split, text + i, size - i);
    encode_word(it, text + i, length, ids);
    i += length;
  }
}

/* Index into `specials` of the longest special token that the text starts with, or -1. */
static int64_t match_special(const mcc_tokenizer *it, const char *text, size_t size) {
  if (!it->starts_special[(uint8_t)text[0]]) return -1;
  /* specials[low ..< high] begin with the first `depth` bytes of the text. */
  int64_t low = 0, high = it->header.special_count, found = -1;
  for (size_t depth = 0; low < high; depth++) {
    uint32_t length;
    mcc_token_text(it, (int32_t)it->specials[low], &length);
    if (length == depth) found = low++;
    if (depth == size) break;
    uint8_t byte = (uint8_t)text[depth];
    int64_t bounds[2];
    for (int side = 0; side < 2; side++) {
      int64_t first = low, last = high;
      while (first < last) {
        int64_t middle = (first + last) / 2;
        uint8_t other = (uint8_t)mcc_token_text(it, (int32_t)it->specials[middle], &length)[depth];
        if (side == 0 ? other < byte : other <= byte) {
          first = middle + 1;
        } else {
          last = middle;
        }
      }
      bounds[side] = first;
    }
    low = bounds[0];
    high = bounds[1];
  }
  return found;
}

static size_t white_space_before(const char *text, size_t start, size_t end) {
  while (end > start) {
    size_t character = end - 1;
    while (character > start && ((uint8_t)text[character] & 0xC0) == 0x80) character--;
    int32_t code;
    if (mcc_character(text + character, end - character, &code) != end - character || !mcc_is_white_space(code)) break;
    end = character;
  }
  return end;
}

static size_t white_space_after(const char *text, size_t position, size_t size) {
  while (position < size) {
    int32_t code;
    size_t length = mcc_character(text + position, size - position, &code);
    if (!mcc_is_white_space(code)) break;
    position += length;
  }
  return position;
}

static bool adds_bos(const mcc_tokenizer *it) {
  return mcc_tokenizer_has(it, MCC_TOKENIZER_ADD_BOS) && mcc_tokenizer_bos(it) >= 0;
}

static bool adds_eos(const mcc_tokenizer *it) {
  return mcc_tokenizer_has(it, MCC_TOKENIZER_ADD_EOS) && mcc_tokenizer_eos(it) >= 0;
}

void mcc_tokenizer_encode(mcc_tokenizer *it, const char *text, size_t size, bool with_template, mcc_ids *ids) {
  if (it->token_table == NULL) mcc_tokenizer_make_tables(it);
  if (with_template && adds_bos(it)) mcc_ids_append(ids, it->header.bos);
  size_t start = 0;
  for (size_t i = 0; i < size;) {
    int64_t special = match_special(it, text + i, size - i);
    if (special < 0) {
      i++;
      continue;
    }
    uint8_t flags = it->special_flags[special];
    size_t end = (flags & MCC_STRIP_LEFT) != 0 ? white_space_before(text, start, i) : i;
    encode_piece(it, text + start, end - start, start == 0, ids);
    mcc_ids_append(ids, (int32_t)it->specials[special]);
    uint32_t length;
    mcc_token_text(it, (int32_t)it->specials[special], &length);
    i += length;
    if ((flags & MCC_STRIP_RIGHT) != 0) i = white_space_after(text, i, size);
    start = i;
  }
  encode_piece(it, text + start, size - start, start == 0, ids);
  if (with_template && adds_eos(it)) mcc_ids_append(ids, it->header.eos);
}

int64_t mcc_tokenizer_encode_at_most(mcc_tokenizer *it, const char *text, size_t size, int64_t limit, mcc_ids *ids) {
  int64_t before = ids->count;
  mcc_tokenizer_encode(it, text, size, true, ids);
  int64_t count = ids->count - before;
  if (count <= limit) return count;
  ids->count = before + limit;
  if (adds_eos(it)) ids->data[ids->count - 1] = it->header.eos;
  return count;
}
