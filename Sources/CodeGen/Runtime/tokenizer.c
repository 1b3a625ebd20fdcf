#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "failure.h"
#include "tokenizer_parts.h"
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

/* The elements of an extent, or NULL if they do not lie in the section. */
static const void *array_at(mcc_bytes section, mcc_extent extent, uint64_t element) {
  if (extent.count == 0) return section.data;
  if (extent.offset % 8 != 0 || extent.offset < sizeof(mcc_tokenizer_header) || extent.offset > section.size) return NULL;
  return extent.count * element <= section.size - extent.offset ? section.data + extent.offset : NULL;
}

static const char *check_header(const mcc_tokenizer_header *h, mcc_bytes section) {
  if (memcmp(h->magic, "mcctoken", 8) != 0) return "it is no tokenizer";
  if (h->version != 2) return "its version is unknown";
  if (h->section_bytes != section.size) return "its size is wrong";
  if (h->model >= MCC_MODELS) return "its model is unknown";
  if ((h->flags & ~(uint32_t)MCC_TOKENIZER_FLAGS) != 0) return "its flags are unknown";
  if (h->token_count == 0 || h->token_count > 1 << 24) return "its number of tokens is out of range";
  if (h->text_offsets.count != h->token_count + 1 || h->kinds.count != h->token_count) return "an array is too short";
  bool scored = h->model == MCC_MODEL_UNIGRAM || (h->flags & MCC_TOKENIZER_SCORES) != 0;
  if (h->scores.count != (scored ? h->token_count : 0)) return "it has not one score for each token";
  bool searched = h->model == MCC_MODEL_UNIGRAM || h->model == MCC_MODEL_WORD_PIECES;
  if (searched != (h->trie_labels.count > 0)) return "its tree belongs to another model";
  if (h->trie_tokens.count != h->trie_labels.count) return "an array is too short";
  if (h->trie_children.count != h->trie_labels.count + (searched ? 1 : 0)) return "an array is too short";
  return NULL;
}

static bool in_strings(const mcc_tokenizer *it, uint32_t place, uint32_t length) {
  return length <= it->header.strings.count && place <= it->header.strings.count - length;
}

static const char *find_arrays(mcc_tokenizer *it, mcc_bytes section) {
  const mcc_tokenizer_header *h = &it->header;
  it->text_offsets = array_at(section, h->text_offsets, 4);
  it->text = array_at(section, h->text, 1);
  it->kinds = array_at(section, h->kinds, 1);
  it->scores = array_at(section, h->scores, 8);
  it->token_table = array_at(section, h->token_table, 4);
  it->merges = array_at(section, h->merges, sizeof *it->merges);
  it->trie_labels = array_at(section, h->trie_labels, 1);
  it->trie_children = array_at(section, h->trie_children, 4);
  it->trie_tokens = array_at(section, h->trie_tokens, 4);
  it->added = array_at(section, h->added, sizeof *it->added);
  it->normalizers = array_at(section, h->normalizers, sizeof *it->normalizers);
  it->splitters = array_at(section, h->splitters, sizeof *it->splitters);
  it->decoders = array_at(section, h->decoders, sizeof *it->decoders);
  it->prefix = array_at(section, h->prefix, 4);
  it->suffix = array_at(section, h->suffix, 4);
  it->strings = array_at(section, h->strings, 1);
  it->numbers = array_at(section, h->numbers, 4);
  const void *all[] = {it->text_offsets, it->text,        it->kinds,       it->scores,    it->token_table, it->merges,
                       it->trie_labels,  it->trie_children, it->trie_tokens, it->added,   it->normalizers, it->splitters,
                       it->decoders,     it->prefix,      it->suffix,      it->strings,   it->numbers};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    if (all[i] == NULL) return "an array lies outside it";
  }
  if (h->scores.count == 0) it->scores = NULL;
  return NULL;
}

