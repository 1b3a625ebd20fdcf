import IR
import Tensors

/// The steps of a recurrent layer over time: see ``IR/Recurrence``.
///
/// The sums of all gates for some vectors of the state stay in registers while the recurrent weights of these are read, and the
/// new state follows from them at once. The state before a step is the row of the result before it. The threads share the entries
/// of the batch, or the state: then they wait for each other after each step, and each reads a part of the weights.
package struct RecurrenceConfig: Hashable, Sendable {
  package var operation: Recurrence
  package var times: Extent
  package var batch: Extent
  package var hidden: Int
  /// Vectors of the state whose sums are in registers at a time.
  package var vectors: Int
  /// Whether the weights lie in the panels of `RecurrenceLayout`, else as they are.
  package var isPacked: Bool
  /// Whether the threads share the state, else the entries.
  package var sharesState: Bool

  package init(
    operation: Recurrence, times: Extent, batch: Extent, hidden: Int, isPacked: Bool, sharesState: Bool, target: Target
  ) {
    self.operation = operation
    self.times = times
    self.batch = batch
    self.hidden = hidden
    self.isPacked = isPacked
    self.sharesState = sharesState
    vectors = Self.vectors(operation.cell, hidden: hidden, target: target)
  }

  /// Eight sums hide the latency of the multiply-add; a number that leaves no rest is taken if it is half of that or more.
  private static func vectors(_ cell: Recurrence.Cell, hidden: Int, target: Target) -> Int {
    let most = max(1, min(8 / cell.gates, (hidden + target.lanes - 1) / target.lanes))
    return (max(1, (most + 1) / 2)...most).reversed().first { hidden % ($0 * target.lanes) == 0 } ?? most
  }

  /// Where packed weights lie.
  package func layout(target: Target) -> RecurrenceLayout {
    RecurrenceLayout(hidden: hidden, gates: operation.cell.gates, units: vectors * target.lanes)
  }

  package func name(target: Target) -> String {
    "mcc_\(operation.cell.rawValue)\(operation.backward ? "_backward" : "")_\(times.text)x\(batch.text)x\(hidden)"
      + "\(isPacked ? "" : "_plain")\(sharesState ? "_split" : "")_\(shortHash("\(self)"))_\(target.suffix)"
  }

  /// Parameters: x, r, h0, then c0, bias, peepholes and lengths as far as there are any, y, then the run-time ones of times
  /// and batch.
  package func build(target: Target) -> KernelFunction { RecurrenceBuilder(self, target: target).build() }
}

/// Builds one kernel of a recurrent layer.
private struct RecurrenceBuilder {
  let config: RecurrenceConfig
  let target: Target
  let k: KernelBuilder
  let x, r, h0, y: Pointer
  let c0, bias, peepholes, lengths: Pointer?
  let times, entries: Expression

  private var op: Recurrence { config.operation }
  private var hidden: Int { config.hidden }
  private var gates: Int { op.cell.gates }
  /// Numbers of the state that are computed at a time.
  private var units: Int { config.vectors * k.lanes }

  init(_ config: RecurrenceConfig, target: Target) {
    self.config = config
    self.target = target
    k = KernelBuilder(config.name(target: target), target: target)
    let op = config.operation
    x = k.input("x", .f32)
    r = k.input("r", .f32)
    h0 = k.input("h0", .f32)
    c0 = op.cell == .lstm ? k.input("c0", .f32) : nil
    bias = op.resetsLater ? k.input("bias", .f32) : nil
    peepholes = op.peepholes ? k.input("peepholes", .f32) : nil
    lengths = op.lengths ? k.input("lengths", .i32) : nil
    y = k.output("y", .f32)
    times = k.extent(config.times)
    entries = k.extent(config.batch)
    let width = op.cell.gates * config.hidden
    k.comment = [
      "\(op.cell.rawValue) over x[\(config.times.text), \(config.batch.text), \(width)] with r[\(config.hidden), \(width)]: "
        + "y[t, \(config.batch.text), \(config.hidden)], then the last state and cell.",
      "Threads share the \(config.sharesState ? "state and meet after every step" : "entries").",
    ]
  }

