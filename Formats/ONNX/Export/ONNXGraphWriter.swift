import Base
import Foundation
import SwiftProtobuf
import Tensors

/// A list of ONNX nodes and initializers in the making, with fresh names.
struct ONNXGraphWriter {
  /// An attribute of a node.
  enum Attribute {
    case int(Int)
    case ints([Int])
    case float(Float)
    case string(String)
    case graph(Onnx_GraphProto)
  }

  /// An input or output of a graph.
  typealias Port = (name: String, type: DType, shape: [ONNXSize])

  private(set) var graph = Onnx_GraphProto()
  private var names: Set<String> = []
  private var constants: [[Int]: String] = [:]
  private var scalars: [UInt64: String] = [:]
  private var nodeCount = 0

  /// A name that no value has yet, `hint` or `hint_N`.
  mutating func fresh(_ hint: String) -> String {
    if names.insert(hint).inserted { return hint }
    var number = 1
    while !names.insert("\(hint)_\(number)").inserted { number += 1 }
    return "\(hint)_\(number)"
  }

  /// Adds a node with one output, whose name it returns.
  mutating func node(
    _ type: String, _ inputs: [String], _ attributes: [(String, Attribute)] = [], name: String? = nil
  ) -> String {
    let output = name ?? fresh(type.lowercased())
    nodes(type, inputs, [output], attributes)
    return output
  }

  /// Adds a node with the given outputs.
  mutating func nodes(
    _ type: String, _ inputs: [String], _ outputs: [String], _ attributes: [(String, Attribute)] = []
  ) {
    var node = Onnx_NodeProto()
    node.opType = type
    node.name = "\(type)_\(nodeCount)"
    nodeCount += 1
    node.input = inputs
    node.output = outputs
    node.attribute = attributes.map { name, value in
      var attribute = Onnx_AttributeProto()
      attribute.name = name
      switch value {
      case .int(let number):
        attribute.type = .int
        attribute.i = Int64(number)
      case .ints(let numbers):
        attribute.type = .ints
        attribute.ints = numbers.map { Int64($0) }
      case .float(let number):
        attribute.type = .float
        attribute.f = number
      case .string(let text):
        attribute.type = .string
        attribute.s = Data(text.utf8)
      case .graph(let graph):
        attribute.type = .graph
        attribute.g = graph
      }
      return attribute
    }
    graph.node.append(node)
  }

  /// A graph inside of a node, made of the nodes that `body` adds, which may use all values there are; `body` returns its
  /// outputs. Constants that it makes belong to the outer graph.
  mutating func nested(
    _ name: String, inputs: [Port], _ body: (inout ONNXGraphWriter) throws -> [Port]
  ) rethrows -> Onnx_GraphProto {
    let outer = graph
    graph = Onnx_GraphProto()
    graph.name = name
    graph.input = inputs.map { Self.value($0.name, $0.type, $0.shape) }
    let outputs = try body(&self)
    graph.output = outputs.map { Self.value($0.name, $0.type, $0.shape) }
    var inner = graph
    graph = outer
    graph.initializer += inner.initializer
    inner.initializer = []
    return inner
  }

  /// A one-dimensional `i64` constant.
  mutating func integers(_ values: [Int]) -> String {
    if let name = constants[values] { return name }
    let name = fresh("ints")
    var tensor = Onnx_TensorProto()
    tensor.name = name
    tensor.dims = [Int64(values.count)]
    tensor.dataType = Int32(Onnx_TensorProto.DataType.int64.rawValue)
    tensor.rawData = values.map { Int64($0).littleEndian }.withUnsafeBytes { Data($0) }
    graph.initializer.append(tensor)
    constants[values] = name
    return name
  }

  /// A single number of a type, as a constant of rank 0.
  mutating func scalar(_ value: Float, _ type: DType) -> String {
    let key = UInt64(value.bitPattern) << 8 | UInt64(DType.allCases.firstIndex(of: type) ?? 0)
    if let name = scalars[key] { return name }
    let name = fresh("number")
    var bytes = [UInt8](repeating: 0, count: type.byteCount)
    [value].withUnsafeBytes { source in bytes.withUnsafeMutableBytes { convertRow(source, .f32, into: $0, type) } }
    var tensor = Onnx_TensorProto()
    tensor.name = name
    tensor.dataType = Int32(ONNXElementType.number(of: type).rawValue)
    tensor.rawData = Data(bytes)
    graph.initializer.append(tensor)
    scalars[key] = name
    return name
  }

  /// Adds an initializer.
  mutating func add(_ initializer: Onnx_TensorProto) { graph.initializer.append(initializer) }

  /// Adds an input; sizes are numbers or the names of open ones.
  mutating func input(_ name: String, _ type: DType, _ shape: [ONNXSize]) {
    graph.input.append(Self.value(name, type, shape))
  }

  /// Adds an output.
  mutating func output(_ name: String, _ type: DType, _ shape: [ONNXSize]) {
    graph.output.append(Self.value(name, type, shape))
  }

  private static func value(_ name: String, _ type: DType, _ shape: [ONNXSize]) -> Onnx_ValueInfoProto {
    var value = Onnx_ValueInfoProto()
    value.name = name
    value.type.tensorType.elemType = Int32(ONNXElementType.number(of: type).rawValue)
    value.type.tensorType.shape.dim = shape.map { size in
      var dim = Onnx_TensorShapeProto.Dimension()
      switch size {
      case .fixed(let number): dim.dimValue = Int64(number)
      case .open(let name): dim.dimParam = name
      }
      return dim
    }
    return value
  }
}

/// A size of an input or output of an exported graph.
enum ONNXSize {
  case fixed(Int)
  case open(String)

  init(_ dim: Dim) { self = dim.fixedValue.map { .fixed($0) } ?? .open("\(dim)") }
}

/// The numbers of `TensorProto.DataType` for the element types of the IR.
enum ONNXElementType {
  static func number(of type: DType) -> Onnx_TensorProto.DataType {
    switch type {
    case .f64: .double
    case .f32: .float
    case .f16: .float16
    case .bf16: .bfloat16
    case .f8e4m3: .float8E4M3Fn
    case .f8e5m2: .float8E5M2
    case .i64: .int64
    case .i32: .int32
    case .i16: .int16
    case .i8: .int8
    case .u8: .uint8
    case .bool: .bool
    }
  }
}
