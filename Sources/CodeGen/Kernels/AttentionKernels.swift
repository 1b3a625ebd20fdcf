import IR
import Tensors

/// Attention over keys and values, cached or not.
package enum AttentionKernel: Kernel {
  package static let name = "attention"
  package static let summary =
    "scaled dot-product attention by online softmax; keys and values in f32, f16, bf16, 8 to 2 bits"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? Attention, query.operands.count >= 3,
      query.operands.indices.allSatisfy({ index in
        let operand = query.operands[index]
        return operand.dequantized == nil && (operand.type.isDense || index == 1 || index == 2)
          && (operand.rowStride == nil || index < 3)
      })
    else { return [] }
    let types = query.operands.map(\.type)
    let (q, k, v) = (types[0], types[1], types[2])
    let optional = op.optionalInputs(types)
    let heads = op.latent == nil ? op.kvHeads : nil
    guard q.element == .f32, let key = cacheElement(k, heads: heads), let value = cacheElement(v, heads: heads),
      let width = q.shape.last.fixedValue,
      let keyWidth = k.shape.last.fixedValue, let oldWidth = v.shape.last.fixedValue
    else { return [] }
    // The last rows are as wide as queries and results.
    let lastValues = op.recentInputs(types.count).map { types[$0.lowerBound + 1] }
    let valueWidth = lastValues.flatMap(\.shape.last.fixedValue) ?? oldWidth
    if let position = optional.position, types[position].element != .i32 { return [] }
    if let last = op.recentInputs(types.count), last.contains(where: { types[$0].element != .f32 }) { return [] }
    let others = op.formInputs(types.count) ?? 0..<0
    let apart = op.channels.map { $0.outliers > 0 ? others.suffix(2) : [] } ?? []
    if others.contains(where: { !apart.contains($0) && types[$0].element != .f32 }) { return [] }
    let apartElements = apart.compactMap { types[$0].element.scalar }
    guard apartElements.count == apart.count, apartElements.allSatisfy({ [.f32, .f16].contains($0) }) else { return [] }
    let rows = q.rank - 2
    var extents = ExtentTable()
    let batch = q.rank == 3 ? q.shape[0] : 1
    var mask: ScalarType?
    var broadcast: [Bool] = []
    if let index = optional.mask {
      guard let element = types[index].element.scalar, element == .f32 || types[index].element == .bool else {
        return []
      }
      mask = element
      let full: [Dim] = [batch, .fixed(op.heads), q.shape[rows], k.shape[rows]]
      let own = types[index].shape
      broadcast = full.indices.map { axis in
        let position = axis - (4 - own.rank)
        return position < 0 || own[position] != full[axis] || full[axis] == 1
      }
    }
    var config = AttentionConfig(
      isTiled: false, heads: op.heads, kvHeads: op.kvHeads, headDim: width / op.heads,
      valueDim: valueWidth / op.kvHeads,
      scale: op.scale, causal: op.causal, window: op.window, softcap: op.softcap, hasPosition: optional.position != nil,
      mask: mask, maskIsBroadcast: broadcast, batch: extents.extent(batch, "B"),
      tokens: extents.extent(q.shape[rows], "T"), keys: extents.extent(k.shape[rows], "S"), key: key, value: value,
      queryStride: query.operands[0].rowStride,
      keyStride: query.operands[1].rowStride ?? (heads == nil ? key.headStride(keyWidth) : nil),
      valueStride: query.operands[2].rowStride ?? (heads == nil ? value.headStride(oldWidth) : nil),
      recent: op.recent, keyRank: heads.map { keyWidth / $0 }, valueRank: heads.map { oldWidth / $0 })
    config.angleBlock = op.angleBlock
    config.latent = op.latentInputs(types.count).flatMap { range in
      op.latent.map {
        LatentConfig(
          keys: keyWidth, values: oldWidth, rows: $0,
          turning: range.count > 2 ? types[range.lowerBound + 2].shape.last.fixedValue ?? 0 : 0)
      }
    }
    config.channels = op.channels.map {
      ChannelConfig(
        rows: $0, turning: $0.angleBlock == nil ? 0 : types[others.lowerBound + 1].shape.last.fixedValue ?? 0,
        outliers: apartElements)
    }
    let queries = Double(batch.maximum) * Double(q.shape[rows].maximum) * Double(op.heads)
    let keys = Double(k.shape[rows].maximum)
    let bytes = Double(k.maximumByteCount + v.maximumByteCount)
    let pointers = types.indices.map { CallArgument.input($0) } + [.result(0)]
    func choice(
      _ function: KernelFunction, products: Double, bytewise: Double = 0, reads: Double = 1, _ layouts: [PackedLayout?]
    ) -> KernelChoice {
      KernelChoice(
        function,
        work: KernelWork(
          floatOperations: 4 * products * keys * Double(width / op.heads), byteOperations: bytewise,
          bytes: reads * bytes),
        target: target, pointers: pointers, extents: extents, layouts: layouts)
    }
    if let latent = config.latent {
      config.isTiled = true
      let queries = laneQueries(config, q, batch, target)
      let tiles = Int(queries) / (op.kvHeads * target.lanes) + 1
      let products = latent.operations(heads: op.kvHeads, headDim: config.headDim, tiles: tiles)
      return [
        choice(
          config.build(target: target), products: 2 * queries + products / Double(4 * config.headDim), query.unpacked)
      ]
    }
    if op.channels != nil {
      config.isTiled = true
      return [
        choice(config.build(target: target), products: 2 * laneQueries(config, q, batch, target), query.unpacked)
      ]
    }
    if let block = op.angleBlock {
      // As many angles as rows are read together, and one more.
      guard block > 4 else { return [] }
      config.isTiled = true
      return [
        choice(config.build(target: target), products: 2 * laneQueries(config, q, batch, target), query.unpacked)
      ]
    }
    // Without tiles rows are read once for each query of their head, all but the first time from a cache.
    let sharing = q.shape[rows].maximum * (op.heads / op.kvHeads)
    var choices = [false, true].map { isTiled in
      config.isTiled = isTiled
      return choice(
        config.build(target: target),
        products: isTiled ? 2 * laneQueries(config, q, batch, target) : 6 * queries,
        reads: isTiled || sharing == 1 ? 1 : 2, query.unpacked)
    }
    config.isTiled = false
    if let int8 = op.int8, q.shape[rows] != 1, !key.isPacked, !value.isPacked {
      var rounded = config
      rounded.int8 = int8
      choices.append(
        choice(
          rounded.build(target: target),
          products: 2 * queries * byteOverhead / Double(config.headDim + config.valueDim),
          bytewise: queries * keys * byteOperations(config, target), query.unpacked))
    }
    if config.canBeTiledByHead {
      // Lanes without query are computed as well.
      let tokens = Double((q.shape[rows].maximum + target.lanes - 1) / target.lanes * target.lanes)
      let products = Double(batch.maximum) * tokens * Double(op.heads)
      if let index = optional.mask, query.operands[index].isConstant, types[index].rank == 4,
        let layout = config.maskLayout(target: target)
      {
        var packed = config
        packed.maskIsTiled = true
        var layouts = query.unpacked
        layouts[index] = layout.packed
        choices.append(choice(packed.buildTiledByHead(target: target), products: products, layouts))
      }
      // Masks that are not packed are transposed number by number, which takes more than the widened tile does.
      choices.append(
        choice(
          config.buildTiledByHead(target: target), products: optional.mask == nil ? products : 2.6 * products,
          query.unpacked))
    }
    return choices
  }

  package static func pack(
    _ rows: TensorView, as layout: PackedLayout, into bytes: UnsafeMutableRawBufferPointer
  ) throws -> Bool {
    guard let mask = AttentionMaskLayout(layout) else { return false }
    try mask.pack(rows, into: bytes)
    return true
  }

  /// What softmax and the rounding of a score take besides products, as numbers of a head that are multiplied with f32.
  private static let byteOverhead = 20.0

  /// Operations on bytes for a query and a key. Where a step of a product is no instruction of its own, it takes about four
  /// times as long as one.
  private static func byteOperations(_ config: AttentionConfig, _ target: Target) -> Double {
    let vocabulary = target.vocabulary
    func share(_ dot: ByteDot) -> Double { vocabulary.hasInstruction(for: dot) ? 1 : 4 }
    let scores = Double(2 * config.headDim) * share(ByteDot(vocabulary.eightBitWeights))
    return scores + Double(2 * config.valueDim) * share(.unsignedActivations)
  }

  /// The queries of tiles, those included that stand in lanes without one.
  private static func laneQueries(_ config: AttentionConfig, _ q: TensorType, _ batch: Dim, _ target: Target) -> Double
  {
    let pairs = Double(q.shape[q.rank - 2].maximum * (config.heads / config.kvHeads))
    let lanes = Double(target.lanes / KeyInterleaving.copies(config, lanes: target.lanes))
    return Double(batch.maximum * config.kvHeads) * (pairs / lanes).rounded(.up) * lanes
  }

  /// How keys or values lie in memory, latent ones if rows have no heads; nil if kernels do not read them.
  private static func cacheElement(_ type: TensorType, heads: Int?) -> CacheElement? {
    if case .block(let format) = type.encoding {
      guard let columns = type.shape.last.fixedValue else { return nil }
      return CacheElement(format, size: heads.map { columns / $0 } ?? format.group ?? columns)
    }
    guard type.isDense, let element = type.element.scalar, element.isFloat, element != .f64 else { return nil }
    return CacheElement(element)
  }
}

