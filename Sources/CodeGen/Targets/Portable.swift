extension Target {
  /// Any CPU: C with the vector extensions of GCC and clang, 16-byte vectors.
  package static let portable = Target(
    name: "portable", suffix: "portable", summary: "any CPU, by the vector extensions of gcc and clang",
    architecture: nil, features: [], vectorBytes: 16, vectorRegisters: 16, compilerFlags: commonFlags,
    cacheBytes: (level1: 32 << 10, level2: 256 << 10),
    throughput: Throughput(floatOperations: 20e9, byteOperations: 20e9, bytes: 10e9), vocabulary: .portable,
    loopsOverTokens: true)
}

extension Vocabulary {
  static let portable = Vocabulary(
    f32: "mcc_f32x4", i32: "mcc_i32x4", mask: "mcc_i32x4",
    preamble: [
      "typedef float mcc_f32x4 __attribute__((vector_size(16)));",
      "typedef int32_t mcc_i32x4 __attribute__((vector_size(16)));",
      "typedef uint32_t mcc_u32x4 __attribute__((vector_size(16)));",
      "typedef int16_t mcc_i16x8 __attribute__((vector_size(16)));",
      "typedef uint8_t mcc_u8x16 __attribute__((vector_size(16)));",
      "typedef float mcc_f32x4u __attribute__((vector_size(16), aligned(4), may_alias));",
      "typedef int32_t mcc_i32x4u __attribute__((vector_size(16), aligned(1), may_alias));",
    ],
    verbs: [
      "load.f32": "*(const mcc_f32x4u *)($0)",
      "load.f16": "mcc_load_f16($0, 4)",
      "load.bf16": "mcc_load_bf16($0, 4)",
      "load.i32": "*(const mcc_i32x4u *)($0)",
      "load.i8": "mcc_load_i8($0, 4)",
      "load.u8": "mcc_load_u8($0, 4)",
      "loadTail.f32": "mcc_load_tail($0, $1)",
      "loadTail.f16": "mcc_load_f16($0, $1)",
      "loadTail.bf16": "mcc_load_bf16($0, $1)",
      "loadTail.i32": "mcc_load_tail_i32($0, $1)",
      "loadTail.i8": "mcc_load_i8($0, $1)",
      "loadTail.u8": "mcc_load_u8($0, $1)",
      "store.f32": "*(mcc_f32x4u *)($0) = $1",
      "store.f16": "mcc_store_f16($0, $1, 4)",
      "store.bf16": "mcc_store_bf16($0, $1, 4)",
      "store.i32": "*(mcc_i32x4u *)($0) = $1",
      "store.i8": "mcc_store_8($0, $1, 4)",
      "store.u8": "mcc_store_8($0, $1, 4)",
      "storeTail.f32": "mcc_store_tail($0, $1, $2)",
      "storeTail.f16": "mcc_store_f16($0, $1, $2)",
      "storeTail.bf16": "mcc_store_bf16($0, $1, $2)",
      "storeTail.i32": "mcc_store_tail_i32($0, $1, $2)",
      "storeTail.i8": "mcc_store_8($0, $1, $2)",
      "storeTail.u8": "mcc_store_8($0, $1, $2)",
      "broadcast.f32": "mcc_broadcast($0)", "zero.f32": "(mcc_f32x4){0}",
      "broadcast.i32": "mcc_broadcast_i32($0)", "zero.i32": "(mcc_i32x4){0}",
      "repeat2.f32": "mcc_repeat2($0)", "repeat4.f32": "*(const mcc_f32x4u *)($0)",
      "exchange1.f32": "mcc_exchange1($0)", "exchange2.f32": "mcc_exchange2($0)",
      "lanes": "(mcc_i32x4){0, 1, 2, 3}",
      "add.f32": "($0 + $1)", "sub.f32": "($0 - $1)", "mul.f32": "($0 * $1)", "div.f32": "($0 / $1)",
      "min.f32": "mcc_min($0, $1)", "max.f32": "mcc_max($0, $1)", "fma.f32": "($0 * $1 + $2)",
      "fmaElement.f32": "($0 * $1 + $2)",
      "neg.f32": "(-$0)", "abs.f32": "(mcc_f32x4)((mcc_i32x4)$0 & 0x7fffffff)",
      "sqrt.f32": "mcc_sqrt($0)", "floor.f32": "mcc_floor($0)", "round.f32": "mcc_round($0)",
      "lt.f32": "($0 < $1)", "le.f32": "($0 <= $1)", "gt.f32": "($0 > $1)", "ge.f32": "($0 >= $1)",
      "eq.f32": "($0 == $1)", "ne.f32": "($0 != $1)",
      "lt.i32": "($0 < $1)", "gt.i32": "($0 > $1)", "eq.i32": "($0 == $1)",
      "select.f32": "mcc_select($0, $1, $2)", "select.i32": "mcc_select_i32($0, $1, $2)",
      "and.mask": "($0 & $1)", "or.mask": "($0 | $1)", "not.mask": "(~$0)",
      "add.i32": "(mcc_i32x4)((mcc_u32x4)$0 + (mcc_u32x4)$1)", "sub.i32": "(mcc_i32x4)((mcc_u32x4)$0 - (mcc_u32x4)$1)",
      "mul.i32": "(mcc_i32x4)((mcc_u32x4)$0 * (mcc_u32x4)$1)", "min.i32": "mcc_select_i32($0 < $1, $0, $1)",
      "max.i32": "mcc_select_i32($0 > $1, $0, $1)", "and.i32": "($0 & $1)", "or.i32": "($0 | $1)",
      "xor.i32": "($0 ^ $1)",
      "shl.i32": "(mcc_i32x4)((mcc_u32x4)$0 << $1)", "shr.i32": "(mcc_i32x4)((mcc_u32x4)$0 >> $1)",
      "sra.i32": "($0 >> $1)",
      "convert.i32": "__builtin_convertvector(mcc_round($0), mcc_i32x4)",
      "convert.f32": "__builtin_convertvector($0, mcc_f32x4)",
      "reinterpret.i32": "(mcc_i32x4)($0)", "reinterpret.f32": "(mcc_f32x4)($0)",
      "lookup.i8": "mcc_lookup($0, $1)",
      "reduce.sum.f32": "mcc_reduce_sum($0)", "reduce.max.f32": "mcc_reduce_max($0)",
      "reduce.min.f32": "mcc_reduce_min($0)", "reduce.sum.i32": "mcc_reduce_sum_i32($0)",
      "element.f16": "mcc_f16_element($0)", "element.bf16": "mcc_bf16_element($0)",
      "storeElement.f16": "mcc_f16_bits($0)", "storeElement.bf16": "mcc_bf16_bits($0)",
      "dotStep.u4": "mcc_dot_i8($0, $1, $2)",
      "dotStep.i8": "mcc_dot_i8($0, $1, $2)",
      "dotStep.i8u8": "mcc_dot_i8u8($0, $1, $2)",
    ],
    functions: portableFunctions.merging([
      "mcc_bf16_element": bf16Element, "mcc_bf16_bits": bf16Bits,
    ]) { first, _ in first },
    eightBitWeights: .i8, stepsPerFlush: [:])

