import IR
import Tensors

/// Rows of tables by index.
package enum GatherKernel: Kernel {
  package static let name = "gather"
  package static let summary = "rows of f32, f16, bf16, integer, w8 and w4 tables, also from the panels of a matmul"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? Gather, query.operands.count == 2 else { return [] }
    let table = query.operands[0], indices = query.operands[1]
    let shape = table.type.shape
    guard table.rowStride == nil, indices.rowStride == nil, indices.type.isDense, indices.dequantized == nil,
      let axis = shape.normalizedAxis(op.axis), let outer = shape.product(0..<axis), case let rows = shape[axis],
      rows.maximum > 0, let inner = shape.product((axis + 1)..<shape.rank)?.fixedValue,
      let count = indices.type.shape.product(0..<indices.type.rank), let index = indices.type.element.scalar,
      let result = try query.resultTypes().first, let output = result.element.scalar
    else { return [] }
    var extents = ExtentTable()
    let (outerExtent, countExtent) = (extents.extent(outer, "A"), extents.extent(count, "T"))
    let rowExtent = extents.extent(rows, "R")
    let size = Double(outer.maximum) * Double(count.maximum) * Double(inner)
    let pointers: [CallArgument] = [.input(0), .input(1), .result(0)]
    func choice(_ kind: GatherConfig.Table, layout: PackedLayout?, penalty: Double) -> KernelChoice {
      let config = GatherConfig(
        table: kind, outer: outerExtent, rows: rowExtent, count: countExtent, inner: inner, index: index, output: output
      )
      return KernelChoice(
        config.build(target: target), work: KernelWork(floatOperations: penalty * size, bytes: 8 * size),
        target: target,
        pointers: pointers, extents: extents, layouts: [layout, nil])
    }
    var choices: [KernelChoice] = []
    switch table.type.encoding {
    case .dense:
      guard let element = table.type.element.scalar, table.dequantized == nil else { return [] }
      let isFloat = element.isFloat && output.isFloat
      guard isFloat || element == output else { return [] }
      choices.append(choice(.dense(element), layout: nil, penalty: 2))
    case .block(let format):
      guard shape.rank >= 2, axis < shape.rank - 1, inner == shape.last.fixedValue, output.isFloat, output != .f64
      else {
        return []
      }
      choices.append(choice(.block(format), layout: nil, penalty: 4))
    case .packed: return []
    }
    guard table.isConstant, shape.rank == 2, axis == 0, output == .f32, let rows = rows.fixedValue else {
      return choices
    }
    // A table that is also the weight of a matmul is read from that matmul's panels.
    var operand = table
    if case .block = table.type.encoding, operand.dequantized == nil { operand.dequantized = .f32 }
    guard let weights = MatMulKernel.weightType(operand) else { return choices }
    for vectors in rows <= target.panelLanes ? [1] : [2, 1] {
      let hasOffset = target.storedEightBitWeights == .u8
      var layouts = [
        PanelLayout(
          weights: weights, rows: rows, depth: inner, lanes: target.panelLanes, vectors: vectors, gated: false,
          offset: false
        )
      ]
      if weights.hasBytes, hasOffset {
        layouts.append(
          PanelLayout(
            weights: weights, rows: rows, depth: inner, lanes: target.panelLanes, vectors: vectors, gated: false,
            offset: true))
      }
      for layout in layouts { choices.append(choice(.panel(layout), layout: layout.packed, penalty: 12)) }
    }
    return choices
  }
}