  func build() -> KernelFunction {
    if config.sharesState { splitState() } else { splitEntries() }
    return k.finish()
  }

  /// Each thread computes whole entries.
  private func splitEntries() {
    let part = k.partition(entries)
    k.loop("entry", from: part.begin, to: part.end) { entry in
      let blocks: (begin: Expression, end: Expression) = (0, .integer((hidden + units - 1) / units))
      let count = length(of: entry)
      eachBlock(blocks) { block in begin(entry, block) }
      eachStep(count) { step, isFirst in
        let place = Place(self, entry: entry, step: step, count: count, isFirst: isFirst)
        for phase in phases { eachBlock(blocks) { block in compute(phase, place, block) } }
      }
      if hasEnd { eachBlock(blocks) { block in end(entry, count, block) } }
    }
  }

  /// Each thread computes a part of the state of all entries.
  private func splitState() {
    let part = k.partition(.integer((hidden + units - 1) / units))
    k.loop("entry", to: entries) { entry in eachBlock(part) { block in begin(entry, block) } }
    eachStep(times) { step, isFirst in
      for phase in phases {
        k.loop("entry", to: entries) { entry in
          let count = length(of: entry)
          func all() {
            let place = Place(self, entry: entry, step: step, count: count, isFirst: isFirst)
            eachBlock(part) { block in compute(phase, place, block) }
          }
          if lengths == nil { all() } else { k.condition(step < count, then: all) }
        }
        k.meet()
      }
    }
    guard hasEnd else { return }
    k.loop("entry", to: entries) { entry in
      let count = length(of: entry)
      eachBlock(part) { block in end(entry, count, block) }
    }
  }

  // MARK: Places

  /// Some vectors of the state: the first number, and how many there are, less than `units` in the last block.
  private struct Block {
    let index: Expression
    let first: Expression
    let count: Int
  }

  /// One step of an entry.
  private struct Place {
    /// The state before the step, the gates of the inputs, the row of the result.
    let previous, gates, row: Pointer
    let entry: Expression

    init(_ it: RecurrenceBuilder, entry: Expression, step: Expression, count: Expression, isFirst: Bool) {
      let k = it.k, hidden = it.hidden, backward = it.op.backward
      let time = backward ? k.define("time", count - 1 - step) : step
      let place = k.define("place", time * it.entries + entry)
      let before = backward ? place + it.entries : place - it.entries
      previous =
        isFirst
        ? k.pointer("previous", it.h0, offset: entry * .integer(hidden))
        : k.pointer("previous", it.y, offset: before * .integer(hidden))
      gates = k.pointer("gates", it.x, offset: place * .integer(it.gates * hidden))
      row = k.pointer("row", it.y, offset: place * .integer(hidden))
      self.entry = entry
    }
  }

  /// The times of an entry.
  private func length(of entry: Expression) -> Expression {
    lengths.map { k.define("count", $0[entry].asIndex) } ?? times
  }

  /// The first step, whose state is h0, then the others.
  private func eachStep(_ count: Expression, _ body: (Expression, Bool) -> Void) {
    if let number = count.constant {
      if number > 0 { body(0, true) }
    } else {
      k.condition(0 < count) { body(0, true) }
    }
    k.loop("step", from: 1, to: count) { body($0, false) }
  }

  /// The blocks of a range; the last of all may be shorter.
  private func eachBlock(_ range: (begin: Expression, end: Expression), _ body: (Block) -> Void) {
    let full = hidden / units, rest = hidden % units
    if full > 0 {
      let end = rest == 0 ? range.end : k.define("full", .minimum(range.end, .integer(full)))
      k.loop("block", from: range.begin, to: end) { block in
        body(Block(index: block, first: k.define("first", block * .integer(units)), count: units))
      }
    }
    guard rest > 0 else { return }
    let last = Block(index: .integer(full), first: .integer(full * units), count: rest)
    if range.end.constant != nil {
      body(last)
    } else {
      k.condition((range.begin <= .integer(full)) & (range.end > .integer(full))) { body(last) }
    }
  }

