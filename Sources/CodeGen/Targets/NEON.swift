extension Target {
  /// aarch64 as every such CPU has it: Armv8-A with Advanced SIMD.
  package static let neon = Target(
    name: "aarch64-neon", suffix: "neon", summary: "aarch64 with NEON (Armv8-A)", architecture: .aarch64,
    features: ["asimd"], vectorBytes: 16, vectorRegisters: 32, compilerFlags: commonFlags + ["-march=armv8-a"],
    cacheBytes: (level1: 32 << 10, level2: 512 << 10),
    throughput: Throughput(floatOperations: 40e9, byteOperations: 60e9, bytes: 10e9), vocabulary: .neon)
}

extension Vocabulary {
  static let neon = Vocabulary(
    f32: "float32x4_t", i32: "int32x4_t", mask: "uint32x4_t",
    preamble: ["#include <arm_neon.h>"],
    verbs: [
      "load.f32": "vld1q_f32($0)",
      "load.f16": "vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16($0)))",
      "load.bf16": "vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16($0)), 16))",
      "load.i32": "vld1q_s32((const int32_t *)($0))",
      "load.i8": "mcc_load_tail_i8($0, 4)",
      "load.u8": "mcc_load_tail_u8($0, 4)",
      "loadTail.f32": "mcc_load_tail($0, $1)",
      "loadTail.f16": "vcvt_f32_f16(vreinterpret_f16_u16(mcc_load_tail_16($0, $1)))",
      "loadTail.bf16": "vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(mcc_load_tail_16($0, $1)), 16))",
      "loadTail.i32": "vreinterpretq_s32_f32(mcc_load_tail((const float *)($0), $1))",
      "loadTail.i8": "mcc_load_tail_i8($0, $1)",
      "loadTail.u8": "mcc_load_tail_u8($0, $1)",
      "store.f32": "vst1q_f32($0, $1)",
      "store.f16": "vst1_u16($0, vreinterpret_u16_f16(vcvt_f16_f32($1)))",
      "store.bf16": "vst1_u16($0, mcc_f32_to_bf16($1))",
      "store.i32": "vst1q_s32((int32_t *)($0), $1)",
      "store.i8": "mcc_store_tail_8($0, $1, 4)",
      "store.u8": "mcc_store_tail_8($0, $1, 4)",
      "storeTail.f32": "mcc_store_tail($0, $1, $2)",
      "storeTail.f16": "mcc_store_tail_16($0, vreinterpret_u16_f16(vcvt_f16_f32($1)), $2)",
      "storeTail.bf16": "mcc_store_tail_16($0, mcc_f32_to_bf16($1), $2)",
      "storeTail.i32": "mcc_store_tail((float *)($0), vreinterpretq_f32_s32($1), $2)",
      "storeTail.i8": "mcc_store_tail_8($0, $1, $2)",
      "storeTail.u8": "mcc_store_tail_8($0, $1, $2)",
      "broadcast.f32": "vdupq_n_f32($0)", "zero.f32": "vdupq_n_f32(0.0f)",
      "broadcast.i32": "vdupq_n_s32($0)", "zero.i32": "vdupq_n_s32(0)",
      "repeat2.f32": "vreinterpretq_f32_f64(vld1q_dup_f64((const double *)($0)))", "repeat4.f32": "vld1q_f32($0)",
      "exchange1.f32": "vrev64q_f32($0)", "exchange2.f32": "mcc_exchange2($0)",
      "lanes": "((int32x4_t){0, 1, 2, 3})",
      "add.f32": "vaddq_f32($0, $1)", "sub.f32": "vsubq_f32($0, $1)", "mul.f32": "vmulq_f32($0, $1)",
      "div.f32": "vdivq_f32($0, $1)", "min.f32": "mcc_min($0, $1)", "max.f32": "mcc_max($0, $1)",
      "fma.f32": "vfmaq_f32($2, $0, $1)", "fmaElement.f32": "fmaf($0, $1, $2)",
      "neg.f32": "vnegq_f32($0)", "abs.f32": "vabsq_f32($0)", "sqrt.f32": "vsqrtq_f32($0)",
      "floor.f32": "vrndmq_f32($0)", "round.f32": "vrndnq_f32($0)",
      "lt.f32": "vcltq_f32($0, $1)", "le.f32": "vcleq_f32($0, $1)", "gt.f32": "vcgtq_f32($0, $1)",
      "ge.f32": "vcgeq_f32($0, $1)", "eq.f32": "vceqq_f32($0, $1)", "ne.f32": "vmvnq_u32(vceqq_f32($0, $1))",
      "lt.i32": "vcltq_s32($0, $1)", "gt.i32": "vcgtq_s32($0, $1)", "eq.i32": "vceqq_s32($0, $1)",
      "select.f32": "vbslq_f32($0, $1, $2)", "select.i32": "vbslq_s32($0, $1, $2)",
      "and.mask": "vandq_u32($0, $1)", "or.mask": "vorrq_u32($0, $1)", "not.mask": "vmvnq_u32($0)",
      "add.i32": "vaddq_s32($0, $1)", "sub.i32": "vsubq_s32($0, $1)", "mul.i32": "vmulq_s32($0, $1)",
      "min.i32": "vminq_s32($0, $1)", "max.i32": "vmaxq_s32($0, $1)", "and.i32": "vandq_s32($0, $1)",
      "or.i32": "vorrq_s32($0, $1)", "xor.i32": "veorq_s32($0, $1)",
      // Intrinsics for shifts to the right refuse a count of 0, which generated code may have.
      "shl.i32": "vshlq_n_s32($0, $1)", "shr.i32": "(int32x4_t)((uint32x4_t)$0 >> $1)", "sra.i32": "($0 >> $1)",
      "convert.i32": "vcvtnq_s32_f32($0)", "convert.f32": "vcvtq_f32_s32($0)",
      "reinterpret.i32": "vreinterpretq_s32_f32($0)", "reinterpret.f32": "vreinterpretq_f32_s32($0)",
      "lookup.i8":
        "vreinterpretq_s32_s8(vqtbl1q_s8(vreinterpretq_s8_s32($0), vreinterpretq_u8_s32($1)))",
      "reduce.sum.f32": "vaddvq_f32($0)", "reduce.max.f32": "vmaxvq_f32($0)", "reduce.min.f32": "vminvq_f32($0)",
      "reduce.sum.i32": "vaddvq_s32($0)",
      "element.f16": "mcc_f16_element($0)", "element.bf16": "mcc_bf16_element($0)",
      "storeElement.f16": "mcc_f16_bits($0)", "storeElement.bf16": "mcc_bf16_bits($0)",
      "dotStep.u4": "mcc_dot_step($0, $1, $2)",
      "dotFlush.u4": "vpadalq_s16($0, vreinterpretq_s16_s32($1))",
      "dotStep.i8": "mcc_dot_i8($0, $1, $2)",
      "dotStep.i8u8": "mcc_dot_i8u8($0, $1, $2)",
    ],
    functions: neonFunctions.merging([
      "mcc_dot_pairs": """
      /* Sums of two neighbouring products of bytes; 128 * 127 * 2 fits 16 bits. */
      static inline int16x8_t mcc_dot_pairs(int32x4_t w, int32x4_t a) {
        const int8x16_t x = vreinterpretq_s8_s32(w), y = vreinterpretq_s8_s32(a);
        return vpaddq_s16(vmull_s8(vget_low_s8(x), vget_low_s8(y)), vmull_high_s8(x, y));
      }
      """,
      "mcc_dot_step": """
      static inline int32x4_t mcc_dot_step(int32x4_t s, int32x4_t w, int32x4_t a) {
        return vreinterpretq_s32_s16(vaddq_s16(vreinterpretq_s16_s32(s), mcc_dot_pairs(w, a)));
      }
      """,
      "mcc_dot_i8": """
      static inline int32x4_t mcc_dot_i8(int32x4_t s, int32x4_t w, int32x4_t a) {
        return vpadalq_s16(s, mcc_dot_pairs(w, a));
      }
      """,
      "mcc_dot_i8u8": """
      /* s + products of four signed and four unsigned bytes per lane, which fit 16 bits one by one. */
      static inline int32x4_t mcc_dot_i8u8(int32x4_t s, int32x4_t w, int32x4_t a) {
        const int8x16_t x = vreinterpretq_s8_s32(w);
        const uint8x16_t y = vreinterpretq_u8_s32(a);
        const int16x8_t low = vmulq_s16(vmovl_s8(vget_low_s8(x)), vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(y))));
        const int16x8_t high = vmulq_s16(vmovl_high_s8(x), vreinterpretq_s16_u16(vmovl_high_u8(y)));
        return vaddq_s32(s, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
      }
      """,
    ]) { first, _ in first },
    eightBitWeights: .i8, stepsPerFlush: [.u4: 8])

