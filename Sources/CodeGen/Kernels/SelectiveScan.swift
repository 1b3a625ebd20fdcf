import IR
import Tensors

/// A causal convolution of each channel that goes on from a state of the last rows (see `CausalConv`).
package struct CausalConvConfig: Hashable, Codable, Sendable {
  package var taps: Int
  package var width: Int
  package var tokens: Extent
  package var hasBias: Bool
  package var activation: Activation
  package var inputStride: Int

  package func name(target: Target) -> String {
    "mcc_causal_conv_\(taps)x\(width)" + (hasBias ? "_bias" : "")
      + (activation == .none ? "" : "_\(activation.rawValue)") + (inputStride == width ? "" : "_stride\(inputStride)")
      + (tokens.fixedValue.map { "_tokens\($0)" } ?? "") + "_\(target.suffix)"
  }

  /// Parameters: x, weight, position, bias if there is one, state, y, then the number of tokens if it is a run-time one.
  /// Threads share vectors of channels; the rows of the state and the last ones of x stay in registers.
  package func build(target: Target) -> KernelFunction {
    let k = KernelBuilder(name(target: target), target: target)
    k.comment = ["\(taps) taps over \(tokens.text) rows of \(width) channels, after the \(taps - 1) rows of the state."]
    let x = k.input("x", .f32), weight = k.input("weight", .f32), position = k.input("position", .i32)
    let bias = hasBias ? k.input("bias", .f32) : nil
    let state = k.output("state", .f32), y = k.output("y", .f32)
    let count = k.extent(tokens)
    let fresh = k.define("fresh", position[0].asIndex.isEqual(to: 0))
    let part = k.partition(.integer((width + k.lanes - 1) / k.lanes))
    /// All rows of some channels.
    func channels(_ c: Expression, _ tail: Expression?) {
      let weights = (0..<taps).map { k.define("w\($0)", weight.load(.integer($0 * width) + c, count: tail)) }
      let start = bias.map { k.define("b", $0.load(c, count: tail)) } ?? .broadcast(.real(0))
      let rows = (0..<(taps - 1)).map { k.variable("z\($0)", .broadcast(.real(0))) }
      k.condition(.unary(.not, fresh)) {
        for (r, row) in rows.enumerated() { k.assign(row, state.load(.integer(r * width) + c, count: tail)) }
      }
      k.loop("token", to: count) { token in
        let next = k.define("next", x.load(token * .integer(inputStride) + c, count: tail))
        var sum = start
        for (row, weight) in zip(rows, weights) { sum = .multiplyAdd(row, weight, sum) }
        sum = k.define("sum", .multiplyAdd(next, weights[taps - 1], sum))
        k.store(y, token * .integer(width) + c, activation.function.render([sum], in: k), count: tail)
        for r in 0..<(taps - 2) { k.assign(rows[r], rows[r + 1]) }
        k.assign(rows[taps - 2], next)
      }
      for (r, row) in rows.enumerated() { k.store(state, .integer(r * width) + c, row, count: tail) }
    }
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let c = k.define("c", unit * .integer(k.lanes))
      let rest = width % k.lanes
      if rest == 0 {
        channels(c, nil)
      } else if width < k.lanes {
        channels(c, .integer(rest))
      } else {
        k.condition(
          c < .integer(width - rest), then: { channels(c, nil) }, otherwise: { channels(c, .integer(rest)) })
      }
    }
    return k.finish()
  }
}

