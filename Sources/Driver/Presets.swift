import Base
import CodeGen
import IR
import Passes

/// The pipelines that run unless the user gives another one.
package enum Presets {
  /// All passes that pipelines may name.
  package static let registry = PassRegistry.all

  /// The passes that compilation runs by itself afterwards, for one CPU.
  package static let lowering = LoweringRegistry.passes

  /// How much is done.
  package enum Level: String, Sendable, CaseIterable {
    case o0 = "O0"
    case o1 = "O1"
    case o2 = "O2"

    /// What the level is for.
    package var summary: String {
      switch self {
      case .o0: "only what compilation needs"
      case .o1: "everything that keeps the function (the default)"
      case .o2: "as `-O1`, then what changes the precision of values"
      }
    }

    /// Reads `O0`, `O1` or `O2`.
    ///
    /// - Throws: `CompileError` of kind `.usage` with the nearest name.
    package init(parsing text: String) throws {
      guard let level = Level(rawValue: text) else {
        let names = Level.allCases.map(\.rawValue)
        let suggestion = Base.suggestion(for: text, in: names)
        throw CompileError(
          .usage, "unknown preset '\(text)'\(suggestion)", notes: ["presets are \(names.joined(separator: ", "))"])
      }
      self = level
    }
  }

  /// The passes of a level.
  package static func simplify(_ level: Level = .o1) throws -> Pipeline {
    let names: [String]
    let place = exact.firstIndex(of: "merge-matmuls") ?? exact.endIndex
    switch level {
    // Normalization is the one operator that has neither a kernel nor a decomposition.
    case .o0: names = ["expand-batch-norm", "eliminate-dead-code"]
    case .o1: names = exact
    // Products of bytes instead of the numbers that they stand for: integer sums, and one rounding to the code. They need
    // epilogues, and chains of elementwise operators would hide the codes.
    case .o2: names = Array(exact[..<place]) + ["fuse-quantized"] + exact[place...]
    }
    return try Pipeline(parsing: names.joined(separator: ","), registry: registry)
  }

  /// The passes that keep the function.
  private static let exact = [
    // Identities first, so that the fusions see few forms.
    "canonicalize", "fold-constants", "eliminate-common-subexpressions",
    // Before fusion: afterwards a bias or an activation stands between convolution and normalization.
    // A normalization of the image itself is a branch of a sum as well; what is left joins elementwise operators.
    "fold-batch-norm", "fold-repconv", "expand-batch-norm", "fuse",
    // Factors of scores are attention's by now, and what was in the way of an activation or a residual is gone after.
    "fold-affine", "collapse-linear", "fuse",
    // Reads weights with their activations, and wants one layer for each part.
    "remove-dead-units",
    // Merged products read x once; needs biases and gates in the products already.
    "merge-matmuls",
    // Folding left reshapes and products of small constants.
    "canonicalize", "fold-constants", "fuse-elementwise", "eliminate-common-subexpressions", "eliminate-dead-code",
  ]

  /// The passes of a quantization in the spelling `w4g32a8`; none for types that only narrow. With `calibration` the
  /// codes of a model of language, or of one that embeds, are chosen on its samples, as `method` says; the best for one
  /// that embeds are in levels that are fitted to each tensor (``QuantizationSpec/withFittedLevels``). Of other networks
  /// activations become bytes with measured ranges. With the method `rtn` weights are rounded to the nearest
  /// all the same.
  package static func quantize(
    _ spec: QuantizationSpec, calibration: Calibrate? = nil, method: QuantizationMethod = .best,
    isLanguage: Bool = false, embeds: Bool = false
  ) throws -> Pipeline {
    let rest = try Pipeline(parsing: "eliminate-common-subexpressions,eliminate-dead-code", registry: registry)
    // Attention comes last, so that what bytes lose in it is measured on the activations that it will have.
    var weights = spec
    weights.attentionBits = nil
    var passes: [any Pass] = [QuantizeWeights(weights)]
    if let calibration {
      if try isLanguage || !CalibrationSamples.isArchive(calibration.samples) {
        guard calibration.range == .minmax else {
          throw CompileError(.usage, "--calibration-range is for networks whose activations get fixed ranges")
        }
        // Structure first: codes are chosen for the formats that layers have.
        if method == .best, embeds { passes = [QuantizeWeights(weights.withFittedLevels)] }
        if method != .rtn { passes.append(codes(calibration.samples, method, embeds: embeds)) }
      } else {
        // Measured on the very values that are then quantized; bytes are fused while every value still has one user.
        // Codes that are chosen make up for the means of channels themselves.
        let chosen: [any Pass] =
          switch method {
          case .rtn: []
          case .gptq, .adaptive: [codes(calibration.samples, method)]
          case .best: [CorrectBias(samples: calibration.samples, count: calibration.count)]
          }
        passes = [calibration] + passes + chosen + [FuseQuantized()]
      }
    }
    if spec.attentionBits == 8 { passes.append(QuantizeAttention(text: calibration?.samples ?? "")) }
    return Pipeline(passes + rest.passes)
  }

  /// The pass that chooses codes on a text or on samples.
  private static func codes(_ text: String, _ method: QuantizationMethod, embeds: Bool = false) -> ChooseCodes {
    var pass = ChooseCodes(text: text)
    // Lines hold fewer tokens than windows, and other lines differ more from them.
    if embeds { pass.damping = 0.1 }
    if method == .adaptive { pass.method = .adaptive }
    return pass
  }

  /// The passes of a quantization in which each layer has a format of its own; its codes are chosen on the same text.
  package static func allocate(
    _ pass: AllocateBits, method: QuantizationMethod, embeds: Bool = false
  ) throws -> Pipeline {
    let rest = try Pipeline(parsing: "eliminate-common-subexpressions,eliminate-dead-code", registry: registry)
    let chosen: [any Pass] = method == .rtn ? [] : [codes(pass.text, method, embeds: embeds)]
    return Pipeline([pass] + chosen + rest.passes)
  }
}
