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
  /// Whether products of many tokens with quantized weights keep codes in registers and loop over the tokens
  /// (`MatMulTokenLoop`), instead of keeping sums in registers and looping over codes: as measured, or by instructions.
  package var loopsOverTokens = false
  /// Where a program has several levels, what the layouts of weights follow instead of this target's own lanes and form of
  /// 8-bit codes, so that all levels read the same weights.
  package var joint: JointLayout?

  /// What all levels of a program have in common.
  package struct JointLayout: Hashable, Sendable {
    /// f32 lanes of the widest level.
    package var lanes: Int
    /// The form of 8-bit codes in memory.
    package var eightBitWeights: ByteDot.Weights

    package init(lanes: Int, eightBitWeights: ByteDot.Weights) {
      self.lanes = lanes
      self.eightBitWeights = eightBitWeights
    }
  }

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

  /// Lanes that panels of weights are made of: one or more vectors of this target.
  package var panelLanes: Int { joint?.lanes ?? lanes }

  /// Vectors of this target in `panelLanes`.
  package var vectorsPerPanelLanes: Int { panelLanes / lanes }

  /// The form in which 8-bit codes for `ByteDot` lie in memory. If the vocabulary wants the other one, kernels flip the
  /// highest bit of each code that they load.
  package var storedEightBitWeights: ByteDot.Weights { joint?.eightBitWeights ?? vocabulary.eightBitWeights }

  /// True if the features are all among `available`.
  package func runs(on available: Set<String>) -> Bool { features.allSatisfy(available.contains) }
}
