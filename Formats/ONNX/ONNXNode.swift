import Base
import IR
import Tensors

/// An ONNX node while it is imported: typed access to attributes and inputs, and a check that none was passed over.
struct ONNXNode {
  let proto: Onnx_NodeProto
  private var attributes: [String: Onnx_AttributeProto] = [:]
  private var asked: Set<String> = []

  /// The node of `proto`; attributes must be named apart.
  init(_ proto: Onnx_NodeProto, importer: ONNXImporter) throws {
    self.proto = proto
    for attribute in proto.attribute {
      guard attributes.updateValue(attribute, forKey: attribute.name) == nil else {
        throw CompileError(.input, "two attributes are named '\(attribute.name)'")
      }
    }
  }

  /// The operator's name, such as `Conv`.
  var type: String { proto.opType }

  /// The number of inputs, missing ones at the end left out.
  var inputCount: Int { proto.input.reversed().drop(while: \.isEmpty).count }

  /// Throws if an attribute was not read: none is ignored in silence.
  func finish() throws {
    for name in attributes.keys.sorted() where !asked.contains(name) {
      throw CompileError(.unsupported, "unsupported attribute '\(name)' of '\(type)'")
    }
  }

  private mutating func take(_ name: String, _ kind: Onnx_AttributeProto.AttributeType) throws -> Onnx_AttributeProto? {
    asked.insert(name)
    guard let attribute = attributes[name] else { return nil }
    guard attribute.refAttrName.isEmpty else {
      throw CompileError(.unsupported, "attribute '\(name)' refers to an attribute of a function")
    }
    guard attribute.type == kind || !attribute.hasType else {
      throw CompileError(.input, "attribute '\(name)' is of type \(attribute.type), expected \(kind)")
    }
    return attribute
  }

  /// Says that an attribute has been considered without looking at it.
  mutating func ignore(_ names: String...) { asked.formUnion(names) }

  /// A whole number.
  mutating func integer(_ name: String, default value: Int) throws -> Int {
    guard let attribute = try take(name, .int) else { return value }
    guard let number = Int(exactly: attribute.i) else {
      throw CompileError(.input, "attribute '\(name)' is \(attribute.i), which is out of range")
    }
    return number
  }

  /// A list of whole numbers; nil if the attribute is not there.
  mutating func integers(_ name: String) throws -> [Int]? {
    guard let attribute = try take(name, .ints) else { return nil }
    guard attribute.ints.allSatisfy({ $0.magnitude <= 1 << 40 })
    else { throw CompileError(.input, "attribute '\(name)' has a number out of range") }
    return attribute.ints.map(Int.init)
  }

  /// A number.
  mutating func number(_ name: String, default value: Float) throws -> Float {
    try take(name, .float)?.f ?? value
  }

  /// A list of numbers; nil if the attribute is not there.
  mutating func numbers(_ name: String) throws -> [Float]? { try take(name, .floats)?.floats }

  /// A list of texts; nil if the attribute is not there.
  mutating func strings(_ name: String) throws -> [String]? {
    guard let attribute = try take(name, .strings) else { return nil }
    return try attribute.strings.map { bytes in
      guard let text = String(validating: bytes, as: UTF8.self) else {
        throw CompileError(.input, "attribute '\(name)' is not valid UTF-8")
      }
      return text
    }
  }

  /// A text.
  mutating func string(_ name: String, default value: String) throws -> String {
    guard let attribute = try take(name, .string) else { return value }
    guard let text = String(validating: attribute.s, as: UTF8.self) else {
      throw CompileError(.input, "attribute '\(name)' is not valid UTF-8")
    }
    return text
  }

  /// A tensor; nil if the attribute is not there.
  mutating func tensor(_ name: String) throws -> Onnx_TensorProto? { try take(name, .tensor)?.t }

  /// Whether an attribute is there.
  func has(_ name: String) -> Bool { attributes[name] != nil }

  /// An input that must be there.
  func input(_ index: Int, _ importer: inout ONNXImporter) throws -> ValueID {
    guard let value = try optionalInput(index, &importer) else {
      throw CompileError(.input, "'\(type)' has no input \(index)")
    }
    return value
  }

  /// The type of an input that must be there.
  func inputType(_ index: Int, _ importer: inout ONNXImporter) throws -> TensorType {
    // The input may be a tensor that is added to the graph now, before anything of the graph is looked at.
    let value = try input(index, &importer)
    return importer.builder.type(of: value)
  }

  /// An input that may be left out.
  func optionalInput(_ index: Int, _ importer: inout ONNXImporter) throws -> ValueID? {
    guard proto.input.indices.contains(index), !proto.input[index].isEmpty else { return nil }
    return try importer.value(proto.input[index], for: "'\(type)'")
  }

  /// All inputs.
  func inputs(_ importer: inout ONNXImporter) throws -> [ValueID] {
    try (0..<inputCount).map { try input($0, &importer) }
  }

  /// The whole numbers of an input that must be known on import; nil if the input is left out.
  func integerInput(_ index: Int, _ importer: inout ONNXImporter) throws -> [Int]? {
    guard let value = try optionalInput(index, &importer) else { return nil }
    guard let numbers = try importer.integers(of: value) else {
      throw CompileError(.unsupported, "input \(index) of '\(type)' is computed at run time, expected a constant")
    }
    return numbers
  }

  /// The numbers of an input that must be known on import and whole, of any element type; nil if the input is left out.
  func wholeInput(_ index: Int, _ importer: inout ONNXImporter) throws -> [Int]? {
    guard let value = try optionalInput(index, &importer) else { return nil }
    let element = importer.builder.type(of: value).element
    if element == .i64 || element == .i32 { return try integerInput(index, &importer) }
    let wide = try importer.folded(importer.builder.emit(Cast(.i64), value))
    guard let numbers = try importer.integers(of: wide) else {
      throw CompileError(.unsupported, "input \(index) of '\(type)' is computed at run time, expected a constant")
    }
    return numbers
  }

  /// The sizes in an input, which may have symbols but must be known on import; nil if the input is left out.
  func sizeInput(_ index: Int, _ importer: inout ONNXImporter) throws -> [Dim]? {
    guard let value = try optionalInput(index, &importer) else { return nil }
    guard let sizes = importer.sizes(of: value) else {
      throw CompileError(.unsupported, "input \(index) of '\(type)' is computed at run time, expected a constant")
    }
    return sizes
  }
}
