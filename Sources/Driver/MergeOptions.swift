import Base

/// What the user asks of a merge. An option that the method has no use for is an error.
package struct MergeOptions: Sendable {
  package var method = MergeMethod.mean
  /// One per checkpoint; nil for equal ones.
  package var weights: [Double]?
  /// The checkpoint that differences are taken from.
  package var base: String?
  /// What the sum of the differences is multiplied by; nil for 1.
  package var scale: Double?
  /// The share of each difference that is kept; nil for 0.2 (`ties`) and 0.1 (`dare`), the values of the papers.
  package var density: Double?
  package var seed: Int?
  /// The place between the first and the second checkpoint; nil for the middle.
  package var interpolation: Double?
  package var metric: MergeMetric?
  /// The metric of each checkpoint.
  package var values: [Double]?
  /// How much better checkpoints are preferred; nil for 1.
  package var penalty: Double?
  /// Patterns of names of tensors, with `*` and `?`; empty for all.
  package var layers: [String] = []
  /// For each checkpoint a text, or an archive of token ids or inputs.
  package var calibration: [String] = []
  /// Samples per checkpoint; nil for 16.
  package var samples: Int?
  /// Tokens per sample; nil for 256.
  package var length: Int?
  /// What numbers off the diagonal of statistics are multiplied by; nil for 0.9, as in the paper.
  package var diagonal: Double?

  package init() {}

  /// Throws unless the options fit the method and the number of checkpoints.
  func check(count: Int) throws {
    func fail(_ message: String) -> CompileError { CompileError(.usage, message) }
    func only(_ option: String, _ isGiven: Bool, _ methods: MergeMethod...) throws {
      guard isGiven, !methods.contains(method) else { return }
      let list = methods.map(\.rawValue).joined(separator: ", ")
      throw fail("\(option) is for \(list), not for \(method.rawValue)")
    }
    guard count > 0, count <= 64 else { throw fail("found \(count) checkpoints, expected 1 to 64") }
    try only("--weights", weights != nil, .mean, .taskArithmetic, .ties, .dare)
    try only("--base", base != nil, .taskArithmetic, .ties, .dare)
    try only("--scale", scale != nil, .taskArithmetic, .ties, .dare)
    try only("--density", density != nil, .ties, .dare)
    try only("--seed", seed != nil, .dare)
    try only("--interpolation", interpolation != nil, .slerp)
    try only("--metric", metric != nil, .mwa)
    try only("--values", values != nil, .mwa)
    try only("--penalty", penalty != nil, .mwa)
    try only("--calibrate", !calibration.isEmpty, .regmean, .regmeanPlusPlus)
    try only("--samples", samples != nil, .regmean, .regmeanPlusPlus)
    try only("--length", length != nil, .regmean, .regmeanPlusPlus)
    try only("--diagonal", diagonal != nil, .regmean, .regmeanPlusPlus)
    if method.needsBase, base == nil { throw fail("\(method.rawValue) needs --base") }
    if method == .slerp, count != 2 { throw fail("slerp is between 2 checkpoints, found \(count)") }
    if method == .mwa, metric == nil || values == nil { throw fail("mwa needs --metric and --values") }
    for (option, list) in [("--weights", weights), ("--values", values)] {
      if let list, list.count != count { throw fail("\(option) has \(list.count) numbers for \(count) checkpoints") }
    }
    if let weights {
      let isSigned = method == .taskArithmetic || method == .dare
      guard weights.allSatisfy({ $0.isFinite && ($0 >= 0 || isSigned) }), weights.contains(where: { $0 != 0 }) else {
        throw fail("--weights is \(weights), expected numbers of at least 0, not all 0")
      }
    }
    if let scale, !scale.isFinite { throw fail("--scale is \(scale), expected a finite number") }
    if let density, !(density > 0 && density <= 1) {
      throw fail("--density is \(density), expected a number above 0 up to 1")
    }
    if let interpolation, !(interpolation >= 0 && interpolation <= 1) {
      throw fail("--interpolation is \(interpolation), expected a number from 0 to 1")
    }
    if let diagonal, !(diagonal >= 0 && diagonal <= 1) {
      throw fail("--diagonal is \(diagonal), expected a number from 0 to 1")
    }
    if let samples, samples < 1 { throw fail("--samples is \(samples), expected at least 1") }
    if let length, length < 2 { throw fail("--length is \(length), expected at least 2") }
    if method.needsSamples, calibration.count != count {
      throw fail(
        "\(method.rawValue) needs --calibrate once for each checkpoint, found \(calibration.count) for \(count)")
    }
  }
}
