#include "tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

#include "failure.h"
#include "tokenizer_split.h"

void mcc_ids_append(mcc_ids *ids, int32_t id) {
  if (ids->count == ids->capacity) {
    ids->capacity = ids->capacity > 0 ? 2 * ids->capacity : 256;
    ids->data = mcc_reallocate(ids->data, (size_t)ids->capacity * sizeof *ids->data);
  }
  ids->data[ids->count++] = id;
}

void mcc_text_append(mcc_text *text, const void *bytes, size_t count) {
  if (count == 0) return;
  if (count > text->capacity - text->count) {
    text->capacity = 2 * text->capacity + count + 64;
    text->data = mcc_reallocate(text->data, text->capacity);
  }
  memcpy(text->data + text->count, bytes, count);
  text->count += count;
}

/* ---- opening ---- */

/* The array of `count` elements at `offset`, or NULL if it does not lie in the section. */
static const void *array_at(mcc_bytes section, uint32_t offset, uint64_t count, uint64_t element) {
  if (count == 0) return section.data;
  if (offset % 4 != 0 || offset < sizeof(mcc_tokenizer_header) || offset > section.size) return NULL;
  return count * element <= section.size - offset ? section.data + offset : NULL;
}

static const char *check_header(const mcc_tokenizer_header *h, mcc_bytes section) {
  if (memcmp(h->magic, "mcctoken", 8) != 0) return "it is no tokenizer";
  if (h->version != 1) return "its version is unknown";
  if (h->section_bytes != section.size) return "its size is wrong";
  bool known = h->kind <= MCC_KIND_WORD_PIECES && h->split < MCC_SPLIT_KINDS && h->prefix <= MCC_PREFIX_START;
  if (!known) return "its kind is unknown";
  if ((h->flags & ~(uint32_t)MCC_TOKENIZER_FLAGS) != 0) return "its flags are unknown";
  if (h->token_count == 0 || h->token_count > 1 << 24) return "its number of tokens is out of range";
  if (h->special_count > h->token_count || h->merge_count > 1 << 26) return "a number in it is out of range";
  return NULL;
}

static const char *check_arrays(mcc_tokenizer *it, mcc_bytes section) {
  const mcc_tokenizer_header *h = &it->header;
  uint64_t count = h->token_count;
  bool scores = (h->flags & MCC_TOKENIZER_SCORES) != 0;
  it->text_offsets = array_at(section, h->text_offsets, count + 1, 4);
  it->kinds = array_at(section, h->kinds, count, 1);
  it->scores = scores ? array_at(section, h->scores, count, 4) : NULL;
  it->merges = array_at(section, h->merges, h->merge_count, 8);
  it->specials = array_at(section, h->specials, h->special_count, 4);
  it->special_flags = array_at(section, h->special_flags, h->special_count, 1);
  if (it->text_offsets == NULL || it->kinds == NULL || (scores && it->scores == NULL) || it->merges == NULL ||
      it->specials == NULL || it->special_flags == NULL) {
    return "an array lies outside it";
  }
  it->text = array_at(section, h->text, it->text_offsets[count], 1);
  if (it->text == NULL) return "the texts of its tokens lie outside it";
  if (it->text_offsets[0] != 0) return "the texts of its tokens do not start at 0";
  for (uint64_t i = 0; i < count; i++) {
    if (it->text_offsets[i] > it->text_offsets[i + 1]) return "the texts of its tokens are out of order";
    if (it->kinds[i] >= MCC_TOKEN_KINDS) return "a token has an unknown kind";
    uint32_t length = it->text_offsets[i + 1] - it->text_offsets[i];
    if (length > it->longest) it->longest = length;
  }
  return NULL;
}

