import IR
import Tensors

/// Products with constant weights in panels.
package enum MatMulKernel: Kernel {
  package static let name = "matmul"
  package static let summary =
    "matrix products with packed weights: f32, f16, bf16, w8 to w2, tables of levels, fp8; activations f32 or int8"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    let chain = ChainedInput(query)
    guard let op = (chain?.operation ?? query.operation.op) as? MatMul, op.transposeB, query.operands.count >= 2 else {
      return []
    }
    let (x, w) = (query.operands[0], query.operands[1])
    guard w.isConstant, w.rowStride == nil, let shape = w.type.shape.fixedSizes, shape.count == 2, shape[0] > 0,
      shape[1] > 0, let weights = weightType(w)
    else { return [] }
    let rank = x.type.rank
    guard rank >= 2, let tokens = x.type.shape.product(0..<(rank - 1)), x.rowStride == nil || rank == 2 else {
      return []
    }
    for operand in query.operands.dropFirst(2).prefix(op.epilogue.inputCount) {
      guard operand.type.isDense, operand.type.element == .f32, operand.rowStride == nil, operand.dequantized == nil
      else {
        return []
      }
    }
    guard let activation = chain.map({ ActivationKind(group: $0.group) }) ?? activationGroup(x, weights: weights) else {
      return []
    }
    if let chain {
      // A row on the stack of every thread.
      guard tokens == 1, let group = chain.group, fits(group, weights),
        shape[1] <= (chain.rotation == nil ? 1 << 16 : 1 << 15)
      else { return [] }
    }
    var extents = ExtentTable()
    let extent = extents.extent(tokens, "T")
    var options = op.epilogue.gated ? [2] : (shape[0] <= target.panelLanes ? [1] : [2, 1])
    let isBlocked = !weights.isQuantized && (tokens.fixedValue ?? 1) > 1
    if isBlocked, options.contains(2), !op.epilogue.gated, shape[0] > 2 * target.panelLanes {
      options = [3, 4, 2, 1].filter { $0 <= 2 || $0 * target.vectorsPerPanelLanes <= 4 }
    }
    return options.map { count in
      let vectors = count * target.vectorsPerPanelLanes
      let config = MatMulConfig(
        weights: weights, activationGroup: activation.group, rows: shape[0], depth: shape[1], tokens: extent,
        epilogue: op.epilogue, inputStride: x.rowStride, vectors: vectors,
        tokenTile: isBlocked
          ? blockedTile(tokens: tokens.maximum, vectors: vectors, target: target)
          : tokenTile(weights, isBytes: activation.group != nil, vectors: vectors, target: target),
        quantizesInput: chain != nil, codeBits: chain?.codeBits ?? 8, norm: chain?.norm, rotation: chain?.rotation)
      let layout = config.panel(target: target).packed
      var layouts = query.unpacked
      layouts[1] = layout
      let count = Double(tokens.maximum), size = Double(shape[0]) * Double(shape[1])
      var work = KernelWork()
      if activation.group != nil {
        work.byteOperations = 2 * size * count
      } else {
        work.floatOperations = 2 * size * count
      }
      if weights.isQuantized, activation.group == nil { work.floatOperations += 3 * size }
      work.bytes = Double(layout.byteCount(rows: shape[0])) + 4 * count * Double(shape[0] + shape[1])
      // A second vector per panel halves the loads of activations.
      if vectors == 1 { work.byteOperations *= 1.1 }
      if isBlocked {
        // Columns that fill up the last panel are computed as well; each tile loads one side for the other.
        let width = Double(vectors * target.lanes)
        let padded = (Double(shape[0]) / width).rounded(.up) * width
        let loads = 1 / Double(config.tokenTile) + 1 / Double(vectors)
        work.floatOperations = 2 * count * padded * Double(shape[1]) * (1 + 0.1 * loads)
      } else if vectors == 1 {
        work.floatOperations *= 1.1
      }
      let inputs = (0..<query.operands.count).map { CallArgument.input($0) }
      return KernelChoice(
        config.build(target: target), work: work, target: target, pointers: inputs + [.result(0)], extents: extents,
        layouts: layouts,
        inPlace: op.epilogue.residualIndex.map { [$0] } ?? [])
    }
  }

  /// Tokens computed at a time, so that sums and operands fit the registers.
  static func tokenTile(_ weights: WeightType, isBytes: Bool, vectors: Int, target: Target) -> Int {
    let registers = target.vectorRegisters
    if isBytes, target.loopsOverTokens { return MatMulTokenLoop.tokens }
    if isBytes {
      // Two sums for each token and vector, and what a step of several instructions takes.
      let isInstruction = target.vocabulary.hasInstruction(for: ByteDot(target.vocabulary.eightBitWeights))
      return max(1, registers * (isInstruction ? 3 : 2) / 8 / vectors)
    }
    if weights.isQuantized { return max(1, (registers / 4) / vectors) }
    // Sixteen sums hide the latency of the multiply-add; more tokens at a time leave more of the last tile unused.
    return max(1, min(registers - 4, 16) / vectors)
  }

  /// Tokens computed at a time by a product of `tokens` of them with weights that are not quantized: as many as fit the
  /// registers, or somewhat fewer if that leaves a smaller last tile.
  static func blockedTile(tokens: Int, vectors: Int, target: Target) -> Int {
    let most = max(1, (target.vectorRegisters - vectors - 1) / vectors)
    let limit = vectors == 1 ? min(most, 12) : min(most, 10)
    // Half a token stands for the start and the end of a tile.
    func cost(_ tile: Int) -> Double { Double((tokens + tile - 1) / tile) * (Double(tile) + 0.5) }
    return ((limit + 1) / 2...limit).reversed().min { cost($0) < cost($1) } ?? limit
  }

  /// The weights a kernel would read for an operand.
  static func weightType(_ operand: KernelQuery.Operand) -> WeightType? {
    switch operand.type.encoding {
    case .dense:
      guard operand.dequantized == nil else { return nil }
      switch operand.type.element {
      case .f32: return .f32
      case .f16: return .f16
      case .bf16: return .bf16
      default: return nil
      }
    case .block(let format):
      guard operand.dequantized?.isFloat == true else { return nil }
      return WeightType(format)
    case .packed: return nil
    }
  }

  /// How x is read: the group of quantized activations, nil for f32 ones.
  struct ActivationKind {
    var group: Int?
  }

  /// How x is read; nil if the two sides do not fit.
  static func activationGroup(_ x: KernelQuery.Operand, weights: WeightType) -> ActivationKind? {
    if x.type.isDense { return x.dequantized == nil && x.type.element == .f32 ? ActivationKind(group: nil) : nil }
    guard x.rowStride == nil else { return nil }
    let group: Int
    switch x.type.encoding {
    case .block(let format):
      guard format.bits == 8, format.scale == .f32, let length = format.group, x.dequantized == .f32 else { return nil }
      group = length
    case .packed(let layout):
      guard layout.name == ActivationLayout.name, layout.parameters.count == 2 else { return nil }
      group = layout.parameters[1]
    case .dense: return nil
    }
    return fits(group, weights) ? ActivationKind(group: group) : nil
  }

  /// Whether activations in groups of that length go with the weights.
  private static func fits(_ group: Int, _ weights: WeightType) -> Bool {
    guard group % 8 == 0 else { return false }
    switch weights {
    case .w8(let own): return own == nil || own == group
    case .narrow(let codes): return codes.group == group
    case .float8, .f32, .f16, .bf16: return false
    }
  }

  package static func pack(
    _ rows: TensorView, as layout: PackedLayout, into bytes: UnsafeMutableRawBufferPointer
  ) throws -> Bool {
    guard let panel = PanelLayout(layout) else { return false }
    try panel.pack(rows, into: bytes)
    return true
  }
}

