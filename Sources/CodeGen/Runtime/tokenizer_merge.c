#include <string.h>

#include "failure.h"
#include "tokenizer_parts.h"
#include "unicode.h"

/* ---- tables ---- */

static uint32_t hash_bytes(const char *bytes, size_t count) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < count; i++) hash = (hash ^ (uint8_t)bytes[i]) * 0x100000001b3u;
  return (uint32_t)(hash ^ hash >> 32);
}

static uint32_t hash_pair(uint32_t left, uint32_t right) {
  return (uint32_t)((((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u) >> 32);
}

int32_t mcc_find_token(const mcc_tokenizer *it, const char *text, size_t length) {
  uint32_t slots = it->header.token_table.count;
  if (length > it->longest || slots == 0) return -1;
  uint32_t slot = (uint32_t)((uint64_t)hash_bytes(text, length) * slots >> 32);
  for (uint32_t i = 0; i < slots; i++) {
    uint32_t entry = it->token_table[slot];
    if (entry == 0 || entry > (uint32_t)it->limit) return -1;
    uint32_t other_length;
    const char *other = mcc_token_text(it, (int32_t)entry - 1, &other_length);
    if (other_length == length && memcmp(text, other, length) == 0) return (int32_t)entry - 1;
    if (++slot == slots) slot = 0;
  }
  return -1;
}

/* The merge of the pair, or NULL. */
static const mcc_merge *find_pair(const mcc_tokenizer *it, uint32_t left, uint32_t right) {
  uint32_t slots = it->header.merges.count;
  uint32_t slot = (uint32_t)((uint64_t)hash_pair(left, right) * slots >> 32);
  for (uint32_t i = 0; i < slots; i++) {
    const mcc_merge *entry = &it->merges[slot];
    if (entry->result >= (uint32_t)it->limit) return NULL;
    if (entry->left == left && entry->right == right) return entry;
    if (++slot == slots) slot = 0;
  }
  return NULL;
}

/* ---- symbols ---- */

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

bool mcc_append_bytes(const mcc_tokenizer *it, const char *bytes, size_t count, mcc_ids *ids) {
  if (!has_byte_tokens(it, bytes, count)) return false;
  for (size_t i = 0; i < count; i++) mcc_ids_append(ids, it->byte_ids[(uint8_t)bytes[i]]);
  return true;
}

/* The token of one character of a word: with the mark before it unless it is the first, the end mark behind the last. */
static int32_t find_character(const mcc_tokenizer *it, const char *word, size_t size, size_t start, size_t length) {
  uint32_t mark = start > 0 ? it->header.mark[1] : 0, end = start + length == size ? it->header.end_mark[1] : 0;
  if (mark + end == 0) return mcc_find_token(it, word + start, length);
  char text[256];
  if (mark + length + end > sizeof text) return -1;
  memcpy(text, it->strings + it->header.mark[0], mark);
  memcpy(text + mark, word + start, length);
  memcpy(text + mark + length, it->strings + it->header.end_mark[0], end);
  return mcc_find_token(it, text, mark + length + end);
}

/* The symbols that merging by rank starts from: tokens, byte tokens and the unknown token. */
static int32_t split_for_ranks(mcc_tokenizer *it, const char *word, size_t size) {
  int32_t count = 0, unknown = it->header.unknown;
  if (it->header.model == MCC_MODEL_BYTES) {
    for (size_t i = 0; i < size; i++) {
      int32_t id = it->byte_ids[(uint8_t)word[i]];
      if (id < 0) id = unknown;
      if (id >= 0) add_symbol(it, &count, id, i, 1);
    }
    return count;
  }
  size_t pending = 0; /* bytes of an unknown symbol that is not added yet */
  for (size_t i = 0, length; i < size; i += length) {
    int32_t code;
    length = mcc_character(word + i, size - i, &code);
    int32_t id = find_character(it, word, size, i, length);
    if (id >= 0) {
      if (pending > 0) add_symbol(it, &count, unknown, i - pending, pending);
      pending = 0;
      add_symbol(it, &count, id, i, length);
    } else if (has_byte_tokens(it, word + i, length)) {
      for (size_t k = 0; k < length; k++) add_symbol(it, &count, it->byte_ids[(uint8_t)word[i + k]], i + k, 1);
    } else if (mcc_is_token(it, unknown)) {
      bool fuses = mcc_tokenizer_has(it, MCC_TOKENIZER_FUSE_UNKNOWN);
      if (pending > 0 && !fuses) add_symbol(it, &count, unknown, i - pending, pending);
      pending = fuses ? pending + length : length;
    }
  }
  if (pending > 0) add_symbol(it, &count, unknown, size - pending, pending);
  return count;
}

/* The symbols that merging by score starts from: characters, which may be unknown as yet. */
static int32_t split_for_scores(mcc_tokenizer *it, const char *word, size_t size) {
  int32_t count = 0;
  for (size_t i = 0, length; i < size; i += length) {
    int32_t code;
    length = mcc_character(word + i, size - i, &code);
    add_symbol(it, &count, mcc_find_token(it, word + i, length), i, length);
  }
  return count;
}

/* ---- merging ---- */

/* Maps scores to unsigned numbers so that a higher score gives a lower number; NaN comes last. */
static uint64_t priority_of_score(double score) {
  uint64_t bits;
  memcpy(&bits, &score, sizeof bits);
  if (score != score) return UINT64_MAX;
  return bits >> 63 != 0 ? bits : ~bits & INT64_MAX;
}

/* What the symbol at `left` and its successor make together; false if there is no such token. */
static bool find_merge(const mcc_tokenizer *it, const char *word, int32_t left, mcc_candidate *found) {
  const mcc_symbol_part *a = &it->symbols[left];
  if (a->next < 0) return false;
  const mcc_symbol_part *b = &it->symbols[a->next];
  found->left = left;
  if (it->scores != NULL) {
    found->result = mcc_find_token(it, word + a->start, a->length + b->length);
    if (found->result < 0) return false;
    found->priority = priority_of_score(it->scores[found->result]);
    return true;
  }
  const mcc_merge *merge = find_pair(it, (uint32_t)a->id, (uint32_t)b->id);
  if (merge == NULL) return false;
  found->priority = merge->rank;
  found->result = (int32_t)merge->result;
  return true;
}

static bool precedes(mcc_candidate a, mcc_candidate b) {
  return a.priority != b.priority ? a.priority < b.priority : a.left < b.left;
}

static void push(mcc_tokenizer *it, mcc_candidate new) {
  size_t i = it->heap_count++;
  for (; i > 0 && precedes(new, it->heap[(i - 1) / 2]); i = (i - 1) / 2) it->heap[i] = it->heap[(i - 1) / 2];
  it->heap[i] = new;
}

static mcc_candidate pop(mcc_tokenizer *it) {
  mcc_candidate first = it->heap[0], last = it->heap[--it->heap_count];
  size_t i = 0;
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= it->heap_count) break;
    if (child + 1 < it->heap_count && precedes(it->heap[child + 1], it->heap[child])) child++;
    if (!precedes(it->heap[child], last)) break;
    it->heap[i] = it->heap[child];
    i = child;
  }
  it->heap[i] = last;
  return first;
}

