import IR

/// Joins operators that one kernel computes: functions and norms written out in primitives, biases, activations and
/// residuals into matrix products and convolutions, gated layers, attention.
///
///     %a = matmul(%x, %w) {transposeB = true}
///     %b = add(%a, %bias)
///     %c = relu(%b)
///     // -> %c = matmul(%x, %w, %bias) {transposeB = true, epilogue = {bias = true, activation = relu}}
package struct Fuse: RulePass {
  package static let name = "fuse"
  package static let summary = "joins operators that one kernel computes"

  package init() {}

  package var fidelity: Fidelity { .exact }

  package var rules: [RewriteRule] {
    [fuseSiLU, fuseHardSwish, fuseGELU, fuseGELUTanh, fuseRMSNorm, fuseLayerNorm, fuseLayerNormBias]
      + [fuseAttentionOfHeads, fuseAttention]
      + [fuseBiasIntoMatMul, fuseBiasIntoConvolution]
      + activationFusions
      + [fuseGate]
      + [fuseResidualIntoMatMul, fuseResidualIntoConvolution]
  }
}
