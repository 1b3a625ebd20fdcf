import Base

/// The operators a text or a format may name, by mnemonic.
package struct OperatorRegistry: Sendable {
  /// The types, in the order given.
  package let types: [any Operator.Type]
  private let byName: [String: any Operator.Type]

  /// A registry of the given types; of types with one mnemonic the first is found, see ``duplicateNames``.
  package init(_ types: [any Operator.Type]) {
    self.types = types
    byName = Dictionary(types.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
  }

  /// A registry with the types of both.
  package func adding(_ others: [any Operator.Type]) -> OperatorRegistry { OperatorRegistry(types + others) }

  /// The operator with that mnemonic.
  package subscript(_ name: String) -> (any Operator.Type)? { byName[name] }

  /// All mnemonics in order.
  package var names: [String] { types.map { $0.name } }

  /// Mnemonics that more than one type claims.
  package var duplicateNames: [String] {
    Dictionary(grouping: names, by: { $0 }).filter { $0.value.count > 1 }.keys.sorted()
  }

  /// The operator with that mnemonic; throws with the nearest one if there is none.
  package func type(named name: String) throws -> any Operator.Type {
    if let type = byName[name] { return type }
    throw CompileError(
      .input, "unknown operator '\(name)'", notes: nearest(name, in: names).map { ["did you mean '\($0)'?"] } ?? [])
  }

  /// The operators of every stage up to lowering.
  package static let core = OperatorRegistry([
    MatMul.self, Conv2D.self, ConvTranspose2D.self, MaxPool2D.self, AveragePool2D.self, Resize2D.self, Reduce.self,
    Softmax.self, LogSoftmax.self, Recurrence.self, CumulativeSum.self, TopPlaces.self, ScatterRows.self,
    RMSNorm.self, LayerNorm.self, BatchNorm.self,
    RopeTable.self, Rope.self, CacheUpdate.self, SplitOutliers.self, Attention.self, BoundedAttention.self,
    DistanceBias.self,
    RelativeBias.self,
    CausalConv.self, SelectiveScan.self, Route.self, Stack.self, ExpertMatMul.self, LowRankUpdate.self, Hadamard.self,
    KroneckerMatMul.self,
    VocabularyStatistics.self,
    Gather.self, Reshape.self, Transpose.self, Slice.self, Concat.self, Interleave.self, Pad.self, Expand.self,
    Iota.self, Sizes.self,
    WeightedSum.self, TaskVectorSum.self, SphericalInterpolation.self,
    Quantize.self, Dequantize.self, DequantizeGGML.self, UnpackCodes.self, StridedView.self,
    QuantizeLinear.self, DequantizeLinear.self, QuantizedRows.self, QuantizedConv2D.self, Cast.self,
    FusedElementwise.self, Clip.self, LeakyReLU.self, Select.self,
    Negate.self, Abs.self, Sqrt.self, Rsqrt.self, Reciprocal.self, Exp.self, Log.self, Sin.self, Cos.self, Tanh.self,
    Sigmoid.self, ReLU.self, SiLU.self, GELU.self, GELUTanh.self, Erf.self, Floor.self, Ceil.self, Round.self,
    Sign.self, Softplus.self, HardSigmoid.self, HardSwish.self, Not.self,
    Add.self, Subtract.self, Multiply.self, Divide.self, Minimum.self, Maximum.self, Power.self, Modulo.self,
    Less.self, LessOrEqual.self, Greater.self, GreaterOrEqual.self, Equal.self, NotEqual.self, And.self, Or.self,
  ])
}