/// Elements that only change places.
package enum MovementKernel: Kernel {
  package static let name = "movement"
  package static let summary = "transpose, slice, concat, interleave, expand and pad"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard query.isPlain(), let x = query.operands.first?.type, let element = x.element.scalar,
      let result = try query.resultTypes().first
    else { return [] }
    var extents = ExtentTable()
    if let op = query.operation.op as? Pad {
      let sizes = x.shape.dims.enumerated().map { extents.extent($1, "d\($0)") }
      guard !sizes.isEmpty else { return [] }
      let config = PadConfig(element: element, sizes: sizes, before: op.before, after: op.after, value: op.value)
      let name = "mcc_pad_\(element.rawValue)_\(shortHash("\(config)"))_\(target.suffix)"
      let work = KernelWork(
        floatOperations: 2 * Double(result.maximumCount), bytes: Double(2 * result.maximumByteCount))
      return [
        KernelChoice(
          config.build(name: name, target: target), work: work, target: target, pointers: [.input(0), .result(0)],
          extents: extents, layouts: query.unpacked)
      ]
    }
    guard let parts = parts(query, result.shape, &extents) else { return [] }
    let config = StridedCopyConfig(element: element, parts: parts)
    let name = "mcc_\(query.operation.op.name)_\(element.rawValue)_\(shortHash("\(config)"))_\(target.suffix)"
    let work = KernelWork(floatOperations: 8 * Double(result.maximumCount), bytes: Double(2 * result.maximumByteCount))
    return [
      KernelChoice(
        config.build(name: name, target: target), work: work, target: target,
        pointers: query.operands.indices.map { .input($0) } + [.result(0)], extents: extents, layouts: query.unpacked)
    ]
  }

  private static func strides(_ shape: Shape) -> [Dim]? {
    var strides: [Dim] = Array(repeating: 1, count: shape.rank)
    for axis in (0..<max(shape.rank - 1, 0)).reversed() {
      guard let stride = Dim.product(strides[axis + 1], shape[axis + 1]) else { return nil }
      strides[axis] = stride
    }
    return strides
  }

  /// The copies that an operator is; nil if it is none or its strides are no linear expressions of sizes.
  private static func parts(
    _ query: KernelQuery, _ shape: Shape, _ extents: inout ExtentTable
  ) -> [StridedCopyConfig.Part]? {
    let inputs = query.operands.map(\.type.shape)
    guard let output = strides(shape) else { return nil }
    /// One part over `sizes` with the strides of input and output.
    func part(_ number: Int, _ sizes: [Dim], _ from: [Dim], _ offset: Dim, _ to: [Dim], _ place: Dim)
      -> StridedCopyConfig.Part
    {
      StridedCopyConfig.Part(
        sizes: sizes.enumerated().map { extents.extent($1, "n\(number)_\($0)") },
        inputStrides: from.enumerated().map { extents.extent($1, "from\(number)_\($0)") },
        inputOffset: extents.extent(offset, "offset\(number)"),
        outputStrides: to.enumerated().map { extents.extent($1, "to\(number)_\($0)") },
        outputOffset: extents.extent(place, "place\(number)"))
    }
    guard let first = strides(inputs[0]) else { return nil }
    switch query.operation.op {
    case let op as Transpose:
      return [part(0, shape.dims, op.permutation.map { first[$0] }, 0, output, 0)]
    case let op as Slice:
      guard let axis = inputs[0].normalizedAxis(op.axis), let offset = Dim.product(first[axis], op.start) else {
        return nil
      }
      var from = first
      from[axis] = from[axis] * op.step
      return [part(0, shape.dims, from, offset, output, 0)]
    case is Expand:
      let missing = shape.rank - inputs[0].rank
      let from = shape.dims.indices.map { axis -> Dim in
        axis < missing || inputs[0][axis - missing] != shape[axis] ? 0 : first[axis - missing]
      }
      return [part(0, shape.dims, from, 0, output, 0)]
    case let op as Concat:
      guard let axis = shape.normalizedAxis(op.axis) else { return nil }
      var parts: [StridedCopyConfig.Part] = []
      var start: Dim = 0
      for (number, input) in inputs.enumerated() {
        guard let from = strides(input), let place = Dim.product(output[axis], start) else { return nil }
        parts.append(part(number, input.dims, from, 0, output, place))
        start = start + input[axis]
      }
      return parts
    case is Interleave:
      var to = output
      to[0] = to[0] * inputs.count
      return inputs.indices.map { part($0, inputs[$0].dims, first, 0, to, output[0] * $0) }
    default: return nil
    }
  }
}
