import Base
import Tensors

/// Builds a function of a model: what importers and decompositions write against.
///
/// Values are emitted in order; constants are shared by source within the function.
package struct GraphBuilder: Sendable {
  package var graph: Graph
  package var constants: ConstantTable
  /// Origin given to nodes emitted from now on.
  package var origin: Origin?
  private var constantValues: [ConstantID: ValueID] = [:]

  /// A builder for a new function whose constants go to `constants`.
  package init(name: String, role: String? = nil, symbols: [Symbol] = [], constants: ConstantTable = ConstantTable()) {
    graph = Graph(name: name, role: role, symbols: symbols)
    self.constants = constants
  }

  /// A builder that goes on with a function.
  package init(graph: Graph, constants: ConstantTable) {
    self.graph = graph
    self.constants = constants
    for value in graph.valueIDs {
      if let id = graph.constant(of: value), constantValues[id] == nil { constantValues[id] = value }
    }
  }

  /// The type of a value.
  package func type(of value: ValueID) -> TensorType { graph.type(of: value) }

  /// Adds an input.
  package mutating func input(_ name: String, _ type: TensorType) -> ValueID { graph.addInput(name, type) }

  /// Adds a state.
  package mutating func state(_ name: String, _ type: TensorType) -> ValueID { graph.addState(name, type) }

  /// A value for a constant; equal constants give the same value.
  package mutating func constant(_ constant: Constant) -> ValueID {
    let id = constants.insert(constant)
    if let value = constantValues[id] { return value }
    let value = graph.addConstant(id, Self.valueName(constant.name), constant.type)
    constantValues[id] = value
    return value
  }

  /// Emits a node with one result.
  package mutating func emit(_ op: any Operator, _ inputs: ValueID..., name: String? = nil) throws -> ValueID {
    try emit(op, inputs, name: name)
  }

  /// Emits a node with one result.
  package mutating func emit(_ op: any Operator, _ inputs: [ValueID], name: String? = nil) throws -> ValueID {
    let results = try emitAll(op, inputs, names: name.map { [$0] } ?? [])
    guard results.count == 1 else {
      throw CompileError(.internal, "'\(op.name)' has \(results.count) results where one is used")
    }
    return results[0]
  }

  /// Emits a node with any number of results.
  package mutating func emitAll(_ op: any Operator, _ inputs: [ValueID], names: [String] = []) throws -> [ValueID] {
    let node = try graph.addNode(op, inputs, names: names.map { Self.valueName($0) }, origin: origin)
    return graph[node].results
  }

  /// Takes back everything emitted since `mark`, constants included.
  mutating func takeBack(to mark: Graph.Mark) {
    guard graph.mark != mark else { return }
    graph.truncate(to: mark)
    constantValues = constantValues.filter { graph.isLive($0.value) }
  }

  /// Adds an output.
  package mutating func output(_ name: String, _ value: ValueID) { graph.addOutput(name, value) }

  /// A checkpoint's name as a name in the IR: letters, digits, `.`, `_`, `-` and `$` stay, others become `_`.
  package static func valueName(_ name: String) -> String {
    let bytes = name.utf8.map { byte -> UInt8 in
      switch byte {
      case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2E, 0x5F, 0x2D, 0x24: byte
      default: 0x5F
      }
    }
    return bytes.isEmpty ? "v" : String(decoding: bytes, as: UTF8.self)
  }
}