/* Order by unsigned bytes, a prefix first. */
static int compare_bytes(const char *a, size_t a_length, const char *b, size_t b_length) {
  int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
  return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

static const char *check_specials(mcc_tokenizer *it) {
  const char *previous = "";
  uint32_t previous_length = 0, length;
  for (uint32_t i = 0; i < it->header.special_count; i++) {
    if (it->specials[i] >= (uint32_t)it->limit) return "a special token is out of range";
    const char *text = mcc_token_text(it, (int32_t)it->specials[i], &length);
    if (compare_bytes(previous, previous_length, text, length) >= 0) return "its special tokens are not sorted";
    it->starts_special[(uint8_t)text[0]] = true;
    previous = text;
    previous_length = length;
  }
  return NULL;
}

static void find_byte_tokens(mcc_tokenizer *it) {
  uint8_t wanted = it->header.kind == MCC_KIND_BYTES ? MCC_TOKEN_NORMAL : MCC_TOKEN_BYTE;
  for (int i = 0; i < 256; i++) it->byte_ids[i] = -1;
  for (int32_t id = it->limit - 1; id >= 0; id--) {
    uint32_t length;
    const char *text = mcc_token_text(it, id, &length);
    if (it->kinds[id] == wanted && length == 1) it->byte_ids[(uint8_t)text[0]] = id;
  }
}

mcc_tokenizer *mcc_tokenizer_open(mcc_bytes section, int64_t vocabulary, const char **problem) {
  *problem = "it is too small";
  if (section.size < sizeof(mcc_tokenizer_header)) return NULL;
  mcc_tokenizer *it = mcc_allocate(sizeof *it);
  memset(it, 0, sizeof *it);
  memcpy(&it->header, section.data, sizeof(mcc_tokenizer_header));
  it->limit = (int32_t)(it->header.token_count < vocabulary ? it->header.token_count : vocabulary);
  *problem = check_header(&it->header, section);
  if (*problem == NULL) *problem = check_arrays(it, section);
  if (*problem == NULL) *problem = check_specials(it);
  if (*problem != NULL) {
    free(it);
    return NULL;
  }
  find_byte_tokens(it);
  return it;
}

void mcc_tokenizer_close(mcc_tokenizer *it) {
  free(it->token_table);
  free(it->merge_table);
  free(it->merge_results);
  free(it->symbols);
  free(it->heap);
  free(it->normalized.data);
  free(it);
}

int32_t mcc_tokenizer_bos(const mcc_tokenizer *it) {
  return mcc_is_token(it, it->header.bos) ? it->header.bos : -1;
}

int32_t mcc_tokenizer_eos(const mcc_tokenizer *it) {
  return mcc_is_token(it, it->header.eos) ? it->header.eos : -1;
}

/* ---- decoding ---- */

void mcc_tokenizer_decode(const mcc_tokenizer *it, int32_t id, bool *at_start, mcc_text *text) {
  if (!mcc_is_token(it, id) || it->kinds[id] == MCC_TOKEN_CONTROL || it->kinds[id] == MCC_TOKEN_UNUSED) return;
  uint32_t length;
  const char *bytes = mcc_token_text(it, id, &length);
  size_t before = text->count;
  if (it->header.kind == MCC_KIND_WORD_PIECES && !*at_start) {
    bool continues = length > 2 && memcmp(bytes, "##", 2) == 0;
    mcc_text_append(text, " ", continues ? 0 : 1);
    bytes += continues ? 2 : 0;
    length -= continues ? 2 : 0;
  }
  if (mcc_tokenizer_has(it, MCC_TOKENIZER_ESCAPE_SPACES) && it->kinds[id] != MCC_TOKEN_BYTE) {
    for (uint32_t i = 0; i < length;) {
      bool space = length - i >= 3 && memcmp(bytes + i, "\xE2\x96\x81", 3) == 0;
      mcc_text_append(text, space ? " " : bytes + i, 1);
      i += space ? 3 : 1;
    }
  } else {
    mcc_text_append(text, bytes, length);
  }
  if (text->count == before) return;
  if (*at_start && mcc_tokenizer_has(it, MCC_TOKENIZER_STRIP_SPACE) && text->data[before] == ' ') {
    text->count--;
    memmove(text->data + before, text->data + before + 1, text->count - before);
  }
  *at_start = false;
}
