import IR

/// What lowering adds to the passes and operators that a text may name.
package enum LoweringRegistry {
  /// The passes that need a target.
  package static let passes = PassRegistry([
    Specialize.self, FuseLMHead.self, SplitLevels.self, Decompose.self, ChannelsLast.self, SelectKernels.self,
  ])

  /// The operators of lowered models.
  package static let operators: [any Operator.Type] = [KernelCall.self, Pack.self, Chained.self]

  /// The operators that another one may have as an attribute.
  static let nested = OperatorRegistry.core.adding([Chained.self])
}
