#include "sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"

typedef struct choice {
  float weight; /* unnormalised probability */
  int32_t id;
} choice;

struct mcc_sampler {
  mcc_sampler_options options;
  int64_t vocabulary;
  uint64_t state[4];
  float *logits; /* with penalties, where there are any */
  uint8_t *seen;
  choice *heap;    /* likeliest first at the root */
  choice *likeliest; /* taken off the heap, in order */
};

/* xoshiro256** of Blackman and Vigna, seeded by splitmix64. */
static uint64_t next_random(uint64_t state[4]) {
  uint64_t product = state[1] * 5, result = (product << 7 | product >> 57) * 9, shifted = state[1] << 17;
  state[2] ^= state[0];
  state[3] ^= state[1];
  state[1] ^= state[2];
  state[0] ^= state[3];
  state[2] ^= shifted;
  state[3] = state[3] << 45 | state[3] >> 19;
  return result;
}

static void seed_random(uint64_t state[4], uint64_t seed) {
  for (int i = 0; i < 4; i++) {
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    state[i] = z ^ z >> 31;
  }
}

/* Uniform in [0, 1). */
static double random_fraction(mcc_sampler *it) {
  return (double)(next_random(it->state) >> 11) * 0x1p-53;
}

mcc_sampler *mcc_sampler_create(mcc_sampler_options options, int64_t vocabulary) {
  mcc_sampler *it = mcc_allocate(sizeof *it);
  size_t count = (size_t)vocabulary;
  *it = (mcc_sampler){.options = options, .vocabulary = vocabulary};
  seed_random(it->state, options.seed);
  it->logits = mcc_allocate(count * sizeof *it->logits);
  it->seen = mcc_allocate(count);
  it->heap = mcc_allocate(count * sizeof *it->heap);
  it->likeliest = mcc_allocate(count * sizeof *it->likeliest);
  memset(it->seen, 0, count);
  return it;
}

void mcc_sampler_free(mcc_sampler *it) {
  free(it->logits);
  free(it->seen);
  free(it->heap);
  free(it->likeliest);
  free(it);
}

int32_t mcc_index_of_largest(const float *numbers, int64_t count) {
  int64_t best = 0;
  while (best < count && isnan(numbers[best])) best++;
  if (best == count) return 0;
  for (int64_t i = best + 1; i < count; i++) {
    if (numbers[i] > numbers[best]) best = i;
  }
  return (int32_t)best;
}

/* The logits with the penalty on every token seen before, each once. */
static const float *penalize(mcc_sampler *it, const float *logits, const int32_t *ids, int64_t count) {
  float penalty = (float)it->options.repeat_penalty;
  if (penalty == 1.0f) return logits;
  memcpy(it->logits, logits, (size_t)it->vocabulary * sizeof *logits);
  for (int64_t i = 0; i < count; i++) {
    int32_t id = ids[i];
    if (it->seen[id]) continue;
    it->seen[id] = 1;
    it->logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
  }
  for (int64_t i = 0; i < count; i++) it->seen[ids[i]] = 0;
  return it->logits;
}

static bool likelier(choice a, choice b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

static void sift_down(choice *heap, int64_t count, int64_t i) {
  choice moved = heap[i];
  for (int64_t child; (child = 2 * i + 1) < count; i = child) {
    if (child + 1 < count && likelier(heap[child + 1], heap[child])) child++;
    if (!likelier(heap[child], moved)) break;
    heap[i] = heap[child];
  }
  heap[i] = moved;
}

/* Chooses among choices by weight; `total` is the sum of their weights. */
static int32_t draw(mcc_sampler *it, const choice *choices, int64_t count, double total) {
  double left = random_fraction(it) * total;
  for (int64_t i = 0; i + 1 < count; i++) {
    left -= (double)choices[i].weight;
    if (left < 0) return choices[i].id;
  }
  return choices[count - 1].id;
}

int32_t mcc_sampler_next(mcc_sampler *it, const float *logits, const int32_t *ids, int64_t count) {
  logits = penalize(it, logits, ids, count);
  int32_t best = mcc_index_of_largest(logits, it->vocabulary);
  float largest = logits[best];
  if (it->options.temperature <= 0 || it->options.top_k == 1 || !isfinite(largest)) return best;

  float scale = (float)(1.0 / it->options.temperature);
  if (!isfinite(scale)) return best;
  int64_t kept = 0;
  double total = 0;
  for (int64_t i = 0; i < it->vocabulary; i++) {
    float weight = expf((logits[i] - largest) * scale);
    if (!(weight > 0)) continue;
    it->heap[kept++] = (choice){weight, (int32_t)i};
    total += (double)weight;
  }
  bool use_top_k = it->options.top_k > 0 && it->options.top_k < kept, use_top_p = it->options.top_p < 1;
  if (!use_top_k && !use_top_p) return draw(it, it->heap, kept, total);

  /* A heap, not a sort: the cost is the vocabulary plus a logarithm for each token kept. */
  int64_t limit = use_top_k ? it->options.top_k : kept, taken = 0;
  for (int64_t i = kept / 2; i-- > 0;) sift_down(it->heap, kept, i);
  double sum = 0;
  while (taken < limit && (use_top_k || sum < it->options.top_p * total || taken == 0)) {
    it->likeliest[taken++] = it->heap[0];
    sum += (double)it->heap[0].weight;
    it->heap[0] = it->heap[--kept];
    if (kept > 0) sift_down(it->heap, kept, 0);
  }
  if (use_top_k && use_top_p) {
    double bound = it->options.top_p * sum;
    limit = taken;
    sum = 0;
    taken = 0;
    while (taken < limit && (sum < bound || taken == 0)) sum += (double)it->likeliest[taken++].weight;
  }
  return draw(it, it->likeliest, taken, sum);
}
