import IR
import Tensors

/// Products with the weights of the chosen experts (see `ExpertMatMul`), over panels as those of `MatMulConfig`, one set for each
/// expert.
package struct ExpertMatMulConfig: Hashable, Codable, Sendable {
  /// The product of one row with the weights of one expert.
  package var product: MatMulConfig
  package var experts: Int
  package var slots: Int
  package var tokens: Extent
  /// Whether x has a row for each slot of a token, not one for all of them.
  package var hasRowPerSlot: Bool
  /// Whether the results of a token's slots are added up, weighted.
  package var sums: Bool
  /// The largest number of tokens.
  package var most: Int

  package func name(target: Target) -> String {
    var parts = [product.name(target: target).replacingPrefix("mcc_matmul", with: "mcc_expert_matmul")]
    parts.append("\(slots)of\(experts)")
    if hasRowPerSlot { parts.append("rows") }
    if sums { parts.append("sum") }
    if tokens.fixedValue == nil { parts.append("tokens\(most)") }
    return parts.joined(separator: "_")
  }

  /// Parameters: x, w, ids, the weights of the slots if they are summed, y, then the number of tokens if it is a run-time
  /// one. Threads share the panels, which are the same rows of all experts.
  ///
  /// One token reads the panels of its experts one after the other. Of more tokens each thread lists for every expert the
  /// rows that chose it, and computes these in tiles, so that weights are read once per tile.
  package func build(target: Target) -> KernelFunction {
    let k = KernelBuilder(name(target: target), target: target)
    let layout = product.panel(target: target)
    k.comment = [
      "The products of \(tokens.text) x \(slots) rows with the \(layout.rows) x \(layout.depth) weights of their experts.",
      "w: \(experts) times \(layout.panelCount) panels of \(layout.panelRows) rows, \(layout.panelBytes) bytes each, "
        + product.weights.text,
    ]
    let x = k.input("x", product.activationGroup == nil ? .f32 : .u8)
    let w = k.input("w", product.weights.element ?? .u8)
    let ids = k.input("ids", .i32)
    let weights = sums ? k.input("weights", .f32) : nil
    let y = k.output("y", .f32)
    let count = k.extent(tokens)
    let panelStride = Expression.integer(layout.panelBytes / w.element.byteCount)
    let body = ExpertMatMulBody(
      config: self, k: k, layout: layout, x: x, w: w, ids: ids, weights: weights, y: y,
      expertStride: .integer(layout.panelCount) * panelStride, panelStride: panelStride)
    if tokens == .fixed(1) { body.oneToken() } else { body.manyTokens(count) }
    return k.finish()
  }
}

extension String {
  fileprivate func replacingPrefix(_ prefix: String, with other: String) -> String {
    hasPrefix(prefix) ? other + dropFirst(prefix.count) : self
  }
}

/// Emits the statements of one kernel.
private struct ExpertMatMulBody {
  let config: ExpertMatMulConfig
  let k: KernelBuilder
  let layout: PanelLayout
  let x, w, ids: Pointer
  let weights: Pointer?
  let y: Pointer
  let expertStride, panelStride: Expression

  /// The sums of some rows of x with a panel of an expert.
  private func tile(_ rows: [Expression], panel: Pointer) -> [[Expression]] {
    MatMulTile(config: config.product, layout: layout, builder: k, x: x, w: panel, tokens: rows, ahead: nil).sums()
  }

  private func pointer(expert: Expression, panel: Expression) -> Pointer {
    k.pointer("wp", w, offset: expert * expertStride + panel * panelStride)
  }

