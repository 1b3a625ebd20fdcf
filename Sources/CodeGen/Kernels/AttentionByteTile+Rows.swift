import IR

/// Blocks of keys and values as codes.
extension AttentionByteTile {
  /// Keys or values of one head in memory.
  private struct Source {
    let pointer: Pointer
    let element: CacheElement
    let stride, size, padded: Int
  }

  private func operand(_ place: Place, isKey: Bool) -> Source {
    let element = isKey ? config.key : config.value
    let stride = isKey ? config.keyStride : config.valueStride
    let size = isKey ? headDim : valueDim
    let offset = place.item * rowCount * .integer(stride) + place.shared * .integer(element.headStride(size))
    return Source(
      pointer: k.pointer(isKey ? "keys" : "values", isKey ? keyPointer : valuePointer, offset: offset),
      element: element, stride: stride, size: size, padded: isKey ? paddedHeadDim : paddedValueDim)
  }

  private func cacheRow(_ source: Source, _ row: Expression) -> CacheRow {
    CacheRow(k, source.pointer, source.element, at: row * .integer(source.stride), size: source.size)
  }

  /// Asks for the row a block behind: rows of one head lie too far apart for the processor to foresee the next ones.
  private func prefetch(_ source: Source, _ row: Expression) {
    let next = k.define("next", (row + .integer(block)) * .integer(source.stride))
    for line in Swift.stride(from: 0, to: source.element.headBytes(source.size), by: 64) {
      k.prefetch(source.pointer, next + .integer(line / source.element.scalar.byteCount))
    }
  }

  /// The block in f32, without gaps.
  private func widen(_ source: Source, _ key: Expression, _ rows: Expression, _ scratch: Scratch) {
    k.loop("r", to: rows) { r in
      prefetch(source, key + r)
      let row = cacheRow(source, key + r)
      k.vectorLoop("d", count: .integer(source.size)) { d, tail in
        k.store(scratch.rows, r * .integer(source.padded) + d, row.load(d, count: tail))
      }
    }
  }

  /// The mean of a column of the widened block, for each lane.
  private func columnMean(_ column: Expression, _ source: Source, rows: Expression, _ scratch: Scratch) -> Expression {
    let sum = k.variable("sum", .broadcast(.real(0)))
    k.loop("r", to: rows) { r in
      k.assign(sum, sum + scratch.rows.load(r * .integer(source.padded) + column))
    }
    return k.define("mean", sum * .broadcast(1 / rows.asFloat))
  }

  /// Codes, scales and means of a block of keys.
  func roundKeys(_ place: Place, _ key: Expression, rows: Expression, seen: Expression, _ scratch: Scratch) {
    let source = operand(place, isKey: true)
    func store(_ r: Expression, _ d: Expression, _ code: Expression) {
      k.store(scratch.keyCodes, r * .integer(paddedHeadDim) + d, isOffset ? code + .integer(128) : code)
    }
    guard !keepsKeys else {
      k.loop("r", to: seen) { r in
        prefetch(source, key + r)
        let row = cacheRow(source, key + r)
        if let scale = row.scale { k.store(scratch.keyScales, r, scale) }
        for part in source.element.parts(headDim, lanes: lanes) {
          store(r, .integer(part.start), k.define("code", row.loadUnscaled(part, lanes: lanes).asInt32))
        }
      }
      return
    }
    widen(source, key, rows, scratch)
    if let center = scratch.keyCenter {
      k.loop("d", to: .integer(paddedHeadDim), step: lanes) { d in
        k.store(center, d, columnMean(d, source, rows: rows, scratch))
      }
    }
    k.loop("r", to: seen) { r in
      func number(_ d: Expression) -> Expression {
        let number = scratch.rows.load(r * .integer(paddedHeadDim) + d)
        return scratch.keyCenter.map { number - $0.load(d) } ?? number
      }
      let factor = roundingFactor(of: paddedHeadDim, "top") { d, _ in number(d) }
      k.store(scratch.keyScales, r, factor.largest / 127)
      k.loop("d", to: .integer(paddedHeadDim), step: lanes) { d in
        store(r, d, k.define("code", (number(d) * factor.vector).asInt32))
      }
    }
  }

  /// Codes of a block of values, four keys to a word, with scales and means by column.
  func roundValues(_ place: Place, _ key: Expression, rows: Expression, seen: Expression, _ scratch: Scratch) {
    let source = operand(place, isKey: false)
    widen(source, key, rows, scratch)
    k.loop("d", to: .integer(paddedValueDim), step: lanes) { d in
      let center = form.smooth ? columnMean(d, source, rows: rows, scratch) : nil
      func number(_ r: Expression) -> Expression {
        let number = scratch.rows.load(r * .integer(paddedValueDim) + d)
        return center.map { number - $0 } ?? number
      }
      let high = k.variable("top", .broadcast(.real(0)))
      k.loop("r", to: rows) { r in k.assign(high, .maximum(number(r).absolute, high)) }
      let least = Expression.broadcast(.real(ByteAttention.leastMagnitude))
      let factor = k.define(
        "factor", .choose(high > least, .broadcast(.real(127)) / high, .broadcast(.real(0))))
      k.store(scratch.valueScales, d, high / .broadcast(.real(127)))
      if let center, let means = scratch.valueCenter { k.store(means, d, center) }
      k.loop("g", to: seen.dividedRoundingUp(by: 4)) { g in
        let words = (0..<4).map { byte in
          // Keys that are not seen have no weight, whatever their codes.
          let r = k.define("at", .minimum(g * 4 + .integer(byte), rows - 1))
          return bits(.multiplyAdd(number(r), factor, .broadcast(.real(Self.magic))))
        }
        k.store(scratch.valueWords, g * .integer(paddedValueDim) + d, word(words))
      }
    }
  }

  /// The bits of a number whose low ones are an integer.
  func bits(_ number: Expression) -> Expression { k.define("bits", .reinterpret(number, .i32)) }

  /// The low bytes of four values in one.
  func word(_ bytes: [Expression]) -> Expression {
    let low = bytes.dropLast().enumerated().map { index, byte in (byte & .integer(255)) << (8 * index) }
    return k.define("word", low.reduce(bytes[3] << 24) { $1 | $0 })
  }
}
