/*
 * Text to tokens and back.
 *
 * Text goes through four stages: tokens that are recognised as a whole are cut out, normalizers change what is between
 * them, splitters cut that into words, and the model turns each word into tokens. Decoders undo that.
 *
 * The tokenizer section of the bundle. Little-endian; nothing is compressed or terminated. An array is given by two u32,
 * its offset from the start of the section, a multiple of 8, and its number of elements; of an empty one the offset
 * means nothing.
 *
 *     0  char magic[8]        "mcctoken"
 *     8  u32  version         2
 *    12  u32  section_bytes   size of the whole section
 *    16  u32  model           MCC_MODEL_* below
 *    20  u32  flags           MCC_TOKENIZER_* below
 *    24  u32  token_count     V
 *    28  i32  bos             -1: none; likewise the next two
 *    32  i32  eos
 *    36  i32  unknown         for what no token covers; none: it is left out
 *    40  u32  word_limit      word pieces: a word of more characters is unknown
 *    44  u32  mark[2]         place in `strings` and length of what begins a token inside of a word: "##"
 *    52  u32  end_mark[2]     likewise, what ends the last token of a word: "</w>"
 *    60  u32  reserved        0
 *    64  u32  text_offsets[V + 1]: token i is text[text_offsets[i] ..< text_offsets[i + 1]]
 *    72  u8   text[]
 *    80  u8   kinds[V]        MCC_TOKEN_* below
 *    88  f64  scores[V]       with MCC_MODEL_UNIGRAM and MCC_TOKENIZER_SCORES
 *    96  u32  token_table[]   byte pair encoding and words: open addressing by the text of a token, its id plus one or 0
 *   104  mcc_merge merges[]   open addressing by the pair of ids; result UINT32_MAX: free
 *   112  u8   trie_labels[N]  word pieces and unigram: a node for each prefix of a token, level by level, the root first;
 *                             the last byte of the prefix
 *   120  u32  trie_children[N + 1]: the children of node i are trie_children[i] ..< trie_children[i + 1], by label
 *   128  i32  trie_tokens[N]  the token that ends here, or -1
 *   136  mcc_added added[]    tokens recognised as a whole
 *   144  mcc_step normalizers[]
 *   152  mcc_step splitters[]
 *   160  mcc_step decoders[]
 *   168  i32  prefix[]        ids before a text
 *   176  i32  suffix[]        ids behind a text
 *   184  u8   strings[]       what steps refer to
 *   192  u32  numbers[]       likewise
 *   200
 *
 * Hashes: of a text FNV-1a of 64 bits, high and low half joined by exclusive or; of a pair the upper half of (left * 2^32 +
 * right) * 0x9e3779b97f4a7c15 modulo 2^64. A hash h of n slots begins at slot h * n / 2^32 and goes on upwards.
 */
#ifndef MCC_TOKENIZER_H
#define MCC_TOKENIZER_H

#include "bundle.h"

enum {
  MCC_MODEL_CHARACTERS,  /* byte pair encoding from characters */
  MCC_MODEL_BYTES,       /* byte pair encoding from bytes; the text of a token is the bytes it stands for */
  MCC_MODEL_WORD_PIECES, /* the longest token first, inside of a word with a mark before it */
  MCC_MODEL_UNIGRAM,     /* the tokens with the largest sum of scores */
  MCC_MODEL_WORDS,       /* each word is a token */
  MCC_MODELS,
};

enum {
  MCC_TOKENIZER_SCORES = 1,        /* merge by score of the result (best first, then leftmost) instead of rank */
  MCC_TOKENIZER_IGNORE_MERGES = 2, /* a word that is a token is that token */
  MCC_TOKENIZER_BYTE_FALLBACK = 4, /* what has no token becomes byte tokens */
  MCC_TOKENIZER_FUSE_UNKNOWN = 8,  /* neighbouring unknown characters become one unknown token */
  MCC_TOKENIZER_SPACE_WORDS = 16,  /* no token has U+2581 behind another character: merges never cross such a place */
  MCC_TOKENIZER_FLAGS = 31,
};

/* Bits of a token's kind. */
enum {
  MCC_TOKEN_SPECIAL = 1,    /* stands for no text: decoding leaves it out */
  MCC_TOKEN_NORMALIZED = 2, /* recognised as a whole in normalized text; stands for that text, normalized */
  MCC_TOKEN_KINDS = 3,
};

typedef struct mcc_tokenizer mcc_tokenizer;
typedef struct mcc_decoder mcc_decoder;

/* A growing list of ids; starts as {0}. */
typedef struct mcc_ids {
  int32_t *data;
  int64_t count, capacity;
} mcc_ids;

/* A growing string of bytes; starts as {0}. */
typedef struct mcc_text {
  char *data;
  size_t count, capacity;
} mcc_text;

void mcc_ids_append(mcc_ids *ids, int32_t id);
void mcc_text_append(mcc_text *text, const void *bytes, size_t count);

/*
 * Checks the section once; it must stay mapped. Returns NULL and sets *problem to a sentence if it is malformed.
 * `vocabulary` is that of the model: no id at or above it is ever produced.
 */
mcc_tokenizer *mcc_tokenizer_open(mcc_bytes section, int64_t vocabulary, const char **problem);
void mcc_tokenizer_close(mcc_tokenizer *tokenizer);

int32_t mcc_tokenizer_bos(const mcc_tokenizer *tokenizer);
int32_t mcc_tokenizer_eos(const mcc_tokenizer *tokenizer);

/*
 * Appends the ids of the text, with those before and behind a text if `with_template`. Any bytes are accepted; those that
 * are no UTF-8 are encoded one by one.
 */
void mcc_tokenizer_encode(mcc_tokenizer *tokenizer, const char *text, size_t size, bool with_template, mcc_ids *ids);

/*
 * Appends at most `limit` ids of the text with the template, leaving out the last of the text where it has more. Returns
 * how many ids it has.
 */
int64_t mcc_tokenizer_encode_at_most(mcc_tokenizer *tokenizer, const char *text, size_t size, int64_t limit,
                                     mcc_ids *ids);

/* ---- decoding ---- */

/* Turns ids into text as they come. With `skips`, tokens that stand for no text are left out. */
mcc_decoder *mcc_decoder_open(mcc_tokenizer *tokenizer, bool skips);
void mcc_decoder_close(mcc_decoder *decoder);

/* Appends what is certain about the text once this id is known: UTF-8, with U+FFFD for bytes that are none. */
void mcc_decoder_add(mcc_decoder *decoder, int32_t id, mcc_text *text);

/* Appends bytes that wait for more bytes, as if none came. */
void mcc_decoder_flush(mcc_decoder *decoder, mcc_text *text);

/* Appends the rest; the decoder then is at the start of another text. */
void mcc_decoder_finish(mcc_decoder *decoder, mcc_text *text);

#endif
