import IR

/// The steps of a recurrent layer over time, entry by entry of the batch: see ``IR/Recurrence``.
///
/// A step multiplies the row h with the recurrent weights, which lie with one row for each number of h, in blocks of columns
/// whose sums stay in registers, then computes the new state from the gates. The state lies in the last two rows of the
/// result. The weights are read once per step and entry. Threads share the entries.
package struct RecurrenceConfig: Hashable, Sendable {
  package var operation: Recurrence
  package var times: Extent
  package var batch: Extent
  package var hidden: Int

  package init(operation: Recurrence, times: Extent, batch: Extent, hidden: Int) {
    self.operation = operation
    self.times = times
    self.batch = batch
    self.hidden = hidden
  }

  private var width: Int { hidden * operation.cell.gates }

  package func name(target: Target) -> String {
    "mcc_\(operation.cell.rawValue)\(operation.backward ? "_backward" : "")_\(times.text)x\(batch.text)x\(hidden)"
      + "_\(shortHash("\(self)"))_\(target.suffix)"
  }

  /// Parameters: x, r, h0, then c0, bias, peepholes and lengths as far as there are any, y, then the run-time ones of times
  /// and batch.
  package func build(target: Target) -> KernelFunction {
    let k = KernelBuilder(name(target: target), target: target)
    k.comment = [
      "\(operation.cell.rawValue) over x[\(times.text), \(batch.text), \(width)] with r[\(hidden), \(width)]: "
        + "y[t, \(batch.text), \(hidden)], then the last state and cell."
    ]
    let x = k.input("x", .f32), r = k.input("r", .f32), h0 = k.input("h0", .f32)
    let c0 = operation.cell == .lstm ? k.input("c0", .f32) : nil
    let bias = operation.resetsLater ? k.input("bias", .f32) : nil
    let peepholes = operation.peepholes ? k.input("peepholes", .f32) : nil
    let lengths = operation.lengths ? k.input("lengths", .i32) : nil
    let y = k.output("y", .f32)
    let all = k.extent(times), entries = k.extent(batch)
    let part = k.partition(entries)
    let sums = k.array("sums", .f32, count: width + k.lanes)
    let reset = operation.cell == .gru && !operation.resetsLater ? k.array("reset", .f32, count: hidden + k.lanes) : nil
    k.loop("entry", from: part.begin, to: part.end) { entry in
      let h = k.pointer("h", y, offset: (all * entries + entry) * .integer(hidden))
      let c = k.pointer("c", y, offset: ((all + 1) * entries + entry) * .integer(hidden))
      let first = k.define("first", entry * .integer(hidden))
      eachVector(k) { j, tail in
        k.store(h, j, h0.load(first + j, count: tail), count: tail)
        k.store(c, j, c0?.load(first + j, count: tail) ?? .broadcast(.real(0)), count: tail)
      }
      let count = lengths.map { k.define("count", $0[entry].asIndex) } ?? all
      k.loop("step", to: count) { step in
        let time = operation.backward ? k.define("time", count - 1 - step) : step
        let place = k.define("place", time * entries + entry)
        let gates = k.pointer("gates", x, offset: place * .integer(width))
        let row = k.pointer("row", y, offset: place * .integer(hidden))
        let state = State(h: h, c: c, row: row, gates: gates, sums: sums)
        switch operation.cell {
        case .rnn: rnn(k, state, r)
        case .gru: gru(k, state, r, bias, reset)
        case .lstm: lstm(k, state, r, peepholes)
        }
      }
      if lengths != nil {
        k.loop("rest", from: count, to: all) { time in
          let row = k.pointer("zeros", y, offset: (time * entries + entry) * .integer(hidden))
          eachVector(k) { j, tail in k.store(row, j, .broadcast(.real(0)), count: tail) }
        }
      }
    }
    return k.finish()
  }

  /// Where a step finds what it works on: state, cell, row of the result, gates of the inputs, and scratch for sums.
  private struct State {
    let h, c, row, gates, sums: Pointer
  }

  private func eachVector(_ k: KernelBuilder, _ body: (Expression, Expression?) -> Void) {
    k.vectorLoop("j", count: .integer(hidden), body)
  }

  private func activation(_ index: Int, _ value: Expression, in k: KernelBuilder) -> Expression {
    operation.activations[index].render([k.define("a", value)], in: k)
  }

  /// `sums[j] = start(j) + sum over i of v[i] * r[i, j]` for some columns.
  private func multiply(
    _ k: KernelBuilder, _ v: Pointer, _ r: Pointer, columns: Range<Int>, into sums: Pointer,
    start: ((Expression, Expression?) -> Expression)?
  ) {
    func block(_ column: Expression, vectors: Int, tail: Expression?) {
      let values = (0..<vectors).map { n -> Expression in
        let place = column + .integer(n * k.lanes)
        return k.variable("s\(n)", start.map { $0(place, tail) } ?? .broadcast(.real(0)))
      }
      k.loop("i", to: .integer(hidden)) { i in
        let factor = k.define("factor", .broadcast(v[i]))
        let line = k.define("line", i * .integer(width) + column)
        for n in 0..<vectors {
          k.assign(values[n], .multiplyAdd(factor, r.load(line + .integer(n * k.lanes), count: tail), values[n]))
        }
      }
      for n in 0..<vectors { k.store(sums, column + .integer(n * k.lanes), values[n], count: tail) }
    }
    let vectors = min(8, max(1, columns.count / k.lanes))
    let blocks = columns.count / (vectors * k.lanes)
    var next = columns.lowerBound
    if columns.count >= k.lanes {
      let end = next + blocks * vectors * k.lanes
      k.loop("column", from: .integer(next), to: .integer(end), step: vectors * k.lanes) {
        block($0, vectors: vectors, tail: nil)
      }
      next = end
    }
    while next < columns.upperBound {
      let rest = columns.upperBound - next
      block(.integer(next), vectors: 1, tail: rest < k.lanes ? .integer(rest) : nil)
      next += k.lanes
    }
  }

  private func rnn(_ k: KernelBuilder, _ s: State, _ r: Pointer) {
    multiply(k, s.h, r, columns: 0..<width, into: s.sums) { j, tail in s.gates.load(j, count: tail) }
    eachVector(k) { j, tail in
      let value = k.define("value", activation(0, s.sums.load(j, count: tail), in: k))
      k.store(s.h, j, value, count: tail)
      k.store(s.row, j, value, count: tail)
    }
  }

  private func gru(_ k: KernelBuilder, _ s: State, _ r: Pointer, _ bias: Pointer?, _ reset: Pointer?) {
    let plain = operation.resetsLater ? width : 2 * hidden
    multiply(k, s.h, r, columns: 0..<plain, into: s.sums, start: nil)
    func gate(_ index: Int, _ j: Expression, _ tail: Expression?) -> Expression {
      let place = .integer(index * hidden) + j
      return activation(0, s.gates.load(place, count: tail) + s.sums.load(place, count: tail), in: k)
    }
    if let reset {
      eachVector(k) { j, tail in k.store(reset, j, gate(1, j, tail) * s.h.load(j, count: tail), count: tail) }
      multiply(k, reset, r, columns: 2 * hidden..<width, into: s.sums, start: nil)
    }
    eachVector(k) { j, tail in
      let last = .integer(2 * hidden) + j
      var sum = s.sums.load(last, count: tail)
      if let bias { sum = gate(1, j, tail) * (sum + bias.load(j, count: tail)) }
      let new = k.define("new", activation(1, s.gates.load(last, count: tail) + sum, in: k))
      let z = k.define("z", gate(0, j, tail))
      let value = k.define("value", (1 - z) * new + z * s.h.load(j, count: tail))
      k.store(s.h, j, value, count: tail)
      k.store(s.row, j, value, count: tail)
    }
  }

  private func lstm(_ k: KernelBuilder, _ s: State, _ r: Pointer, _ peepholes: Pointer?) {
    multiply(k, s.h, r, columns: 0..<width, into: s.sums) { j, tail in s.gates.load(j, count: tail) }
    eachVector(k) { j, tail in
      func gate(_ index: Int, _ part: Int, _ cell: Expression) -> Expression {
        var sum = s.sums.load(.integer(index * hidden) + j, count: tail)
        if let peepholes { sum = sum + peepholes.load(.integer(part * hidden) + j, count: tail) * cell }
        return k.define("gate", activation(0, sum, in: k))
      }
      let old = k.define("old", s.c.load(j, count: tail))
      let i = gate(0, 0, old)
      let f = operation.couplesGates ? k.define("forget", 1 - i) : gate(2, 2, old)
      let n = k.define("new", activation(1, s.sums.load(.integer(3 * hidden) + j, count: tail), in: k))
      let c = k.define("cell", f * old + i * n)
      let o = gate(1, 1, c)
      let value = k.define("value", o * activation(2, c, in: k))
      k.store(s.c, j, c, count: tail)
      k.store(s.h, j, value, count: tail)
      k.store(s.row, j, value, count: tail)
    }
  }
}

/// Recurrent layers.
package enum RecurrenceKernel: Kernel {
  package static let name = "recurrence"
  package static let summary = "the steps of RNN, GRU and LSTM layers"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? Recurrence, query.isPlain(), let x = query.operands.first?.type,
      query.operands.indices.allSatisfy({ query.operands[$0].type.element == ($0 == op.lengthsIndex ? .i32 : .f32) }),
      let hidden = query.operands[1].type.shape[0].fixedValue, hidden * op.cell.gates <= 1 << 15
    else { return [] }
    var extents = ExtentTable()
    let config = RecurrenceConfig(
      operation: op, times: extents.extent(x.shape[0], "T"), batch: extents.extent(x.shape[1], "B"), hidden: hidden)
    let steps = Double(x.maximumCount)
    return [
      KernelChoice(
        config.build(target: target),
        work: KernelWork(floatOperations: steps * Double(2 * hidden + 20), bytes: 4 * steps * Double(hidden)),
        target: target, pointers: query.operands.indices.map { .input($0) } + [.result(0)], extents: extents,
        layouts: query.unpacked)
    ]
  }
}
