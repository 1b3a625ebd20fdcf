/* What splitters and replacements look for: one scanner for each rule, no general expressions. */
#ifndef MCC_TOKENIZER_SPLIT_H
#define MCC_TOKENIZER_SPLIT_H

#include "tokenizer_parts.h"

enum {
  MCC_RULE_TEXT,   /* the text of the step */
  /*
   * A run of characters of one set. The numbers of the step: which space may stand before it (0 none, 1 U+0020, 2 white
   * space), the least and the largest number of characters (0: any), MCC_RUN_* bits, the bits of classes, then ranges of
   * characters, first and last.
   */
  MCC_RULE_RUN,
  MCC_RULE_WORDS,  /* \w+|[^\w\s]+ */
  MCC_RULE_GPT2,
  MCC_RULE_LLAMA3, /* digits in groups of three at most, likewise for the next */
  MCC_RULE_QWEN2,  /* digits by themselves, likewise for the next */
  MCC_RULE_QWEN35, /* marks are letters */
  MCC_RULE_O200K,
  MCC_RULE_TEKKEN,
  MCC_RULE_DEEPSEEK3,
  MCC_RULE_CLIP,       /* with the tokens around a text */
  MCC_RULE_CLIP_WORDS, /* without them */
  MCC_RULES,
};

enum { MCC_RUN_NEGATED = 1, MCC_RUN_AT_END = 2 /* the end of the text follows */ };

/*
 * Finds the first match of the step's rule in text[from ..< size]; returns false if there is none. Matches are never
 * empty.
 */
bool mcc_find_match(const mcc_tokenizer *tokenizer, const mcc_step *step, const char *text, size_t size, size_t from,
                    size_t *start, size_t *end);

#endif
