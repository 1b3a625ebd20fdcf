/// A kind of CPU code is generated for: features, vector vocabulary, compiler flags and cache sizes.
package struct Target: Sendable {
  /// The spelling on the command line: `x86-64-v3`.
  package var name: String
  /// The last part of kernel names: `avx2`.
  package var suffix: String
  /// One line for `mcc targets`.
  package var summary: String
  /// The CPUs the code is for; nil for those of the machine that compiles it.
  package var architecture: Architecture?
  /// CPU features a program needs, spelled as in /proc/cpuinfo on Linux.
  package var features: [String]
  /// Bytes of one vector register.
  package var vectorBytes: Int
  /// Number of vector registers.
  package var vectorRegisters: Int
  /// Flags for clang and gcc beside the optimisation level.
  package var compilerFlags: [String]
  /// Flags that generated code needs on every target: kernels read buffers through pointers of several types.
  package static let commonFlags = ["-fno-strict-aliasing", "-fno-math-errno"]
  /// Bytes of the first and second level data cache of one core, as assumed by the cost model.
  package var cacheBytes: (level1: Int, level2: Int)
  /// Estimated peak of one core per second, for the cost model.
  package var throughput: Throughput
  package var vocabulary: Vocabulary

  /// Speeds of one core that kernel costs are estimated from.
  package struct Throughput: Sendable {
    /// f32 operations (a fused multiply-add counts two).
    package var floatOperations: Double
    /// 8-bit multiply and add operations.
    package var byteOperations: Double
    /// Bytes read from main memory.
    package var bytes: Double
  }

  /// f32 lanes of one vector register.
  package var lanes: Int { vectorBytes / 4 }

  /// Whether a * b + c is one instruction.
  package var fuses: Bool { features.contains("fma") || features.contains("asimd") }

  /// True if the features are all among `available`.
  package func runs(on available: Set<String>) -> Bool { features.allSatisfy(available.contains) }
}
