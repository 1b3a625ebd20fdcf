import IR

extension PassRegistry {
  /// The passes of this target: those that need to know nothing of a CPU.
  package static let all = PassRegistry([
    Canonicalize.self, FoldConstants.self, EliminateCommonSubexpressions.self, EliminateDeadCode.self,
    FoldBatchNorm.self, FoldRepConv.self, ExpandBatchNorm.self, Fuse.self, FoldAffine.self, CollapseLinear.self,
    RemoveDeadUnits.self, FoldNorm.self, KeepKronecker.self, FixInput.self, SelectOutputs.self, MergeMatMuls.self,
    FuseElementwise.self, Calibrate.self, Rotate.self, AffineTransform.self, Smooth.self, CenterKeys.self,
    Equalize.self, QuantizeWeights.self, WidenActivations.self, AllocateBits.self, ChooseCodes.self, CorrectBias.self,
    FuseQuantized.self, QuantizeAttention.self, QuantizeSoftmax.self, BoundCache.self, FactorCache.self,
    ChannelCache.self,
  ])
}
