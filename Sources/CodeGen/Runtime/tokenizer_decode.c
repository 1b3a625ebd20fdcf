#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "failure.h"
#include "tokenizer_parts.h"
#include "unicode.h"

/* What a step remembers between two texts. */
typedef struct step_state {
  bool started;    /* a text has come */
  uint32_t passed; /* of what is stripped at the start */
  mcc_text held;   /* what a later text decides about */
} step_state;

struct mcc_decoder {
  const mcc_tokenizer *tokenizer;
  bool skips;
  bool shown; /* the text at hand shows bytes as characters */
  step_state *states;
  mcc_text scratch[2];
  mcc_text *output;
};

static void push(mcc_decoder *it, uint32_t index, const char *text, size_t size);

static const char *string(const mcc_decoder *it, uint32_t place) {
  return it->tokenizer->strings + place;
}

/* Whether a step before this one has joined all texts, so that what comes are parts of a single one. */
static bool is_joined(const mcc_decoder *it, uint32_t index) {
  for (uint32_t i = 0; i < index; i++) {
    uint32_t kind = it->tokenizer->decoders[i].kind;
    if (kind == MCC_DECODE_FUSE || kind == MCC_DECODE_BYTES) return true;
  }
  return false;
}

/* ---- bytes ---- */

/* Hands on the held bytes up to a character that is not complete yet, with U+FFFD for what is no UTF-8. */
static void push_characters(mcc_decoder *it, uint32_t index, bool ends) {
  mcc_text *held = &it->states[index].held, valid = {0};
  size_t i = 0;
  while (i < held->count) {
    int32_t code;
    bool incomplete;
    size_t length = mcc_character(held->data + i, held->count - i, &code);
    if (code >= 0) {
      mcc_text_append(&valid, held->data + i, length);
    } else {
      length = mcc_invalid_length(held->data + i, held->count - i, &incomplete);
      if (incomplete && !ends) break;
      mcc_text_append(&valid, "\xEF\xBF\xBD", 3);
    }
    i += length;
  }
  held->count -= i;
  memmove(held->data, held->data + i, held->count);
  if (valid.count > 0) push(it, index + 1, valid.data, valid.count);
  free(valid.data);
}

static void decode_bytes(mcc_decoder *it, uint32_t index, const char *text, size_t size) {
  mcc_text *held = &it->states[index].held;
  size_t before = held->count;
  bool known = it->tokenizer->decoders[index].a == 0 || it->shown;
  for (size_t i = 0; i < size && known;) {
    int32_t code;
    i += mcc_character(text + i, size - i, &code);
    int byte = mcc_byte_of_character(code);
    char value = (char)byte;
    known = byte >= 0;
    if (known) mcc_text_append(held, &value, 1);
  }
  if (!known) {
    held->count = before;
    mcc_text_append(held, text, size);
  }
  if (held->count > 0) push_characters(it, index, false);
}

static int hexadecimal(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if ((digit | 0x20) >= 'a' && (digit | 0x20) <= 'f') return (digit | 0x20) - 'a' + 10;
  return -1;
}

/* Hands on a run of bytes: the text that it is, or U+FFFD for each of them. */
static void push_run(mcc_decoder *it, uint32_t index) {
  mcc_text run = it->states[index].held;
  if (run.count == 0) return;
  it->states[index].held.count = 0;
  int32_t code = 0;
  for (size_t i = 0; i < run.count && code >= 0;) i += mcc_character(run.data + i, run.count - i, &code);
  if (code >= 0) {
    push(it, index + 1, run.data, run.count);
  } else {
    for (size_t i = 0; i < run.count; i++) push(it, index + 1, "\xEF\xBF\xBD", 3);
  }
}

static void decode_byte_token(mcc_decoder *it, uint32_t index, const char *text, size_t size) {
  bool form = size == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>';
  int high = form ? hexadecimal(text[3]) : -1, low = form ? hexadecimal(text[4]) : -1;
  if (high >= 0 && low >= 0) {
    char byte = (char)(high << 4 | low);
    mcc_text_append(&it->states[index].held, &byte, 1);
    return;
  }
  push_run(it, index);
  push(it, index + 1, text, size);
}

/* ---- texts ---- */

