/*
 * Text to tokens, by byte pair encoding or word pieces, and back.
 *
 * The tokenizer section of the bundle. Little-endian; offsets count from the start of the section and are multiples of
 * 4 (of an empty array, anything); nothing is compressed or terminated.
 *
 *     0  char magic[8]        "mcctoken"
 *     8  u32  version         1
 *    12  u32  kind            0 characters: SentencePiece style; symbols start as characters of UTF-8
 *                             1 bytes: GPT-2 style; symbols start as bytes
 *                             2 word pieces: BERT style; the longest token first, inside of a word with ## before it
 *    16  u32  split           how text is cut into words that merges never cross: 0 not, 1 gpt2, 2 llama3, 3 qwen2,
 *                             4 metaspace (before each U+2581)
 *    20  u32  flags           MCC_TOKENIZER_* below
 *    24  u32  prefix          a space is put 0 nowhere, 1 before each piece of text between special tokens,
 *                             2 only at the start of the text
 *    28  u32  token_count     V
 *    32  i32  bos             -1: none; likewise the next two
 *    36  i32  eos
 *    40  i32  unknown         for what no token covers; none: it is left out
 *    44  u32  merge_count     M; 0 with MCC_TOKENIZER_SCORES
 *    48  u32  special_count   S
 *    52  u32  section_bytes   size of the whole section
 *    56  u32  offset of       u32 text_offsets[V + 1]: token i is text[text_offsets[i] ..< text_offsets[i + 1]]
 *    60  u32  offset of       u8  text[text_offsets[V]]
 *    64  u32  offset of       u8  kinds[V]: MCC_TOKEN_* below
 *    68  u32  offset of       f32 scores[V], with MCC_TOKENIZER_SCORES only
 *    72  u32  offset of       u32 merges[M][2]: left and right id, best first; the result is the token whose text is
 *                             that of left followed by that of right
 *    76  u32  offset of       u32 specials[S]: ids of tokens recognised as such in text, sorted by their bytes
 *                             (unsigned, a prefix before what it begins), no two equal
 *    80  u32  offset of       u8  special_flags[S]: 1 white space before it belongs to it, 2 white space after it does
 *    84  u32  word_limit      characters of a word that is looked up, with kind word pieces; else 0
 *    88  u32  reserved[10]    zero
 *   128
 *
 * The text of a token is what it stands for: with kind bytes, raw bytes (the GPT-2 map of bytes to printable characters
 * is undone by the writer); with kind characters, UTF-8 in which U+2581 stands for a space if
 * MCC_TOKENIZER_ESCAPE_SPACES is set; for a byte token (<0x0A>), that one byte.
 */
#ifndef MCC_TOKENIZER_H
#define MCC_TOKENIZER_H

#include "bundle.h"

enum {
  MCC_TOKENIZER_SCORES = 1,            /* merge by score of the result (best first, then leftmost) instead of rank */
  MCC_TOKENIZER_IGNORE_MERGES = 2,     /* a word that is a token is that token */
  MCC_TOKENIZER_BYTE_FALLBACK = 4,     /* characters without a token become byte tokens */
  MCC_TOKENIZER_FUSE_UNKNOWN = 8,      /* neighbouring unknown characters become one unknown token */
  MCC_TOKENIZER_ESCAPE_SPACES = 16,    /* spaces are U+2581 in tokens */
  MCC_TOKENIZER_SINGLE_PREFIX = 32,    /* no prefix space where the text already begins with a space */
  MCC_TOKENIZER_STRIP_SPACE = 64,      /* decoding drops one space at the start of the text */
  MCC_TOKENIZER_ADD_BOS = 128,         /* the template of a prompt: BOS before, EOS after the text */
  MCC_TOKENIZER_ADD_EOS = 256,
  MCC_TOKENIZER_CLEAN_TEXT = 512,      /* word pieces: control characters are left out */
  MCC_TOKENIZER_SPACE_IDEOGRAPHS = 1024, /* ideographs are words of their own */
  MCC_TOKENIZER_STRIP_ACCENTS = 2048,  /* accents are left out */
  MCC_TOKENIZER_LOWER_CASE = 4096,
  MCC_TOKENIZER_FLAGS = 8191,
};

enum {
  MCC_TOKEN_NORMAL,
  MCC_TOKEN_CONTROL, /* stands for no text: BOS, EOS, unknown, end of turn; decodes to nothing, no merge makes it */
  MCC_TOKEN_BYTE,    /* one byte, used where characters have no token */
  MCC_TOKEN_ADDED,   /* added to the vocabulary with a text of its own; decodes to it */
  MCC_TOKEN_UNUSED,
  MCC_TOKEN_KINDS,
};

typedef struct mcc_tokenizer mcc_tokenizer;

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
 * Appends the ids of the text, with the template's BOS and EOS if `with_template`. Any bytes are accepted; those that
 * are no UTF-8 are encoded one by one.
 */
void mcc_tokenizer_encode(mcc_tokenizer *tokenizer, const char *text, size_t size, bool with_template, mcc_ids *ids);

/*
 * Appends at most `limit` ids of the text with the template, leaving out the last of the text where it has more. Returns
 * how many ids it has.
 */
int64_t mcc_tokenizer_encode_at_most(mcc_tokenizer *tokenizer, const char *text, size_t size, int64_t limit,
                                     mcc_ids *ids);

/*
 * Appends the bytes a token stands for; nothing for an id out of range. Characters may be split between tokens.
 * *at_start says that no text has come before and is updated. Word pieces are joined, words parted by one space.
 */
void mcc_tokenizer_decode(const mcc_tokenizer *tokenizer, int32_t id, bool *at_start, mcc_text *text);

#endif
