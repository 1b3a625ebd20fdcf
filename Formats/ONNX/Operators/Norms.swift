import Base
import IR
import Tensors

extension ONNXOperators {
  /// Normalizations made of means, sums and functions.
  static let norms: [ONNXOperator] = [
    // Over the axes behind the channels, for each channel of each entry.
    ONNXOperator("InstanceNormalization") { node, importer in
      let epsilon = try node.number("epsilon", default: 1e-5)
      let x = try node.input(0, &importer)
      let shape = importer.builder.type(of: x).shape
      guard shape.rank >= 3 else { throw CompileError(.input, "'InstanceNormalization' of shape \(shape)") }
      let y = try importer.standardized(x, axes: Array(2..<shape.rank), epsilon: epsilon)
      let channels = [shape[1]] + Array(repeating: Dim.fixed(1), count: shape.rank - 2)
      return [
        try importer.affine(
          y, scale: node.input(1, &importer), bias: node.input(2, &importer), shape: channels)
      ]
    },
    // The channels in groups; scale and bias of each channel, before operator set 21 of each group.
    ONNXOperator("GroupNormalization") { node, importer in
      let epsilon = try node.number("epsilon", default: 1e-5)
      node.ignore("stash_type")
      let groups = try node.integer("num_groups", default: 0)
      let x = try node.input(0, &importer)
      let shape = importer.builder.type(of: x).shape
      guard shape.rank >= 2, let channels = shape[1].fixedValue, groups > 0, channels % groups == 0 else {
        throw CompileError(.input, "'GroupNormalization' of shape \(shape) in \(groups) groups")
      }
      let apart = [shape[0], .fixed(groups), .fixed(channels / groups)] + Array(shape.dims[2...])
      let grouped = try importer.builder.emit(Reshape(apart), x)
      let y = try importer.standardized(grouped, axes: Array(2..<apart.count), epsilon: epsilon)
      let ones = Array(repeating: Dim.fixed(1), count: shape.rank - 2)
      let operands = (try node.input(1, &importer), try node.input(2, &importer))
      if importer.opset < 21 {
        let scaled = try importer.affine(
          y, scale: operands.0, bias: operands.1, shape: [.fixed(groups), 1] + ones)
        return [try importer.builder.emit(Reshape(shape.dims), scaled)]
      }
      let whole = try importer.builder.emit(Reshape(shape.dims), y)
      return [try importer.affine(whole, scale: operands.0, bias: operands.1, shape: [.fixed(channels)] + ones)]
    },
    ONNXOperator("RMSNormalization") { node, importer in
      let epsilon = try node.number("epsilon", default: 1e-5)
      node.ignore("stash_type")
      let x = try node.input(0, &importer)
      let rank = importer.builder.type(of: x).rank
      let axis = try normalized(node.integer("axis", default: -1), rank, "RMSNormalization")
      let squares = try importer.builder.emit(Multiply(), x, x)
      let mean = try importer.builder.emit(Reduce(.mean, axes: Array(axis..<rank), keepDims: true), squares)
      let scaled = try importer.divided(x, byRootOf: mean, epsilon: epsilon)
      return [try importer.builder.emit(Multiply(), scaled, node.input(1, &importer))]
    },
    ONNXOperator("MeanVarianceNormalization") { node, importer in
      let axes = try node.integers("axes") ?? [0, 2, 3]
      let x = try node.input(0, &importer)
      let rank = importer.builder.type(of: x).rank
      let places = try axes.map { try normalized($0, rank, "MeanVarianceNormalization") }
      // The specification adds 1e-9 to the deviation.
      let mean = try importer.builder.emit(Reduce(.mean, axes: places, keepDims: true), x)
      let moved = try importer.builder.emit(Subtract(), x, mean)
      let squares = try importer.builder.emit(Multiply(), moved, moved)
      let variance = try importer.builder.emit(Reduce(.mean, axes: places, keepDims: true), squares)
      let expression = ScalarExpression.binary(
        .divide, .input(0), .binary(.add, .unary(.sqrt, .input(1)), .number(1e-9)))
      return [try importer.builder.emit(FusedElementwise(expression), moved, variance)]
    },
    // x / the norm along an axis; zeros where that is 0.
    ONNXOperator("LpNormalization") { node, importer in
      let power = try node.integer("p", default: 2)
      let x = try node.input(0, &importer)
      let axis = try normalized(
        node.integer("axis", default: -1), importer.builder.type(of: x).rank, "LpNormalization")
      guard power == 1 || power == 2 else { throw CompileError(.input, "'LpNormalization' with p = \(power)") }
      let parts = try power == 1 ? importer.builder.emit(Abs(), x) : importer.builder.emit(Multiply(), x, x)
      let sum = try importer.builder.emit(Reduce(.sum, axes: [axis], keepDims: true), parts)
      let norm = power == 1 ? ScalarExpression.input(1) : .unary(.sqrt, .input(1))
      let expression = ScalarExpression.select(
        .binary(.equal, .input(1), .number(0)), .number(0), .binary(.divide, .input(0), norm))
      return [try importer.builder.emit(FusedElementwise(expression), x, sum)]
    },
    // x / (bias + alpha / size * sum of squares of the channels around)^beta
    ONNXOperator("LRN") { node, importer in
      let alpha = try node.number("alpha", default: 1e-4), beta = try node.number("beta", default: 0.75)
      let bias = try node.number("bias", default: 1)
      let size = try node.integer("size", default: 1)
      let x = try node.input(0, &importer)
      let shape = importer.builder.type(of: x).shape
      guard shape.rank >= 2, let channels = shape[1].fixedValue, (1...256).contains(size) else {
        throw CompileError(.unsupported, "unsupported 'LRN' of shape \(shape) over \(size) channels")
      }
      let squares = try importer.builder.emit(Multiply(), x, x)
      var before = Array(repeating: 0, count: shape.rank), after = before
      (before[1], after[1]) = ((size - 1) / 2, size / 2)
      let padded = try importer.builder.emit(Pad(before: before, after: after), squares)
      var sum: ValueID?
      for offset in 0..<size {
        let part = try importer.builder.emit(
          Slice(axis: 1, start: .fixed(offset), size: .fixed(channels)), padded)
        sum = try sum.map { try importer.builder.emit(Add(), $0, part) } ?? part
      }
      guard let sum else { return [x] }
      let base = ScalarExpression.binary(
        .add, .number(bias), .binary(.multiply, .number(alpha / Float(size)), .input(1)))
      let expression = ScalarExpression.binary(
        .multiply, .input(0), .unary(.exp, .binary(.multiply, .number(-beta), .unary(.log, base))))
      return [try importer.builder.emit(FusedElementwise(expression), x, sum)]
    },
  ]
}

