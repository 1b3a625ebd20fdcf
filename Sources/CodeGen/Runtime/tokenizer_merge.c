#include "tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

#include "failure.h"

/* ---- tables ---- */

static uint32_t hash_bytes(const char *bytes, size_t count) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < count; i++) hash = (hash ^ (uint8_t)bytes[i]) * 0x100000001b3u;
  return (uint32_t)(hash ^ hash >> 32);
}

static uint32_t hash_pair(uint32_t left, uint32_t right) {
  return (uint32_t)((((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u) >> 32);
}

/* The slot of the token with this text, or the free slot where it belongs. */
static int32_t *token_slot(const mcc_tokenizer *it, const char *text, size_t length) {
  for (uint32_t i = hash_bytes(text, length) & it->token_mask;; i = (i + 1) & it->token_mask) {
    int32_t id = it->token_table[i];
    if (id < 0) return &it->token_table[i];
    uint32_t other_length;
    const char *other = mcc_token_text(it, id, &other_length);
    if (other_length == length && memcmp(text, other, length) == 0) return &it->token_table[i];
  }
}

/* Id of the normal or added token with this text, or -1. */
int32_t mcc_find_token(const mcc_tokenizer *it, const char *text, size_t length) {
  return length <= it->longest ? *token_slot(it, text, length) : -1;
}

/* The slot of the pair's merge, or the free slot where it belongs. */
static uint32_t *merge_slot(const mcc_tokenizer *it, uint32_t left, uint32_t right) {
  for (uint32_t i = hash_pair(left, right) & it->merge_mask;; i = (i + 1) & it->merge_mask) {
    uint32_t entry = it->merge_table[i];
    if (entry == 0) return &it->merge_table[i];
    const uint32_t *pair = it->merges + 2 * ((size_t)entry - 1);
    if (pair[0] == left && pair[1] == right) return &it->merge_table[i];
  }
}

/* A power of two that leaves at least a third of the slots free. */
static uint32_t table_size(uint32_t entries) {
  uint32_t size = 16;
  while (size / 3 * 2 < entries) size *= 2;
  return size;
}

static void make_token_table(mcc_tokenizer *it) {
  uint32_t size = table_size((uint32_t)it->limit);
  it->token_mask = size - 1;
  it->token_table = mcc_allocate(size * sizeof *it->token_table);
  memset(it->token_table, 0xFF, size * sizeof *it->token_table);
  /* Normal tokens come first: they win over added ones with the same text. */
  static const uint8_t kinds[] = {MCC_TOKEN_NORMAL, MCC_TOKEN_ADDED};
  for (size_t k = 0; k < sizeof kinds; k++) {
    for (int32_t id = 0; id < it->limit; id++) {
      uint32_t length;
      const char *text = mcc_token_text(it, id, &length);
      if (it->kinds[id] != kinds[k] || length == 0) continue;
      int32_t *slot = token_slot(it, text, length);
      if (*slot < 0) *slot = id;
    }
  }
}

static void make_merge_table(mcc_tokenizer *it) {
  uint32_t size = table_size(it->header.merge_count);
  it->merge_mask = size - 1;
  it->merge_table = mcc_allocate_zeros(size, sizeof *it->merge_table);
  it->merge_results = mcc_allocate_zeros(it->header.merge_count, sizeof *it->merge_results);
  for (uint32_t rank = 0; rank < it->header.merge_count; rank++) {
    *merge_slot(it, it->merges[2 * rank], it->merges[2 * rank + 1]) = rank + 1;
  }
}

void mcc_tokenizer_make_tables(mcc_tokenizer *it) {
  make_token_table(it);
  make_merge_table(it);
}

/* ---- merging ---- */

static bool precedes(mcc_candidate a, mcc_candidate b) {
  return a.priority != b.priority ? a.priority < b.priority : a.left < b.left;
}

static void push(mcc_tokenizer *it, mcc_candidate new) {
  if (it->heap_count == it->heap_capacity) {
    it->heap_capacity = 2 * it->heap_capacity + 64;
    it->heap = mcc_reallocate(it->heap, it->heap_capacity * sizeof *it->heap);
  }
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

/* Maps floats to unsigned numbers so that a higher score gives a lower number; NaN comes last. */
static uint32_t priority_of_score(float score) {
  uint32_t bits;
  memcpy(&bits, &score, sizeof bits);
  if (score != score) return UINT32_MAX;
  return (bits & 0x80000000u) != 0 ? bits : ~bits & 0x7FFFFFFFu;
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
  if (a->id < 0 || b->id < 0) return false;
  uint32_t entry = *merge_slot(it, (uint32_t)a->id, (uint32_t)b->id);
  if (entry == 0) return false;
  int32_t *result = &it->merge_results[entry - 1];
  if (*result == 0) {
    int32_t id = mcc_find_token(it, word + a->start, a->length + b->length);
    *result = id >= 0 ? id + 1 : -1;
  }
  found->priority = entry - 1;
  found->result = *result - 1;
  return *result > 0;
}

void mcc_merge_symbols(mcc_tokenizer *it, const char *word, int32_t count) {
  mcc_candidate next;
  it->heap_count = 0;
  for (int32_t i = 0; i + 1 < count; i++) {
    if (find_merge(it, word, i, &next)) push(it, next);
  }
  while (it->heap_count > 0) {
    mcc_candidate best = pop(it), now;
    mcc_symbol_part *left = &it->symbols[best.left];
    /* Stale if one of the two has been merged with another neighbour meanwhile. */
    if (left->length == 0 || !find_merge(it, word, best.left, &now) || now.result != best.result) continue;
    mcc_symbol_part *right = &it->symbols[left->next];
    left->id = best.result;
    left->length += right->length;
    left->next = right->next;
    right->length = 0;
    if (left->next >= 0) it->symbols[left->next].previous = best.left;
    if (left->previous >= 0 && find_merge(it, word, left->previous, &next)) push(it, next);
    if (find_merge(it, word, best.left, &next)) push(it, next);
  }
}
