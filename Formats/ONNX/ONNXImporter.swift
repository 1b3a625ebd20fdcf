import Base
import Collections
import IR
import SwiftProtobuf
import Tensors

/// Builds the function `@main` of a model from an ONNX graph (ONNX operator specification, default domain).
struct ONNXImporter {
  /// What an ONNX value name stands for.
  private enum Binding {
    case value(ValueID)
    /// An initializer that has not been used yet.
    case tensor(Onnx_TensorProto)
  }

  /// Ranges of symbolic sizes by name.
  let dims: [String: ClosedRange<Int>]
  let file: MappedFile
  var model: Model
  var builder: GraphBuilder
  /// The version of the default operator set.
  private(set) var opset = 0
  /// Sentences for the user about choices made on import.
  private(set) var notes: [String] = []
  private var tensors: ONNXTensors
  private var bindings: [String: Binding] = [:]
  /// The names of sizes that the file leaves open.
  private var openSizes: OrderedSet<String> = []
  private var symbols: OrderedDictionary<String, Symbol> = [:]
  /// What is known of the elements of lists of whole numbers; nil for lists that are computed at run time.
  var knownSizes: [ValueID: [Dim]?] = [:]
  /// The values that ONNX names stand for.
  private var boundValues: Set<ValueID> = []

  /// The operator set versions that are read.
  static let opsets: ClosedRange<Int64> = 7...28

  private static let nodeLimit = 200_000

  /// An importer of the ONNX file `file`.
  init(file: MappedFile, walker: ONNXWireWalker, name: String, dims: [String: ClosedRange<Int>]) {
    self.file = file
    self.dims = dims
    model = Model(name: name)
    tensors = ONNXTensors(file: file, walker: walker)
    builder = GraphBuilder(name: "main", role: "main")
  }

  /// The model of `proto`, with notes for the user.
  static func load(
    _ file: MappedFile, name: String, dims: [String: ClosedRange<Int>]
  ) throws -> (model: Model, notes: [String]) {
    var walker = ONNXWireWalker(file.bytes, file: file.path)
    let redacted = try walker.redacted()
    let proto: Onnx_ModelProto
    do {
      proto = try Onnx_ModelProto(serializedBytes: redacted)
    } catch {
      throw CompileError(
        .input, "the file is not a valid ONNX model", subject: .init(file: file.path), cause: "\(error)")
    }
    var importer = ONNXImporter(file: file, walker: walker, name: name, dims: dims)
    do {
      try importer.importModel(proto)
    } catch let error as CompileError {
      var located = error
      if located.subject == nil { located.subject = .init(file: file.path) }
      if located.subject?.file == nil { located.subject?.file = file.path }
      throw located
    }
    return (importer.model, importer.notes)
  }

  private mutating func importModel(_ proto: Onnx_ModelProto) throws {
    guard proto.hasGraph else { throw CompileError(.input, "the file has no ONNX graph") }
    for set in proto.opsetImport where set.domain.isEmpty || set.domain == "ai.onnx" {
      guard Self.opsets.contains(set.version) else {
        throw CompileError(
          .unsupported,
          "unsupported operator set \(set.version); versions \(Self.opsets.lowerBound) to "
            + "\(Self.opsets.upperBound) are read")
      }
      opset = Int(set.version)
    }
    guard opset > 0 else {
      if let other = proto.opsetImport.first {
        throw CompileError(.unsupported, "unsupported: operators of the domain '\(other.domain)' alone")
      }
      throw CompileError(.input, "the file names no version of the ONNX operator set")
    }
    guard proto.functions.isEmpty else {
      throw CompileError(.unsupported, "unsupported: the function '\(proto.functions[0].name)' defined in the model")
    }
    let graph = proto.graph
    guard graph.sparseInitializer.isEmpty else { throw CompileError(.unsupported, "unsupported: sparse initializers") }
    guard graph.node.count <= Self.nodeLimit else {
      throw CompileError(.input, "\(graph.node.count) nodes, at most \(Self.nodeLimit) are accepted")
    }
    for tensor in graph.initializer {
      guard bindings.updateValue(.tensor(tensor), forKey: tensor.name) == nil else {
        throw CompileError(.input, "two initializers are named '\(tensor.name)'")
      }
    }
    for input in graph.input where bindings[input.name] == nil { try addInput(input) }
    for name in dims.keys.sorted() where !openSizes.contains(name) {
      throw CompileError(
        .usage, "no input has the open size '\(name)'",
        notes: [openSizes.isEmpty ? "all sizes are fixed" : "open sizes: \(openSizes.joined(separator: ", "))"])
    }
    for symbol in symbols.values { builder.graph.declare(symbol) }
    for node in graph.node { try importNode(node) }
    guard !graph.output.isEmpty else { throw CompileError(.input, "the graph has no outputs") }
    var names: Set<String> = []
    for output in graph.output {
      guard names.insert(output.name).inserted else {
        throw CompileError(.input, "two outputs are named '\(output.name)'")
      }
      builder.output(output.name, try value(output.name, for: "the graph's outputs"))
    }
    model.constants = builder.constants
    model.functions = [builder.graph]
    model[metadata: "format"] = "onnx"
    model[metadata: "opset"] = "\(opset)"
    if !proto.producerName.isEmpty { model[metadata: "producer"] = proto.producerName }
  }