static const char *check_tokens(mcc_tokenizer *it) {
  const mcc_tokenizer_header *h = &it->header;
  if (it->text_offsets[0] != 0) return "the texts of its tokens do not start at 0";
  for (uint32_t i = 0; i < h->token_count; i++) {
    if (it->text_offsets[i] > it->text_offsets[i + 1]) return "the texts of its tokens are out of order";
    if (it->kinds[i] > MCC_TOKEN_KINDS) return "a token has an unknown kind";
    uint32_t length = it->text_offsets[i + 1] - it->text_offsets[i];
    if (length > it->longest) it->longest = length;
  }
  if (it->text_offsets[h->token_count] != h->text.count) return "the texts of its tokens lie outside it";
  /* A child lies behind its parent, so that no path comes back. */
  for (uint32_t i = 0; i < h->trie_labels.count; i++) {
    if (it->trie_children[i] > it->trie_children[i + 1] || it->trie_children[i] <= i) return "its tree is no tree";
    if (it->trie_tokens[i] < -1 || it->trie_tokens[i] >= it->limit) return "a token of its tree is out of range";
  }
  if (h->trie_labels.count > 0 && it->trie_children[h->trie_labels.count] > h->trie_labels.count) {
    return "its tree is no tree";
  }
  for (uint32_t i = 0; i < h->prefix.count + h->suffix.count; i++) {
    int32_t id = i < h->prefix.count ? it->prefix[i] : it->suffix[i - h->prefix.count];
    if (!mcc_is_token(it, id)) return "a token before or behind a text is out of range";
  }
  for (uint32_t i = 0; i < h->added.count; i++) {
    if (it->added[i].id >= h->token_count) return "a token recognised as a whole is out of range";
    if (!in_strings(it, it->added[i].text, it->added[i].length)) return "a text lies outside it";
  }
  if (!in_strings(it, h->mark[0], h->mark[1]) || !in_strings(it, h->end_mark[0], h->end_mark[1])) {
    return "a text lies outside it";
  }
  return NULL;
}

static const char *check_steps(const mcc_tokenizer *it, const mcc_step *steps, uint32_t count, uint32_t kinds) {
  if (count > 64) return "it has too many steps";
  for (uint32_t i = 0; i < count; i++) {
    const mcc_step *step = steps + i;
    if (step->kind >= kinds || step->rule >= MCC_RULES) return "a step is unknown";
    if (!in_strings(it, step->content, step->content_length)) return "a text lies outside it";
    uint32_t limit = step->rule == MCC_RULE_RUN ? it->header.numbers.count : it->header.strings.count;
    if (step->length > limit || step->text > limit - step->length) return "a text lies outside it";
    if (step->rule == MCC_RULE_RUN && (step->length < 5 || step->length % 2 == 0)) return "a set is incomplete";
    if (steps == it->splitters && step->kind == MCC_SPLIT_RULE && step->a >= MCC_SPLIT_BEHAVIORS) {
      return "a step is unknown";
    }
    bool searches = (steps == it->splitters && step->kind == MCC_SPLIT_RULE) ||
                    (steps == it->normalizers && step->kind == MCC_NORMALIZE_REPLACE) ||
                    (steps == it->decoders && step->kind == MCC_DECODE_STRIP);
    if (searches && step->rule == MCC_RULE_TEXT && step->length == 0) return "a step looks for nothing";
    bool fills = steps == it->splitters && step->kind == MCC_SPLIT_SPACES;
    if (fills && step->content_length == 0) return "a step puts nothing in the place of spaces";
  }
  return NULL;
}