/// Rows written into a cache.
package enum CacheUpdateKernel: Kernel {
  package static let name = "cache_update"
  package static let summary = "rows written into a cache of f32, f16, bf16, 8 to 2 bits at a position"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard query.operation.op is CacheUpdate, query.operands.count == 3, query.operands[0].rowStride == nil,
      query.operands.allSatisfy({ $0.dequantized == nil }), query.operands[1].type.isDense
    else { return [] }
    let (cache, rows) = (query.operands[0].type, query.operands[1])
    var format: BlockFormat?
    if case .block(let found) = cache.encoding {
      guard CacheElement.isWritten(found) else { return [] }
      format = found
    }
    guard let element = cache.element.scalar, cache.element.isFloat, element != .f64, rows.type.element == .f32,
      query.operands[2].type.element == .i32, let columns = cache.shape.last.fixedValue,
      format.map({ columns % $0.groupLength(columns: columns) == 0 }) ?? true
    else { return [] }
    var extents = ExtentTable()
    let config = CacheUpdateConfig(
      columns: columns, tokens: extents.extent(rows.type.shape[0], "T"), cache: element, format: format,
      inputStride: rows.rowStride)
    let size = Double(rows.type.maximumCount)
    return [
      KernelChoice(
        config.build(target: target), work: KernelWork(floatOperations: size, bytes: 8 * size), target: target,
        pointers: [.input(1), .input(2), .result(0)], extents: extents, layouts: query.unpacked, updates: [0])
    ]
  }
}