extension ONNXImporter {
  /// `x / sqrt(variance + epsilon)`
  fileprivate mutating func divided(_ x: ValueID, byRootOf variance: ValueID, epsilon: Float) throws -> ValueID {
    let expression = ScalarExpression.binary(
      .multiply, .input(0), .unary(.rsqrt, .binary(.add, .input(1), .number(epsilon))))
    return try builder.emit(FusedElementwise(expression), x, variance)
  }

  /// `(x - mean) / sqrt(variance + epsilon)` over some axes.
  mutating func standardized(_ x: ValueID, axes: [Int], epsilon: Float) throws -> ValueID {
    let mean = try builder.emit(Reduce(.mean, axes: axes, keepDims: true), x)
    let moved = try builder.emit(Subtract(), x, mean)
    let squares = try builder.emit(Multiply(), moved, moved)
    let variance = try builder.emit(Reduce(.mean, axes: axes, keepDims: true), squares)
    return try divided(moved, byRootOf: variance, epsilon: epsilon)
  }

  /// `x * scale + bias`, of which both are given a shape.
  fileprivate mutating func affine(_ x: ValueID, scale: ValueID, bias: ValueID, shape: [Dim]) throws -> ValueID {
    let factor = try builder.emit(Reshape(shape), scale), offset = try builder.emit(Reshape(shape), bias)
    return try builder.emit(Add(), builder.emit(Multiply(), x, factor), offset)
  }
}
