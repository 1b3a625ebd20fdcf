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

  /// `-O1`: everything that keeps the function, up to rounding of f32.
  package static func simplify() throws -> Pipeline {
    try Pipeline(
      parsing: [
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
      ].joined(separator: ","), registry: registry)
  }

  /// The passes of a quantization in the spelling `w4g32a8`; none for types that only narrow. With `calibration` activations
  /// become bytes with measured ranges.
  package static func quantize(_ spec: QuantizationSpec, calibration: Calibrate? = nil) throws -> Pipeline {
    let rest = try Pipeline(parsing: "eliminate-common-subexpressions,eliminate-dead-code", registry: registry)
    var passes: [any Pass] = [QuantizeWeights(spec)]
    // Measured on the very values that are then quantized; bytes are fused while every value still has one user.
    if let calibration { passes = [calibration] + passes + [FuseQuantized()] }
    return Pipeline(passes + rest.passes)
  }
}
