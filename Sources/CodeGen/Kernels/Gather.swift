import Tensors

/// Rows of a table by index: y[outer, i, inner] = table[outer, indices[i], inner], converted to f32 unless the table is
/// copied as it is.
package struct GatherConfig: Hashable, Sendable {
  /// How the table is stored.
  package enum Table: Hashable, Sendable {
    case dense(ScalarType)
    /// Canonical quantized rows.
    case block(BlockFormat)
    /// Panels of a matmul's weights, so that a tied embedding is stored once; `outer` is 1.
    case panel(PanelLayout)
  }

  package var table: Table
  package var outer: Extent
  /// Size of the axis that is indexed.
  package var rows: Extent
  package var count: Extent
  package var inner: Int
  package var index: ScalarType
  package var output: ScalarType

  package init(
    table: Table, outer: Extent = .fixed(1), rows: Extent, count: Extent, inner: Int, index: ScalarType = .i32,
    output: ScalarType = .f32
  ) {
    self.table = table
    self.outer = outer
    self.rows = rows
    self.count = count
    self.inner = inner
    self.index = index
    self.output = output
  }

  package func name(target: Target) -> String {
    let kind =
      switch table {
      case .dense(let type): type.rawValue
      case .block(let format): format.name
      case .panel(let layout):
        "panel_\(layout.weights.text)_\(layout.panelRows)\(layout.offset ? "_offset" : "")"
      }
    var parts = ["mcc_gather", kind, "\(rows.text)x\(inner)"]
    if outer != .fixed(1) { parts.append("outer\(outer.text)") }
    if let fixed = count.fixedValue { parts.append("count\(fixed)") }
    if index != .i32 { parts.append(index.rawValue) }
    if output != .f32 { parts.append("to_\(output.rawValue)") }
    return (parts + [target.suffix]).joined(separator: "_")
  }

  /// Elements a thread takes at a time.
  private static let chunk = 1024

  /// Parameters: table, indices, y, then the run-time ones of outer, count and rows. Threads share pieces of the rows.
  /// An index counts from the end if negative; one outside the table is moved to its edge.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    k.comment = [
      "y[\(outer.text), \(count.text), \(inner)] = rows of the table[\(outer.text), \(rows.text), \(inner)]."
    ]
    let element: ScalarType
    if case .dense(let type) = table {
      element = type
    } else if case .panel(let layout) = table {
      element = layout.weights.element ?? .u8
    } else {
      element = .u8
    }
    let source = k.input("table", element)
    let indices = k.input("indices", index)
    let y = k.output("y", output)
    let outerCount = k.extent(outer)
    let total = k.extent(count)
    let rows = k.extent(rows)
    let isDense: Bool
    if case .dense = table { isDense = true } else { isDense = false }
    let chunk = isDense ? Self.chunk : inner
    let chunks = max(1, (inner + chunk - 1) / max(chunk, 1))
    let part = k.partition(outerCount * total * .integer(chunks))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let row = k.define("row", unit / .integer(chunks))
      let first = k.define("first", unit % .integer(chunks) * .integer(chunk))
      let raw = k.define("raw", indices[outer == .fixed(1) ? row : row % total].asIndex)
      let wrapped = k.define("wrapped", .choose(raw < 0, raw + rows, raw))
      let position = k.define("position", .minimum(.maximum(wrapped, 0), rows - 1))
      let out = k.define("out", row * .integer(inner) + first)
      switch table {
      case .dense:
        let item: Expression = outer == .fixed(1) ? 0 : row / total
        let base = k.define("base", (item * rows + position) * .integer(inner) + first)
        let size =
          chunks == 1 ? Expression.integer(inner) : k.define("size", .minimum(.integer(inner) - first, .integer(chunk)))
        copy(k, source, base, y, out, size)
      case .block(let format):
        dequantize(k, source, format, row: (outer == .fixed(1) ? 0 : row / total) * rows + position, y, out)
      case .panel(let layout): unpack(k, source, layout, row: position, y, out)
      }
    }
    return k.finish()
  }

  private func copy(
    _ k: KernelBuilder, _ source: Pointer, _ base: Expression, _ y: Pointer, _ out: Expression, _ size: Expression
  ) {
    if source.element.loaded.isFloat && source.element != .f64 && output.isFloat && output != .f64 {
      k.vectorLoop("j", count: size) { j, tail in k.store(y, out + j, source.load(base + j, count: tail), count: tail) }
    } else {
      k.loop("j", to: size) { j in k.store(y, out + j, source[base + j]) }
    }
  }

  private func dequantize(
    _ k: KernelBuilder, _ source: Pointer, _ format: BlockFormat, row: Expression, _ y: Pointer, _ out: Expression
  ) {
    let group = format.groupLength(columns: inner)
    let bytes = format.blockBytes(columns: inner)
    let start = k.pointer("blocks", source, offset: row * .integer(format.rowBytes(columns: inner)))
    let body = { (index: Expression, columns: Int) in
      let block = k.pointer("block", start, offset: index * .integer(bytes))
      let scale = k.define("scale", blockScale(k, block, format))
      let place = k.define("place", out + index * .integer(group))
      if format.bits == 8 {
        let codes = k.pointer("codes", block, offset: .integer(format.scale.byteCount), as: .i8)
        k.vectorLoop("j", count: .integer(columns)) { j, tail in
          let loaded = codes.load(j, count: tail)
          let number = format.codes == .float8 ? k.float8(loaded << 24) : loaded.asFloat
          k.store(y, place + j, number * scale, count: tail)
        }
      } else {
        let codes = k.pointer("codes", block, offset: .integer(format.headerBytes))
        let zero =
          format.codes == .zeroPoint
          ? k.define("zero", .broadcast(.convert(block[.integer(format.scale.byteCount)].asIndex, .f32)))
          : .real(Float(format.middleCode))
        let table = format.levels.map { k.table($0) }
        // Stretches of columns in which every plane keeps to one shift.
        let stretch = format.stretch(columns: inner)
        for start in stride(from: 0, to: columns, by: stretch) {
          k.vectorLoop("j", count: .integer(min(stretch, columns - start))) { j, tail in
            var code: Expression?
            var (shift, plane) = (0, 0)
            for width in format.planes {
              let bytes = group * width / 8
              let loaded = codes.load(j + .integer(plane + start % bytes), count: tail)
              let bits = ((loaded >> (start / bytes * width)) & .integer(1 << width - 1)) << shift
              code = code.map { $0 | bits } ?? bits
              shift += width
              plane += bytes
            }
            guard let code else { return }
            // The low byte of each lane, with its sign.
            let level = table.map { (.lookup(table: $0, code) << 24).shiftedRightArithmetically(by: 24).asFloat }
            k.store(y, place + j + .integer(start), (level ?? code.asFloat - zero) * scale, count: tail)
          }
        }
      }
    }
    k.loop("g", to: .integer(inner / group)) { body($0, group) }
    if inner % group != 0 { body(.integer(inner / group), inner % group) }
  }

  /// The scale of a block in all lanes.
  private func blockScale(_ k: KernelBuilder, _ block: Pointer, _ format: BlockFormat) -> Expression {
    guard format.scale.byteCount == 1 else {
      return .broadcast(k.pointer("scale_bits", block, offset: 0, as: format.scale == .f16 ? .f16 : .f32)[0])
    }
    return k.scales(
      format.scale == .u8 ? .e8m0 : .e4m3, k.define("e", .broadcast(block[0].asIndex)),
      factor: .broadcast(.real(0.5 / format.divisor)))
  }

  private func unpack(
    _ k: KernelBuilder, _ source: Pointer, _ layout: PanelLayout, row: Expression, _ y: Pointer, _ out: Expression
  ) {
    precondition(!layout.gated, "an embedding has no gated rows")
    let slot = k.define("slot", row % .integer(layout.panelRows))
    let stride = layout.panelBytes / source.element.byteCount
    let panel = k.pointer("panel", source, offset: row / .integer(layout.panelRows) * .integer(stride))
    if layout.weights.element != nil {
      k.loop("j", to: .integer(inner)) { j in k.store(y, out + j, panel[j * .integer(layout.panelRows) + slot]) }
      return
    }
    let perRow = layout.weights == .w8(group: nil) || layout.weights == .float8(group: nil)
    let body = { (index: Expression, columns: Int) in
      let group = k.pointer(
        "group", panel, offset: .integer(layout.preambleBytes) + index * .integer(layout.groupBytes))
      let scale = k.define("scale", panelScale(k, layout, panel: panel, group: group, slot: slot))
      // Bytes of one row lie four together, one lane of a vector.
      let codes = k.pointer("codes", group, offset: .integer(layout.headerBytes) + slot * 4)
      let place = k.define("place", out + index * .integer(layout.group))
      let stride = 4 * layout.panelRows
      if case .narrow(let narrow) = layout.weights {
        let zero =
          narrow.hasZeroPoints
          ? k.define("zero", group[.integer(layout.scaleBytes) + slot].asIndex) : .integer(narrow.middle)
        // Columns of one shift in every plane: four in each unit of words.
        let unit = narrow.stepsPerUnit
        for step in 0..<unit {
          let steps = (columns / 4 + unit - 1 - step) / unit
          let rest = columns % 4
          let hasRest = rest > 0 && columns / 4 % unit == step
          let store = { (q: Expression, byte: Expression) in
            var code: Expression?
            for plane in narrow.planes {
              let word = q * .integer(unit / plane.steps) + .integer(plane.word + step / plane.steps)
              let loaded = codes[word * .integer(stride) + byte].asIndex
              let place = step % plane.steps * plane.width
              let bits = ((loaded >> place) & .integer(1 << plane.width - 1)) << plane.shift
              code = code.map { $0 | bits } ?? bits
            }
            guard let code else { return }
            let number = narrow.hasTable ? signed(panel[code].asIndex, layout, k) : code - zero
            k.store(y, place + q * .integer(4 * unit) + .integer(4 * step) + byte, number.asFloatValue * scale)
          }
          k.loop("q", to: .integer(steps)) { q in k.loop("b", to: 4) { store(q, $0) } }
          if hasRest { k.loop("b", to: .integer(rest)) { store(.integer(columns / 4 / unit), $0) } }
        }
        return
      }
      k.loop("j", to: .integer(columns)) { j in
        let byte = codes[j / 4 * .integer(stride) + j % 4].asIndex
        if case .float8 = layout.weights {
          let lanes = k.define("lanes", k.float8(.broadcast(byte) << 24))
          k.store(y, place + j, .reduce(.maximum, lanes) * scale)
        } else {
          k.store(y, place + j, signed(byte, layout, k).asFloatValue * scale)
        }
      }
    }
    let full = perRow ? 0 : inner / layout.group
    k.loop("g", to: .integer(full)) { body($0, layout.group) }
    if full * layout.group < inner { body(.integer(full), inner - full * layout.group) }
  }

  /// A signed byte that was read as unsigned, unless it is stored plus 128.
  private func signed(_ byte: Expression, _ layout: PanelLayout, _ k: KernelBuilder) -> Expression {
    layout.offset ? byte - 128 : k.define("code", byte ^ 128) - 128
  }

  /// The scale of a row in a group of a panel.
  private func panelScale(
    _ k: KernelBuilder, _ layout: PanelLayout, panel: Pointer, group: Pointer, slot: Expression
  ) -> Expression {
    if case .narrow(let codes) = layout.weights, codes.scale != .f16 {
      var factor: Expression?
      if codes.scale == .e4m3 {
        factor = .broadcast(k.pointer("factor", panel, offset: .integer(NarrowCodes.factorOffset), as: .f32)[0])
      }
      let lanes = k.scales(codes.scale, k.define("e", .broadcast(group[slot].asIndex)), factor: factor)
      return .reduce(.maximum, k.define("scales", lanes))
    }
    return k.pointer("scales", group, offset: 0, as: layout.scaleBytes == 4 * layout.panelRows ? .f32 : .f16)[slot]
  }
}

extension Expression {
  /// An index value as f32.
  fileprivate var asFloatValue: Expression { .convert(self, .f32) }
}
