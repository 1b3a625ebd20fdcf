extension Target {
  /// x86-64 with SSE4.2: Nehalem, Jaguar and later. No fused multiply-add and no half floats.
  package static let x86v2 = Target(
    name: "x86-64-v2", suffix: "sse42", summary: "x86-64 with SSE4.2", architecture: .x86_64,
    features: ["ssse3", "sse4_1", "sse4_2", "popcnt"], vectorBytes: 16, vectorRegisters: 16,
    compilerFlags: commonFlags + ["-march=x86-64-v2"], cacheBytes: (level1: 32 << 10, level2: 256 << 10),
    throughput: Throughput(floatOperations: 25e9, byteOperations: 80e9, bytes: 10e9), vocabulary: .sse42,
    loopsOverTokens: true)
}

extension Vocabulary {
  static let sse42 = Vocabulary(
    f32: "__m128", i32: "__m128i", mask: "__m128",
    preamble: ["#include <immintrin.h>"],
    verbs: [
      "load.f32": "_mm_loadu_ps($0)",
      "load.f16": "mcc_f16_to_f32(_mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)($0))))",
      "load.bf16": "_mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)($0))), 16))",
      "load.i32": "_mm_loadu_si128((const __m128i *)($0))",
      "load.i8": "_mm_cvtepi8_epi32(mcc_load_4($0))",
      "load.u8": "_mm_cvtepu8_epi32(mcc_load_4($0))",
      "loadTail.f32": "mcc_load_tail($0, $1)",
      "loadTail.f16": "mcc_f16_to_f32(_mm_cvtepu16_epi32(mcc_load_tail_16($0, $1)))",
      "loadTail.bf16": "_mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(mcc_load_tail_16($0, $1)), 16))",
      "loadTail.i32": "_mm_castps_si128(mcc_load_tail((const float *)($0), $1))",
      "loadTail.i8": "_mm_cvtepi8_epi32(mcc_load_tail_8($0, $1))",
      "loadTail.u8": "_mm_cvtepu8_epi32(mcc_load_tail_8($0, $1))",
      "store.f32": "_mm_storeu_ps($0, $1)",
      "store.f16": "_mm_storel_epi64((__m128i *)($0), mcc_f32_to_f16($1))",
      "store.bf16": "_mm_storel_epi64((__m128i *)($0), mcc_f32_to_bf16($1))",
      "store.i32": "_mm_storeu_si128((__m128i *)($0), $1)",
      "store.i8": "mcc_store_tail_8($0, $1, 4)",
      "store.u8": "mcc_store_tail_8($0, $1, 4)",
      "storeTail.f32": "mcc_store_tail($0, $1, $2)",
      "storeTail.f16": "mcc_store_tail_16($0, mcc_f32_to_f16($1), $2)",
      "storeTail.bf16": "mcc_store_tail_16($0, mcc_f32_to_bf16($1), $2)",
      "storeTail.i32": "mcc_store_tail((float *)($0), _mm_castsi128_ps($1), $2)",
      "storeTail.i8": "mcc_store_tail_8($0, $1, $2)",
      "storeTail.u8": "mcc_store_tail_8($0, $1, $2)",
      "broadcast.f32": "_mm_set1_ps($0)", "zero.f32": "_mm_setzero_ps()",
      "broadcast.i32": "_mm_set1_epi32($0)", "zero.i32": "_mm_setzero_si128()",
      "repeat2.f32": "_mm_castpd_ps(_mm_load1_pd((const double *)($0)))", "repeat4.f32": "_mm_loadu_ps($0)",
      "exchange1.f32": "_mm_castsi128_ps(_mm_shuffle_epi32(_mm_castps_si128($0), 0xb1))",
      "exchange2.f32": "_mm_castsi128_ps(_mm_shuffle_epi32(_mm_castps_si128($0), 0x4e))",
      "lanes": "_mm_setr_epi32(0, 1, 2, 3)",
      "add.f32": "_mm_add_ps($0, $1)", "sub.f32": "_mm_sub_ps($0, $1)", "mul.f32": "_mm_mul_ps($0, $1)",
      "div.f32": "_mm_div_ps($0, $1)", "min.f32": "_mm_min_ps($0, $1)", "max.f32": "_mm_max_ps($0, $1)",
      "fma.f32": "_mm_add_ps(_mm_mul_ps($0, $1), $2)", "fmaElement.f32": "($0 * $1 + $2)",
      "neg.f32": "_mm_xor_ps($0, _mm_set1_ps(-0.0f))", "abs.f32": "_mm_andnot_ps(_mm_set1_ps(-0.0f), $0)",
      "sqrt.f32": "_mm_sqrt_ps($0)", "floor.f32": "_mm_floor_ps($0)",
      "round.f32": "_mm_round_ps($0, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)",
      "lt.f32": "_mm_cmplt_ps($0, $1)", "le.f32": "_mm_cmple_ps($0, $1)", "gt.f32": "_mm_cmpgt_ps($0, $1)",
      "ge.f32": "_mm_cmpge_ps($0, $1)", "eq.f32": "_mm_cmpeq_ps($0, $1)", "ne.f32": "_mm_cmpneq_ps($0, $1)",
      "lt.i32": "_mm_castsi128_ps(_mm_cmplt_epi32($0, $1))", "gt.i32": "_mm_castsi128_ps(_mm_cmpgt_epi32($0, $1))",
      "eq.i32": "_mm_castsi128_ps(_mm_cmpeq_epi32($0, $1))",
      "select.f32": "_mm_blendv_ps($2, $1, $0)",
      "select.i32": "_mm_castps_si128(_mm_blendv_ps(_mm_castsi128_ps($2), _mm_castsi128_ps($1), $0))",
      "and.mask": "_mm_and_ps($0, $1)", "or.mask": "_mm_or_ps($0, $1)",
      "not.mask": "_mm_xor_ps($0, _mm_castsi128_ps(_mm_set1_epi32(-1)))",
      "add.i32": "_mm_add_epi32($0, $1)", "sub.i32": "_mm_sub_epi32($0, $1)", "mul.i32": "_mm_mullo_epi32($0, $1)",
      "min.i32": "_mm_min_epi32($0, $1)", "max.i32": "_mm_max_epi32($0, $1)", "and.i32": "_mm_and_si128($0, $1)",
      "or.i32": "_mm_or_si128($0, $1)", "xor.i32": "_mm_xor_si128($0, $1)",
      "shl.i32": "_mm_slli_epi32($0, $1)", "shr.i32": "_mm_srli_epi32($0, $1)", "sra.i32": "_mm_srai_epi32($0, $1)",
      "convert.i32": "_mm_cvtps_epi32($0)", "convert.f32": "_mm_cvtepi32_ps($0)",
      "reinterpret.i32": "_mm_castps_si128($0)", "reinterpret.f32": "_mm_castsi128_ps($0)",
      "lookup.i8": "_mm_shuffle_epi8($0, $1)",
      "reduce.sum.f32": "mcc_reduce_sum($0)", "reduce.max.f32": "mcc_reduce_max($0)",
      "reduce.min.f32": "mcc_reduce_min($0)", "reduce.sum.i32": "mcc_reduce_sum_i32($0)",
      "element.f16": "mcc_f16_element($0)", "element.bf16": "mcc_bf16_element($0)",
      "storeElement.f16": "mcc_f16_bits($0)", "storeElement.bf16": "mcc_bf16_bits($0)",
      "dotStep.u4": "_mm_add_epi16($0, _mm_maddubs_epi16($1, $2))",
      "dotFlush.u4": "_mm_add_epi32($0, _mm_madd_epi16($1, _mm_set1_epi16(1)))",
      "dotStep.i8": "mcc_dot_i8($0, $1, $2)",
      "dotStep.i8u8": "mcc_dot_i8u8($0, $1, $2)",
    ],
    functions: [
      "mcc_load_4": """
      static inline __m128i mcc_load_4(const void *p) {
        int32_t bytes;
        memcpy(&bytes, p, 4);
        return _mm_cvtsi32_si128(bytes);
      }
      """,
      "mcc_load_tail": """
      static inline __m128 mcc_load_tail(const float *p, int64_t n) {
        if (n > 3) return _mm_loadu_ps(p);
        __m128 v = n > 0 ? _mm_load_ss(p) : _mm_setzero_ps();
        if (n > 1) v = _mm_insert_ps(v, _mm_load_ss(p + 1), 0x10);
        if (n > 2) v = _mm_insert_ps(v, _mm_load_ss(p + 2), 0x20);
        return v;
      }
      """,
      "mcc_load_tail_16": """
      static inline __m128i mcc_load_tail_16(const uint16_t *p, int64_t n) {
        uint16_t lanes[4] = {0};
        for (int64_t i = 0; i < n; i++) lanes[i] = p[i];
        return _mm_loadl_epi64((const __m128i *)lanes);
      }
      """,
      "mcc_load_tail_8": """
      static inline __m128i mcc_load_tail_8(const void *p, int64_t n) {
        uint8_t lanes[4] = {0};
        for (int64_t i = 0; i < n; i++) lanes[i] = ((const uint8_t *)p)[i];
        return mcc_load_4(lanes);
      }
      """,
      "mcc_store_tail": """
      static inline void mcc_store_tail(float *p, __m128 v, int64_t n) {
        if (n > 3) {
          _mm_storeu_ps(p, v);
          return;
        }
        if (n & 2) {
          _mm_storel_epi64((__m128i *)p, _mm_castps_si128(v));
          v = _mm_movehl_ps(v, v);
          p += 2;
        }
        if (n & 1) _mm_store_ss(p, v);
      }
      """,
      "mcc_store_tail_16": """
      static inline void mcc_store_tail_16(uint16_t *p, __m128i v, int64_t n) {
        uint16_t lanes[4];
        _mm_storel_epi64((__m128i *)lanes, v);
        for (int64_t i = 0; i < n; i++) p[i] = lanes[i];
      }
      """,
      "mcc_store_tail_8": """
      /* The low byte of each of the first n lanes. */
      static inline void mcc_store_tail_8(void *p, __m128i v, int64_t n) {
        const __m128i low = _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
        const int32_t bytes = _mm_cvtsi128_si32(_mm_shuffle_epi8(v, low));
        memcpy(p, &bytes, (size_t)n);
      }
      """,
      "mcc_f16_to_f32": """
      /* Denormals come out right because 2^112 scales them like all others. */
      static inline __m128 mcc_f16_to_f32(__m128i h) {
        const __m128i exponent = _mm_set1_epi32(0x7c00);
        const __m128i shifted = _mm_slli_epi32(_mm_and_si128(h, _mm_set1_epi32(0x7fff)), 13);
        const __m128 scaled = _mm_mul_ps(_mm_castsi128_ps(shifted), _mm_set1_ps(0x1p112f));
        const __m128i special = _mm_cmpeq_epi32(_mm_and_si128(h, exponent), exponent);
        const __m128i infinite = _mm_and_si128(special, _mm_set1_epi32(0x7f800000));
        const __m128i sign = _mm_slli_epi32(_mm_and_si128(h, _mm_set1_epi32(0x8000)), 16);
        return _mm_or_ps(scaled, _mm_castsi128_ps(_mm_or_si128(infinite, sign)));
      }
      """,
      "mcc_f32_to_f16": """
      /* Rounds to nearest even, overflow gives infinity, a NaN stays a quiet NaN. */
      static inline __m128i mcc_f32_to_f16(__m128 v) {
        const __m128i bits = _mm_castps_si128(v);
        const __m128i magnitude = _mm_and_si128(bits, _mm_set1_epi32(0x7fffffff));
        const __m128i odd = _mm_and_si128(_mm_srli_epi32(bits, 13), _mm_set1_epi32(1));
        const __m128i rebased = _mm_add_epi32(magnitude, _mm_set1_epi32(0xfff - 0x38000000));
        const __m128i normal = _mm_srli_epi32(_mm_add_epi32(rebased, odd), 13);
        /* The sum with 1/2 has the spacing of the denormals. */
        const __m128 half = _mm_set1_ps(0.5f);
        const __m128i tiny = _mm_sub_epi32(
            _mm_castps_si128(_mm_add_ps(_mm_castsi128_ps(magnitude), half)), _mm_castps_si128(half));
        const __m128i payload = _mm_and_si128(_mm_srli_epi32(bits, 13), _mm_set1_epi32(0x3ff));
        const __m128i nan = _mm_and_si128(_mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7f800000)),
                                          _mm_or_si128(payload, _mm_set1_epi32(0x200)));
        const __m128i large = _mm_or_si128(nan, _mm_set1_epi32(0x7c00));
        const __m128i finite =
            _mm_blendv_epi8(normal, tiny, _mm_cmplt_epi32(magnitude, _mm_set1_epi32(0x38800000)));
        const __m128i half_bits =
            _mm_blendv_epi8(finite, large, _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x477fffff)));
        const __m128i sign = _mm_srli_epi32(_mm_andnot_si128(_mm_set1_epi32(0x7fffffff), bits), 16);
        return _mm_packus_epi32(_mm_or_si128(half_bits, sign), _mm_setzero_si128());
      }
      """,
      "mcc_f16_element": """
      static inline float mcc_f16_element(uint16_t h) {
        return _mm_cvtss_f32(mcc_f16_to_f32(_mm_cvtsi32_si128(h)));
      }
      """,
      "mcc_f16_bits": """
      static inline uint16_t mcc_f16_bits(float value) {
        return (uint16_t)_mm_cvtsi128_si32(mcc_f32_to_f16(_mm_set_ss(value)));
      }
      """,
      "mcc_f32_to_bf16": """
      /* Rounds to nearest even; a NaN stays a quiet NaN. */
      static inline __m128i mcc_f32_to_bf16(__m128 v) {
        const __m128i bits = _mm_castps_si128(v);
        const __m128i odd = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(1));
        const __m128i rounded = _mm_add_epi32(_mm_add_epi32(bits, _mm_set1_epi32(0x7fff)), odd);
        const __m128i quiet = _mm_or_si128(bits, _mm_set1_epi32(0x400000));
        const __m128i nan = _mm_castps_si128(_mm_cmpunord_ps(v, v));
        return _mm_packus_epi32(_mm_srli_epi32(_mm_blendv_epi8(rounded, quiet, nan), 16), _mm_setzero_si128());
      }
      """,
      "mcc_reduce_sum": """
      static inline float mcc_reduce_sum(__m128 s) {
        s = _mm_add_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
      }
      """,
      "mcc_reduce_max": """
      static inline float mcc_reduce_max(__m128 s) {
        s = _mm_max_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
      }
      """,
      "mcc_reduce_min": """
      static inline float mcc_reduce_min(__m128 s) {
        s = _mm_min_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_min_ss(s, _mm_movehdup_ps(s)));
      }
      """,
      "mcc_reduce_sum_i32": """
      static inline int32_t mcc_reduce_sum_i32(__m128i s) {
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
        return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
      }
      """,
      "mcc_dot_i8": """
      /* s + products of four signed bytes per lane; 128 * 127 * 2 fits the 16-bit sums. */
      static inline __m128i mcc_dot_i8(__m128i s, __m128i w, __m128i a) {
        const __m128i pairs = _mm_maddubs_epi16(_mm_abs_epi8(w), _mm_sign_epi8(a, w));
        return _mm_add_epi32(s, _mm_madd_epi16(pairs, _mm_set1_epi16(1)));
      }
      """,
      "mcc_dot_i8u8": """
      /* s + products of four signed and four unsigned bytes per lane, widened to 16 bits: 255 * 128 * 2 does not fit them. */
      static inline __m128i mcc_dot_i8u8(__m128i s, __m128i w, __m128i a) {
        const __m128i even = _mm_madd_epi16(_mm_srai_epi16(_mm_slli_epi16(w, 8), 8),
                                            _mm_and_si128(a, _mm_set1_epi16(255)));
        const __m128i odd = _mm_madd_epi16(_mm_srai_epi16(w, 8), _mm_srli_epi16(a, 8));
        return _mm_add_epi32(s, _mm_add_epi32(even, odd));
      }
      """,
      "mcc_bf16_element": bf16Element,
      "mcc_bf16_bits": bf16Bits,
    ],
    eightBitWeights: .i8, stepsPerFlush: [.u4: 8])
}
