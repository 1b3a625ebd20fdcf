import Tensors

/// Writes rows of f32 into a cache at a position: cache[position + i] = rows[i], converted to the cache's type, or
/// rounded to codes as `BlockFormat` says: of 8 bits with an f32 scale, of 4 bits with a zero point and an f16
/// scale or with an f32 scale alone, or places in a table with the f16 scale that makes the number of largest magnitude the
/// largest level.
package struct CacheUpdateConfig: Hashable, Codable, Sendable {
  package var columns: Int
  package var tokens: Extent
  package var cache: ScalarType
  /// The blocks of a cache of codes, a whole number of groups in a row.
  package var format: BlockFormat?
  package var inputStride: Int

  package init(
    columns: Int, tokens: Extent, cache: ScalarType, format: BlockFormat? = nil, inputStride: Int? = nil
  ) {
    self.columns = columns
    self.tokens = tokens
    self.cache = cache
    self.format = format
    self.inputStride = inputStride ?? columns
  }

  package func name(target: Target) -> String {
    let type = format.map { $0.bits == 8 ? "i8g\($0.groupLength(columns: columns))" : $0.name } ?? cache.rawValue
    return "mcc_cache_update_\(type)_\(columns)\(inputStride == columns ? "" : "_stride\(inputStride)")"
      + "\(tokens.fixedValue.map { "_tokens\($0)" } ?? "")_\(target.suffix)"
  }

  /// Elements a thread takes at a time.
  private static let chunk = 64

  /// Parameters: rows, position, cache, then the number of tokens if it is a run-time one.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    k.comment = ["cache[position + i, \(columns)] = rows[i, \(columns)] for \(tokens.text) rows."]
    let rows = k.input("rows", .f32)
    let position = k.input("position", .i32)
    if let format {
      quantize(k, rows, position, k.output("cache", format.bits == 8 ? .i8 : .u8), format)
      return k.finish()
    }
    let cache = k.output("cache", self.cache)
    let chunks = (columns + Self.chunk - 1) / Self.chunk
    let part = k.partition(k.extent(tokens) * .integer(chunks))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let token = k.define("token", unit / .integer(chunks))
      let first = k.define("first", unit % .integer(chunks) * .integer(Self.chunk))
      let from = k.define("from", token * .integer(inputStride) + first)
      let to = k.define("to", (position[0].asIndex + token) * .integer(columns) + first)
      let copy = { (count: Int) in
        k.vectorLoop("j", count: .integer(count)) { j, tail in
          k.store(cache, to + j, rows.load(from + j, count: tail), count: tail)
        }
      }
      let rest = columns % Self.chunk
      if rest == 0 {
        copy(Self.chunk)
      } else if chunks == 1 {
        copy(rest)
      } else {
        k.condition(
          first < .integer(columns - rest), then: { copy(Self.chunk) }, otherwise: { copy(rest) })
      }
    }
    return k.finish()
  }

  /// Threads share the groups of all rows.
  private func quantize(
    _ k: KernelBuilder, _ rows: Pointer, _ position: Pointer, _ cache: Pointer, _ format: BlockFormat
  ) {
    let group = format.groupLength(columns: columns)
    let groups = columns / group
    let blockBytes = format.blockBytes(columns: columns)
    let part = k.partition(k.extent(tokens) * .integer(groups))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let token = k.define("token", unit / .integer(groups))
      let index = k.define("g", unit % .integer(groups))
      let block = k.pointer(
        "block", cache,
        offset: ((position[0].asIndex + token) * .integer(groups) + index) * .integer(blockBytes))
      let numbers = k.pointer("numbers", rows, offset: token * .integer(inputStride) + index * .integer(group))
      let writer = GroupWriter(k: k, numbers: numbers, block: block, group: group, format: format)
      switch (format.bits, format.codes) {
      case (_, .levels(let levels)): writer.writeLevels(levels)
      case (8, _): writer.writeBytes()
      case (_, .zeroPoint): writer.writeNibblesFromZeroPoint()
      default: writer.writeNibbles()
      }
    }
  }
}

/// One group of numbers on its way into a block.
private struct GroupWriter {
  let k: KernelBuilder
  let numbers: Pointer
  let block: Pointer
  let group: Int
  let format: BlockFormat

  private func store(scale: Expression) {
    k.store(k.pointer("scales", block, offset: 0, as: format.scale == .f16 ? .f16 : .f32), 0, scale)
  }

  /// The planes of the codes of all numbers.
  private func storePlanes(_ code: (Expression) -> Expression) {
    let planes = k.pointer("codes", block, offset: .integer(format.headerBytes))
    let stretch = format.stretch(columns: group)
    k.vectorLoop("j", count: .integer(stretch)) { j, tail in
      let codes = (0..<group / stretch).map {
        k.define("code", code(numbers.load(j + .integer($0 * stretch), count: tail)))
      }
      var (plane, shift) = (0, 0)
      for width in format.planes {
        let bytes = group * width / 8
        let step = bytes / stretch
        for first in 0..<step {
          let parts = (0..<8 / width).map { part -> Expression in
            var bits = codes[first + part * step]
            if shift > 0 { bits = bits >> shift }
            if shift + width < format.bits { bits = bits & .integer(1 << width - 1) }
            return part == 0 ? bits : bits << (part * width)
          }
          let byte = parts.dropFirst().reduce(parts[0]) { $0 | $1 }
          k.store(planes, j + .integer(plane + first * stretch), byte, count: tail)
        }
        plane += bytes
        shift += width
      }
    }
  }

