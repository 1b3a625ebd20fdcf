import Base
import Foundation
import IR
import SwiftProtobuf
import Tensors

/// Writes the function of a model as an ONNX graph of opset 17.
///
/// A decoder's `tokens: i32[T]` becomes `input_ids: i64[1, sequence]`, its caches `past_key_values.N.key` and `.value` of
/// shape `[1, heads, past_sequence, width]`, which come back longer as `present.N.key` and `.value`; the position follows
/// from their length, and logits are given for all tokens, `[1, sequence, V]`. Other states become inputs `past.NAME` and
/// outputs `present.NAME`. Weights keep their element type and are widened by `Cast`; quantized ones are written in f32.
package struct ONNXExporter {
  /// The version of the default operator set.
  package static let opset = 17
  /// Weights of more bytes than this go to a file of their own, beside the graph.
  private static let inlineLimit = 64 << 20

  let model: Model
  let function: Graph
  let evaluator: ConstantEvaluator
  var writer = ONNXGraphWriter()
  /// The names of values in the ONNX graph.
  private var names: [ValueID: String] = [:]
  /// Caches as `[1, heads, rows, width]`.
  private var caches: [ValueID: String] = [:]
  private var weights: [(name: String, value: ValueID, type: TensorType)] = []
  private var widened: [ValueID: String] = [:]
  /// The value of each symbol, as `i64[1]`.
  private var symbols: [Symbol: String] = [:]
  private var dims: [Dim: String] = [:]
  /// The name of the number of rows that the caches hold at the start, `i64[1]`.
  private var pastRows: String?
  /// What could not be represented as it was.
  package private(set) var notes: [String] = []

  /// Translates the only function of `model`, which is at stage `import` or `simplify`.
  ///
  /// - Throws: ``CompileError`` of kind `.unsupported` naming the operator that ONNX cannot express here.
  package init(_ model: Model) throws {
    guard let function = model.functions.first, model.functions.count == 1 else {
      throw CompileError(
        .unsupported, "a model of \(model.functions.count) functions is not written as ONNX, only one of one function")
    }
    self.model = model
    self.function = function
    evaluator = ConstantEvaluator(model, function)
    try declareInputs()
    for id in function.topologicalOrder() { try export(id) }
    try declareOutputs()
  }

  // MARK: Names and types

  func type(_ value: ValueID) -> TensorType { function.type(of: value) }

  func failure(_ node: Node, _ message: String) -> CompileError {
    CompileError(
      .unsupported, "'\(node.op.name)' \(message)",
      subject: node.origin.map { .init(object: $0.text) })
  }

  /// The name of a value in the ONNX graph; a constant becomes an initializer.
  mutating func name(_ value: ValueID) throws -> String {
    if let name = names[value] { return name }
    if let cache = caches[value] { return try flattened(cache, value) }
    guard ConstantEvaluator.isRecipe(value, in: function) else {
      throw CompileError(.internal, "'%\(function[value].name)' is used before it is computed")
    }
    return addWeight(value)
  }

  /// The name of a value with its elements in f32, where it has narrower ones.
  mutating func wide(_ value: ValueID, _ wanted: DType = .f32) throws -> String {
    let name = try name(value)
    guard type(value).element != wanted, type(value).element.isFloat else { return name }
    if let name = widened[value] { return name }
    let result = cast(name, to: wanted)
    widened[value] = result
    return result
  }

  mutating func cast(_ name: String, to type: DType) -> String {
    writer.node("Cast", [name], [("to", .int(ONNXElementType.number(of: type).rawValue))])
  }

  mutating func set(_ name: String, for value: ValueID) { names[value] = name }

  private mutating func addWeight(_ value: ValueID) -> String {
    let hint = function.constant(of: value).map { model.constants[$0].name } ?? function[value].name
    let name = writer.fresh(hint)
    weights.append((name, value, type(value)))
    names[value] = name
    return name
  }

  // MARK: Sizes

  /// A size as a constant or computed `i64[1]`.
  mutating func size(_ dim: Dim) throws -> String {
    if let value = dim.fixedValue { return writer.integers([value]) }
    if let name = dims[dim] { return name }
    var sum: String?
    for term in dim.terms {
      var part = try size(term.atom)
      if term.coefficient != 1 { part = writer.node("Mul", [part, writer.integers([term.coefficient])]) }
      sum = sum.map { writer.node("Add", [$0, part]) } ?? part
    }
    var result = sum ?? writer.integers([0])
    if dim.offset != 0 { result = writer.node("Add", [result, writer.integers([dim.offset])]) }
    dims[dim] = result
    return result
  }

  private mutating func size(_ atom: Dim.Atom) throws -> String {
    switch atom {
    case .symbol(let symbol): return try self.symbol(symbol)
    // Sizes are not negative, so that division towards zero is the floor.
    case .quotient(let inner, let divisor): return writer.node("Div", [try size(inner), writer.integers([divisor])])
    case .product(let factors):
      guard let first = factors.first else { return writer.integers([1]) }
      return try factors.dropFirst().reduce(size(first)) { writer.node("Mul", [$0, try size($1)]) }
    }
  }

  /// A symbol that no input carries, such as the number of logits wanted, takes the value of one of the same range.
  private func symbol(_ symbol: Symbol) throws -> String {
    if let name = symbols[symbol] { return name }
    if let other = symbols.first(where: { $0.key.range == symbol.range }) { return other.value }
    throw CompileError(.unsupported, "the size '\(symbol.name)' follows from no input")
  }

  /// A shape as `i64[rank]`; one open size is left to ONNX.
  mutating func shape(_ dims: [Dim]) throws -> String {
    let open = dims.indices.filter { !dims[$0].isFixed }
    if open.count <= 1, !dims.contains(where: { $0.fixedValue == 0 }) {
      return writer.integers(dims.map { $0.fixedValue ?? -1 })
    }
    return writer.node("Concat", try dims.map { try size($0) }, [("axis", .int(0))])
  }

  mutating func reshape(_ name: String, _ dims: [Dim]) throws -> String {
    writer.node("Reshape", [name, try shape(dims)])
  }

  mutating func transpose(_ name: String, _ permutation: [Int]) -> String {
    writer.node("Transpose", [name], [("perm", .ints(permutation))])
  }

  // MARK: Inputs, states and outputs

  /// Whether the function reads one text as tokens.
  private var isText: Bool {
    function.inputs.contains { function[$0].name == "tokens" && type($0).rank == 1 }
  }

  /// The update of the state `index` that writes rows at a position; nil if it is another one.
  private func cacheUpdate(_ index: Int) -> NodeID? {
    let state = function.states[index]
    guard let node = function.definingNode(of: state.update), function[node].op is CacheUpdate,
      function[node].inputs[0] == state.value, function.users(of: state.value) == [node]
    else { return nil }
    return node
  }

  /// The heads of the attention that reads a cache; 1 if none does.
  private func heads(of cache: ValueID) -> Int {
    for user in function.users(of: cache) {
      if let attention = function[user].op as? Attention { return attention.kvHeads }
    }
    return 1
  }

  private mutating func declareInputs() throws {
    for input in function.inputs {
      let type = type(input)
      let name = function[input].name
      if name == "position", function.states.indices.contains(where: { cacheUpdate($0) != nil }) { continue }
      if isText, name == "tokens" {
        let outer = writer.fresh("input_ids")
        writer.input(outer, .i64, [.fixed(1), .open("sequence")])
        names[input] = try reshape(outer, type.shape.dims)
        bind(type.shape, of: names[input] ?? outer)
        continue
      }
      let outer = writer.fresh(name)
      writer.input(outer, type.element, type.shape.dims.map { ONNXSize($0) })
      names[input] = outer
      bind(type.shape, of: outer)
    }
    for index in function.states.indices {
      let state = function.states[index].value
      let type = type(state)
      if let node = cacheUpdate(index) {
        let heads = heads(of: function[node].results[0])
        let width = (type.shape[1].fixedValue ?? heads) / heads
        let outer = writer.fresh("past_key_values." + Self.cacheName(function[state].name))
        writer.input(
          outer, .f32, [.fixed(1), .fixed(heads), .open("past_sequence"), .fixed(width)])
        caches[state] = outer
        if pastRows == nil {
          pastRows = writer.node(
            "Gather", [writer.node("Shape", [outer]), writer.integers([2])], [("axis", .int(0))])
        }
      } else {
        let outer = writer.fresh("past." + function[state].name)
        writer.input(outer, type.element, type.shape.dims.map { ONNXSize($0) })
        names[state] = outer
      }
    }
    for input in function.inputs where names[input] == nil {
      names[input] = cast(pastRows ?? writer.integers([0]), to: .i32)
    }
  }

  /// `N.key` for the state `kN`, `N.value` for `vN`.
  private static func cacheName(_ name: String) -> String {
    if let number = Int(name.dropFirst()), let kind = name.first, kind == "k" || kind == "v" {
      return "\(number)." + (kind == "k" ? "key" : "value")
    }
    return name
  }

  private mutating func bind(_ shape: Shape, of name: String) {
    for (axis, dim) in shape.dims.enumerated() {
      guard dim.terms.count == 1, dim.offset == 0, dim.terms[0].coefficient == 1,
        case .symbol(let symbol) = dim.terms[0].atom, symbols[symbol] == nil
      else { continue }
      symbols[symbol] = writer.node(
        "Gather", [writer.node("Shape", [name]), writer.integers([axis])], [("axis", .int(0))])
    }
  }

  private mutating func declareOutputs() throws {
    for (value, name) in zip(function.outputs, function.outputNames) {
      let type = type(value)
      let outer = writer.fresh(name == "input_ids" ? "output" : name)
      if isText {
        writer.nodes("Reshape", [try self.name(value), try shape([1] + type.shape.dims)], [outer])
        let sizes = type.shape.dims.map { $0.isFixed ? ONNXSize($0) : .open("sequence") }
        writer.output(outer, type.element, [.fixed(1)] + sizes)
      } else {
        writer.nodes("Identity", [try self.name(value)], [outer])
        writer.output(outer, type.element, type.shape.dims.map { ONNXSize($0) })
      }
    }
    for (index, state) in function.states.enumerated() {
      let type = type(state.value)
      let name = function[state.value].name
      if cacheUpdate(index) != nil, let cache = caches[state.update] {
        let outer = writer.fresh("present." + Self.cacheName(name))
        writer.nodes("Identity", [cache], [outer])
        let heads = heads(of: state.update)
        let width = (type.shape[1].fixedValue ?? heads) / heads
        writer.output(outer, .f32, [.fixed(1), .fixed(heads), .open("total_sequence"), .fixed(width)])
      } else {
        let outer = writer.fresh("present." + name)
        writer.nodes("Identity", [try self.name(state.update)], [outer])
        writer.output(outer, type.element, type.shape.dims.map { ONNXSize($0) })
      }
    }
  }

  /// Appends rows to a cache, `[1, heads, rows, width]`.
  mutating func append(_ node: Node) throws {
    let rows = type(node.inputs[1])
    guard let past = caches[node.inputs[0]] else {
      throw failure(node, "on something that is no state is not written as ONNX")
    }
    let heads = heads(of: node.results[0])
    let width = (rows.shape[1].fixedValue ?? heads) / heads
    let parted = try reshape(try wide(node.inputs[1]), [1, rows.shape[0], .fixed(heads), .fixed(width)])
    caches[node.results[0]] = writer.node("Concat", [past, transpose(parted, [0, 2, 1, 3])], [("axis", .int(2))])
  }

  /// Keys or values as `[batch, heads, rows, width]`.
  mutating func byHead(_ value: ValueID, heads: Int) throws -> String {
    if let cache = caches[value] { return cache }
    let type = type(value)
    let columns = try type.shape.last.fixedValue ?? { throw CompileError(.unsupported, "open columns of attention") }()
    let batch: Dim = type.rank == 3 ? type.shape[0] : 1
    let parted = try reshape(
      try wide(value), [batch, type.shape[type.rank - 2], .fixed(heads), .fixed(columns / heads)])
    return transpose(parted, [0, 2, 1, 3])
  }

  /// A cache as the rows that the IR knows, `[rows, heads * width]`.
  private mutating func flattened(_ cache: String, _ value: ValueID) throws -> String {
    let columns = type(value).shape.last
    let name = writer.node("Reshape", [transpose(cache, [0, 2, 1, 3]), try shape([.fixed(-1), columns])])
    names[value] = name
    return name
  }

  // MARK: Nodes

  private mutating func export(_ id: NodeID) throws {
    let node = function[id]
    if node.op is CacheUpdate { return try append(node) }
    guard let rule = ONNXExportRules.rule(for: node.op) else {
      // What depends on weights alone is computed now.
      if node.results.allSatisfy({ ConstantEvaluator.isRecipe($0, in: function) }) {
        if node.op is Dequantize || node.op is DequantizeGGML, notes.isEmpty {
          notes.append("quantized weights are written as f32")
        }
        return
      }
      throw failure(node, "is not written as ONNX")
    }
    let results = try rule(&self, node)
    for (value, name) in zip(node.results, results) { names[value] = name }
  }

  // MARK: File

  /// Writes the graph to `path` and, if there is much of them, the weights to `path` with `.data` behind it.
  package consuming func write(to path: String) throws {
    let total = weights.reduce(0) { $0 + ($1.type.byteCount ?? 0) }
    let dataName = ArchivePath.name(of: path) + ".data"
    let data = total > Self.inlineLimit ? try AtomicFile(path: path + ".data") : nil
    for weight in weights {
      var tensor = Onnx_TensorProto()
      tensor.name = weight.name
      tensor.dims = (weight.type.shape.fixedSizes ?? []).map { Int64($0) }
      tensor.dataType = Int32(ONNXElementType.number(of: weight.type.element).rawValue)
      guard weight.type.isDense else {
        throw CompileError(.unsupported, "the quantized tensor '\(weight.name)' is not written as ONNX")
      }
      if let data {
        try data.pad(to: 64)
        let start = try data.reserve(weight.type.byteCount ?? 0)
        try evaluator.stream(weight.value) { _, offset, bytes in try data.write(bytes, at: start + offset) }
        tensor.dataLocation = .external
        tensor.externalData = [
          ("location", dataName), ("offset", "\(start)"), ("length", "\(weight.type.byteCount ?? 0)"),
        ].map { key, value in
          var entry = Onnx_StringStringEntryProto()
          entry.key = key
          entry.value = value
          return entry
        }
      } else {
        let numbers = try evaluator.tensor(weight.value)
        tensor.rawData = Data(numbers.view.bytes)
      }
      writer.add(tensor)
    }
    var file = Onnx_ModelProto()
    file.irVersion = 8
    file.producerName = "mcc"
    var version = Onnx_OperatorSetIdProto()
    version.version = Int64(Self.opset)
    file.opsetImport = [version]
    file.graph = writer.graph
    file.graph.name = model.name
    let bytes: [UInt8]
    do {
      bytes = [UInt8](try file.serializedData())
    } catch {
      throw CompileError(.internal, "the ONNX graph cannot be serialized: \(error)")
    }
    try data?.commit()
    try AtomicFile.write(bytes, to: path)
  }
}
