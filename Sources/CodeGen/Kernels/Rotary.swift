/// Rotary embedding of heads: pairs (a, b) become (a cos - b sin, b cos + a sin), cosines and sines from a table.
package struct RotaryConfig: Hashable, Codable, Sendable {
  package var heads: Int
  package var headDim: Int
  /// Pairs that turn per head.
  package var width: Int
  package var interleaved: Bool
  package var tokens: Extent
  package var inputStride: Int

  package init(heads: Int, headDim: Int, width: Int, interleaved: Bool, tokens: Extent, inputStride: Int? = nil) {
    self.heads = heads
    self.headDim = headDim
    self.width = width
    self.interleaved = interleaved
    self.tokens = tokens
    self.inputStride = inputStride ?? heads * headDim
  }

  package func name(target: Target) -> String {
    var parts = ["mcc_rope\(interleaved ? "_interleaved" : "")", "\(heads)x\(headDim)"]
    if 2 * width != headDim { parts.append("turn\(2 * width)") }
    if inputStride != heads * headDim { parts.append("stride\(inputStride)") }
    if let fixed = tokens.fixedValue { parts.append("tokens\(fixed)") }
    return (parts + [target.suffix]).joined(separator: "_")
  }

  /// Parameters: x, table, y (which may be x), then the number of tokens if it is a run-time one. Threads share the heads of
  /// all tokens.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    k.comment = [
      "Rotary embedding of x[\(tokens.text), \(heads) * \(headDim)] by table[\(tokens.text), cos and sin, \(width)]."
    ]
    let x = k.input("x", .f32)
    let table = k.input("table", .f32)
    let y = k.output("y", .f32)
    let count = k.extent(tokens)
    let part = k.partition(count * .integer(heads))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let token = k.define("token", unit / .integer(heads))
      let head = k.define("head", unit % .integer(heads))
      let from = k.pointer("from", x, offset: token * .integer(inputStride) + head * .integer(headDim))
      let to = k.pointer("to", y, offset: unit * .integer(headDim))
      let cosines = k.pointer("cosines", table, offset: token * .integer(2 * width))
      if interleaved {
        k.loop("j", to: .integer(width)) { j in
          let (a, b) = (k.define("a", from[j * 2]), k.define("b", from[j * 2 + 1]))
          let (c, s) = (k.define("c", cosines[j]), k.define("s", cosines[j + .integer(width)]))
          k.store(to, j * 2, a * c - b * s)
          k.store(to, j * 2 + 1, b * c + a * s)
        }
      } else {
        k.vectorLoop("j", count: .integer(width)) { j, tail in
          let a = k.define("a", from.load(j, count: tail))
          let b = k.define("b", from.load(j + .integer(width), count: tail))
          let c = k.define("c", cosines.load(j, count: tail))
          let s = k.define("s", cosines.load(j + .integer(width), count: tail))
          k.store(to, j, a * c - b * s, count: tail)
          k.store(to, j + .integer(width), b * c + a * s, count: tail)
        }
      }
      k.loop("j", from: .integer(2 * width), to: .integer(headDim)) { j in k.store(to, j, from[j]) }
    }
    return k.finish()
  }
}

/// The table of `RotaryConfig`: row i has cos((position + i) f[j]), then sin((position + i) f[j]), for all j.
package struct RotaryTableConfig: Hashable, Codable, Sendable {
  package var width: Int
  package var length: Extent

  package init(width: Int, length: Extent) {
    self.width = width
    self.length = length
  }

  package func name(target: Target) -> String {
    "mcc_rope_table_\(width)\(length.fixedValue.map { "_rows\($0)" } ?? "")_\(target.suffix)"
  }

  /// Parameters: position, inverse frequencies, table, then the number of rows if it is a run-time one.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    k.comment = ["table[\(length.text), 2, \(width)]: cosines and sines of (position + i) * frequencies[j]."]
    let position = k.input("position", .i32)
    let frequencies = k.input("frequencies", .f32)
    let table = k.output("table", .f32)
    let count = k.extent(length)
    let part = k.partition(count * .integer(width))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let row = k.define("row", unit / .integer(width))
      let j = k.define("j", unit % .integer(width))
      let angle = k.define("angle", (position[0].asIndex + row).asFloat * frequencies[j])
      let place = k.define("place", row * .integer(2 * width) + j)
      k.store(table, place, .call(.cos, angle))
      k.store(table, place + .integer(width), .call(.sin, angle))
    }
    return k.finish()
  }
}
