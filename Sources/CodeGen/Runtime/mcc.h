/*
 * The runtime of a program compiled by mcc.
 *
 * A compiled program is made of three parts.
 *
 *   model.c, kernels.c      generated: one `run` function per role of the model, the kernels it calls, and the
 *                           descriptor `mcc_model` that tells the rest about them. Compiled for the chosen CPU.
 *   the files of this folder  fixed: everything that is the same in every program. Compiled for the baseline of the
 *                           architecture (no -m flags), so that the check of the CPU's features runs on any CPU.
 *   the bundle              data appended to the executable file: weights, tokenizer, manifest, generation settings.
 *                           Mapped in place, never copied. bundle.h describes it.
 *
 * The fixed part, from the bottom up:
 *
 *   failure.c          one sentence on standard error and an exit status
 *   cpu.c              which features the CPU has, how many cores may be used
 *   thread_pool.c      the threads, the barrier
 *   profile.c          the time of every step, for MCC_PROFILE
 *   mapping.c          finds, checks and maps the bundle; allocates the arena
 *   program.c          ties the above together; binds symbols to sizes, calls functions
 *   options.c          the command line
 *   tensor_file.c      reads .npy and .npz; tensor_convert.c between element types; tensor_writer.c writes
 *   tokenizer.c        text to token ids and back: tokenizer_normalize.c and tokenizer_charsmap.c change the text,
 *                      tokenizer_split.c finds the words, tokenizer_encode.c drives all of that, tokenizer_merge.c (byte
 *                      pair encoding) and tokenizer_pieces.c (word pieces, unigram) encode words, tokenizer_decode.c
 *                      goes back; unicode.c tells characters and their classes
 *   generation_settings.c  defaults of the command line
 *   sampler.c          logits to a token id
 *   text_stream.c      text to standard output up to a stop text
 *   token_ids.c        ids from the command line and from files
 *   language_model.c   feeds tokens through the functions `prefill` and `decode`
 *   encoder.c          feeds texts through the function `encode`
 *
 * and main.c, which chooses a command, with the commands of one of three faces: those of language_model.c (generate.c,
 * perplexity.c, logits.c and language_model_bench.c) when the model has a function `decode`, those of encoder.c
 * (embed.c and encoder_bench.c) when it has `encode`, and network.c for any other network. RuntimeSources.swift says
 * which files a program is linked from.
 *
 * How a model is evaluated. All threads of the pool call `run` with the same arguments (single program, multiple
 * data). Each kernel computes the part of its output that mcc_partition gives the thread, or the units that mcc_share
 * hands out, and mcc_barrier separates steps that depend on each other. `run` needs no barrier at its end: mcc_pool_run has one. No kernel adds up what
 * several threads computed, so the results do not depend on the number of threads.
 *
 * Memory. `weights` points to the weights section of the bundle (read only, aligned to 4096 bytes). `arena` is one
 * block of zero-initialised memory aligned to 64 bytes, laid out by the compiler: inputs, outputs, intermediate
 * buffers, and the states (KV caches), which keep their place and contents from call to call.
 */
#ifndef MCC_H
#define MCC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- threads ---- */

typedef struct mcc_pool mcc_pool;
typedef struct mcc_stopwatch mcc_stopwatch;

/* One thread of the pool, as seen by a kernel. */
typedef struct mcc_thread {
  int index; /* 0 ..< count */
  int count;
  mcc_pool *pool; /* NULL: units are not taken over from other threads */
  mcc_stopwatch *stopwatch; /* NULL unless the run is profiled */
} mcc_thread;

/* Half-open range of work units. */
typedef struct mcc_range {
  int64_t begin, end;
} mcc_range;

/* The part of `units` equal units of work that belongs to this thread: contiguous, sizes differ by at most one. */
static inline mcc_range mcc_partition(const mcc_thread *thread, int64_t units) {
  int64_t share = units / thread->count, rest = units % thread->count;
  int64_t begin = share * thread->index + (thread->index < rest ? thread->index : rest);
  return (mcc_range){begin, begin + share + (thread->index < rest ? 1 : 0)};
}

/*
 * Units of work that a thread goes through: those of its mcc_partition in order, then what other threads have not begun,
 * each from the end of its part. So no thread waits long for a slower one, and each still reads one stretch of memory.
 *
 *   for (mcc_work work = mcc_share(t, units); mcc_next(t, &work);) ... work.unit ...
 *
 * Every thread must call mcc_share as often and with the same numbers.
 */
typedef struct mcc_work {
  int64_t unit;
  int64_t end; /* of the own part, if nothing is taken over */
  int64_t units;
  uint64_t round; /* the how manieth mcc_share this is */
  int owner;      /* of the part that units are taken from; -1: nothing is taken over */
} mcc_work;

mcc_work mcc_share(const mcc_thread *thread, int64_t units);

/* Moves on to the next unit; false if there is none. */
bool mcc_next(const mcc_thread *thread, mcc_work *work);

/* The time of one thread on each step of one function, in ticks of the processor's counter. */
struct mcc_stopwatch {
  uint64_t last;
  int64_t count;
  struct mcc_step_ticks {
    uint64_t call, sum, least; /* of the current call; of the calls before: sum, and in the first thread's the least of all threads' */
  } *steps;
};

/* Adds the ticks since `last` to a step; no step, no addition. */
void mcc_stopwatch_mark(mcc_stopwatch *stopwatch, int64_t step);

/* Behind a step: what passed since the barrier or step before it was spent on the step. */
static inline void mcc_mark(mcc_thread *thread, int64_t step) {
  if (__builtin_expect(thread->stopwatch != NULL, 0)) mcc_stopwatch_mark(thread->stopwatch, step);
}

