import IR

/// Joins operators that one kernel computes: functions and norms written out in primitives, biases, activations and
/// residuals into matrix products and convolutions, gated layers, attention.
///
///     %a = matmul(%x, %w) {transposeB = true}
///     %b = add(%a, %bias)
///     %c = relu(%b)
///     // -> %c = matmul(%x, %w, %bias) {transposeB = true, epilogue = {bias = true, activation = relu}}
///
/// Attention, norms and functions come first: a mask that is added to scores is no residual, and what is left of
/// their sums and products goes into epilogues.
package struct Fuse: Pass {
  package static let name = "fuse"
  package static let summary = "joins operators that one kernel computes"
  package static let legality =
    "where what is taken into an operator has no other user, and shapes, axes and element types are those "
    + "that the operator is defined for"
  package static let source = "mcc"

  package init() {}

  package var fidelity: Fidelity { .exact }

  /// Rules that find operators written out in simpler ones. A layer norm holds an RMS norm, so it is tried before.
  package static let operatorRules: [RewriteRule] = [
    fuseSiLU, fuseHardSwish, fuseGELU, fuseGELUTanh, fuseLayerNorm, fuseRMSNorm,
    fuseLayerNormWithoutWeight, fuseRMSNormWithoutWeight, fuseLayerNormBias,
    fuseRope, fuseRopeOfHalves, fuseAttentionOfHeads, fuseGroupedAttention, fuseAttention,
  ]

  /// Rules that move what follows a matrix product or a convolution into it.
  package static let epilogueRules: [RewriteRule] =
    [splitProduct, fuseBiasIntoMatMul, fuseBiasIntoConvolution] + activationFusions
    + [fuseGate, fuseResidualIntoMatMul, fuseResidualIntoConvolution]

  package var ruleNames: [String] { (Self.operatorRules + Self.epilogueRules).map(\.name) }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    try RewriteDriver(Self.operatorRules).run(&model, &context)
    try RewriteDriver(Self.epilogueRules).run(&model, &context)
  }
}
