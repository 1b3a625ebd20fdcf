import Base
import Tensors

/// Checks what every graph must satisfy between passes.
///
/// Definitions, uses and names are in step; there is no cycle; every stored result type equals the one inferred again
/// from attributes and inputs; constants have as many bytes as their type needs; states keep their types; symbols are
/// declared; operators of the level `.target` stand only in lowered models.
package enum Verifier {
  /// Throws an internal error that names the function and the value at fault.
  package static func verify(_ model: Model) throws {
    var functionNames: Set<String> = []
    for function in model.functions {
      guard functionNames.insert(function.name).inserted else {
        throw CompileError(.internal, "two functions are named '@\(function.name)'")
      }
      try verify(function, in: model)
    }
    for id in 0..<model.constants.count { try verify(model.constants[ConstantID(index: Int32(id))], in: model) }
  }

  /// Checks one function of `model`.
  package static func verify(_ graph: Graph, in model: Model) throws {
    func fail(_ message: String) -> CompileError {
      CompileError(.internal, message, subject: .init(object: "function '@\(graph.name)'"))
    }
    let declared = Set(graph.symbols)
    var names: Set<String> = []
    for id in graph.valueIDs {
      let value = graph[id]
      guard names.insert(value.name).inserted else { throw fail("two values are named '%\(value.name)'") }
      for dim in value.type.shape.dims where !dim.isFixed {
        guard dim.symbols.isSubset(of: declared) else {
          throw fail("the type \(value.type) of '%\(value.name)' names a symbol that is not declared")
        }
      }
      for use in value.uses where !refers(use, to: id, in: graph) {
        throw fail("the uses of '%\(value.name)' are out of step")
      }
      switch value.definition {
      case .input(let index):
        guard graph.inputs.indices.contains(index), graph.inputs[index] == id else {
          throw fail("'%\(value.name)' is not the input it claims to be")
        }
      case .state(let index):
        guard graph.states.indices.contains(index), graph.states[index].value == id else {
          throw fail("'%\(value.name)' is not the state it claims to be")
        }
      case .constant(let constant):
        guard constant.index >= 0, Int(constant.index) < model.constants.count else {
          throw fail("'%\(value.name)' names a constant that does not exist")
        }
        guard model.constants[constant].type == value.type else {
          throw fail("'%\(value.name)' has type \(value.type), its constant \(model.constants[constant].type)")
        }
      case .result(let node, let index):
        guard graph.isLive(node), graph[node].results.indices.contains(index), graph[node].results[index] == id else {
          throw fail("'%\(value.name)' is not the result it claims to be")
        }
      }
    }
    let order = graph.topologicalOrder()
    var done = [Bool](repeating: false, count: graph.nodeSlots)
    for id in order {
      let node = graph[id]
      for input in node.inputs {
        if let producer = graph.definingNode(of: input), !done[Int(producer.index)] {
          throw fail("'%\(graph[input].name)' depends on itself")
        }
      }
      done[Int(id.index)] = true
      if type(of: node.op).level == .target && model.stage < .lower {
        throw fail("'\(node.op.name)' stands in a model of the stage '\(model.stage.rawValue)'")
      }
      let inferred = try node.op.inferTypes(node.inputs.map { graph.type(of: $0) })
      let stored = node.results.map { graph.type(of: $0) }
      guard inferred == stored else {
        let name = node.results.first.map { "%\(graph[$0].name)" } ?? node.op.name
        throw fail("'\(name)' is stored as \(list(stored)) but computed as \(list(inferred))")
      }
    }
    guard order.count == graph.nodeCount else { throw fail("the graph has a cycle") }
    for state in graph.states where graph.type(of: state.value) != graph.type(of: state.update) {
      throw fail(
        "state '%\(graph[state.value].name)' has type \(graph.type(of: state.value)), "
          + "its update \(graph.type(of: state.update))")
    }
    guard graph.outputNames.count == graph.outputs.count, Set(graph.outputNames).count == graph.outputs.count else {
      throw fail("the outputs are not named apart")
    }
  }

  private static func refers(_ use: Use, to value: ValueID, in graph: Graph) -> Bool {
    switch use {
    case .operand(let node, let operand):
      graph.isLive(node) && graph[node].inputs.indices.contains(operand) && graph[node].inputs[operand] == value
    case .output(let index): graph.outputs.indices.contains(index) && graph.outputs[index] == value
    case .update(let index): graph.states.indices.contains(index) && graph.states[index].update == value
    }
  }

  private static func list(_ types: [TensorType]) -> String { types.map(\.description).joined(separator: ", ") }

  private static func verify(_ constant: Constant, in model: Model) throws {
    guard let need = constant.type.byteCount else {
      throw CompileError(.internal, "constant '\(constant.name)' has a size that is not a number: \(constant.type)")
    }
    switch constant.source {
    case .archive(let archive, let range):
      guard model.archives.indices.contains(archive) else {
        throw CompileError(.internal, "constant '\(constant.name)' names an archive that does not exist")
      }
      guard range.count == need, range.lowerBound >= 0, range.upperBound <= model.archives[archive].file.size else {
        throw CompileError(
          .internal,
          "constant '\(constant.name)' of \(need) bytes lies at \(range) of a file of "
            + "\(model.archives[archive].file.size) bytes")
      }
    case .inline(let bytes):
      guard bytes.count == need else {
        throw CompileError(.internal, "constant '\(constant.name)' has \(bytes.count) bytes, needs \(need)")
      }
    case .splat, .random:
      guard constant.type.isDense else {
        throw CompileError(.internal, "constant '\(constant.name)' is made up but not dense")
      }
    }
  }
}