/// Rotary embedding.
package enum RotaryKernel: Kernel {
  package static let name = "rope"
  package static let summary = "rotary embedding by a table of cosines and sines"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? Rope, query.isPlain(except: [0]), query.operands.count == 2 else { return [] }
    let x = query.operands[0], table = query.operands[1].type
    let rank = x.type.rank
    guard x.type.element == .f32, table.element == .f32, let columns = x.type.shape.last.fixedValue,
      let width = table.shape.last.fixedValue, x.type.shape.dims.dropLast(2).allSatisfy({ $0 == 1 }),
      x.rowStride == nil || rank == 2
    else { return [] }
    var extents = ExtentTable()
    let config = RotaryConfig(
      heads: columns / op.headDim, headDim: op.headDim, width: width, interleaved: op.interleaved,
      tokens: extents.extent(x.type.shape[rank - 2], "T"), inputStride: x.rowStride)
    let size = Double(x.type.maximumCount)
    return [
      KernelChoice(
        config.build(target: target), work: KernelWork(floatOperations: 4 * size, bytes: 8 * size), target: target,
        pointers: [.input(0), .input(1), .result(0)], extents: extents, layouts: query.unpacked,
        inPlace: x.rowStride == nil ? [0] : [])
    ]
  }
}

/// Cosines and sines of rotary embedding.
package enum RotaryTableKernel: Kernel {
  package static let name = "rope_table"
  package static let summary = "cosines and sines of the angles of rotary embedding"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? RopeTable, query.isPlain(), query.operands.count == 2,
      query.operands[0].type.element == .i32, query.operands[1].type.element == .f32,
      let width = query.operands[1].type.shape.last.fixedValue
    else { return [] }
    var extents = ExtentTable()
    let config = RotaryTableConfig(width: width, length: extents.extent(op.length, "T"))
    return [
      KernelChoice(
        config.build(target: target), work: KernelWork(floatOperations: 200 * Double(width * op.length.maximum)),
        target: target, pointers: [.input(0), .input(1), .result(0)], extents: extents, layouts: query.unpacked)
    ]
  }
}