/* Appends the text with each occurrence of one part replaced. */
static void append_replaced(mcc_text *output, const char *text, size_t size, const char *old, size_t old_size,
                            const char *new, size_t new_size) {
  size_t i = 0;
  for (const char *found; old_size > 0 && (found = memmem(text + i, size - i, old, old_size)) != NULL;) {
    mcc_text_append(output, text + i, (size_t)(found - text) - i);
    mcc_text_append(output, new, new_size);
    i = (size_t)(found - text) + old_size;
  }
  mcc_text_append(output, text + i, size - i);
}

static void decode_replace(mcc_decoder *it, uint32_t index, const char *text, size_t size) {
  const mcc_step *step = it->tokenizer->decoders + index;
  mcc_text replaced = {0};
  append_replaced(&replaced, text, size, string(it, step->text), step->length, string(it, step->content),
                  step->content_length);
  push(it, index + 1, replaced.count > 0 ? replaced.data : "", replaced.count);
  free(replaced.data);
}

static void decode_spaces(mcc_decoder *it, uint32_t index, const char *text, size_t size, bool first) {
  const mcc_step *step = it->tokenizer->decoders + index;
  mcc_text replaced = {0};
  append_replaced(&replaced, text, size, string(it, step->text), step->length, " ", first && step->a != 0 ? 0 : 1);
  push(it, index + 1, replaced.count > 0 ? replaced.data : "", replaced.count);
  free(replaced.data);
}

/* Takes away the spaces that English does not have, as the reference implementation does with each text. */
static void tidy(mcc_decoder *it, mcc_text *text) {
  static const char *const pairs[][2] = {
      {" .", "."},     {" ?", "?"},           {" !", "!"},     {" ,", ","},      {" ' ", "'"},    {" n't", "n't"},
      {" 'm", "'m"},   {" do not", " don't"}, {" 's", "'s"},   {" 've", "'ve"},  {" 're", "'re"},
  };
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    const char *old = pairs[i][0], *new = pairs[i][1];
    if (text->count == 0 || memmem(text->data, text->count, old, strlen(old)) == NULL) continue;
    mcc_text *other = &it->scratch[1];
    other->count = 0;
    append_replaced(other, text->data, text->count, old, strlen(old), new, strlen(new));
    mcc_text swapped = *text;
    *text = *other;
    *other = swapped;
  }
}

static void decode_word_piece(mcc_decoder *it, uint32_t index, const char *text, size_t size, bool first) {
  const mcc_step *step = it->tokenizer->decoders + index;
  mcc_text *result = &it->scratch[0];
  result->count = 0;
  if (!first) {
    bool inside = size >= step->length && memcmp(text, string(it, step->text), step->length) == 0;
    if (!inside) mcc_text_append(result, " ", 1);
    text += inside ? step->length : 0;
    size -= inside ? step->length : 0;
  }
  mcc_text_append(result, text, size);
  if (step->a != 0) tidy(it, result);
  mcc_text copy = {0};
  mcc_text_append(&copy, result->data, result->count);
  push(it, index + 1, copy.count > 0 ? copy.data : "", copy.count);
  free(copy.data);
}

/* What is stripped at the end of joined texts is held until they end. */
static void decode_strip(mcc_decoder *it, uint32_t index, const char *text, size_t size) {
  const mcc_step *step = it->tokenizer->decoders + index;
  step_state *state = &it->states[index];
  const char *wanted = string(it, step->text);
  bool joined = is_joined(it, index);
  uint32_t passed = joined ? state->passed : 0;
  while (passed < step->a && size >= step->length && memcmp(text, wanted, step->length) == 0) {
    text += step->length;
    size -= step->length;
    passed++;
  }
  if (size > 0) passed = step->a;
  state->passed = passed;
  if (!joined) {
    for (uint32_t i = 0; i < step->b && size >= step->length; i++) {
      if (memcmp(text + size - step->length, wanted, step->length) != 0) break;
      size -= step->length;
    }
    push(it, index + 1, text, size);
    return;
  }
  mcc_text *held = &state->held;
  mcc_text_append(held, text, size);
  size_t tail = 0;
  while (tail < (size_t)step->b * step->length && held->count >= tail + step->length &&
         memcmp(held->data + held->count - tail - step->length, wanted, step->length) == 0) {
    tail += step->length;
  }
  if (held->count > tail) push(it, index + 1, held->data, held->count - tail);
  if (held->count > 0) memmove(held->data, held->data + held->count - tail, tail);
  held->count = tail;
}

