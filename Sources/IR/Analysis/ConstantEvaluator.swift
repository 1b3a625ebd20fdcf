import Base
import Synchronization
import Tensors

/// Computes constants and the recipes on them in blocks of rows, straight from the mapped files.
///
/// A recipe is a value that depends on constants alone. Operators that are ``RowMapped`` are computed for the rows that
/// are asked for; others are computed whole, once, and kept until the value that needs them is complete. Of large matrices
/// that are transposed some columns are gathered at a time, in one pass over all rows for each block of results.
package final class ConstantEvaluator: Sendable {
  private let model: Model
  private let graph: Graph
  /// The bytes up to which a transposed matrix is computed whole.
  private let wholeLimit: Int
  private let wholes = Mutex<[ValueID: Tensor]>([:])

  /// An evaluator of recipes in `graph`, a function of `model`; matrices of more than `wholeLimit` bytes are not transposed
  /// as a whole, but about twice as many bytes of f32 in one pass.
  package init(_ model: Model, _ graph: Graph, wholeLimit: Int = 16 << 20) {
    self.model = model
    self.graph = graph
    self.wholeLimit = wholeLimit
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
    let gathers = gathersColumns(value)
    // A pass over all of a matrix is worth a large block, of which there is one at a time.
    let unitsPerBlock = min(
      units, max(1, gathers ? 2 * wholeLimit / Self.wideBytes(type, granularity) : blockBytes / unitBytes))
    let blocks = (units + unitsPerBlock - 1) / unitsPerBlock
    try parallelFor(blocks, threads: gathers ? 1 : availableThreads) { block in
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
      if isGathered(id) { return try gather(range, of: node.inputs[0], graph.type(of: value)) }
      let tensor = try whole(value)
      let type = graph.type(of: value)
      let bytes = UnsafeRawBufferPointer(rebasing: tensor.view.bytes[Self.bytes(of: type, rows: range)])
      return Part(view: TensorView(Self.type(type, rows: range), bytes), owner: tensor)
    }
  }

  // MARK: Columns

  /// About how many bytes of the rows of a matrix a thread holds in a pass.
  private static let passedBytes = 1 << 20

  /// The bytes that so many rows of a type have in f32.
  private static func wideBytes(_ type: TensorType, _ rows: Int) -> Int {
    max(1, (type.shape.fixedSizes ?? []).dropFirst().reduce(4 * rows, *))
  }

  /// Whether a node transposes a large matrix.
  private func isGathered(_ node: NodeID) -> Bool {
    guard let op = graph[node].op as? Transpose, op.permutation == [1, 0],
      let byteCount = graph.type(of: graph[node].inputs[0]).byteCount
    else { return false }
    return byteCount > wholeLimit
  }

  /// Whether rows of a value need columns of a large matrix.
  private func gathersColumns(_ value: ValueID) -> Bool {
    guard case .result(let id, 0) = graph[value].definition else { return false }
    if isGathered(id) { return true }
    let node = graph[id]
    let all = 0..<Self.rows(of: graph.type(of: value))
    guard let op = node.op as? any RowMapped,
      let needed = op.inputRows(for: all, node.inputs.map { graph.type(of: $0) })
    else { return false }
    return zip(node.inputs, needed).contains { $1 != nil && gathersColumns($0) }
  }

  /// Some columns of a matrix as rows of type `type`.
  private func gather(_ columns: Range<Int>, of matrix: ValueID, _ type: TensorType) throws -> Part {
    let source = graph.type(of: matrix)
    let rows = Self.rows(of: source)
    let result = Tensor(Self.type(type, rows: columns))
    nonisolated(unsafe) let target = result.mutableView.bytes
    let granularity = granularity(of: matrix)
    let units = Self.passedBytes / max(1, Self.bytes(of: source, rows: 0..<min(granularity, rows)).count)
    try parallelFor(rows, grain: max(1, units) * granularity) { part in
      let block = try self.rows(part, of: matrix)
      withExtendedLifetime(block.owner) {
        switch source.element.byteCount {
        case 1: Self.turn(UInt8.self, block.view.bytes, part, columns, into: target, rows: rows)
        case 2: Self.turn(UInt16.self, block.view.bytes, part, columns, into: target, rows: rows)
        case 4: Self.turn(UInt32.self, block.view.bytes, part, columns, into: target, rows: rows)
        default: Self.turn(UInt64.self, block.view.bytes, part, columns, into: target, rows: rows)
        }
      }
      block.release()
    }
    return Part(view: result.view, owner: result)
  }

  /// Writes `source[part, columns]` to `target[columns, part]`, a few rows at a time, whose lines stay in the cache.
  private static func turn<Element: FixedWidthInteger>(
    _ type: Element.Type, _ source: UnsafeRawBufferPointer, _ part: Range<Int>, _ columns: Range<Int>,
    into target: UnsafeMutableRawBufferPointer, rows: Int
  ) {
    guard !part.isEmpty else { return }
    let size = MemoryLayout<Element>.stride
    let width = source.count / part.count / size
    for first in stride(from: part.lowerBound, to: part.upperBound, by: 16) {
      let few = first..<min(part.upperBound, first + 16)
      for column in columns {
        for row in few {
          let value = source.loadUnaligned(
            fromByteOffset: ((row - part.lowerBound) * width + column) * size, as: Element.self)
          target.storeBytes(
            of: value, toByteOffset: ((column - columns.lowerBound) * rows + row) * size, as: Element.self)
        }
      }
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