  func oneToken() {
    let panels = Expression.integer(layout.panelCount)
    if let weights {
      let part = k.partition(panels)
      k.loop("panel", from: part.begin, to: part.end) { panel in
        let totals = (0..<config.product.vectors).map { _ in k.variable("total", .broadcast(.real(0))) }
        k.loop("slot", to: .integer(config.slots)) { slot in
          let expert = k.define("expert", ids[slot].asIndex)
          let sums = tile([config.hasRowPerSlot ? slot : 0], panel: pointer(expert: expert, panel: panel))[0]
          let weight = k.define("weight", .broadcast(weights[slot]))
          for (total, sum) in zip(totals, sums) { k.assign(total, .multiplyAdd(weight, sum, total)) }
        }
        config.product.storeRow(k, totals, panel: panel, token: 0, bias: nil, residual: nil, y: y)
      }
      return
    }
    let part = k.partition(panels * .integer(config.slots))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let slot = k.define("slot", unit / panels), panel = k.define("panel", unit % panels)
      let expert = k.define("expert", ids[slot].asIndex)
      let sums = tile([config.hasRowPerSlot ? slot : 0], panel: pointer(expert: expert, panel: panel))[0]
      config.product.storeRow(k, sums, panel: panel, token: slot, bias: nil, residual: nil, y: y)
    }
  }

  func manyTokens(_ count: Expression) {
    let part = k.partition(.integer(layout.panelCount))
    let places = k.array("places", .i32, count: config.most * config.slots)
    if weights != nil {
      // This thread's columns begin with zeros.
      let width = config.product.vectors * k.lanes
      let first = k.define("first_column", .minimum(part.begin * .integer(width), .integer(config.product.columns)))
      let end = k.define("end_column", .minimum(part.end * .integer(width), .integer(config.product.columns)))
      k.loop("token", to: count) { token in
        k.vectorLoop("j", count: end - first) { j, tail in
          k.store(y, token * .integer(config.product.columns) + first + j, .broadcast(.real(0)), count: tail)
        }
      }
    }
    k.loop("expert", to: .integer(config.experts)) { expert in
      let found = k.variable("found", .integer(0) + 0)
      k.loop("place", to: count * .integer(config.slots)) { place in
        k.condition(ids[place].asIndex.isEqual(to: expert)) {
          k.store(places, found, .convert(place, .i32))
          k.assign(found, found + 1)
        }
      }
      k.condition(found > 0) {
        k.loop("panel", from: part.begin, to: part.end) { panel in
          let weightsOfPanel = pointer(expert: expert, panel: panel)
          var size = config.product.tokenTile
          let full = k.define("full", found / .integer(size) * .integer(size))
          k.loop("first", to: full, step: size) { compute(places, $0, size, panel, weightsOfPanel) }
          guard size > 1 else { return }
          let rest = k.define("rest", found - full)
          var half = 1
          while 2 * half < size { half *= 2 }
          size = half
          while size >= 1 {
            let done = rest / .integer(2 * size) * .integer(2 * size)
            k.condition((rest & .integer(size)).isNotEqual(to: 0)) {
              compute(places, k.define("first", full + done), size, panel, weightsOfPanel)
            }
            size /= 2
          }
        }
      }
    }
  }

  /// The products of `size` listed rows, from `first` on, with a panel.
  private func compute(_ places: Pointer, _ first: Expression, _ size: Int, _ panel: Expression, _ w: Pointer) {
    let own = (0..<size).map { k.define("place", places[first + .integer($0)].asIndex) }
    let rows = own.map { config.hasRowPerSlot ? $0 : k.define("row", $0 / .integer(config.slots)) }
    let sums = tile(rows, panel: w)
    for (place, sums) in zip(own, sums) {
      guard let weights else {
        config.product.storeRow(k, sums, panel: panel, token: place, bias: nil, residual: nil, y: y)
        continue
      }
      var adding = config.product
      adding.epilogue = Epilogue(residual: .afterActivation)
      let weight = k.define("weight", .broadcast(weights[place]))
      adding.storeRow(
        k, sums.map { k.define("part", $0 * weight) }, panel: panel,
        token: k.define("token", place / .integer(config.slots)), bias: nil, residual: y, y: y)
    }
  }
}

/// Where the weights of all experts lie: the panels of one after those of the other.
struct ExpertLayout: Hashable {
  /// The panels of one expert.
  var panel: PanelLayout

  private static let prefix = "experts_"

  /// The layout as an encoding of tensor types: a row of the outermost axis is an expert.
  var packed: PackedLayout {
    PackedLayout(
      name: Self.prefix + panel.packed.name, rows: 1, panelBytes: panel.byteCount, parameters: panel.packed.parameters)
  }

  init(panel: PanelLayout) { self.panel = panel }

