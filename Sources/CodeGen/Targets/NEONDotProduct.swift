extension Target {
  /// aarch64 with the dot products of Armv8.2-A: Cortex-A76, Neoverse N1, Apple M1 and later.
  package static let neonDotProduct = Target(
    name: "aarch64-dotprod", suffix: "neon_dotprod", summary: "aarch64 with NEON and dot products (Armv8.2-A)",
    architecture: .aarch64, features: ["asimd", "asimddp"], vectorBytes: 16, vectorRegisters: 32,
    compilerFlags: commonFlags + ["-march=armv8.2-a+dotprod"], cacheBytes: (level1: 64 << 10, level2: 1 << 20),
    throughput: Throughput(floatOperations: 40e9, byteOperations: 160e9, bytes: 15e9), vocabulary: .neonDotProduct,
    loopsOverTokens: true)
}

extension Vocabulary {
  /// That of NEON, with products of four bytes in one instruction.
  static let neonDotProduct: Vocabulary = {
    var vocabulary = neon
    let dot = "vdotq_s32($0, vreinterpretq_s8_s32($1), vreinterpretq_s8_s32($2))"
    vocabulary.verbs["dotStep.u4"] = dot
    vocabulary.verbs["dotStep.i8"] = dot
    vocabulary.verbs["dotStep.i8u8"] = "mcc_dot_i8u8($0, $1, $2)"
    vocabulary.functions["mcc_dot_i8u8"] = """
      /* The instruction wants equal signs: a = (a - 128) + 2 * 64. */
      static inline int32x4_t mcc_dot_i8u8(int32x4_t s, int32x4_t w, int32x4_t a) {
        const int8x16_t x = vreinterpretq_s8_s32(w), half = vdupq_n_s8(64);
        const int8x16_t y = veorq_s8(vreinterpretq_s8_s32(a), vdupq_n_s8(-128));
        return vdotq_s32(vdotq_s32(vdotq_s32(s, x, y), x, half), x, half);
      }
      """
    vocabulary.verbs["dotFlush.u4"] = nil
    vocabulary.stepsPerFlush = [:]
    for name in ["mcc_dot_pairs", "mcc_dot_step", "mcc_dot_i8"] { vocabulary.functions[name] = nil }
    return vocabulary
  }()
}
