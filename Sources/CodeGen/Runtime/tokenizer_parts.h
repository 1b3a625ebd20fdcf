/* What the files of the tokenizer share. */
#ifndef MCC_TOKENIZER_PARTS_H
#define MCC_TOKENIZER_PARTS_H

#include "tokenizer.h"

/* An array of the section. */
typedef struct mcc_extent {
  uint32_t offset, count;
} mcc_extent;

/* The first bytes of the section, as tokenizer.h lays them out. */
typedef struct mcc_tokenizer_header {
  char magic[8];
  uint32_t version, section_bytes, model, flags, token_count;
  int32_t bos, eos, unknown;
  uint32_t word_limit, mark[2], end_mark[2], reserved;
  mcc_extent text_offsets, text, kinds, scores, token_table, merges, trie_labels, trie_children, trie_tokens, added,
      normalizers, splitters, decoders, prefix, suffix, strings, numbers;
} mcc_tokenizer_header;

_Static_assert(sizeof(mcc_tokenizer_header) == 200, "the header is 200 bytes");

/* A merge of two tokens; lower ranks come first. */
typedef struct mcc_merge {
  uint32_t left, right, rank, result;
} mcc_merge;

/* A token that is recognised as a whole. */
typedef struct mcc_added {
  uint32_t id, flags;    /* MCC_ADDED_* */
  uint32_t text, length; /* in `strings` */
} mcc_added;

enum {
  MCC_ADDED_STRIPS_LEFT = 1,  /* white space before it belongs to it */
  MCC_ADDED_STRIPS_RIGHT = 2, /* white space after it does */
  MCC_ADDED_WORD = 4,         /* it is not recognised beside a letter or digit */
  MCC_ADDED_NORMALIZED = 8,   /* it is looked for, normalized, in normalized text */
};

/* A step of normalizing, splitting or decoding. */
typedef struct mcc_step {
  uint32_t kind;
  uint32_t rule;             /* MCC_RULE_*: what is looked for */
  uint32_t a, b;             /* settings of the kind */
  uint32_t text, length;     /* in `strings`; with MCC_RULE_RUN in `numbers` */
  uint32_t content, content_length; /* in `strings` */
} mcc_step;

/* Normalizers. */
enum {
  MCC_NORMALIZE_NFC,
  MCC_NORMALIZE_NFD,
  MCC_NORMALIZE_NFKC,
  MCC_NORMALIZE_NFKD,
  MCC_NORMALIZE_LOWERCASE,
  MCC_NORMALIZE_STRIP_ACCENTS,
  MCC_NORMALIZE_NMT,
  MCC_NORMALIZE_BERT,     /* a: 1 clean, 2 ideographs apart, 4 without accents, 8 lower case */
  MCC_NORMALIZE_STRIP,    /* white space at the start (a) and at the end (b); of the given text if there is one */
  MCC_NORMALIZE_REPLACE,  /* what the rule finds, by the content */
  MCC_NORMALIZE_PREPEND,  /* the content, unless there is nothing; a: only at the start of all text */
  MCC_NORMALIZE_CHARSMAP, /* the text is a map of SentencePiece; a: by graphemes, else by the longest key */
  MCC_NORMALIZE_BYTES,    /* bytes as the characters by which GPT-2 shows them */
  MCC_NORMALIZERS,
};

/* Splitters. */
enum {
  MCC_SPLIT_RULE,   /* at what the rule finds; a: MCC_SPLIT_ISOLATED ..., b: what is not found counts as found */
  MCC_SPLIT_SPACES, /* changes the word: spaces become the content, which is also put before; a: 0 never, 1 to the first
                       word, 2 to every one that does not begin with it */
  MCC_SPLIT_PREFIX, /* changes the word: a space is put before it unless it begins with one */
  MCC_SPLIT_BYTES,  /* changes the word: bytes as the characters by which GPT-2 shows them */
  MCC_SPLITTERS,
};

/* What becomes of what was found. */
enum {
  MCC_SPLIT_ISOLATED,
  MCC_SPLIT_REMOVED,
  MCC_SPLIT_WITH_PREVIOUS,
  MCC_SPLIT_WITH_NEXT,
  MCC_SPLIT_CONTIGUOUS,
  MCC_SPLIT_BEHAVIORS,
};

/* Decoders: each turns a list of texts, at first those of the tokens, into another. */
enum {
  MCC_DECODE_BYTES,        /* joins all, and reads the characters by which GPT-2 shows bytes; a: they are bytes already */
  MCC_DECODE_BYTE_TOKENS,  /* <0x0A> is a byte; runs of bytes that are no UTF-8 become U+FFFD, one for each */
  MCC_DECODE_SPACES,       /* the text is a space; a: in the first one it is left out */
  MCC_DECODE_WORD_PIECES,  /* a space before each but the first, unless it begins with the text; a: tidies up */
  MCC_DECODE_FUSE,         /* joins all */
  MCC_DECODE_STRIP,        /* at most a times the text at the start and b times at the end */
  MCC_DECODE_REPLACE,      /* the text by the content */
  MCC_DECODE_WORD_ENDS,    /* the text is a space, but not in the last one */
  MCC_DECODE_SEPARATE,     /* a space before each but the first */
  MCC_DECODERS,
};