  /// The panels that a packed layout describes; nil if it is of another kind.
  init?(_ layout: PackedLayout) {
    guard layout.name.hasPrefix(Self.prefix), layout.parameters.count == 7, layout.parameters[2] > 0,
      layout.parameters[3] > 0, layout.parameters[2] <= 1 << 10, layout.parameters[3] <= 1 << 10
    else { return nil }
    var inner = PackedLayout(
      name: String(layout.name.dropFirst(Self.prefix.count)), rows: layout.parameters[2] * layout.parameters[3],
      panelBytes: 0, parameters: layout.parameters)
    guard let panel = PanelLayout(unchecked: inner) else { return nil }
    inner.panelBytes = panel.panelBytes
    guard panel.packed == inner, panel.byteCount == layout.panelBytes else { return nil }
    self.panel = panel
  }
}

/// Products with the weights of chosen experts.
package enum ExpertMatMulKernel: Kernel {
  package static let name = "expert_matmul"
  package static let summary = "products with the weights of the experts chosen for each token"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? ExpertMatMul, query.operands.count >= 3 else { return [] }
    let (x, w, ids) = (query.operands[0], query.operands[1], query.operands[2])
    guard w.isConstant, w.rowStride == nil, let shape = w.type.shape.fixedSizes, shape.allSatisfy({ $0 > 0 }),
      let weights = MatMulKernel.weightType(w), x.rowStride == nil, ids.type.element == .i32,
      let slots = ids.type.shape[1].fixedValue, slots > 0,
      query.operands.dropFirst(3).allSatisfy({ $0.type.isDense && $0.type.element == .f32 && $0.rowStride == nil }),
      let activation = MatMulKernel.activationGroup(x, weights: weights)
    else { return [] }
    var extents = ExtentTable()
    let tokens = extents.extent(ids.type.shape[0], "T")
    let most = ids.type.shape[0].maximum
    // The list of rows lies on the stack of every thread.
    guard tokens == .fixed(1) || most * slots <= 1 << 16 else { return [] }
    let vectors = (op.gated ? 2 : (shape[1] <= target.panelLanes ? 1 : 2)) * target.vectorsPerPanelLanes
    let product = MatMulConfig(
      weights: weights, activationGroup: activation.group, rows: shape[1], depth: shape[2], tokens: tokens,
      epilogue: op.epilogue, vectors: vectors,
      tokenTile: MatMulKernel.tokenTile(weights, isBytes: activation.group != nil, vectors: vectors, target: target))
    let config = ExpertMatMulConfig(
      product: product, experts: shape[0], slots: slots, tokens: tokens, hasRowPerSlot: x.type.rank == 3,
      sums: query.operands.count > 3, most: most)
    let layout = ExpertLayout(panel: product.panel(target: target)).packed
    var layouts = query.unpacked
    layouts[1] = layout
    let rows = Double(most * slots), size = Double(shape[1]) * Double(shape[2])
    var work = KernelWork()
    if activation.group != nil { work.byteOperations = 2 * rows * size } else { work.floatOperations = 2 * rows * size }
    if weights.isQuantized, activation.group == nil { work.floatOperations += 3 * rows * size }
    work.bytes = Double(layout.panelBytes) * min(rows, Double(shape[0]))
    return [
      KernelChoice(
        config.build(target: target), work: work, target: target,
        pointers: query.operands.indices.map { .input($0) } + [.result(0)], extents: extents, layouts: layouts)
    ]
  }

  package static func pack(
    _ rows: TensorView, as layout: PackedLayout, into bytes: UnsafeMutableRawBufferPointer
  ) throws -> Bool {
    guard let experts = ExpertLayout(layout) else { return false }
    let count = rows.sizes[0]
    var type = rows.type
    type.shape = Shape(Array(rows.type.shape.dims.dropFirst()))
    let source = rows.bytes.count / max(count, 1)
    for expert in 0..<count {
      let view = TensorView(
        type, UnsafeRawBufferPointer(rebasing: rows.bytes[(expert * source)..<((expert + 1) * source)]))
      try experts.panel.pack(
        view,
        into: UnsafeMutableRawBufferPointer(
          rebasing: bytes[(expert * layout.panelBytes)..<((expert + 1) * layout.panelBytes)]))
    }
    return true
  }
}