  /// The vectors of a block: their numbers and the masks of short ones.
  private func vectors(_ block: Block) -> [(offset: Int, tail: Expression?)] {
    stride(from: 0, to: block.count, by: k.lanes).map { offset in
      let rest = block.count - offset
      return (offset, rest < k.lanes ? .integer(rest) : nil)
    }
  }

  /// The rows of the result behind the last time, which hold the state and the cell.
  private func state(_ entry: Expression) -> Pointer {
    k.pointer("h", y, offset: (times * entries + entry) * .integer(hidden))
  }

  private func cell(_ entry: Expression) -> Pointer {
    k.pointer("c", y, offset: ((times + 1) * entries + entry) * .integer(hidden))
  }

  /// The first state, and cell, of an entry.
  private func begin(_ entry: Expression, _ block: Block) {
    let h = state(entry), c = cell(entry)
    let start = k.define("start", entry * .integer(hidden) + block.first)
    for (offset, tail) in vectors(block) {
      let place = block.first + .integer(offset), from = start + .integer(offset)
      k.store(h, place, h0.load(from, count: tail), count: tail)
      k.store(c, place, c0?.load(from, count: tail) ?? .broadcast(.real(0)), count: tail)
    }
  }

  private var hasEnd: Bool { lengths != nil || phases.count > 1 }

  /// Zeros for the times that an entry does not have, and in the place of a cell that only helped.
  private func end(_ entry: Expression, _ count: Expression, _ block: Block) {
    func clear(_ row: Pointer) {
      for (offset, tail) in vectors(block) {
        k.store(row, block.first + .integer(offset), .broadcast(.real(0)), count: tail)
      }
    }
    if phases.count > 1 { clear(cell(entry)) }
    guard lengths != nil else { return }
    k.loop("rest", from: count, to: times) { time in
      clear(k.pointer("zeros", y, offset: (time * entries + entry) * .integer(hidden)))
    }
  }

  // MARK: Steps

  /// What threads that share the state compute before they meet.
  private enum Phase { case whole, reset, candidate }

  /// The candidate of a GRU that multiplies after resetting needs all of the reset state.
  private var phases: [Phase] { op.cell == .gru && !op.resetsLater ? [.reset, .candidate] : [.whole] }

  private func compute(_ phase: Phase, _ place: Place, _ block: Block) {
    switch (op.cell, phase) {
    case (.rnn, _): rnn(place, block)
    case (.lstm, _): lstm(place, block)
    case (.gru, .whole): gru(place, block)
    case (.gru, .reset): reset(place, block)
    case (.gru, .candidate): candidate(place, block)
    }
  }

  /// For each vector of the block the sums over i of `v[i] * r[i, unit]` of some gates, which begin with `start`.
  private func products(
    _ v: Pointer, _ block: Block, gates chosen: Range<Int>,
    start: (_ gate: Int, _ place: Expression, _ tail: Expression?) -> Expression
  ) -> [[Expression]] {
    let parts = vectors(block)
    let sums = parts.map { part in
      chosen.map { gate in
        k.variable("s", start(gate, block.first + .integer(part.offset), part.tail))
      }
    }
    let panel =
      config.isPacked
      ? k.pointer("panel", r, offset: block.index * .integer(hidden * gates * units))
      : k.pointer("panel", r, offset: block.first)
    k.loop("i", to: .integer(hidden)) { i in
      let factor = k.define("factor", .broadcast(v[i]))
      let line = k.define("line", i * .integer(gates * (config.isPacked ? units : hidden)))
      for (part, sums) in zip(parts, sums) {
        for (gate, sum) in zip(chosen, sums) {
          let column = gate * (config.isPacked ? units : hidden) + part.offset
          let weights = panel.load(line + .integer(column), count: config.isPacked ? nil : part.tail)
          k.assign(sum, .multiplyAdd(factor, weights, sum))
        }
      }
    }
    return sums
  }

  private func activation(_ index: Int, _ value: Expression) -> Expression {
    k.define("f", op.activations[index].render([k.define("a", value)], in: k).adapted(to: .vector(.f32)))
  }

