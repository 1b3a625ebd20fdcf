/* What the files of the tokenizer share. */
#ifndef MCC_TOKENIZER_PARTS_H
#define MCC_TOKENIZER_PARTS_H

#include "tokenizer.h"

/* The first 128 bytes of the section, as tokenizer.h lays them out. */
typedef struct mcc_tokenizer_header {
  char magic[8];
  uint32_t version, kind, split, flags, prefix, token_count;
  int32_t bos, eos, unknown;
  uint32_t merge_count, special_count, section_bytes;
  uint32_t text_offsets, text, kinds, scores, merges, specials, special_flags;
  uint32_t word_limit;
  uint32_t reserved[10];
} mcc_tokenizer_header;

_Static_assert(sizeof(mcc_tokenizer_header) == 128, "the header is 128 bytes");

enum { MCC_KIND_CHARACTERS, MCC_KIND_BYTES, MCC_KIND_WORD_PIECES };
enum { MCC_PREFIX_NONE, MCC_PREFIX_EACH_PIECE, MCC_PREFIX_START };
enum { MCC_STRIP_LEFT = 1, MCC_STRIP_RIGHT = 2 };

/* A piece of a word that is, or is on its way to be, one token. Symbols of a word form a list. */
typedef struct mcc_symbol_part {
  int32_t id; /* -1: no token has this text (yet) */
  int32_t previous, next;
  uint32_t start, length; /* in the word; length 0: merged into the one before */
} mcc_symbol_part;

/* Two neighbours that make a token together. */
typedef struct mcc_candidate {
  uint32_t priority; /* lower is merged first, then the leftmost */
  int32_t left;      /* index of the symbol */
  int32_t result;    /* id */
} mcc_candidate;

struct mcc_tokenizer {
  mcc_tokenizer_header header;
  const uint32_t *text_offsets;
  const char *text;
  const uint8_t *kinds;
  const float *scores;
  const uint32_t *merges, *specials;
  const uint8_t *special_flags;
  int32_t limit; /* ids below are tokens of the model */
  uint32_t longest;
  int32_t byte_ids[256];
  bool starts_special[256]; /* by first byte */

  /* Hash tables with open addressing, made before the first text is encoded. */
  int32_t *token_table; /* id, or -1 */
  uint32_t token_mask;
  uint32_t *merge_table; /* rank + 1, or 0; by the pair of ids */
  uint32_t merge_mask;
  int32_t *merge_results; /* by rank: id + 1; -1: there is none; 0: not yet looked up */

  /* Reused from word to word. */
  mcc_symbol_part *symbols;
  size_t symbol_capacity;
  mcc_candidate *heap;
  size_t heap_count, heap_capacity;
  mcc_text normalized;
};

/* Text of a token of the vocabulary. */
static inline const char *mcc_token_text(const mcc_tokenizer *it, int32_t id, uint32_t *length) {
  *length = it->text_offsets[id + 1] - it->text_offsets[id];
  return it->text + it->text_offsets[id];
}

/* Whether the id is a token of the model. */
static inline bool mcc_is_token(const mcc_tokenizer *it, int32_t id) {
  return id >= 0 && id < it->limit;
}

static inline bool mcc_tokenizer_has(const mcc_tokenizer *it, uint32_t flag) {
  return (it->header.flags & flag) != 0;
}

/* Id of the normal or added token with this text, or -1. */
int32_t mcc_find_token(const mcc_tokenizer *tokenizer, const char *text, size_t length);

/* Makes the hash tables, in time linear in their size. */
void mcc_tokenizer_make_tables(mcc_tokenizer *tokenizer);

/* Merges the first `count` symbols of `word` as far as the vocabulary allows, in O(count log count). */
void mcc_merge_symbols(mcc_tokenizer *tokenizer, const char *word, int32_t count);

/* Appends the word pieces of text that holds no special tokens. */
void mcc_encode_word_pieces(mcc_tokenizer *tokenizer, const char *text, size_t size, mcc_ids *ids);

#endif