/* A piece of a word that is, or is on its way to be, one token. Symbols of a word form a list. */
typedef struct mcc_symbol_part {
  int32_t id; /* -1: no token has this text (yet) */
  int32_t previous, next;
  uint32_t start, length; /* in the word; length 0: merged into the one before */
} mcc_symbol_part;

/* Two neighbours that make a token together. */
typedef struct mcc_candidate {
  uint64_t priority; /* lower is merged first, then the leftmost */
  int32_t left;      /* index of the symbol */
  int32_t result;    /* id */
} mcc_candidate;

/* A token recognised as a whole, ready to be found. */
typedef struct mcc_added_text {
  const char *text;
  uint32_t length, id, flags;
} mcc_added_text;

/* Tokens that are looked for together, sorted by their bytes. */
typedef struct mcc_added_set {
  mcc_added_text *items;
  size_t count;
  bool starts[256]; /* by first byte */
} mcc_added_set;

/* The best way to a place in a word. */
typedef struct mcc_path_node {
  double score;
  uint32_t start; /* of the last token; UINT32_MAX: no way leads here */
  int32_t id;
} mcc_path_node;

/* The tokens of a short word that was met before. */
enum { MCC_CACHED_BYTES = 28, MCC_CACHED_IDS = 8, MCC_CACHED_WORDS = 1 << 13 };

typedef struct mcc_cached_word {
  char text[MCC_CACHED_BYTES];
  uint16_t length, count; /* length 0: none */
  int32_t ids[MCC_CACHED_IDS];
} mcc_cached_word;

struct mcc_tokenizer {
  mcc_tokenizer_header header;
  const uint32_t *text_offsets;
  const char *text;
  const uint8_t *kinds;
  const double *scores;
  const uint32_t *token_table;
  const mcc_merge *merges;
  const uint8_t *trie_labels;
  const uint32_t *trie_children;
  const int32_t *trie_tokens;
  const mcc_added *added;
  const mcc_step *normalizers, *splitters, *decoders;
  const int32_t *prefix, *suffix;
  const char *strings;
  const uint32_t *numbers;
  int32_t limit; /* the number of tokens */
  uint32_t longest;
  double lowest_score;
  int32_t byte_ids[256];
  uint32_t mark_node; /* of the trie: where tokens inside of a word begin; 0: nowhere */

  /* Made before the first text is encoded. */
  bool prepared;
  mcc_added_set raw, normalized;
  mcc_text added_texts;

  /* Reused from word to word. */
  mcc_cached_word *cache;
  mcc_symbol_part *symbols;
  size_t symbol_capacity;
  mcc_candidate *heap;
  size_t heap_count, heap_capacity;
  mcc_path_node *path;
  size_t path_capacity;
  uint32_t *codes;
  size_t code_count, code_capacity;
  bool stripped;        /* the last text lost characters at its start to a normalizer */
  mcc_text buffers[2];  /* of normalizers */
  mcc_text *words;      /* of splitters, one each */
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

/* Id of the token with this text, or -1. */
int32_t mcc_find_token(const mcc_tokenizer *tokenizer, const char *text, size_t length);

/* Makes what encoding and decoding need beside the section, once. */
void mcc_prepare(mcc_tokenizer *tokenizer);

/* Appends the tokens of text by the rules for text between tokens that are recognised as a whole. */
void mcc_encode_normalized(mcc_tokenizer *tokenizer, const char *text, size_t size, bool at_start, mcc_ids *ids);

/* The normalized text, in memory that holds until the next call, or the text itself. */
const char *mcc_normalize(mcc_tokenizer *tokenizer, const char *text, size_t *size, bool at_start);

/* Appends the text as the map of SentencePiece says: by graphemes, or by the longest key. */
void mcc_apply_charsmap(const char *map, size_t map_size, bool graphemes, const char *text, size_t size, mcc_text *output);

/* The character by which GPT-2 shows a byte, and back; -1 for a character that shows none. */
uint32_t mcc_character_of_byte(uint8_t byte);
int mcc_byte_of_character(int32_t code);

/* Appends the tokens of a word. */
void mcc_encode_merges(mcc_tokenizer *tokenizer, const char *word, size_t size, mcc_ids *ids);
void mcc_encode_pieces(mcc_tokenizer *tokenizer, const char *word, size_t size, mcc_ids *ids);
void mcc_encode_unigram(mcc_tokenizer *tokenizer, const char *word, size_t size, mcc_ids *ids);

/* Appends byte tokens for the bytes if each has one and the tokenizer falls back to them; else returns false. */
bool mcc_append_bytes(const mcc_tokenizer *tokenizer, const char *bytes, size_t count, mcc_ids *ids);

#endif
