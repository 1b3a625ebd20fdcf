extension Target {
  /// x86-64 with AVX-512 (F, BW, VL, DQ) and VNNI: Ice Lake, Zen 4 and later.
  package static let x86v4 = Target(
    name: "x86-64-v4", suffix: "avx512", summary: "x86-64 with AVX-512 F/BW/VL/DQ and VNNI",
    architecture: .x86_64,
    features: [
      "avx2", "fma", "f16c", "bmi2", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd", "avx512_vnni",
    ],
    vectorBytes: 64, vectorRegisters: 32,
    compilerFlags: commonFlags + ["-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"],
    cacheBytes: (level1: 32 << 10, level2: 1 << 20),
    throughput: Throughput(floatOperations: 200e9, byteOperations: 600e9, bytes: 25e9), vocabulary: .avx512)
}

extension Vocabulary {
  static let avx512 = Vocabulary(
    f32: "__m512", i32: "__m512i", mask: "__mmask16",
    preamble: ["#include <immintrin.h>"],
    verbs: [
      "load.f32": "_mm512_loadu_ps($0)",
      "load.f16": "_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)($0)))",
      "load.bf16":
        "_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)($0))), 16))",
      "load.i32": "_mm512_loadu_si512($0)",
      "load.i8": "_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)($0)))",
      "load.u8": "_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)($0)))",
      "loadTail.f32": "_mm512_maskz_loadu_ps(mcc_tail($1), $0)",
      "loadTail.f16": "_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mcc_tail($1), $0))",
      "loadTail.bf16":
        "_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mcc_tail($1), $0)), 16))",
      "loadTail.i32": "_mm512_maskz_loadu_epi32(mcc_tail($1), $0)",
      "loadTail.i8": "_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mcc_tail($1), $0))",
      "loadTail.u8": "_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mcc_tail($1), $0))",
      "store.f32": "_mm512_storeu_ps($0, $1)",
      "store.f16": "_mm256_storeu_si256((__m256i *)($0), _mm512_cvtps_ph($1, _MM_FROUND_TO_NEAREST_INT))",
      "store.bf16": "_mm256_storeu_si256((__m256i *)($0), mcc_f32_to_bf16($1))",
      "store.i32": "_mm512_storeu_si512($0, $1)",
      "store.i8": "_mm_storeu_si128((__m128i *)($0), _mm512_cvtepi32_epi8($1))",
      "store.u8": "_mm_storeu_si128((__m128i *)($0), _mm512_cvtepi32_epi8($1))",
      "storeTail.f32": "_mm512_mask_storeu_ps($0, mcc_tail($2), $1)",
      "storeTail.f16": "_mm256_mask_storeu_epi16($0, mcc_tail($2), _mm512_cvtps_ph($1, _MM_FROUND_TO_NEAREST_INT))",
      "storeTail.bf16": "_mm256_mask_storeu_epi16($0, mcc_tail($2), mcc_f32_to_bf16($1))",
      "storeTail.i32": "_mm512_mask_storeu_epi32($0, mcc_tail($2), $1)",
      "storeTail.i8": "_mm_mask_storeu_epi8($0, mcc_tail($2), _mm512_cvtepi32_epi8($1))",
      "storeTail.u8": "_mm_mask_storeu_epi8($0, mcc_tail($2), _mm512_cvtepi32_epi8($1))",
      "broadcast.f32": "_mm512_set1_ps($0)", "zero.f32": "_mm512_setzero_ps()",
      "broadcast.i32": "_mm512_set1_epi32($0)", "zero.i32": "_mm512_setzero_si512()",
      "repeat2.f32": "_mm512_castpd_ps(_mm512_broadcastsd_pd(_mm_load_sd((const double *)($0))))",
      "repeat4.f32": "_mm512_broadcast_f32x4(_mm_loadu_ps($0))",
      "exchange1.f32": "_mm512_permute_ps($0, 0xb1)", "exchange2.f32": "_mm512_permute_ps($0, 0x4e)",
      "exchange4.f32": "_mm512_castpd_ps(_mm512_permutex_pd(_mm512_castps_pd($0), 0x4e))",
      "exchange8.f32":
        "_mm512_castsi512_ps(_mm512_permutexvar_epi64(_mm512_setr_epi64(4, 5, 6, 7, 0, 1, 2, 3), _mm512_castps_si512($0)))",
      "lanes": "_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)",
      "add.f32": "_mm512_add_ps($0, $1)", "sub.f32": "_mm512_sub_ps($0, $1)", "mul.f32": "_mm512_mul_ps($0, $1)",
      "div.f32": "_mm512_div_ps($0, $1)", "min.f32": "_mm512_min_ps($0, $1)", "max.f32": "_mm512_max_ps($0, $1)",
      "fma.f32": "_mm512_fmadd_ps($0, $1, $2)", "fmaElement.f32": "fmaf($0, $1, $2)",
      "neg.f32": "_mm512_xor_ps($0, _mm512_set1_ps(-0.0f))", "abs.f32": "_mm512_abs_ps($0)",
      "sqrt.f32": "_mm512_sqrt_ps($0)",
      "floor.f32": "_mm512_roundscale_ps($0, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)",
      "round.f32": "_mm512_roundscale_ps($0, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)",
      "lt.f32": "_mm512_cmp_ps_mask($0, $1, _CMP_LT_OQ)", "le.f32": "_mm512_cmp_ps_mask($0, $1, _CMP_LE_OQ)",
      "gt.f32": "_mm512_cmp_ps_mask($0, $1, _CMP_GT_OQ)", "ge.f32": "_mm512_cmp_ps_mask($0, $1, _CMP_GE_OQ)",
      "eq.f32": "_mm512_cmp_ps_mask($0, $1, _CMP_EQ_OQ)", "ne.f32": "_mm512_cmp_ps_mask($0, $1, _CMP_NEQ_UQ)",
      "lt.i32": "_mm512_cmplt_epi32_mask($0, $1)", "gt.i32": "_mm512_cmpgt_epi32_mask($0, $1)",
      "eq.i32": "_mm512_cmpeq_epi32_mask($0, $1)",
      "select.f32": "_mm512_mask_blend_ps($0, $2, $1)", "select.i32": "_mm512_mask_blend_epi32($0, $2, $1)",
      "and.mask": "(__mmask16)($0 & $1)", "or.mask": "(__mmask16)($0 | $1)", "not.mask": "(__mmask16)~$0",
      "add.i32": "_mm512_add_epi32($0, $1)", "sub.i32": "_mm512_sub_epi32($0, $1)",
      "mul.i32": "_mm512_mullo_epi32($0, $1)", "min.i32": "_mm512_min_epi32($0, $1)",
      "max.i32": "_mm512_max_epi32($0, $1)", "and.i32": "_mm512_and_si512($0, $1)",
      "or.i32": "_mm512_or_si512($0, $1)", "xor.i32": "_mm512_xor_si512($0, $1)",
      "shl.i32": "_mm512_slli_epi32($0, $1)", "shr.i32": "_mm512_srli_epi32($0, $1)",
      "sra.i32": "_mm512_srai_epi32($0, $1)",
      "convert.i32": "_mm512_cvtps_epi32($0)", "convert.f32": "_mm512_cvtepi32_ps($0)",
      "reinterpret.i32": "_mm512_castps_si512($0)", "reinterpret.f32": "_mm512_castsi512_ps($0)",
      "lookup.i8": "_mm512_shuffle_epi8($0, $1)",
      "reduce.sum.f32": "_mm512_reduce_add_ps($0)", "reduce.max.f32": "_mm512_reduce_max_ps($0)",
      "reduce.min.f32": "_mm512_reduce_min_ps($0)", "reduce.sum.i32": "_mm512_reduce_add_epi32($0)",
      "element.f16": "_cvtsh_ss($0)", "element.bf16": "mcc_bf16_element($0)",
      "storeElement.f16": "_cvtss_sh($0, _MM_FROUND_TO_NEAREST_INT)", "storeElement.bf16": "mcc_bf16_bits($0)",
      "dotStep.u4": "_mm512_dpbusd_epi32($0, $1, $2)",
      "dotStep.u8": "_mm512_dpbusd_epi32($0, $1, $2)",
      "dotStep.i8u8": "_mm512_dpbusd_epi32($0, $2, $1)",
    ],
    functions: [
      "mcc_tail": """
      /* The first n of 16 lanes. */
      static inline __mmask16 mcc_tail(int64_t n) {
        return (__mmask16)((1u << n) - 1);
      }
      """,
      "mcc_f32_to_bf16": """
      /* Rounds to nearest even; a NaN stays a quiet NaN. */
      static inline __m256i mcc_f32_to_bf16(__m512 v) {
        const __m512i bits = _mm512_castps_si512(v);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
        const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
        return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16));
      }
      """,
      "mcc_bf16_element": bf16Element,
      "mcc_bf16_bits": bf16Bits,
    ],
    eightBitWeights: .u8, stepsPerFlush: [:])
}
