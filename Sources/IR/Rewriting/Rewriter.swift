import Base
import Tensors

/// What the body of a ``RewriteRule`` sees of a graph: look-ups, and adding nodes.
///
/// A look-up through a value, that is from a value to the node that computes it, succeeds only if the value has a single
/// use, unless the rule is `.shared`.
package struct Rewriter {
  var graph: Graph
  var constants: ConstantTable
  var sharing = RewriteRule.Sharing.single
  var origin: Origin?
  /// Why the last rule did nothing, if it said so and somebody wants to know.
  var refusal: String?
  var wantsRefusals = false
  /// The values that depended on constants alone when they were added.
  private var recipes: RecipeSet

  init(graph: Graph, constants: ConstantTable) {
    self.graph = graph
    self.constants = constants
    recipes = RecipeSet(graph)
  }

  // MARK: Looking

  /// A node, with its operator, inputs and results.
  package subscript(node: NodeID) -> Node { graph[node] }

  /// The inputs of a node.
  package func inputs(of node: NodeID) -> [ValueID] { graph[node].inputs }

  /// The type of a value.
  package func type(of value: ValueID) -> TensorType { graph.type(of: value) }

  /// The name of a value.
  package func name(of value: ValueID) -> String { graph[value].name }

  /// The type of the first result of a node.
  package func type(of node: NodeID) -> TensorType { graph.type(of: graph[node].results[0]) }

  /// How many times a value is used: as operand, output or state update.
  package func useCount(of value: ValueID) -> Int { graph[value].uses.count }

  /// The nodes that use a value, each once.
  package func users(of value: ValueID) -> [NodeID] { graph.users(of: value) }

  /// The node that computes a value; nil for inputs, states and constants, and for values with several uses unless the
  /// rule is shared.
  package func definingNode(of value: ValueID) -> NodeID? {
    guard sharing == .shared || graph[value].uses.count == 1 else { return nil }
    return graph.definingNode(of: value)
  }

  /// The operator that computes a value, if it has the type `Op`.
  package func op<Op: Operator>(of value: ValueID, as type: Op.Type = Op.self) -> Op? {
    definingNode(of: value).flatMap { graph[$0].op as? Op }
  }

  /// The operator that computes a value and its node, if it has the type `Op`.
  package func definition<Op: Operator>(of value: ValueID, as type: Op.Type = Op.self) -> (op: Op, node: NodeID)? {
    guard let node = definingNode(of: value), let op = graph[node].op as? Op else { return nil }
    return (op, node)
  }

  /// Whether an operator of the type `Op` computes a value.
  package func isDefined<Op: Operator>(_ value: ValueID, by type: Op.Type) -> Bool { op(of: value, as: type) != nil }

  /// An input of the node that computes a value; nil if the node cannot be looked up or has fewer inputs.
  package func input(of value: ValueID, _ index: Int = 0) -> ValueID? {
    guard let node = definingNode(of: value) else { return nil }
    let inputs = graph[node].inputs
    return inputs.indices.contains(index) ? inputs[index] : nil
  }

  /// The constant that a value stands for, whatever else uses it.
  package func constant(of value: ValueID) -> Constant? { graph.constant(of: value).map { constants[$0] } }

  /// Whether a value depends on constants alone.
  package func isRecipe(_ value: ValueID) -> Bool { recipes.contains(value) }

  /// The two operands of a node as (matching, other): the first if `predicate` holds for it, else, for commutative
  /// operators, the second; nil if it holds for neither or there are not two.
  package func operands(
    of node: NodeID, where predicate: (ValueID) throws -> Bool
  ) rethrows -> (matching: ValueID, other: ValueID)? {
    let inputs = graph[node].inputs
    guard inputs.count == 2 else { return nil }
    if try predicate(inputs[0]) { return (inputs[0], inputs[1]) }
    guard graph[node].op is any Commutative, try predicate(inputs[1]) else { return nil }
    return (inputs[1], inputs[0])
  }

  /// Says why a rule that found its pattern does nothing, for `--explain`: the condition that fails, as a phrase.
  ///
  /// - Returns: nil, so that a body can end with `return rewriter.refuse("the weight has other users")`.
  package mutating func refuse<Replacement>(_ reason: @autoclosure () -> String) -> Replacement? {
    if wantsRefusals { refusal = reason() }
    return nil
  }

  // MARK: Adding

  /// Emits a node with one result; its origin is that of the root.
  package mutating func emit(_ op: any Operator, _ inputs: ValueID..., name: String? = nil) throws -> ValueID {
    try emit(op, inputs, name: name)
  }

  /// Emits a node with one result; its origin is that of the root.
  package mutating func emit(_ op: any Operator, _ inputs: [ValueID], name: String? = nil) throws -> ValueID {
    let results = try emitAll(op, inputs, names: name.map { [$0] } ?? [])
    guard results.count == 1 else {
      throw CompileError(.internal, "'\(op.name)' has \(results.count) results where one is used")
    }
    return results[0]
  }

  /// Emits a node with any number of results; its origin is that of the root.
  package mutating func emitAll(_ op: any Operator, _ inputs: [ValueID], names: [String] = []) throws -> [ValueID] {
    let node = try graph.addNode(op, inputs, names: names, origin: origin)
    recipes.note(node, in: graph)
    return graph[node].results
  }

  /// A value for a constant.
  package mutating func constant(_ constant: Constant) -> ValueID {
    let value = graph.addConstant(constants.insert(constant), GraphBuilder.valueName(constant.name), constant.type)
    recipes.note(value, true)
    return value
  }
}