/// Rows of activations to int8 codes with scales.
package enum QuantizeRowsKernel: Kernel {
  package static let name = "quantize_rows"
  package static let summary = "activations to int8 with a scale per token and group"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    let chain = ChainedInput(query)
    guard let op = (chain?.operation ?? query.operation.op) as? Quantize, op.format.bits == 8, op.format.scale == .f32,
      chain.map({ ($0.norm != nil || $0.rotation != nil) && $0.group == nil }) ?? true,
      let group = op.format.group, group % 8 == 0, query.isPlain(except: [0]), let x = query.operands.first,
      x.type.element == .f32, let depth = x.type.shape.last.fixedValue, depth > 0, x.type.rank >= 2,
      x.rowStride == nil || x.type.rank == 2, let tokens = x.type.shape.product(0..<(x.type.rank - 1))
    else { return [] }
    var extents = ExtentTable()
    let config = QuantizeRowsConfig(
      depth: depth, group: group, codeBits: op.codeBits ?? 8, tokens: extents.extent(tokens, "T"),
      inputStride: x.rowStride, norm: chain?.norm, rotation: chain?.rotation)
    let size = Double(tokens.maximum) * Double(depth)
    return [
      KernelChoice(
        config.build(target: target), work: KernelWork(floatOperations: 8 * size, bytes: 5 * size), target: target,
        pointers: query.operands.indices.map { .input($0) } + [.result(0)], extents: extents, layouts: query.unpacked,
        result: ActivationLayout(depth: depth, group: group).packed)
    ]
  }
}

