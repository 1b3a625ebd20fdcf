/// Writes rows of f32 into a cache at a position: cache[position + i] = rows[i], converted to the cache's type;
/// `i8` stands for codes of `group` numbers behind an f32 scale, max|x| / 127.
package struct CacheUpdateConfig: Hashable, Codable, Sendable {
  package var columns: Int
  package var tokens: Extent
  package var cache: ScalarType
  /// Numbers of a scale, if the cache is `i8`.
  package var group: Int?
  package var inputStride: Int

  package init(columns: Int, tokens: Extent, cache: ScalarType, group: Int? = nil, inputStride: Int? = nil) {
    self.columns = columns
    self.tokens = tokens
    self.cache = cache
    self.group = group
    self.inputStride = inputStride ?? columns
  }

  package func name(target: Target) -> String {
    "mcc_cache_update_\(cache.rawValue)\(group.map { "g\($0)" } ?? "")_\(columns)\(inputStride == columns ? "" : "_stride\(inputStride)")"
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
    let cache = k.output("cache", self.cache)
    if let group {
      quantize(k, rows, position, cache, group: group)
      return k.finish()
    }
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
  private func quantize(_ k: KernelBuilder, _ rows: Pointer, _ position: Pointer, _ cache: Pointer, group: Int) {
    let groups = columns / group
    let blockBytes = AttentionConfig.headStride(.i8, group)
    let part = k.partition(k.extent(tokens) * .integer(groups))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let token = k.define("token", unit / .integer(groups))
      let index = k.define("g", unit % .integer(groups))
      let from = k.define("from", token * .integer(inputStride) + index * .integer(group))
      let block = k.pointer(
        "block", cache,
        offset: ((position[0].asIndex + token) * .integer(groups) + index) * .integer(blockBytes))
      let largest = k.variable("largest", .broadcast(.real(0)))
      k.vectorLoop("j", count: .integer(group)) { j, tail in
        k.assign(largest, .maximum(rows.load(from + j, count: tail).absolute, largest))
      }
      let scale = k.define("scale", Expression.reduce(.maximum, largest) / 127)
      k.store(k.pointer("scales", block, offset: 0, as: .f32), 0, scale)
      let codes = k.pointer("codes", block, offset: .integer(AttentionConfig.scaleBytes))
      let divisor = k.define("divisor", .broadcast(.choose(scale > 0.0, scale, 1.0)))
      k.vectorLoop("j", count: .integer(group)) { j, tail in
        k.store(codes, j, rows.load(from + j, count: tail).quotientCode(divisor), count: tail)
      }
    }
  }
}