  /// What the inputs add to a gate.
  private func input(_ place: Place, _ gate: Int, _ unit: Expression, _ tail: Expression?) -> Expression {
    place.gates.load(.integer(gate * hidden) + unit, count: tail)
  }

  /// Writes a part of the new state to the row of the result and behind the last one.
  private func finish(_ value: Expression, _ place: Place, _ h: Pointer, _ unit: Expression, _ tail: Expression?) {
    let value = k.define("value", value)
    k.store(place.row, unit, value, count: tail)
    k.store(h, unit, value, count: tail)
  }

  private func rnn(_ place: Place, _ block: Block) {
    let h = state(place.entry)
    let sums = products(place.previous, block, gates: 0..<1) { input(place, $0, $1, $2) }
    for (part, sums) in zip(vectors(block), sums) {
      finish(activation(0, sums[0]), place, h, block.first + .integer(part.offset), part.tail)
    }
  }

  private func gru(_ place: Place, _ block: Block) {
    let h = state(place.entry)
    let sums = products(place.previous, block, gates: 0..<3) { gate, unit, tail in
      gate < 2 ? input(place, gate, unit, tail) : bias?.load(unit, count: tail) ?? .broadcast(.real(0))
    }
    for (part, sums) in zip(vectors(block), sums) {
      let unit = block.first + .integer(part.offset)
      let z = activation(0, sums[0]), r = activation(0, sums[1])
      let new = activation(1, .multiplyAdd(r, sums[2], input(place, 2, unit, part.tail)))
      finish((1 - z) * new + z * place.previous.load(unit, count: part.tail), place, h, unit, part.tail)
    }
  }

  /// The update gate, kept in the row of the result, and the state times the reset gate, kept in the row of the cell.
  private func reset(_ place: Place, _ block: Block) {
    let scratch = cell(place.entry)
    let sums = products(place.previous, block, gates: 0..<2) { input(place, $0, $1, $2) }
    for (part, sums) in zip(vectors(block), sums) {
      let unit = block.first + .integer(part.offset)
      k.store(place.row, unit, activation(0, sums[0]), count: part.tail)
      let rest = activation(0, sums[1]) * place.previous.load(unit, count: part.tail)
      k.store(scratch, unit, rest, count: part.tail)
    }
  }

  private func candidate(_ place: Place, _ block: Block) {
    let h = state(place.entry), scratch = cell(place.entry)
    let sums = products(scratch, block, gates: 2..<3) { input(place, $0, $1, $2) }
    for (part, sums) in zip(vectors(block), sums) {
      let unit = block.first + .integer(part.offset)
      let new = activation(1, sums[0])
      let z = k.define("z", place.row.load(unit, count: part.tail))
      finish((1 - z) * new + z * place.previous.load(unit, count: part.tail), place, h, unit, part.tail)
    }
  }

  private func lstm(_ place: Place, _ block: Block) {
    let h = state(place.entry), c = cell(place.entry)
    let sums = products(place.previous, block, gates: 0..<4) { input(place, $0, $1, $2) }
    for (part, sums) in zip(vectors(block), sums) {
      let unit = block.first + .integer(part.offset), tail = part.tail
      /// Gate `index` with what the cell adds through the `index`-th peepholes but one.
      func gate(_ index: Int, _ peephole: Int, _ cell: Expression) -> Expression {
        let sum = sums[index]
        guard let peepholes else { return activation(0, sum) }
        return activation(
          0, .multiplyAdd(peepholes.load(.integer(peephole * hidden) + unit, count: tail), cell, sum))
      }
      let old = k.define("old", c.load(unit, count: tail))
      let i = gate(0, 0, old)
      let forget = op.couplesGates ? k.define("forget", 1 - i) : gate(2, 2, old)
      let new = activation(1, sums[3])
      let next = k.define("next", forget * old + i * new)
      let o = gate(1, 1, next)
      k.store(c, unit, next, count: tail)
      finish(o * activation(2, next), place, h, unit, tail)
    }
  }
}