  private static let neonFunctions: [String: String] = [
    "mcc_exchange2": """
    static inline float32x4_t mcc_exchange2(float32x4_t x) {
      return vextq_f32(x, x, 2);
    }
    """,
    "mcc_load_tail": """
    static inline float32x4_t mcc_load_tail(const float *p, int64_t n) {
      if (n > 3) return vld1q_f32(p);
      float32x4_t v = vdupq_n_f32(0.0f);
      if (n > 0) v = vld1q_lane_f32(p, v, 0);
      if (n > 1) v = vld1q_lane_f32(p + 1, v, 1);
      if (n > 2) v = vld1q_lane_f32(p + 2, v, 2);
      return v;
    }
    """,
    "mcc_load_tail_16": """
    static inline uint16x4_t mcc_load_tail_16(const uint16_t *p, int64_t n) {
      if (n > 3) return vld1_u16(p);
      uint16x4_t v = vdup_n_u16(0);
      if (n > 0) v = vld1_lane_u16(p, v, 0);
      if (n > 1) v = vld1_lane_u16(p + 1, v, 1);
      if (n > 2) v = vld1_lane_u16(p + 2, v, 2);
      return v;
    }
    """,
    "mcc_load_tail_i8": """
    static inline int32x4_t mcc_load_tail_i8(const void *p, int64_t n) {
      uint32_t bytes = 0;
      memcpy(&bytes, p, (size_t)n);
      return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(bytes))));
    }
    """,
    "mcc_load_tail_u8": """
    static inline int32x4_t mcc_load_tail_u8(const void *p, int64_t n) {
      uint32_t bytes = 0;
      memcpy(&bytes, p, (size_t)n);
      return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(bytes)))));
    }
    """,
    "mcc_store_tail": """
    static inline void mcc_store_tail(float *p, float32x4_t v, int64_t n) {
      if (n > 3) {
        vst1q_f32(p, v);
        return;
      }
      if (n > 0) vst1q_lane_f32(p, v, 0);
      if (n > 1) vst1q_lane_f32(p + 1, v, 1);
      if (n > 2) vst1q_lane_f32(p + 2, v, 2);
    }
    """,
    "mcc_store_tail_16": """
    static inline void mcc_store_tail_16(uint16_t *p, uint16x4_t v, int64_t n) {
      if (n > 3) {
        vst1_u16(p, v);
        return;
      }
      if (n > 0) vst1_lane_u16(p, v, 0);
      if (n > 1) vst1_lane_u16(p + 1, v, 1);
      if (n > 2) vst1_lane_u16(p + 2, v, 2);
    }
    """,
    "mcc_store_tail_8": """
    /* The low byte of each of the first n lanes. */
    static inline void mcc_store_tail_8(void *p, int32x4_t v, int64_t n) {
      const int16x4_t pairs = vmovn_s32(v);
      const uint32_t bytes = vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(pairs, pairs))), 0);
      memcpy(p, &bytes, (size_t)n);
    }
    """,
    "mcc_min": """
    /* With a NaN the second operand wins. */
    static inline float32x4_t mcc_min(float32x4_t a, float32x4_t b) {
      return vbslq_f32(vcltq_f32(a, b), a, b);
    }
    """,
    "mcc_max": """
    /* With a NaN the second operand wins. */
    static inline float32x4_t mcc_max(float32x4_t a, float32x4_t b) {
      return vbslq_f32(vcgtq_f32(a, b), a, b);
    }
    """,
    "mcc_f32_to_bf16": """
    /* Rounds to nearest even; a NaN stays a quiet NaN. */
    static inline uint16x4_t mcc_f32_to_bf16(float32x4_t v) {
      const uint32x4_t bits = vreinterpretq_u32_f32(v);
      const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
      const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
      const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
      return vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), rounded, quiet), 16);
    }
    """,
    "mcc_f16_element": """
    static inline float mcc_f16_element(uint16_t h) {
      return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
    }
    """,
    "mcc_f16_bits": """
    static inline uint16_t mcc_f16_bits(float value) {
      return vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(value))), 0);
    }
    """,
    "mcc_bf16_element": bf16Element,
    "mcc_bf16_bits": bf16Bits,
  ]
}