  private mutating func addInput(_ input: Onnx_ValueInfoProto) throws {
    guard case .tensorType(let type)? = input.type.value else {
      throw CompileError(.unsupported, "input '\(input.name)' is not a tensor")
    }
    let element = try DType.onnx(type.elemType, of: "input '\(input.name)'")
    guard type.hasShape else { throw CompileError(.unsupported, "input '\(input.name)' has no shape") }
    var shape: [Dim] = []
    for (axis, dim) in type.shape.dim.enumerated() {
      switch dim.value {
      case .dimValue(let size)? where size > 0:
        guard size <= 1 << 40 else { throw CompileError(.input, "input '\(input.name)' has the size \(size)") }
        shape.append(.fixed(Int(size)))
      case .dimParam(let name)? where !name.isEmpty: shape.append(try dimension(name, input.name, axis))
      case .dimValue(0)? where dims["\(input.name).\(axis)"] == nil:
        throw CompileError(
          .usage,
          "input '\(input.name)' has the size 0 at axis \(axis); give it another with --dim \(input.name).\(axis)=N")
      default: shape.append(try dimension(nil, input.name, axis))
      }
    }
    guard bindings[input.name] == nil else { throw CompileError(.input, "two inputs are named '\(input.name)'") }
    _ = try TensorType.checkedByteCount(
      sizes: Shape(shape).maximumSizes, element: element, of: "input '\(input.name)'")
    bindings[input.name] = .value(builder.input(input.name, TensorType(element, Shape(shape))))
  }

  /// A size that the file leaves open: from `--dim`, or 1 for the first axis.
  private mutating func dimension(_ name: String?, _ input: String, _ axis: Int) throws -> Dim {
    let label = name ?? "\(input).\(axis)"
    openSizes.append(label)
    if let range = dims[label] {
      if range.count == 1 { return .fixed(range.lowerBound) }
      let symbol = symbols[label] ?? Symbol(symbolName(label), in: range)
      symbols[label] = symbol
      return .symbol(symbol)
    }
    guard axis == 0 else {
      throw CompileError(
        .usage,
        "input '\(input)' leaves the size of axis \(axis) open; give it with --dim \(label)=N or "
          + "--dim \(label)=A...B")
    }
    notes.append("the first size of input '\(input)' ('\(label)') is open and taken as 1")
    return .fixed(1)
  }

  /// A name for the symbol of an open size, as the text form takes it.
  private func symbolName(_ label: String) -> String {
    let bytes = GraphBuilder.valueName(label).utf8.map { [0x2D, 0x24].contains($0) ? 0x5F : $0 }
    var name = String(decoding: bytes, as: UTF8.self)
    if let first = bytes.first, (0x30...0x39).contains(first) { name = "n" + name }
    while symbols.values.contains(where: { $0.name == name }) { name += "_" }
    return name
  }