static void find_byte_tokens(mcc_tokenizer *it) {
  static const char digits[] = "0123456789ABCDEF";
  for (int i = 0; i < 256; i++) {
    char byte = (char)i, text[] = {'<', '0', 'x', digits[i >> 4], digits[i & 15], '>'};
    bool plain = it->header.model == MCC_MODEL_BYTES;
    it->byte_ids[i] = -1;
    if (it->header.model != MCC_MODEL_UNIGRAM) {
      it->byte_ids[i] = plain ? mcc_find_token(it, &byte, 1) : mcc_find_token(it, text, sizeof text);
    }
  }
  if (it->header.model != MCC_MODEL_UNIGRAM) return;
  for (int32_t id = it->limit - 1; id >= 0; id--) {
    uint32_t length;
    const char *text = mcc_token_text(it, id, &length);
    if (length != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') continue;
    const char *high = memchr(digits, text[3], 16), *low = memchr(digits, text[4], 16);
    if (high != NULL && low != NULL) it->byte_ids[(high - digits) << 4 | (low - digits)] = id;
  }
}

/* The node of the tree at which the tokens inside of a word begin. */
static uint32_t find_mark(const mcc_tokenizer *it) {
  uint32_t node = 0;
  for (uint32_t i = 0; i < it->header.mark[1]; i++) {
    uint8_t label = (uint8_t)it->strings[it->header.mark[0] + i];
    uint32_t next = it->trie_children[node], end = it->trie_children[node + 1];
    while (next < end && it->trie_labels[next] != label) next++;
    if (next == end) return 0;
    node = next;
  }
  return node;
}

static const char *check(mcc_tokenizer *it, mcc_bytes section, int64_t vocabulary) {
  const mcc_tokenizer_header *h = &it->header;
  const char *problem = check_header(h, section);
  it->limit = (int32_t)h->token_count;
  if (problem == NULL) problem = find_arrays(it, section);
  if (problem == NULL) problem = check_tokens(it);
  if (problem == NULL) problem = check_steps(it, it->normalizers, h->normalizers.count, MCC_NORMALIZERS);
  if (problem == NULL) problem = check_steps(it, it->splitters, h->splitters.count, MCC_SPLITTERS);
  if (problem == NULL) problem = check_steps(it, it->decoders, h->decoders.count, MCC_DECODERS);
  if (problem == NULL && h->token_count > vocabulary) problem = "it has more tokens than the model";
  return problem;
}

mcc_tokenizer *mcc_tokenizer_open(mcc_bytes section, int64_t vocabulary, const char **problem) {
  *problem = "it is too small";
  if (section.size < sizeof(mcc_tokenizer_header)) return NULL;
  mcc_tokenizer *it = mcc_allocate_zeros(1, sizeof *it);
  memcpy(&it->header, section.data, sizeof(mcc_tokenizer_header));
  *problem = check(it, section, vocabulary);
  if (*problem != NULL) {
    free(it);
    return NULL;
  }
  find_byte_tokens(it);
  if (it->header.trie_labels.count > 0) it->mark_node = find_mark(it);
  for (int32_t id = 0; id < it->limit && it->header.model == MCC_MODEL_UNIGRAM; id++) {
    if (id == 0 || it->scores[id] < it->lowest_score) it->lowest_score = it->scores[id];
  }
  return it;
}

void mcc_tokenizer_close(mcc_tokenizer *it) {
  char *copy;
  for (size_t i = 0; i < it->added_texts.count; i += sizeof copy) {
    memcpy(&copy, it->added_texts.data + i, sizeof copy);
    free(copy);
  }
  for (uint32_t i = 0; it->words != NULL && i < it->header.splitters.count; i++) free(it->words[i].data);
  free(it->added_texts.data);
  free(it->raw.items);
  free(it->normalized.items);
  free(it->cache);
  free(it->symbols);
  free(it->heap);
  free(it->path);
  free(it->codes);
  free(it->buffers[0].data);
  free(it->buffers[1].data);
  free(it->words);
  free(it);
}

int32_t mcc_tokenizer_bos(const mcc_tokenizer *it) {
  return mcc_is_token(it, it->header.bos) ? it->header.bos : -1;
}

int32_t mcc_tokenizer_eos(const mcc_tokenizer *it) {
  return mcc_is_token(it, it->header.eos) ? it->header.eos : -1;
}