/// The scan of a selective state space (see `SelectiveScan`).
package struct SelectiveScanConfig: Hashable, Codable, Sendable {
  package var width: Int
  package var size: Int
  package var tokens: Extent
  /// From row to row of x, dt, b and c.
  package var strides: [Int]

  package func name(target: Target) -> String {
    let isPlain = strides == [width, width, size, size]
    return "mcc_selective_scan_\(width)x\(size)"
      + (isPlain ? "" : "_strides" + strides.map { "\($0)" }.joined(separator: "_"))
      + (tokens.fixedValue.map { "_tokens\($0)" } ?? "") + "_\(target.suffix)"
  }

  /// Parameters: x, dt, a, b, c, d, position, state, y, then the number of tokens if it is a run-time one. Threads share
  /// the channels; the states of a channel are vectors, up to eight of them at a time in registers.
  package func build(target: Target) -> KernelFunction {
    let k = KernelBuilder(name(target: target), target: target)
    k.comment = ["The scan of \(tokens.text) rows of \(width) channels with \(size) states each."]
    let x = k.input("x", .f32), dt = k.input("dt", .f32), a = k.input("a", .f32)
    let b = k.input("b", .f32), c = k.input("c", .f32), d = k.input("d", .f32)
    let position = k.input("position", .i32)
    let state = k.output("state", .f32), y = k.output("y", .f32)
    let count = k.extent(tokens)
    let fresh = k.define("fresh", position[0].asIndex.isEqual(to: 0))
    let part = k.partition(.integer(width))
    let starts = Array(stride(from: 0, to: size, by: k.lanes))
    k.loop("channel", from: part.begin, to: part.end) { channel in
      let row = k.define("row", channel * .integer(size))
      for (number, chunk) in stride(from: 0, to: starts.count, by: 8).enumerated() {
        let own = Array(starts[chunk..<min(starts.count, chunk + 8)])
        func tail(_ start: Int) -> Expression? { size - start < k.lanes ? .integer(size - start) : nil }
        let rates = own.map { k.define("a", a.load(row + .integer($0), count: tail($0))) }
        let h = own.map { _ in k.variable("h", .broadcast(.real(0))) }
        k.condition(.unary(.not, fresh)) {
          for (h, start) in zip(h, own) { k.assign(h, state.load(row + .integer(start), count: tail(start))) }
        }
        k.loop("token", to: count) { token in
          let value = k.define("value", x[token * .integer(strides[0]) + channel])
          let step = k.define("step", dt[token * .integer(strides[1]) + channel])
          let wide = k.define("wide", .broadcast(step)), drive = k.define("drive", .broadcast(step * value))
          var products: Expression?
          for (index, start) in own.enumerated() {
            let decay = k.define("decay", .call(.exp, wide * rates[index]))
            let input = b.load(token * .integer(strides[2]) + .integer(start), count: tail(start))
            k.assign(h[index], .multiplyAdd(decay, h[index], drive * input))
            let output = c.load(token * .integer(strides[3]) + .integer(start), count: tail(start))
            products = products.map { .multiplyAdd(h[index], output, $0) } ?? h[index] * output
          }
          let place = token * .integer(width) + channel
          let sum = Expression.reduce(.sum, products ?? .broadcast(.real(0)))
          k.store(y, place, number == 0 ? .multiplyAdd(d[channel], value, sum) : y[place] + sum)
        }
        for (h, start) in zip(h, own) { k.store(state, row + .integer(start), h, count: tail(start)) }
      }
    }
    return k.finish()
  }
}

/// Causal convolutions and scans with a state.
package enum SelectiveScanKernel: Kernel {
  package static let name = "selective_scan"
  package static let summary = "causal_conv and selective_scan, which go on from a state"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    switch query.operation.op {
    case let op as CausalConv: try convolution(op, query, target)
    case is SelectiveScan: try scan(query, target)
    default: []
    }
  }

  private static func areFloats(_ query: KernelQuery, position: Int) -> Bool {
    query.operands.indices.allSatisfy {
      query.operands[$0].type.element == ($0 == position ? .i32 : .f32)
    }
  }

  private static func convolution(_ op: CausalConv, _ query: KernelQuery, _ target: Target) throws -> [KernelChoice] {
    guard query.isPlain(except: [1]), query.operands.count >= 4, areFloats(query, position: 3),
      let taps = query.operands[2].type.shape[0].fixedValue, taps <= 16,
      let width = query.operands[2].type.shape[1].fixedValue, width > 0
    else { return [] }
    var extents = ExtentTable()
    let x = query.operands[1]
    let config = CausalConvConfig(
      taps: taps, width: width, tokens: extents.extent(x.type.shape[0], "T"), hasBias: query.operands.count > 4,
      activation: op.activation, inputStride: x.rowStride ?? width)
    let size = Double(x.type.maximumCount)
    let inputs = [1, 2, 3, 4].prefix(query.operands.count - 1).map { CallArgument.input($0) }
    return [
      KernelChoice(
        config.build(target: target), work: KernelWork(floatOperations: 2 * Double(taps) * size, bytes: 8 * size),
        target: target, pointers: inputs + [.result(0), .result(1)], extents: extents, layouts: query.unpacked,
        updates: [0])
    ]
  }

  private static func scan(_ query: KernelQuery, _ target: Target) throws -> [KernelChoice] {
    guard query.isPlain(except: [1, 2, 4, 5]), query.operands.count == 8, areFloats(query, position: 7),
      let width = query.operands[0].type.shape[0].fixedValue, let size = query.operands[0].type.shape[1].fixedValue,
      width > 0, size > 0
    else { return [] }
    var extents = ExtentTable()
    let strides = zip([1, 2, 4, 5], [width, width, size, size]).map { query.operands[$0].rowStride ?? $1 }
    let tokens = query.operands[1].type.shape[0]
    let config = SelectiveScanConfig(
      width: width, size: size, tokens: extents.extent(tokens, "T"), strides: strides)
    let steps = Double(tokens.maximum) * Double(width) * Double(size)
    return [
      KernelChoice(
        config.build(target: target), work: KernelWork(floatOperations: 20 * steps, bytes: 8 * Double(width * size)),
        target: target, pointers: (1...7).map { .input($0) } + [.result(0), .result(1)], extents: extents,
        layouts: query.unpacked, updates: [0])
    ]
  }
}