  private mutating func importNode(_ proto: Onnx_NodeProto) throws {
    let label = proto.name.isEmpty ? (proto.output.first ?? "") : proto.name
    let place = CompileError.Subject(file: file.path, object: "node '\(label)'")
    guard proto.domain.isEmpty || proto.domain == "ai.onnx", let mapping = ONNXOperators.byType[proto.opType] else {
      let domain = proto.domain.isEmpty ? "" : " of domain '\(proto.domain)'"
      var error = CompileError(.unsupported, "unsupported operator '\(proto.opType)'\(domain)", subject: place)
      if let near = nearest(proto.opType, in: ONNXOperators.all.map(\.type)) {
        error.notes.append("nearest is '\(near)'")
      }
      throw error
    }
    builder.origin = Origin(label)
    defer { builder.origin = nil }
    do {
      var node = try ONNXNode(proto, importer: self)
      let results = try mapping.build(&node, &self).map { try folded($0) }
      try node.finish()
      guard results.count >= proto.output.reversed().drop(while: \.isEmpty).count else {
        throw CompileError(.unsupported, "unsupported '\(proto.opType)' with \(proto.output.count) outputs")
      }
      for (name, result) in zip(proto.output, results) where !name.isEmpty {
        guard bindings.updateValue(.value(result), forKey: name) == nil else {
          throw CompileError(.input, "the value '\(name)' is defined twice")
        }
        if builder.graph.definingNode(of: result) != nil {
          builder.graph.rename(result, to: GraphBuilder.valueName(name))
        }
        boundValues.insert(result)
      }
    } catch let error as CompileError {
      var located = error
      if located.subject?.offset == nil, located.subject?.object == nil { located.subject = place }
      throw located
    }
  }
}

extension ONNXImporter {
  /// Whether an ONNX name stands for the value.
  func isBound(_ value: ValueID) -> Bool { boundValues.contains(value) }

  /// The value under an ONNX name.
  mutating func value(_ name: String, for user: String) throws -> ValueID {
    switch bindings[name] {
    case .value(let id)?: return id
    case .tensor(let proto)?:
      let id = builder.constant(try tensors.constant(proto, name: name, in: &model))
      bindings[name] = .value(id)
      return id
    case nil: throw CompileError(.input, "\(user) names '\(name)', which nothing before it computes")
    }
  }

  /// A value for a tensor that stands in an attribute.
  mutating func value(of tensor: Onnx_TensorProto, name: String) throws -> ValueID {
    builder.constant(try tensors.constant(tensor, name: name, in: &model))
  }

  /// The whole numbers of a constant of at most 64 elements; nil if the value is not known on import.
  func integers(of value: ValueID) throws -> [Int]? {
    guard let id = builder.graph.constant(of: value) else { return nil }
    let constant = builder.constants[id]
    guard case .inline(let bytes) = constant.source else { return nil }
    return try bytes.withUnsafeBytes { raw in
      let count = constant.type.maximumCount
      switch constant.type.element {
      case .i64: return (0..<count).map { Int(raw.loadUnaligned(fromByteOffset: 8 * $0, as: Int64.self)) }
      case .i32: return (0..<count).map { Int(raw.loadUnaligned(fromByteOffset: 4 * $0, as: Int32.self)) }
      default: throw CompileError(.input, "found numbers of type \(constant.type.element.rawValue), expected i64")
      }
    }
  }

  /// The number in a constant of one element; nil if the value is not known on import.
  func number(of value: ValueID) throws -> Float? {
    guard let id = builder.graph.constant(of: value) else { return nil }
    let constant = builder.constants[id]
    guard constant.type.maximumCount == 1, case .inline(let bytes) = constant.source else { return nil }
    return bytes.withUnsafeBytes { raw in
      switch constant.type.element {
      case .f32: return raw.loadUnaligned(as: Float.self)
      case .f64: return Float(raw.loadUnaligned(as: Double.self))
      case .f16: return Float(raw.loadUnaligned(as: Float16.self))
      case .i64: return Float(exactly: raw.loadUnaligned(as: Int64.self))
      case .i32: return Float(exactly: raw.loadUnaligned(as: Int32.self))
      case .i8: return Float(raw.loadUnaligned(as: Int8.self))
      case .u8, .bool: return Float(raw.loadUnaligned(as: UInt8.self))
      default: return nil
      }
    }
  }

  /// A constant of whole numbers made on import.
  mutating func constant(_ name: String, integers: [Int]) -> ValueID {
    builder.constant(.inline(name, .i64, [integers.count], integers.map(Int64.init)))
  }
}

extension DType {
  /// The element type with an ONNX number.
  static func onnx(_ number: Int32, of what: @autoclosure () -> String) throws -> DType {
    try ONNXTensors.elementType(number, of: what())
  }
}
