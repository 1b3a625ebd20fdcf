extension Target {
  /// x86-64 with AVX2, FMA and F16C: Haswell, Zen and later.
  package static let x86v3 = Target(
    name: "x86-64-v3", suffix: "avx2", summary: "x86-64 with AVX2, FMA and F16C", architecture: .x86_64,
    features: ["avx2", "fma", "f16c", "bmi2"], vectorBytes: 32, vectorRegisters: 16,
    compilerFlags: commonFlags + ["-march=x86-64-v3"], cacheBytes: (level1: 32 << 10, level2: 512 << 10),
    throughput: Throughput(floatOperations: 100e9, byteOperations: 160e9, bytes: 20e9), vocabulary: .avx2,
    loopsOverTokens: true)
}

extension Vocabulary {
  static let avx2 = Vocabulary(
    f32: "__m256", i32: "__m256i", mask: "__m256",
    preamble: ["#include <immintrin.h>"],
    verbs: [
      "load.f32": "_mm256_loadu_ps($0)",
      "load.f16": "_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)($0)))",
      "load.bf16":
        "_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)($0))), 16))",
      "load.i32": "_mm256_loadu_si256((const __m256i *)($0))",
      "load.i8": "_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)($0)))",
      "load.u8": "_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)($0)))",
      "loadTail.f32": "_mm256_maskload_ps($0, mcc_tail($1))",
      "loadTail.f16": "_mm256_cvtph_ps(mcc_load_tail_16($0, $1))",
      "loadTail.bf16":
        "_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(mcc_load_tail_16($0, $1)), 16))",
      "loadTail.i32": "_mm256_maskload_epi32((const int *)($0), mcc_tail($1))",
      "loadTail.i8": "_mm256_cvtepi8_epi32(mcc_load_tail_8($0, $1))",
      "loadTail.u8": "_mm256_cvtepu8_epi32(mcc_load_tail_8($0, $1))",
      "store.f32": "_mm256_storeu_ps($0, $1)",
      "store.f16": "_mm_storeu_si128((__m128i *)($0), _mm256_cvtps_ph($1, _MM_FROUND_TO_NEAREST_INT))",
      "store.bf16": "_mm_storeu_si128((__m128i *)($0), mcc_f32_to_bf16($1))",
      "store.i32": "_mm256_storeu_si256((__m256i *)($0), $1)",
      "store.i8": "_mm_storel_epi64((__m128i *)($0), mcc_narrow_8($1))",
      "store.u8": "_mm_storel_epi64((__m128i *)($0), mcc_narrow_8($1))",
      "storeTail.f32": "_mm256_maskstore_ps($0, mcc_tail($2), $1)",
      "storeTail.f16": "mcc_store_tail_16($0, _mm256_cvtps_ph($1, _MM_FROUND_TO_NEAREST_INT), $2)",
      "storeTail.bf16": "mcc_store_tail_16($0, mcc_f32_to_bf16($1), $2)",
      "storeTail.i32": "_mm256_maskstore_epi32((int *)($0), mcc_tail($2), $1)",
      "storeTail.i8": "mcc_store_tail_8($0, mcc_narrow_8($1), $2)",
      "storeTail.u8": "mcc_store_tail_8($0, mcc_narrow_8($1), $2)",
      "broadcast.f32": "_mm256_set1_ps($0)", "zero.f32": "_mm256_setzero_ps()",
      "broadcast.i32": "_mm256_set1_epi32($0)", "zero.i32": "_mm256_setzero_si256()",
      "repeat2.f32": "_mm256_castpd_ps(_mm256_broadcast_sd((const double *)($0)))",
      "repeat4.f32": "_mm256_broadcast_ps((const __m128 *)($0))",
      "exchange1.f32": "_mm256_permute_ps($0, 0xb1)", "exchange2.f32": "_mm256_permute_ps($0, 0x4e)",
      "exchange4.f32": "_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd($0), 0x4e))",
      "lanes": "_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)",
      "add.f32": "_mm256_add_ps($0, $1)", "sub.f32": "_mm256_sub_ps($0, $1)", "mul.f32": "_mm256_mul_ps($0, $1)",
      "div.f32": "_mm256_div_ps($0, $1)", "min.f32": "_mm256_min_ps($0, $1)", "max.f32": "_mm256_max_ps($0, $1)",
      "fma.f32": "_mm256_fmadd_ps($0, $1, $2)", "fmaElement.f32": "fmaf($0, $1, $2)",
      "neg.f32": "_mm256_xor_ps($0, _mm256_set1_ps(-0.0f))", "abs.f32": "_mm256_andnot_ps(_mm256_set1_ps(-0.0f), $0)",
      "sqrt.f32": "_mm256_sqrt_ps($0)", "floor.f32": "_mm256_floor_ps($0)",
      "round.f32": "_mm256_round_ps($0, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)",
      "lt.f32": "_mm256_cmp_ps($0, $1, _CMP_LT_OQ)", "le.f32": "_mm256_cmp_ps($0, $1, _CMP_LE_OQ)",
      "gt.f32": "_mm256_cmp_ps($0, $1, _CMP_GT_OQ)", "ge.f32": "_mm256_cmp_ps($0, $1, _CMP_GE_OQ)",
      "eq.f32": "_mm256_cmp_ps($0, $1, _CMP_EQ_OQ)", "ne.f32": "_mm256_cmp_ps($0, $1, _CMP_NEQ_UQ)",
      "lt.i32": "_mm256_castsi256_ps(_mm256_cmpgt_epi32($1, $0))",
      "gt.i32": "_mm256_castsi256_ps(_mm256_cmpgt_epi32($0, $1))",
      "eq.i32": "_mm256_castsi256_ps(_mm256_cmpeq_epi32($0, $1))",
      "select.f32": "_mm256_blendv_ps($2, $1, $0)",
      "select.i32":
        "_mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps($2), _mm256_castsi256_ps($1), $0))",
      "and.mask": "_mm256_and_ps($0, $1)", "or.mask": "_mm256_or_ps($0, $1)",
      "not.mask": "_mm256_xor_ps($0, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))",
      "add.i32": "_mm256_add_epi32($0, $1)", "sub.i32": "_mm256_sub_epi32($0, $1)",
      "mul.i32": "_mm256_mullo_epi32($0, $1)", "min.i32": "_mm256_min_epi32($0, $1)",
      "max.i32": "_mm256_max_epi32($0, $1)", "and.i32": "_mm256_and_si256($0, $1)",
      "or.i32": "_mm256_or_si256($0, $1)", "xor.i32": "_mm256_xor_si256($0, $1)",
      "shl.i32": "_mm256_slli_epi32($0, $1)", "shr.i32": "_mm256_srli_epi32($0, $1)",
      "sra.i32": "_mm256_srai_epi32($0, $1)",
      "convert.i32": "_mm256_cvtps_epi32($0)", "convert.f32": "_mm256_cvtepi32_ps($0)",
      "reinterpret.i32": "_mm256_castps_si256($0)", "reinterpret.f32": "_mm256_castsi256_ps($0)",
      "lookup.i8": "_mm256_shuffle_epi8($0, $1)",
      "reduce.sum.f32": "mcc_reduce_sum($0)", "reduce.max.f32": "mcc_reduce_max($0)",
      "reduce.min.f32": "mcc_reduce_min($0)", "reduce.sum.i32": "mcc_reduce_sum_i32($0)",
      "element.f16": "_cvtsh_ss($0)", "element.bf16": "mcc_bf16_element($0)",
      "storeElement.f16": "_cvtss_sh($0, _MM_FROUND_TO_NEAREST_INT)", "storeElement.bf16": "mcc_bf16_bits($0)",
      "dotStep.u4": "_mm256_add_epi16($0, _mm256_maddubs_epi16($1, $2))",
      "dotFlush.u4": "_mm256_add_epi32($0, _mm256_madd_epi16($1, _mm256_set1_epi16(1)))",
      "dotStep.i8": "mcc_dot_i8($0, $1, $2)",
      "dotStep.i8u8": "mcc_dot_i8u8($0, $1, $2)",
    ],
    functions: [
      "mcc_tail": """
      /* All bits of the first n of 8 lanes. */
      static inline __m256i mcc_tail(int64_t n) {
        return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
      }
      """,
      "mcc_load_tail_16": """
      static inline __m128i mcc_load_tail_16(const uint16_t *p, int64_t n) {
        uint16_t lanes[8] = {0};
        for (int64_t i = 0; i < n; i++) lanes[i] = p[i];
        return _mm_loadu_si128((const __m128i *)lanes);
      }
      """,
      "mcc_load_tail_8": """
      static inline __m128i mcc_load_tail_8(const void *p, int64_t n) {
        uint8_t lanes[16] = {0};
        for (int64_t i = 0; i < n; i++) lanes[i] = ((const uint8_t *)p)[i];
        return _mm_loadu_si128((const __m128i *)lanes);
      }
      """,
      "mcc_store_tail_16": """
      static inline void mcc_store_tail_16(uint16_t *p, __m128i v, int64_t n) {
        uint16_t lanes[8];
        _mm_storeu_si128((__m128i *)lanes, v);
        for (int64_t i = 0; i < n; i++) p[i] = lanes[i];
      }
      """,
      "mcc_store_tail_8": """
      static inline void mcc_store_tail_8(void *p, __m128i v, int64_t n) {
        uint8_t lanes[16];
        _mm_storeu_si128((__m128i *)lanes, v);
        for (int64_t i = 0; i < n; i++) ((uint8_t *)p)[i] = lanes[i];
      }
      """,
      "mcc_narrow_8": """
      /* The low byte of each lane. */
      static inline __m128i mcc_narrow_8(__m256i v) {
        const __m256i low = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                             0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
        const __m256i bytes = _mm256_shuffle_epi8(v, low);
        return _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
      }
      """,
      "mcc_f32_to_bf16": """
      /* Rounds to nearest even; a NaN stays a quiet NaN. */
      static inline __m128i mcc_f32_to_bf16(__m256 v) {
        const __m256i bits = _mm256_castps_si256(v);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
        const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
        const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
        return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
      }
      """,
      "mcc_reduce_sum": """
      static inline float mcc_reduce_sum(__m256 v) {
        __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        s = _mm_add_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
      }
      """,
      "mcc_reduce_max": """
      static inline float mcc_reduce_max(__m256 v) {
        __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        s = _mm_max_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
      }
      """,
      "mcc_reduce_min": """
      static inline float mcc_reduce_min(__m256 v) {
        __m128 s = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        s = _mm_min_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_min_ss(s, _mm_movehdup_ps(s)));
      }
      """,
      "mcc_reduce_sum_i32": """
      static inline int32_t mcc_reduce_sum_i32(__m256i v) {
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
        return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
      }
      """,
      "mcc_dot_i8": """
      /* s + products of four signed bytes per lane; 128 * 127 * 2 fits the 16-bit sums. */
      static inline __m256i mcc_dot_i8(__m256i s, __m256i w, __m256i a) {
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
        return _mm256_add_epi32(s, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
      }
      """,
      "mcc_dot_i8u8": """
      /* s + products of four signed and four unsigned bytes per lane, widened to 16 bits: 255 * 128 * 2 does not fit them. */
      static inline __m256i mcc_dot_i8u8(__m256i s, __m256i w, __m256i a) {
        const __m256i even = _mm256_madd_epi16(_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8),
                                               _mm256_and_si256(a, _mm256_set1_epi16(255)));
        const __m256i odd = _mm256_madd_epi16(_mm256_srai_epi16(w, 8), _mm256_srli_epi16(a, 8));
        return _mm256_add_epi32(s, _mm256_add_epi32(even, odd));
      }
      """,
      "mcc_bf16_element": bf16Element,
      "mcc_bf16_bits": bf16Bits,
    ],
    eightBitWeights: .i8, stepsPerFlush: [.u4: 8])

  static let bf16Element = """
    static inline float mcc_bf16_element(uint16_t h) {
      const uint32_t bits = (uint32_t)h << 16;
      float value;
      memcpy(&value, &bits, 4);
      return value;
    }
    """

  static let bf16Bits = """
    /* Rounds to nearest even; a NaN stays a quiet NaN. */
    static inline uint16_t mcc_bf16_bits(float value) {
      uint32_t bits;
      memcpy(&bits, &value, 4);
      if (value != value) return (uint16_t)((bits | 0x400000) >> 16);
      return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
    """
}
