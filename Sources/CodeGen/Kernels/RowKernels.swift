import IR
import Tensors

/// Root mean square and layer norms.
package enum NormalizationKernel: Kernel {
  package static let name = "normalization"
  package static let summary = "rms_norm and layer_norm over the last axes"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    let axis: Int, epsilon: Float, isCentered: Bool
    switch query.operation.op {
    case let op as RMSNorm: (axis, epsilon, isCentered) = (op.axis, op.epsilon, false)
    case let op as LayerNorm: (axis, epsilon, isCentered) = (op.axis, op.epsilon, true)
    default: return []
    }
    guard query.isPlain(except: [0]), query.operands.count >= 2 else { return [] }
    let x = query.operands[0], shape = x.type.shape
    guard let first = shape.normalizedAxis(axis), let rows = shape.product(0..<first),
      let columns = shape.product(first..<shape.rank)?.fixedValue, columns > 0,
      x.rowStride == nil || (shape.rank == 2 && first == 1)
    else { return [] }
    let types = query.operands.compactMap { $0.type.element.scalar }
    guard types.count == query.operands.count, types.allSatisfy({ $0.isFloat && $0 != .f64 }) else { return [] }
    var extents = ExtentTable()
    let config = NormalizationConfig(
      isCentered: isCentered, rows: extents.extent(rows, "T"), columns: columns, epsilon: epsilon, input: types[0],
      weight: types[1], bias: types.count > 2 ? types[2] : nil, inputStride: x.rowStride)
    let size = Double(rows.maximum) * Double(columns)
    let inputs = query.operands.indices.map { CallArgument.input($0) }
    return [
      KernelChoice(
        config.build(target: target), work: KernelWork(floatOperations: 8 * size, bytes: 8 * size), target: target,
        pointers: inputs + [.result(0)], extents: extents, layouts: query.unpacked,
        inPlace: x.rowStride == nil ? [0] : [])
    ]
  }
}

/// Softmax and its logarithm.
package enum SoftmaxKernel: Kernel {
  package static let name = "softmax"
  package static let summary = "softmax and log_softmax along any axis"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    let axis: Int, isLogarithm: Bool
    switch query.operation.op {
    case let op as Softmax: (axis, isLogarithm) = (op.axis, false)
    case let op as LogSoftmax: (axis, isLogarithm) = (op.axis, true)
    default: return []
    }
    guard query.isPlain(), let x = query.operands.first?.type, x.element == .f32,
      let index = x.shape.normalizedAxis(axis), let outer = x.shape.product(0..<index),
      let inner = x.shape.product((index + 1)..<x.shape.rank)?.fixedValue
    else { return [] }
    var extents = ExtentTable()
    let config = SoftmaxConfig(
      isLogarithm: isLogarithm, outer: extents.extent(outer, "T"), length: extents.extent(x.shape[index], "n"),
      inner: inner)
    let size = Double(x.maximumCount)
    return [
      KernelChoice(
        config.build(target: target), work: KernelWork(floatOperations: 30 * size, bytes: 8 * size), target: target,
        pointers: [.input(0), .result(0)], extents: extents, layouts: query.unpacked, inPlace: [0])
    ]
  }
}

/// Sums, means, extrema and products over neighbouring axes.
package enum ReduceKernel: Kernel {
  package static let name = "reduce"
  package static let summary = "sum, mean, max, min and product over neighbouring axes"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? Reduce, query.isPlain(), let x = query.operands.first?.type,
      x.element == .f32, let function = ReduceConfig.Function(rawValue: op.function.rawValue)
    else { return [] }
    let reduced = try op.reducedAxes(of: x.shape)
    // Axes of size 1 may count as reduced or not, whichever makes the others neighbours.
    let axes = reduced.indices.filter { reduced[$0] && x.shape[$0] != 1 }
    let first = axes.first ?? 0, end = axes.last.map { $0 + 1 } ?? 0
    guard (first..<end).allSatisfy({ reduced[$0] || x.shape[$0] == 1 }), let outer = x.shape.product(0..<first),
      let length = x.shape.product(first..<end), let inner = x.shape.product(end..<x.shape.rank)?.fixedValue
    else { return [] }
    var extents = ExtentTable()
    let config = ReduceConfig(
      function: function, outer: extents.extent(outer, "T"), length: extents.extent(length, "n"), inner: inner)
    let size = Double(x.maximumCount)
    return [
      KernelChoice(
        config.build(target: target), work: KernelWork(floatOperations: 4 * size, bytes: 4 * size), target: target,
        pointers: [.input(0), .result(0)], extents: extents, layouts: query.unpacked)
    ]
  }
}
