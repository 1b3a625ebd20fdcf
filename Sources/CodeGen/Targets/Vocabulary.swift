/// How the vector verbs of KernelIR are said in one language for one instruction set: a template per verb in which `$0`,
/// `$1`, ... stand for the operands, plus helper functions that templates may call and that are printed only where used.
package struct Vocabulary: Sendable {
  /// Types of f32 vectors, i32 vectors and masks.
  package var f32: String
  package var i32: String
  package var mask: String
  /// Lines printed before everything else: includes and type definitions.
  package var preamble: [String]
  /// Verb to template, for instance `add.f32` to `_mm256_add_ps($0, $1)`.
  package var verbs: [String: String]
  /// Helper functions by name; their text may call other helpers.
  package var functions: [String: String]
  /// How 8-bit weights must lie for `ByteDot`: u8 means code + 128.
  package var eightBitWeights: ByteDot.Weights
  /// Number of dot steps whose partial sums cannot overflow; nil if partial sums are i32 and need no flush.
  package var stepsPerFlush: [ByteDot.Weights: Int]
  /// Whether there are steps over blocks (`ByteDot.Extent`), for weights that are not `u8`.
  package var hasDotBlocks = false

  package init(
    f32: String, i32: String, mask: String, preamble: [String], verbs: [String: String], functions: [String: String],
    eightBitWeights: ByteDot.Weights, stepsPerFlush: [ByteDot.Weights: Int]
  ) {
    self.f32 = f32
    self.i32 = i32
    self.mask = mask
    self.preamble = preamble
    self.verbs = verbs
    self.functions = functions
    self.eightBitWeights = eightBitWeights
    self.stepsPerFlush = stepsPerFlush
  }

  /// A template with operands in the places of `$0`, `$1`, ...
  static func fill(_ template: String, _ operands: [String]) -> String {
    var text = ""
    var rest = template[...]
    while let dollar = rest.firstIndex(of: "$") {
      text += rest[..<dollar]
      let digit = rest.index(after: dollar)
      text += operands[rest[digit].wholeNumberValue ?? 0]
      rest = rest[rest.index(after: digit)...]
    }
    return text + rest
  }
}