/* While others are missing, asks for the memory between `ahead` and `ahead_end`. */
void mcc_barrier_wait(mcc_pool *pool, const uint8_t *ahead, const uint8_t *ahead_end);

/* Returns once every thread of the pool has arrived; what each wrote before is then visible to all. */
static inline void mcc_barrier(mcc_thread *thread) {
  if (thread->count > 1) {
    mcc_barrier_wait(thread->pool, NULL, NULL);
    mcc_mark(thread, -1);
  }
}

/* The same inside of a kernel, whose time the wait counts to. */
static inline void mcc_meet(const mcc_thread *thread) {
  if (thread->count > 1) mcc_barrier_wait(thread->pool, NULL, NULL);
}

/* What a waiting thread asks for at most: a part of any second-level cache. */
enum { MCC_BYTES_AHEAD = 65536 };

/* The same, and a waiting thread reads ahead in what it will read of `units` units of `unit_bytes` bytes. */
static inline void mcc_barrier_ahead(mcc_thread *thread, const uint8_t *start, int64_t units, int64_t unit_bytes) {
  if (thread->count > 1) {
    mcc_range own = mcc_partition(thread, units);
    int64_t bytes = (own.end - own.begin) * unit_bytes;
    const uint8_t *ahead = start + own.begin * unit_bytes;
    mcc_barrier_wait(thread->pool, ahead, ahead + (bytes < MCC_BYTES_AHEAD ? bytes : MCC_BYTES_AHEAD));
    mcc_mark(thread, -1);
  }
}

/* ---- what model.c describes ---- */

typedef enum mcc_dtype {
  MCC_F64,
  MCC_F32,
  MCC_F16,
  MCC_BF16,
  MCC_I64,
  MCC_I32,
  MCC_I16,
  MCC_I8,
  MCC_U8,
  MCC_BOOL,
} mcc_dtype;

enum { MCC_MAX_RANK = 8, MCC_MAX_SYMBOLS = 16 };

/*
 * The size of one axis: offset + multiplier * symbols[symbol]. A number has multiplier 0, so {128} is 128 and
 * {.symbol = 0, .multiplier = 1} the first symbol. Axes of inputs have this form: their sizes bind the symbols.
 * An axis of an output that is no linear function of one symbol gives `extent` instead, which then decides alone.
 */
typedef struct mcc_dim {
  int64_t offset;
  int64_t multiplier;
  int32_t symbol;
  int64_t (*extent)(const int64_t *symbols);
} mcc_dim;

/* An input or output: dense, row-major, at `offset` bytes into the arena (a multiple of 64). */
typedef struct mcc_tensor {
  const char *name;
  mcc_dtype dtype;
  int32_t rank;
  mcc_dim dims[MCC_MAX_RANK];
  int64_t offset;
} mcc_tensor;

/* A size known only when the function is called, and its inclusive range. */
typedef struct mcc_symbol {
  const char *name;
  int64_t minimum, maximum;
} mcc_symbol;

/*
 * `role` is "main" for a tensor network. A language model has
 *
 *   "decode"   inputs tokens: i32[1], position: i32[1]; output logits: f32[1, vocabulary]; no symbols
 *   "prefill"  inputs tokens: i32[T], position: i32[1]; output logits: f32[L, vocabulary]; symbols T and L, L <= T
 *
 * L may be bounded more narrowly than T, so that logits take little memory. Where the vocabulary can be gone through in
 * parts, there is besides
 *
 *   "score"    as prefill, with the input targets: i32[L]; output losses: f32[L], -log p(targets); L in the range of T
 *
 * One with an encoder has besides
 *
 *   "cross"    input tokens: i32[S], or features: f32[...]; fills states that the others read; symbol S
 *
 * and `decode` and `prefill` have the symbol S as well, the number of tokens of the source, if `cross` has it.
 *
 * An encoder has
 *
 *   "encode"   input tokens: i32[T]; outputs output: f32[T, ...] and perhaps embedding: f32[W]; symbol T
 *
 * found by these names. `position` is the number of tokens already in the cache; the logits are those of the last L
 * tokens. Row p of a cache is written by the token at position p and read by later ones only, so a new text starts at
 * position 0 without clearing anything.
 */
typedef struct mcc_function {
  const char *role;
  int32_t symbol_count, input_count, output_count;
  const mcc_symbol *symbols;
  const mcc_tensor *inputs, *outputs;
  void (*run)(mcc_thread *thread, const uint8_t *weights, uint8_t *arena, const int64_t *symbols);
  int32_t step_count; /* steps that mcc_mark numbers from 0 */
  int32_t level;      /* index of the level whose kernels it calls; there is one function of each role for each level */
} mcc_function;

/* A kind of CPU that the program has code for. */
typedef struct mcc_level {
  const char *name;            /* "x86-64-v3" */
  const char *const *features; /* that it needs, as __builtin_cpu_supports spells them ("avx2", "fma"); ends with NULL */
} mcc_level;

typedef struct mcc_program {
  const char *name;             /* of the model */
  const char *compiler;         /* "mcc 0.1.0" */
  uint64_t identity;            /* equals that of the bundle; ties the code to its weights */
  int32_t level_count;
  const mcc_level *levels;      /* best first */
  int32_t function_count;
  const mcc_function *functions;
  int64_t weights_bytes;        /* size of the weights section of the bundle */
  int64_t arena_bytes;
  /* Of a language model or an encoder; 0 otherwise. */
  int64_t context;              /* positions in the cache; tokens of a text */
  int64_t vocabulary;
  /* Of a language model; 0 otherwise. */
  int64_t bytes_per_token;      /* of weights, read to decode one token */
  int64_t cache_bytes_per_position; /* of all caches, read by one decoded token for each position before it */
} mcc_program;

/* Defined by model.c. */
extern const mcc_program mcc_model;

#endif