/* The space at the end of a word is held: the last one has none. */
static void decode_word_end(mcc_decoder *it, uint32_t index, const char *text, size_t size) {
  const mcc_step *step = it->tokenizer->decoders + index;
  mcc_text *held = &it->states[index].held, replaced = {0};
  bool ends = size >= step->length && memcmp(text + size - step->length, string(it, step->text), step->length) == 0;
  if (held->count > 0) mcc_text_append(&replaced, " ", 1);
  held->count = 0;
  append_replaced(&replaced, text, size - (ends ? step->length : 0), string(it, step->text), step->length, " ", 1);
  if (ends) mcc_text_append(held, " ", 1);
  push(it, index + 1, replaced.count > 0 ? replaced.data : "", replaced.count);
  free(replaced.data);
}

/* ---- steps ---- */

/* Gives a text to the step of that index; behind the last one is the output. */
static void push(mcc_decoder *it, uint32_t index, const char *text, size_t size) {
  if (index == it->tokenizer->header.decoders.count) {
    mcc_text_append(it->output, text, size);
    return;
  }
  bool first = !it->states[index].started;
  it->states[index].started = true;
  switch (it->tokenizer->decoders[index].kind) {
    case MCC_DECODE_BYTES: decode_bytes(it, index, text, size); break;
    case MCC_DECODE_BYTE_TOKENS: decode_byte_token(it, index, text, size); break;
    case MCC_DECODE_SPACES: decode_spaces(it, index, text, size, first); break;
    case MCC_DECODE_WORD_PIECES: decode_word_piece(it, index, text, size, first); break;
    case MCC_DECODE_STRIP: decode_strip(it, index, text, size); break;
    case MCC_DECODE_REPLACE: decode_replace(it, index, text, size); break;
    case MCC_DECODE_WORD_ENDS: decode_word_end(it, index, text, size); break;
    case MCC_DECODE_SEPARATE:
      if (!first) push(it, index + 1, " ", 1);
      push(it, index + 1, text, size);
      break;
    default: push(it, index + 1, text, size); break;
  }
}

mcc_decoder *mcc_decoder_open(mcc_tokenizer *tokenizer, bool skips) {
  mcc_prepare(tokenizer);
  mcc_decoder *it = mcc_allocate_zeros(1, sizeof *it);
  it->tokenizer = tokenizer;
  it->skips = skips;
  it->states = mcc_allocate_zeros(tokenizer->header.decoders.count + 1, sizeof *it->states);
  return it;
}

void mcc_decoder_close(mcc_decoder *it) {
  for (uint32_t i = 0; i < it->tokenizer->header.decoders.count; i++) free(it->states[i].held.data);
  free(it->scratch[0].data);
  free(it->scratch[1].data);
  free(it->states);
  free(it);
}

void mcc_decoder_add(mcc_decoder *it, int32_t id, mcc_text *text) {
  if (!mcc_is_token(it->tokenizer, id)) return;
  if (it->skips && (it->tokenizer->kinds[id] & MCC_TOKEN_SPECIAL) != 0) return;
  uint32_t size;
  const char *bytes = mcc_token_text(it->tokenizer, id, &size);
  if ((it->tokenizer->kinds[id] & MCC_TOKEN_NORMALIZED) != 0) {
    const mcc_added_set *set = &it->tokenizer->normalized;
    for (size_t i = 0; i < set->count; i++) {
      if (set->items[i].id != (uint32_t)id) continue;
      bytes = set->items[i].text;
      size = set->items[i].length;
      it->shown = true;
    }
  }
  if (size == 0) return;
  it->output = text;
  push(it, 0, bytes, size);
  it->shown = false;
}

void mcc_decoder_flush(mcc_decoder *it, mcc_text *text) {
  it->output = text;
  for (uint32_t i = 0; i < it->tokenizer->header.decoders.count; i++) {
    uint32_t kind = it->tokenizer->decoders[i].kind;
    if (kind == MCC_DECODE_BYTES && it->states[i].held.count > 0) push_characters(it, i, true);
    if (kind == MCC_DECODE_BYTE_TOKENS) push_run(it, i);
  }
}

void mcc_decoder_finish(mcc_decoder *it, mcc_text *text) {
  mcc_decoder_flush(it, text);
  for (uint32_t i = 0; i < it->tokenizer->header.decoders.count; i++) {
    it->states[i].held.count = 0;
    it->states[i].started = false;
    it->states[i].passed = 0;
  }
}