/// Products of two computed factors.
package enum DenseMatMulKernel: Kernel {
  package static let name = "matmul_dense"
  package static let summary = "matrix products of two f32 tensors as they lie in memory"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? MatMul, !op.epilogue.gated, query.isPlain(),
      query.operands.allSatisfy({ $0.type.element == .f32 })
    else { return [] }
    let (a, b) = (query.operands[0].type.shape, query.operands[1].type.shape)
    guard a.rank >= 2, b.rank >= 2, let leading = a.product(0..<(a.rank - 2)), let other = b.product(0..<(b.rank - 2))
    else { return [] }
    // The leading axes of the right factor are the last of those of the left one, or there is one item.
    let isSame = a.rank == b.rank && Array(a.dims.dropLast(2)) == Array(b.dims.dropLast(2))
    let isSuffix = a.rank > b.rank && Array(a.dims.dropLast(2).suffix(b.rank - 2)) == Array(b.dims.dropLast(2))
    let period = isSame || other == 1 || !isSuffix ? nil : other.fixedValue
    guard other == 1 || isSame || period != nil else { return [] }
    var extents = ExtentTable()
    let columns = b[b.rank - (op.transposeB ? 2 : 1)]
    let config = DenseMatMulConfig(
      batch: extents.extent(leading, "B"), sharesRight: other == 1, period: period,
      rows: extents.extent(a[a.rank - 2], "M"), depth: extents.extent(a.last, "K"),
      columns: extents.extent(columns, "N"), transposesRight: op.transposeB, epilogue: op.epilogue)
    let count = Double(leading.maximum) * Double(a[a.rank - 2].maximum)
    let size = Double(a.last.maximum) * Double(columns.maximum)
    return [
      KernelChoice(
        config.build(target: target),
        // Factors in panels are read at least as fast.
        work: KernelWork(
          floatOperations: 8 * count * size,
          bytes: 4.4 * (size * Double(other.maximum) + count * Double(a.last.maximum + columns.maximum))),
        target: target, pointers: query.operands.indices.map { .input($0) } + [.result(0)], extents: extents,
        layouts: query.unpacked)
    ]
  }
}

/// What a chain does to the first operand of a kernel that quantizes it: a norm, a rotation, then rounding to int8, or some
/// of them.
struct ChainedInput {
  var operation: any Operator
  var norm: NormInput?
  var rotation: RotationInput?
  /// The group of the rounding, nil if there is none before the operation, and the bits of its codes.
  var group: Int?
  var codeBits = 8

  /// Nil if the query is no chain, or one of other operators.
  init?(_ query: KernelQuery) {
    guard let chain = query.operation.op as? Chained, let x = query.operands.first, x.type.element == .f32,
      x.type.isDense, x.dequantized == nil
    else { return nil }
    operation = chain.operation.op
    var links = chain.before[...]
    if let link = links.first, link.operation.op is RMSNorm || link.operation.op is LayerNorm {
      let axis: Int, epsilon: Float
      switch link.operation.op {
      case let op as RMSNorm: (axis, epsilon) = (op.axis, op.epsilon)
      case let op as LayerNorm: (axis, epsilon) = (op.axis, op.epsilon)
      default: return nil
      }
      let operands = query.operands.suffix(link.operands)
      let types = operands.compactMap { $0.type.element.scalar }
      guard x.type.shape.normalizedAxis(axis) == x.type.rank - 1, types.count == operands.count,
        (1...2).contains(types.count),
        types.allSatisfy({ $0.isFloat && $0 != .f64 }),
        operands.allSatisfy({ $0.type.isDense && $0.dequantized == nil && $0.rowStride == nil })
      else { return nil }
      norm = NormInput(
        isCentered: link.operation.op is LayerNorm, epsilon: epsilon, weight: types[0],
        bias: types.count > 1 ? types[1] : nil)
      links = links.dropFirst()
    }
    if let op = links.first?.operation.op as? Hadamard {
      guard let columns = x.type.shape.last.fixedValue, op.axis == -1 || op.axis == x.type.rank - 1,
        let rotation = RotationInput(op, columns: columns)
      else { return nil }
      self.rotation = rotation
      links = links.dropFirst()
    }
    if links.count == 2, let quantize = links.first?.operation.op as? Quantize, links.last?.operation.op is Dequantize {
      guard quantize.format.bits == 8, quantize.format.scale == .f32, let length = quantize.format.group else {
        return nil
      }
      group = length
      codeBits = quantize.codeBits ?? 8
      links = []
    }
    guard links.isEmpty else { return nil }
  }
}
