import Base
import Synchronization
import Tensors

/// Computes constants and the recipes on them in blocks of rows, straight from the mapped files.
///
/// A recipe is a value that depends on constants alone. Operators that are ``RowMapped`` are computed for the rows that
/// are asked for; others are computed whole, once, and kept until the value that needs them is complete.
package final class ConstantEvaluator: Sendable {
  private let model: Model
  private let graph: Graph
  private let wholes = Mutex<[ValueID: Tensor]>([:])

  /// An evaluator of recipes in `graph`, a function of `model`.
  package init(_ model: Model, _ graph: Graph) {
    self.model = model
    self.graph = graph
  }

  /// Whether a value depends on constants alone, not on symbols either.
  package static func isRecipe(_ value: ValueID, in graph: Graph) -> Bool {
    var seen: Set<ValueID> = []
    var stack = [value]
    while let id = stack.popLast() {
      guard seen.insert(id).inserted else { continue }
      switch graph[id].definition {
      case .constant: continue
      case .result(let node, _):
        if graph[node].inputs.isEmpty || graph[node].op.namesSymbols { return false }
        stack.append(contentsOf: graph[node].inputs)
      case .input, .state: return false
      }
    }
    return true
  }

  /// The whole value.
  package func tensor(_ value: ValueID) throws -> Tensor {
    let type = graph.type(of: value)
    guard type.shape.isFixed else {
      throw CompileError(.internal, "constant '%\(graph[value].name)' has no fixed size: \(type)")
    }
    let result = Tensor(type)
    try stream(value) { _, offset, bytes in
      let target = UnsafeMutableRawBufferPointer(rebasing: result.mutableView.bytes[offset..<offset + bytes.count])
      target.copyMemory(from: bytes)
    }
    return result
  }

  /// Computes the value in blocks of rows on all cores.
  ///
  /// `sink` is called with the rows of a block, the offset of its bytes in the whole tensor, and the bytes: about
  /// `blockBytes` of them, from several threads at once, in no fixed order. What it throws ends the walk.
  package func stream(
    _ value: ValueID, blockBytes: Int = 1 << 20,
    to sink: @Sendable (Range<Int>, Int, UnsafeRawBufferPointer) throws -> Void
  ) throws {
    let type = graph.type(of: value)
    guard let total = type.byteCount else {
      throw CompileError(.internal, "constant '%\(graph[value].name)' has no fixed size: \(type)")
    }
    if total == 0 { return }
    // What was computed whole for one value is rarely of use for another, and may be large.
    defer { wholes.withLock { $0.removeAll() } }
    let rows = Self.rows(of: type)
    let granularity = self.granularity(of: value)
    let units = (rows + granularity - 1) / granularity
    let unitBytes = max(1, Self.bytes(of: type, rows: 0..<min(granularity, rows)).count)
    let unitsPerBlock = min(units, max(1, blockBytes / unitBytes))
    let blocks = (units + unitsPerBlock - 1) / unitsPerBlock
    try parallelFor(blocks) { block in
      let first = block.lowerBound * unitsPerBlock * granularity
      let range = first..<min(rows, first + unitsPerBlock * granularity)
      let part = try self.rows(range, of: value)
      try sink(range, Self.bytes(of: type, rows: range).lowerBound, part.view.bytes)
      part.release()
    }
  }

  // MARK: Rows

  /// The outermost size; scalars have one row.
  private static func rows(of type: TensorType) -> Int { type.shape.dims.first?.fixedValue ?? 1 }

  /// The bytes of some outermost rows within the whole tensor.
  private static func bytes(of type: TensorType, rows: Range<Int>) -> Range<Int> {
    let total = type.byteCount ?? 0
    if case .packed(let layout) = type.encoding {
      return rows.lowerBound / layout.rows * layout.panelBytes..<layout.byteCount(rows: rows.upperBound)
    }
    if case .block = type.encoding, type.rank == 1 { return 0..<total }
    let count = self.rows(of: type)
    let row = count == 0 ? 0 : total / count
    return rows.lowerBound * row..<rows.upperBound * row
  }

  /// The type of some outermost rows.
  private static func type(_ type: TensorType, rows: Range<Int>) -> TensorType {
    guard type.rank > 0 else { return type }
    var part = type
    part.shape[0] = .fixed(rows.count)
    return part
  }

  /// The number whose multiples row blocks of a value start at.
  private func granularity(of value: ValueID) -> Int {
    let type = graph.type(of: value)
    if case .block = type.encoding, type.rank == 1 { return max(1, Self.rows(of: type)) }
    guard case .result(let node, 0) = graph[value].definition, let op = graph[node].op as? any RowMapped else {
      return 1
    }
    let types = graph[node].inputs.map { graph.type(of: $0) }
    var result = op.rowGranularity(types)
    // Inputs of which the same rows are needed must be able to begin there, too.
    let all = 0..<Self.rows(of: type)
    for (input, rows) in zip(graph[node].inputs, op.inputRows(for: all, types) ?? [])
    where rows == all && Self.rows(of: graph.type(of: input)) == all.count {
      let other = granularity(of: input)
      if result % other != 0 { result = other % result == 0 ? other : result * other }
    }
    return result
  }

  /// Some rows of a value, and what to give back after use.
  private struct Part {
    var view: TensorView
    var owner: Tensor?
    var mapped: [(MappedFile, Range<Int>)] = []

    func release() { for (file, range) in mapped { file.release(range) } }
  }

  private func rows(_ range: Range<Int>, of value: ValueID) throws -> Part {
    if range.isEmpty {
      let none = Tensor(Self.type(graph.type(of: value), rows: range))
      return Part(view: none.view, owner: none)
    }
    switch graph[value].definition {
    case .constant(let id): return try rows(range, of: model.constants[id])
    case .input, .state:
      throw CompileError(.internal, "'%\(graph[value].name)' is no constant")
    case .result(let id, let result):
      let node = graph[id]
      let types = node.inputs.map { graph.type(of: $0) }
      if result == 0, let op = node.op as? any RowMapped, let needed = op.inputRows(for: range, types) {
        var parts: [Part] = []
        for (input, rows) in zip(node.inputs, needed) {
          if let rows {
            parts.append(try self.rows(rows, of: input))
          } else {
            let tensor = try whole(input)
            parts.append(Part(view: tensor.view, owner: tensor))
          }
        }
        let output = Tensor(Self.type(graph.type(of: value), rows: range))
        try withExtendedLifetime(parts) {
          try node.op.evaluate(parts.map(\.view), into: [output.mutableView])
        }
        return Part(view: output.view, owner: output, mapped: parts.flatMap(\.mapped))
      }
      let tensor = try whole(value)
      let type = graph.type(of: value)
      let bytes = UnsafeRawBufferPointer(rebasing: tensor.view.bytes[Self.bytes(of: type, rows: range)])
      return Part(view: TensorView(Self.type(type, rows: range), bytes), owner: tensor)
    }
  }

  private func rows(_ range: Range<Int>, of constant: Constant) throws -> Part {
    let type = Self.type(constant.type, rows: range)
    let bytes = Self.bytes(of: constant.type, rows: range)
    switch constant.source {
    case .archive(let archive, let place):
      let file = model.archives[archive].file
      let part = place.lowerBound + bytes.lowerBound..<place.lowerBound + bytes.upperBound
      let slice = try file.slice(part)
      if type.isDense, Int(bitPattern: slice.baseAddress) % type.element.byteCount != 0 {
        let copy = Tensor(type)
        copy.mutableView.bytes.copyMemory(from: slice)
        return Part(view: copy.view, owner: copy, mapped: [(file, part)])
      }
      return Part(view: TensorView(type, slice), mapped: [(file, part)])
    case .inline(let values):
      let copy = Tensor(type)
      values.withUnsafeBytes { source in
        copy.mutableView.bytes.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[bytes]))
      }
      return Part(view: copy.view, owner: copy)
    case .splat(let bits):
      let copy = Tensor(type)
      MadeUpNumbers.fill(copy.mutableView, from: 0) { _ in Double(bitPattern: bits) }
      return Part(view: copy.view, owner: copy)
    case .random(let seed, let deviation):
      let copy = Tensor(type)
      let first = bytes.lowerBound / type.element.byteCount
      let scale = Double(bitPattern: deviation)
      MadeUpNumbers.fill(copy.mutableView, from: first) { MadeUpNumbers.normal(seed, $0) * scale }
      return Part(view: copy.view, owner: copy)
    }
  }

  /// A value computed whole and kept.
  private func whole(_ value: ValueID) throws -> Tensor {
    if let tensor = wholes.withLock({ $0[value] }) { return tensor }
    let tensor: Tensor
    if case .result(let id, let result) = graph[value].definition, result > 0 || !isRowMapped(id) {
      let node = graph[id]
      let inputs = try node.inputs.map { try whole($0) }
      let outputs = node.results.map { Tensor(graph.type(of: $0)) }
      try node.op.evaluate(inputs.map(\.view), into: outputs.map(\.mutableView))
      tensor = outputs[result]
    } else {
      let part = try rows(0..<Self.rows(of: graph.type(of: value)), of: value)
      tensor =
        part.owner
        ?? { copy in
          copy.mutableView.bytes.copyMemory(from: part.view.bytes)
          return copy
        }(Tensor(part.view.type))
      part.release()
    }
    wholes.withLock { $0[value] = tensor }
    return tensor
  }

  private func isRowMapped(_ node: NodeID) -> Bool {
    guard let op = graph[node].op as? any RowMapped, let result = graph[node].results.first else { return false }
    let rows = 0..<Self.rows(of: graph.type(of: result))
    return op.inputRows(for: rows, graph[node].inputs.map { graph.type(of: $0) }) != nil
  }
}

/// Numbers of constants that are not read from a file.
private enum MadeUpNumbers {
  /// The number at `index` of a sequence that is about normally distributed with mean 0 and variance 1: the sum of
  /// twelve uniform numbers (Irwin-Hall) of a counter-based generator (SplitMix64; Steele, Lea and Flood, 2014).
  static func normal(_ seed: UInt64, _ index: Int) -> Double {
    var sum = 0.0
    var state = seed &+ UInt64(truncatingIfNeeded: index) &* 0xD1B5_4A32_D192_ED03
    for _ in 0..<3 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var z = state
      z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
      z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
      z ^= z >> 31
      for shift in [UInt64(0), 16, 32, 48] { sum += Double((z >> shift) & 0xFFFF) / 65536 }
    }
    return sum - 6
  }

  /// Writes `number(first)`, `number(first + 1)`, ... in the element type of `view`.
  static func fill(_ view: MutableTensorView, from first: Int, _ number: (Int) -> Double) {
    let values = (0..<view.count).map { number(first + $0) }
    values.withUnsafeBytes { convertRow($0, .f64, into: view.bytes, view.type.element) }
  }
}