  private static let portableFunctions: [String: String] = [
    "mcc_repeat2": """
    static inline mcc_f32x4 mcc_repeat2(const float *p) {
      return (mcc_f32x4){p[0], p[1], p[0], p[1]};
    }
    """,
    "mcc_exchange1": """
    static inline mcc_f32x4 mcc_exchange1(mcc_f32x4 x) {
      return (mcc_f32x4){x[1], x[0], x[3], x[2]};
    }
    """,
    "mcc_exchange2": """
    static inline mcc_f32x4 mcc_exchange2(mcc_f32x4 x) {
      return (mcc_f32x4){x[2], x[3], x[0], x[1]};
    }
    """,
    "mcc_broadcast": """
    static inline mcc_f32x4 mcc_broadcast(float x) {
      return (mcc_f32x4){x, x, x, x};
    }
    """,
    "mcc_broadcast_i32": """
    static inline mcc_i32x4 mcc_broadcast_i32(int32_t x) {
      return (mcc_i32x4){x, x, x, x};
    }
    """,
    "mcc_load_tail": """
    static inline mcc_f32x4 mcc_load_tail(const float *p, int64_t n) {
      mcc_f32x4 v = {0};
      for (int64_t i = 0; i < n; i++) v[i] = p[i];
      return v;
    }
    """,
    "mcc_load_tail_i32": """
    static inline mcc_i32x4 mcc_load_tail_i32(const int32_t *p, int64_t n) {
      mcc_i32x4 v = {0};
      for (int64_t i = 0; i < n; i++) v[i] = p[i];
      return v;
    }
    """,
    "mcc_load_f16": """
    /* Denormals come out right because 2^112 scales them like all others. */
    static inline mcc_f32x4 mcc_load_f16(const uint16_t *p, int64_t n) {
      mcc_u32x4 h = {0};
      for (int64_t i = 0; i < n; i++) h[i] = p[i];
      const mcc_u32x4 shifted = (h & 0x7fff) << 13;
      const mcc_u32x4 special = (mcc_u32x4)((h & 0x7c00) == 0x7c00) & 0x7f800000;
      const mcc_f32x4 scaled = (mcc_f32x4)shifted * 0x1p112f;
      return (mcc_f32x4)((mcc_u32x4)scaled | special | (h & 0x8000) << 16);
    }
    """,
    "mcc_load_bf16": """
    static inline mcc_f32x4 mcc_load_bf16(const uint16_t *p, int64_t n) {
      mcc_u32x4 h = {0};
      for (int64_t i = 0; i < n; i++) h[i] = p[i];
      return (mcc_f32x4)(h << 16);
    }
    """,
    "mcc_load_i8": """
    static inline mcc_i32x4 mcc_load_i8(const int8_t *p, int64_t n) {
      mcc_i32x4 v = {0};
      for (int64_t i = 0; i < n; i++) v[i] = p[i];
      return v;
    }
    """,
    "mcc_load_u8": """
    static inline mcc_i32x4 mcc_load_u8(const uint8_t *p, int64_t n) {
      mcc_i32x4 v = {0};
      for (int64_t i = 0; i < n; i++) v[i] = p[i];
      return v;
    }
    """,
    "mcc_store_tail": """
    static inline void mcc_store_tail(float *p, mcc_f32x4 v, int64_t n) {
      for (int64_t i = 0; i < n; i++) p[i] = v[i];
    }
    """,
    "mcc_store_tail_i32": """
    static inline void mcc_store_tail_i32(int32_t *p, mcc_i32x4 v, int64_t n) {
      for (int64_t i = 0; i < n; i++) p[i] = v[i];
    }
    """,
    "mcc_store_f16": """
    static inline void mcc_store_f16(uint16_t *p, mcc_f32x4 v, int64_t n) {
      for (int64_t i = 0; i < n; i++) p[i] = mcc_f16_bits(v[i]);
    }
    """,
    "mcc_store_bf16": """
    static inline void mcc_store_bf16(uint16_t *p, mcc_f32x4 v, int64_t n) {
      for (int64_t i = 0; i < n; i++) p[i] = mcc_bf16_bits(v[i]);
    }
    """,
    "mcc_store_8": """
    static inline void mcc_store_8(void *p, mcc_i32x4 v, int64_t n) {
      for (int64_t i = 0; i < n; i++) ((uint8_t *)p)[i] = (uint8_t)v[i];
    }
    """,
    "mcc_select": """
    static inline mcc_f32x4 mcc_select(mcc_i32x4 m, mcc_f32x4 a, mcc_f32x4 b) {
      return (mcc_f32x4)(((mcc_i32x4)a & m) | ((mcc_i32x4)b & ~m));
    }
    """,
    "mcc_select_i32": """
    static inline mcc_i32x4 mcc_select_i32(mcc_i32x4 m, mcc_i32x4 a, mcc_i32x4 b) {
      return (a & m) | (b & ~m);
    }
    """,
    "mcc_min": """
    static inline mcc_f32x4 mcc_min(mcc_f32x4 a, mcc_f32x4 b) {
      return mcc_select(a < b, a, b);
    }
    """,
    "mcc_max": """
    static inline mcc_f32x4 mcc_max(mcc_f32x4 a, mcc_f32x4 b) {
      return mcc_select(a > b, a, b);
    }
    """,
    "mcc_sqrt": """
    static inline mcc_f32x4 mcc_sqrt(mcc_f32x4 v) {
      return (mcc_f32x4){sqrtf(v[0]), sqrtf(v[1]), sqrtf(v[2]), sqrtf(v[3])};
    }
    """,
    "mcc_round": """
    /* Ties to even: adding 1.5 * 2^23 leaves no fraction bits; larger values are integral already. */
    static inline mcc_f32x4 mcc_round(mcc_f32x4 v) {
      const mcc_f32x4 shifted = v + 12582912.0f;
      const mcc_f32x4 magnitude = (mcc_f32x4)((mcc_i32x4)v & 0x7fffffff);
      return mcc_select(magnitude < mcc_broadcast(4194304.0f), shifted - 12582912.0f, v);
    }
    """,
    "mcc_floor": """
    static inline mcc_f32x4 mcc_floor(mcc_f32x4 v) {
      const mcc_f32x4 r = mcc_round(v);
      return mcc_select(r > v, r - 1.0f, r);
    }
    """,
    "mcc_lookup": """
    /* Bytes of a table of 16 by the numbers 0 to 15 in the bytes of a vector. */
    static inline mcc_i32x4 mcc_lookup(mcc_i32x4 table, mcc_i32x4 places) {
      const mcc_u8x16 bytes = (mcc_u8x16)table, at = (mcc_u8x16)places;
      mcc_u8x16 found = {0};
      for (int i = 0; i < 16; i++) found[i] = bytes[at[i] & 15];
      return (mcc_i32x4)found;
    }
    """,
    "mcc_reduce_sum": """
    static inline float mcc_reduce_sum(mcc_f32x4 v) {
      return (v[0] + v[2]) + (v[1] + v[3]);
    }
    """,
    "mcc_reduce_max": """
    static inline float mcc_reduce_max(mcc_f32x4 v) {
      const float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
      return a > b ? a : b;
    }
    """,
    "mcc_reduce_min": """
    static inline float mcc_reduce_min(mcc_f32x4 v) {
      const float a = v[0] < v[2] ? v[0] : v[2], b = v[1] < v[3] ? v[1] : v[3];
      return a < b ? a : b;
    }
    """,
    "mcc_reduce_sum_i32": """
    static inline int32_t mcc_reduce_sum_i32(mcc_i32x4 v) {
      return (v[0] + v[2]) + (v[1] + v[3]);
    }
    """,
    "mcc_f16_element": """
    static inline float mcc_f16_element(uint16_t h) {
      return mcc_load_f16(&h, 1)[0];
    }
    """,
    "mcc_f16_bits": """
    /* Rounds to nearest even, overflow gives infinity, a NaN stays a quiet NaN. */
    static inline uint16_t mcc_f16_bits(float value) {
      uint32_t bits;
      memcpy(&bits, &value, 4);
      const uint16_t sign = (uint16_t)((bits >> 16) & 0x8000);
      bits &= 0x7fffffff;
      if (bits > 0x7f800000) return (uint16_t)(sign | 0x7e00 | ((bits >> 13) & 0x3ff));
      if (bits >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
      if (bits < 0x38800000) {
        float magnitude;
        memcpy(&magnitude, &bits, 4);
        return (uint16_t)(sign | (uint16_t)lrintf(magnitude * 0x1p24f));
      }
      return (uint16_t)(sign | ((bits + 0xfff + ((bits >> 13) & 1) - 0x38000000) >> 13));
    }
    """,
    "mcc_dot_i8u8": """
    /* s + products of four signed and four unsigned bytes per lane, which fit 16 bits one by one. */
    static inline mcc_i32x4 mcc_dot_i8u8(mcc_i32x4 s, mcc_i32x4 w, mcc_i32x4 a) {
      const mcc_i16x8 wl = (mcc_i16x8)((mcc_i16x8)w << 8) >> 8, wh = (mcc_i16x8)w >> 8;
      const mcc_i16x8 al = (mcc_i16x8)a & 255, ah = ((mcc_i16x8)a >> 8) & 255;
      const mcc_i32x4 low = (mcc_i32x4)(wl * al), high = (mcc_i32x4)(wh * ah);
      return s + ((low << 16) >> 16) + (low >> 16) + ((high << 16) >> 16) + (high >> 16);
    }
    """,
    "mcc_dot_i8": """
    /* s + products of four bytes per lane: low and high bytes of 16-bit pairs, products within 16 bits. */
    static inline mcc_i32x4 mcc_dot_i8(mcc_i32x4 s, mcc_i32x4 w, mcc_i32x4 a) {
      const mcc_i16x8 wl = (mcc_i16x8)((mcc_i16x8)w << 8) >> 8, wh = (mcc_i16x8)w >> 8;
      const mcc_i16x8 al = (mcc_i16x8)((mcc_i16x8)a << 8) >> 8, ah = (mcc_i16x8)a >> 8;
      const mcc_i32x4 low = (mcc_i32x4)(wl * al), high = (mcc_i32x4)(wh * ah);
      return s + ((low << 16) >> 16) + (low >> 16) + ((high << 16) >> 16) + (high >> 16);
    }
    """,
  ]
}