  /// `d = max|x| / 127`, codes `x / d`.
  func writeBytes() {
    let largest = largestMagnitude()
    let scale = k.define("scale", largest / 127)
    store(scale: scale)
    let codes = k.pointer("codes", block, offset: .integer(format.headerBytes))
    let divisor = k.define("divisor", .broadcast(.choose(scale > 0.0, scale, 1.0)))
    k.vectorLoop("j", count: .integer(group)) { j, tail in
      k.store(codes, j, numbers.load(j, count: tail).quotientCode(divisor), count: tail)
    }
  }

  private func largestMagnitude() -> Expression {
    let largest = k.variable("largest", .broadcast(.real(0)))
    k.vectorLoop("j", count: .integer(group)) { j, tail in
      k.assign(largest, .maximum(numbers.load(j, count: tail).absolute, largest))
    }
    return k.define("most", .reduce(.maximum, largest))
  }

  /// The range from the least number to the greatest, 0 included, in 15 steps.
  func writeNibblesFromZeroPoint() {
    let least = k.variable("least", .broadcast(.real(0)))
    let greatest = k.variable("greatest", .broadcast(.real(0)))
    k.vectorLoop("j", count: .integer(group)) { j, tail in
      let x = k.define("x", numbers.load(j, count: tail))
      k.assign(least, .minimum(x, least))
      k.assign(greatest, .maximum(x, greatest))
    }
    let low = k.define("low_end", .reduce(.minimum, least))
    let high = k.define("high_end", .reduce(.maximum, greatest))
    let scale = k.define("scale", high / 15 - low / 15)
    store(scale: scale)
    let isFlat = scale.isEqual(to: 0.0)
    let steps = k.define("steps", .choose(isFlat, 0.0, -low / scale))
    let bounded = k.define("bounded", .maximum(steps, -15.0))
    let limited = k.define("limited", .minimum(bounded, 15.0))
    let zero = k.define("zero", .unary(.round, limited))
    k.store(block, .integer(format.scale.byteCount), .convert(zero, .i32))
    let inverse = k.define("inverse", .broadcast(.choose(isFlat, 0.0, 1 / scale)))
    let offset = k.define("offset", .broadcast(zero))
    storePlanes { x in
      let steps = Expression.minimum(.maximum(x * inverse, -30.0), 30.0)
      let code = Expression.unary(.round, steps + offset)
      return Expression.minimum(.maximum(code, 0.0), 15.0).asInt32
    }
  }

  /// The number of largest magnitude, the first of equals.
  private func largestNumber() -> Expression {
    let most = largestMagnitude()
    // Ends of the range that are equal in magnitude: which sign comes first decides.
    let positive = k.variable("positive", .broadcast(.real(Float(group))))
    let negative = k.variable("negative", .broadcast(.real(Float(group))))
    let wanted = k.define("wanted", .broadcast(most))
    let opposite = k.define("opposite", .broadcast(-most))
    k.vectorLoop("j", count: .integer(group)) { j, tail in
      let x = k.define("x", numbers.load(j, count: tail))
      let place = k.define("place", (Expression.laneNumbers + .broadcast(j.asInt32)).asFloat)
      k.assign(positive, .minimum(.choose(x.isEqual(to: wanted), place, positive), positive))
      k.assign(negative, .minimum(.choose(x.isEqual(to: opposite), place, negative), negative))
    }
    let isNegative = Expression.reduce(.minimum, negative) < Expression.reduce(.minimum, positive)
    return k.define("extreme", .choose(isNegative, -most, most))
  }

  /// The number of largest magnitude becomes the largest level; codes follow from the scale as it is stored.
  func writeLevels(_ levels: CodeLevels) {
    let highest = Float(levels.values[levels.values.count - 1])
    let wanted = k.define("wanted_scale", largestNumber() * .real(1 / highest))
    store(scale: .minimum(.maximum(wanted, -65504.0), 65504.0))
    let scale = k.define("scale", k.pointer("stored", block, offset: 0, as: .f16)[0])
    let inverse = k.define("inverse", .broadcast(.choose(scale.isEqual(to: 0.0), 0.0, 1 / scale)))
    storePlanes { x in
      let steps = k.define("steps", .minimum(.maximum(x * inverse, -128.0), 128.0))
      let above = levels.bounds.map { bound in
        Expression.choose(steps >= .broadcast(.real(bound)), .broadcast(.real(1)), .broadcast(.real(0)))
      }
      return above.dropFirst().reduce(above[0]) { $0 + $1 }.asInt32
    }
  }

  /// The number of largest magnitude has the code 0 of -8 steps.
  func writeNibbles() {
    let scale = k.define("scale", largestNumber() / -8)
    store(scale: scale)
    let inverse = k.define("inverse", .broadcast(.choose(scale.isEqual(to: 0.0), 0.0, 1 / scale)))
    storePlanes { x in
      let steps = Expression.minimum(.maximum(x * inverse, -8.0), 8.0)
      return Expression.minimum(.unary(.floor, steps + 8.5), 15.0).asInt32
    }
  }
}
