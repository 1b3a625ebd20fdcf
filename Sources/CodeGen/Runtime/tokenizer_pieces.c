/* The models that look tokens up in a tree of their prefixes: word pieces and unigram. */
#include <string.h>

#include "failure.h"
#include "tokenizer_parts.h"
#include "unicode.h"

/* The child of a node by its label, or 0. */
static uint32_t child(const mcc_tokenizer *it, uint32_t node, uint8_t label) {
  uint32_t low = it->trie_children[node], end = it->trie_children[node + 1], high = end;
  while (low < high) {
    uint32_t middle = (low + high) / 2;
    if (it->trie_labels[middle] < label) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < end && it->trie_labels[low] == label ? low : 0;
}

/*
 * The longest token at the start of the word, then the longest at the start of the rest, and so on; tokens inside of a
 * word begin with the mark. A word that cannot be covered, or is longer than the limit, is one unknown token.
 */
void mcc_encode_pieces(mcc_tokenizer *it, const char *word, size_t size, mcc_ids *ids) {
  int64_t before = ids->count;
  size_t start = 0, characters = 0;
  for (size_t i = 0; i < size; characters++) {
    int32_t code;
    i += mcc_character(word + i, size - i, &code);
  }
  bool covered = characters <= it->header.word_limit;
  while (covered && start < size) {
    uint32_t node = start == 0 ? 0 : it->mark_node;
    bool lost = start > 0 && it->header.mark[1] > 0 && node == 0;
    int32_t id = -1;
    size_t end = start;
    for (size_t i = start; i < size && !lost; i++) {
      node = child(it, node, (uint8_t)word[i]);
      if (node == 0) break;
      bool whole = i + 1 == size || ((uint8_t)word[i + 1] & 0xC0) != 0x80;
      if (it->trie_tokens[node] >= 0 && whole) {
        id = it->trie_tokens[node];
        end = i + 1;
      }
    }
    covered = id >= 0;
    if (covered) mcc_ids_append(ids, id);
    start = end;
  }
  if (covered) return;
  ids->count = before;
  if (mcc_is_token(it, it->header.unknown)) mcc_ids_append(ids, it->header.unknown);
}

/* What an unknown character costs beyond the lowest score (SentencePiece). */
static const double unknown_penalty = 10;

static void reach(mcc_path_node *node, double score, size_t start, int32_t id) {
  if (node->start == UINT32_MAX || score > node->score) *node = (mcc_path_node){score, (uint32_t)start, id};
}

/* The best path through the word by the algorithm of Viterbi; id -1 stands for an unknown character. */
static void find_path(mcc_tokenizer *it, const char *word, size_t size) {
  if (size + 1 > it->path_capacity) {
    it->path_capacity = size + 64;
    it->path = mcc_reallocate(it->path, it->path_capacity * sizeof *it->path);
  }
  mcc_path_node *path = it->path;
  for (size_t i = 0; i <= size; i++) path[i] = (mcc_path_node){0, UINT32_MAX, -1};
  for (size_t start = 0, length; start < size; start += length) {
    int32_t code;
    length = mcc_character(word + start, size - start, &code);
    double before = path[start].score;
    bool single = false;
    uint32_t node = 0;
    for (size_t end = start; end < size;) {
      node = child(it, node, (uint8_t)word[end++]);
      if (node == 0) break;
      int32_t id = it->trie_tokens[node];
      if (id < 0) continue;
      reach(&path[end], before + it->scores[id], start, id);
      single = single || end - start == length;
    }
    if (!single) reach(&path[start + length], before + (it->lowest_score - unknown_penalty), start, -1);
  }
}

static int32_t find_piece(const mcc_tokenizer *it, const char *text, size_t size) {
  uint32_t node = 0;
  for (size_t i = 0; i < size; i++) {
    node = child(it, node, (uint8_t)text[i]);
    if (node == 0) return -1;
  }
  return it->trie_tokens[node];
}

void mcc_encode_unigram(mcc_tokenizer *it, const char *word, size_t size, mcc_ids *ids) {
  if (size >= UINT32_MAX / 2) mcc_fail(MCC_EXIT_INPUT, "a word of %zu bytes is too long", size);
  find_path(it, word, size);
  /* Turn the path round: each node gets the end of the token that starts there. */
  size_t end = size, next = size;
  int32_t id = -2;
  mcc_path_node *path = it->path;
  while (end > 0) {
    size_t start = path[end].start;
    int32_t token = path[end].id;
    path[end] = (mcc_path_node){0, (uint32_t)next, id};
    next = end;
    id = token;
    end = start;
  }
  /* Now path[e] holds the token behind e and its end; `id` and `next` are those of the first one. */
  bool fuses = mcc_tokenizer_has(it, MCC_TOKENIZER_FUSE_UNKNOWN) && mcc_is_token(it, it->header.unknown);
  for (size_t start = 0; start < size;) {
    size_t stop = next;
    int32_t token = id;
    next = path[stop].start;
    id = path[stop].id;
    bool unknown = token < 0 || token == it->header.unknown;
    while (unknown && fuses && stop < size && (id < 0 || id == it->header.unknown)) {
      stop = next;
      next = path[stop].start;
      id = path[stop].id;
    }
    if (unknown) token = find_piece(it, word + start, stop - start);
    if (token >= 0) {
      mcc_ids_append(ids, token);
    } else if (!mcc_append_bytes(it, word + start, stop - start, ids)) {
      if (mcc_is_token(it, it->header.unknown)) mcc_ids_append(ids, it->header.unknown);
    }
    start = stop;
  }
}
