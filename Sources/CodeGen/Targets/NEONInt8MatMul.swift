extension Target {
  /// aarch64 with the matrix products of bytes of Armv8.6-A: Neoverse V1 and N2, Cortex-X2, Apple M2 and later.
  package static let neonInt8MatMul = Target(
    name: "aarch64-i8mm", suffix: "neon_i8mm",
    summary: "aarch64 with NEON, dot products and int8 matrix products (I8MM)",
    architecture: .aarch64, features: ["asimd", "asimddp", "i8mm"], vectorBytes: 16, vectorRegisters: 32,
    compilerFlags: commonFlags + ["-march=armv8.2-a+dotprod+i8mm"], cacheBytes: (level1: 64 << 10, level2: 1 << 20),
    throughput: Throughput(floatOperations: 40e9, byteOperations: 250e9, bytes: 15e9), vocabulary: .neonInt8MatMul,
    loopsOverTokens: true)
}

extension Vocabulary {
  /// That of dot products, with 2 x 2 blocks of sums over eight bytes, and products of unlike signs.
  static let neonInt8MatMul: Vocabulary = {
    var vocabulary = neonDotProduct
    let block = "vmmlaq_s32($0, vreinterpretq_s8_s32($2), vreinterpretq_s8_s32($1))"
    func token(_ zip: String) -> String {
      "vreinterpretq_s32_s64(\(zip)(vreinterpretq_s64_s32($0), vreinterpretq_s64_s32($1)))"
    }
    vocabulary.verbs.merge([
      "dotStep.u4.block": block, "dotStep.i8.block": block,
      "dotRows.low": "vzip1q_s32($0, $1)", "dotRows.high": "vzip2q_s32($0, $1)",
      "dotToken.first": token("vzip1q_s64"), "dotToken.second": token("vzip2q_s64"),
      "dotTokens": "vcombine_s32(vld1_s32($0), vld1_s32($1))",
      "dotStep.i8u8": "vusdotq_s32($0, vreinterpretq_u8_s32($2), vreinterpretq_s8_s32($1))",
    ]) { $1 }
    vocabulary.hasDotBlocks = true
    vocabulary.functions["mcc_dot_i8u8"] = nil
    return vocabulary
  }()
}
