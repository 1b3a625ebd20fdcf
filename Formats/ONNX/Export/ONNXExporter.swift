import Base
import Foundation
import IR
import SwiftProtobuf
import Tensors

/// Writes a function of a model as an ONNX graph of opset 17.
///
/// A decoder's `tokens: i32[T]` becomes `input_ids: i64[1, sequence]`, its caches `past_key_values.N.key` and `.value` of
/// shape `[1, heads, past_sequence, width]`, which come back longer as `present.N.key` and `.value`; the position follows
/// from their length, and logits are given for all tokens, `[1, sequence, V]`. Other states become inputs `past.NAME` and
/// outputs `present.NAME`; a text begins with states of zeros. Weights keep their element type and are widened by `Cast`;
/// quantized ones are written in f32.
///
/// A network with an encoder becomes two graphs. That of the encoder has the outputs `present.N.encoder.key` and `.value`, which are
/// the inputs `past_key_values.N.encoder.key` and `.value` of the decoder, whose own caches have `decoder` there.
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
  var names: [ValueID: String] = [:]
  /// Caches as `[1, heads, rows, width]`.
  var caches: [ValueID: String] = [:]
  private var weights: [(name: String, value: ValueID, type: TensorType)] = []
  private var widened: [ValueID: String] = [:]
  /// The value of each symbol, as `i64[1]`.
  var symbols: [Symbol: String] = [:]
  /// The symbol of the number of tokens.
  var tokenSymbol: Symbol?
  private var dims: [Dim: String] = [:]
  /// The name of the number of rows that the caches hold at the start, `i64[1]`.
  var pastRows: String?
  /// What could not be represented as it was.
  package private(set) var notes: [String] = []

  /// Translates the functions of `model`, which is at stage `import` or `simplify`: its only one, or those of encoder and
  /// decoder, each with the name of its part.
  ///
  /// - Throws: ``CompileError`` of kind `.unsupported` naming the operator that ONNX cannot express here.
  package static func graphs(of model: Model) throws -> [(part: String?, exporter: ONNXExporter)] {
    if let function = model.functions.first, model.functions.count == 1 {
      return [(nil, try ONNXExporter(model, function))]
    }
    let parts = ["cross": "encoder", "main": "decoder"]
    guard model.functions.count == 2, Set(model.functions.compactMap(\.role)) == Set(parts.keys) else {
      throw CompileError(
        .unsupported, "a model of \(model.functions.count) functions is not written as ONNX, only one of one function",
        notes: ["or of an encoder and a decoder"])
    }
    return try model.functions.map { (parts[$0.role ?? ""], try ONNXExporter(model, $0)) }
  }

  private init(_ model: Model, _ function: Graph) throws {
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
    if let tokenSymbol, tokenSymbol.range == symbol.range, let name = symbols[tokenSymbol] { return name }
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

  // MARK: Nodes

  private mutating func export(_ id: NodeID) throws {
    let node = function[id]
    if node.op is CacheUpdate { return try append(id) }
    // Rows of the source that the encoder gave.
    if node.op is Slice, caches[node.results[0]] != nil { return }
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