static void join(mcc_tokenizer *it, int32_t at, int32_t result) {
  mcc_symbol_part *left = &it->symbols[at], *right = &it->symbols[left->next];
  left->id = result;
  left->length += right->length;
  left->next = right->next;
  right->length = 0;
  if (left->next >= 0) it->symbols[left->next].previous = at;
}

/* Merges in O(count log count). Each of the at most 3 * count candidates is pushed once. */
static void merge_with_heap(mcc_tokenizer *it, const char *word, int32_t count) {
  mcc_candidate next;
  if (it->heap_capacity < 3 * (size_t)count) {
    it->heap_capacity = 3 * (size_t)count;
    it->heap = mcc_reallocate(it->heap, it->heap_capacity * sizeof *it->heap);
  }
  it->heap_count = 0;
  for (int32_t i = 0; i + 1 < count; i++) {
    if (find_merge(it, word, i, &next)) push(it, next);
  }
  while (it->heap_count > 0) {
    mcc_candidate best = pop(it), now;
    mcc_symbol_part *left = &it->symbols[best.left];
    /* Stale if one of the two has been merged with another neighbour meanwhile. */
    if (left->length == 0 || !find_merge(it, word, best.left, &now) || now.result != best.result) continue;
    join(it, best.left, best.result);
    if (left->previous >= 0 && find_merge(it, word, left->previous, &next)) push(it, next);
    if (find_merge(it, word, best.left, &next)) push(it, next);
  }
}

enum { FEW_SYMBOLS = 24 };

/* Merges the best pair again and again, which is faster than a heap for few symbols. */
static void merge_few(mcc_tokenizer *it, const char *word, int32_t count) {
  mcc_candidate found[FEW_SYMBOLS];
  for (int32_t i = 0; i < count; i++) {
    if (!find_merge(it, word, i, &found[i])) found[i].result = -1;
  }
  for (;;) {
    int32_t best = -1;
    for (int32_t i = 0; i >= 0; i = it->symbols[i].next) {
      if (found[i].result >= 0 && (best < 0 || found[i].priority < found[best].priority)) best = i;
    }
    if (best < 0) return;
    join(it, best, found[best].result);
    int32_t previous = it->symbols[best].previous;
    if (!find_merge(it, word, best, &found[best])) found[best].result = -1;
    if (previous >= 0 && !find_merge(it, word, previous, &found[previous])) found[previous].result = -1;
  }
}

/* ---- words ---- */

void mcc_encode_merges(mcc_tokenizer *it, const char *word, size_t size, mcc_ids *ids) {
  if (mcc_tokenizer_has(it, MCC_TOKENIZER_IGNORE_MERGES)) {
    int32_t id = mcc_find_token(it, word, size);
    if (id >= 0) {
      mcc_ids_append(ids, id);
      return;
    }
  }
  if (size > INT32_MAX / 4) mcc_fail(MCC_EXIT_INPUT, "a word of %zu bytes is too long", size);
  if (size > it->symbol_capacity) {
    it->symbol_capacity = size + 64;
    it->symbols = mcc_reallocate(it->symbols, it->symbol_capacity * sizeof *it->symbols);
  }
  int32_t count = it->scores != NULL ? split_for_scores(it, word, size) : split_for_ranks(it, word, size);
  if (count == 0) return;
  it->symbols[count - 1].next = -1;
  if (count <= FEW_SYMBOLS) {
    merge_few(it, word, count);
  } else {
    merge_with_heap(it, word, count);
  }

  bool fuse = mcc_tokenizer_has(it, MCC_TOKENIZER_FUSE_UNKNOWN), after_unknown = false;
  for (int32_t i = 0; i >= 0; i = it->symbols[i].next) {
    const mcc_symbol_part *symbol = &it->symbols[i];
    bool unknown = false;
    if (symbol->id >= 0) {
      mcc_ids_append(ids, symbol->id);
    } else if (!mcc_append_bytes(it, word + symbol->start, symbol->length, ids)) {
      unknown = true;
      if (mcc_is_token(it, it->header.unknown) && !(fuse && after_unknown)) mcc_ids_append(ids, it->header.unknown);
    }
    after_unknown = unknown;
  }
}
