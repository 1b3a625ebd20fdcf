import Tensors

/// How many roundings stand between the operands of an operator and one number of its result, and what they are
/// relative to.
package enum RoundingCount: Hashable, Sendable {
  /// Numbers are moved, compared, chosen or made of codes: none.
  case none
  /// Relative to the number itself.
  case each(Int)
  /// Relative to the largest number of the result: sums of so many terms, in any order.
  case sums(Int)

  /// The count of an operator on operands of known sizes.
  package init(_ op: any Operator, _ inputs: [TensorType], _ results: [TensorType]) {
    func sizes(_ index: Int) -> [Int] {
      inputs.indices.contains(index) ? inputs[index].shape.maximumSizes : []
    }
    func last(_ index: Int) -> Int { sizes(index).last ?? 1 }
    func axis(_ axis: Int) -> Int {
      inputs.first?.shape.normalizedAxis(axis).map { sizes(0)[$0...].reduce(1, *) } ?? 1
    }
    switch op {
    case is Reshape, is Transpose, is Slice, is Concat, is Interleave, is Pad, is Expand, is Stack, is StridedView,
      is Gather, is CacheUpdate, is MaxPool2D, is Iota, is Sizes, is DistanceBias, is RelativeBias, is Cast,
      is Quantize, is QuantizedRows, is QuantizeLinear:
      self = .none
    case is Dequantize, is DequantizeGGML, is UnpackCodes, is DequantizeLinear: self = .each(2)
    case let op as any Elementwise: self = op.expression.roundings == 0 ? .none : .each(op.expression.roundings)
    case let op as MatMul: self = .sums(last(0) + op.epilogue.roundings)
    case let op as Conv2D: self = .sums(sizes(1).dropFirst().reduce(1, *) + op.epilogue.roundings)
    case is ConvTranspose2D: self = .sums(sizes(1).reduce(1, *) / max(1, sizes(1).count > 1 ? sizes(1)[1] : 1) + 1)
    case is QuantizedConv2D: self = .sums(4)
    case is ExpertMatMul: self = .sums(last(0) + 4)
    case is LowRankUpdate: self = .sums(last(1) + 2)
    case is KroneckerMatMul: self = .sums((sizes(1).first ?? 1) + (sizes(2).first ?? 1))
    case let op as Hadamard: self = .sums((op.blocks.max() ?? 1) + 1)
    case let op as Attention: self = .sums(last(0) / max(1, op.heads) + (sizes(1).dropLast().last ?? 1) + 4)
    case is BoundedAttention: self = .sums(last(0) + (sizes(0).dropFirst().first ?? 1) + 4)
    case is SelectiveScan: self = .sums(last(0) + (sizes(1).first ?? 1) + 4)
    case is CausalConv: self = .sums((sizes(2).first ?? 1) + 2)
    case let op as Softmax: self = .each(axis(op.axis) + 2)
    case let op as LogSoftmax: self = .sums(axis(op.axis) + 2)
    case let op as RMSNorm: self = .each(axis(op.axis) + 4)
    case let op as LayerNorm: self = .sums(axis(op.axis) + 6)
    case is BatchNorm: self = .sums(6)
    case is Rope, is RopeTable: self = .sums(4)
    case is Resize2D: self = .sums(8)
    case let op as AveragePool2D: self = .sums(op.kernel.reduce(1, *) + 1)
    case is Route: self = .each(last(0) + 4)
    default:
      // Reductions and what is not known: all that is read for one result.
      let read = inputs.reduce(0) { $0 + $1.maximumCount }
      self = .sums(max(1, read / max(1, results.map(\.maximumCount).max() ?? 1)) + 1)
    }
  }
}

extension ScalarExpression {
  /// Functions that round, on the longest path from an input.
  fileprivate var roundings: Int {
    switch self {
    case .input, .constant: 0
    case .unary(let function, let x): x.roundings + function.roundings
    case .binary(let function, let x, let y):
      max(x.roundings, y.roundings)
        + (function.isComparison || function.isLogical || function == .minimum || function == .maximum ? 0 : 1)
    case .select(_, let x, let y): max(x.roundings, y.roundings)
    }
  }
}

extension UnaryFunction {
  fileprivate var roundings: Int {
    switch self {
    case .negate, .abs, .relu, .floor, .ceil, .round, .sign, .not: 0
    case .sqrt, .reciprocal, .exp, .log, .sin, .cos, .tanh, .erf: 1
    case .rsqrt: 2
    case .sigmoid, .silu, .gelu, .geluTanh, .softplus, .hardSigmoid, .hardSwish: 6
    }
  }
}

extension Epilogue {
  fileprivate var roundings: Int { inputCount + (activation == .none ? 0 : 6) + (gated ? 1 : 0) }
}
