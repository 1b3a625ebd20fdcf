import IR
import Tensors

/// Joins elementwise operators into one `elementwise` that reads its inputs once and stores one result.
///
///     %a = multiply(%x, %s)
///     %b = tanh(%a)
///     %c = add(%b, %y)
///     // -> %c = elementwise(%x, %s, %y) {expression = "add(tanh(multiply(%0, %1)), %2)"}
///
/// A result is computed inside of its users if they are all in the chain and it has their shape, so that nothing is
/// computed twice. Constants that are one number throughout move into the expression. Only f32 (and truth values) takes
/// part: there the values between two operators are what they were. Recipes on weights are left alone.
package struct FuseElementwise: Pass {
  package static let name = "fuse-elementwise"
  package static let summary = "joins chains of elementwise operators into one"
  package static let legality =
    "where all users of a result are in the chain and it has their shape, in f32, outside of recipes"
  package static let source = "mcc"

  /// The number of inputs that a chain may have.
  package var maximumInputs: Int = 6
  /// The number of functions in an expression.
  package var maximumFunctions: Int = 32

  package init() {}

  package var fidelity: Fidelity { .exact }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    for index in model.functions.indices {
      let constants = model.constants
      let recipes = RecipeSet(model.functions[index])
      for root in model.functions[index].topologicalOrder().reversed() where model.functions[index].isLive(root) {
        guard let chain = chain(from: root, in: model.functions[index], constants, recipes) else { continue }
        try replace(chain, in: &model.functions[index])
        context.count("chains joined")
      }
      for value in model.functions[index].valueIDs
      where model.functions[index].constant(of: value) != nil && model.functions[index][value].uses.isEmpty {
        model.functions[index].eraseConstant(value)
      }
    }
  }

  /// What a group of nodes computes.
  private struct Chain {
    /// The root, then what is computed inside of it, users before what they use.
    var nodes: [NodeID]
    var inputs: [ValueID]
    var expression: ScalarExpression
  }

  /// The largest chain that ends in `root`; nil for a single operator.
  private func chain(
    from root: NodeID, in graph: Graph, _ constants: ConstantTable, _ recipes: RecipeSet
  ) -> Chain? {
    guard let op = graph[root].op as? any Elementwise, graph[root].results.count == 1,
      takesPart(graph.type(of: graph[root].results[0])),
      graph[root].inputs.allSatisfy({ takesPart(graph.type(of: $0)) }),
      !graph[root].inputs.allSatisfy({ recipes.contains($0) })
    else { return nil }
    let shape = graph.type(of: graph[root].results[0]).shape
    var chain = Chain(nodes: [root], inputs: [], expression: op.expression)
    chain.expression = substitute(op.expression, operands: graph[root].inputs, into: &chain.inputs)
    var next = 0
    while next < chain.inputs.count {
      let value = chain.inputs[next]
      guard let joined = joining(value, to: chain, shape: shape, in: graph) else {
        next += 1
        continue
      }
      chain = joined
      next = 0
    }
    guard chain.nodes.count > 1 else { return nil }
    embedNumbers(in: &chain, shape: shape, graph, constants)
    let types = chain.inputs.map { graph.type(of: $0) }
    let inferred = try? FusedElementwise(chain.expression).inferTypes(types)
    return inferred == [graph.type(of: graph[root].results[0])] ? chain : nil
  }

  private func takesPart(_ type: TensorType) -> Bool { type.isDense && (type.element == .f32 || type.element == .bool) }

  /// The chain with the operator that computes `value` inside; nil if it must stay outside.
  private func joining(_ value: ValueID, to chain: Chain, shape: Shape, in graph: Graph) -> Chain? {
    guard let node = graph.definingNode(of: value), let op = graph[node].op as? any Elementwise,
      graph.type(of: value).shape == shape,
      graph[value].uses.allSatisfy({ use in
        if case .operand(let user, _) = use { return chain.nodes.contains(user) }
        return false
      }),
      graph[node].inputs.allSatisfy({ takesPart(graph.type(of: $0)) })
    else { return nil }
    guard let position = chain.inputs.firstIndex(of: value) else { return nil }
    var inputs = chain.inputs
    inputs.remove(at: position)
    let inner = substitute(op.expression, operands: graph[node].inputs, into: &inputs)
    let expression = chain.expression.substituting { index in
      if index == position { return inner }
      return .input(index > position ? index - 1 : index)
    }
    guard inputs.count <= maximumInputs, expression.functionCount(limit: maximumFunctions) <= maximumFunctions else {
      return nil
    }
    return Chain(nodes: chain.nodes + [node], inputs: inputs, expression: expression)
  }

  /// `expression` over `operands` as an expression over `inputs`, to which missing operands are added.
  private func substitute(
    _ expression: ScalarExpression, operands: [ValueID], into inputs: inout [ValueID]
  ) -> ScalarExpression {
    var places: [Int] = []
    for operand in operands {
      if let index = inputs.firstIndex(of: operand) {
        places.append(index)
      } else {
        places.append(inputs.count)
        inputs.append(operand)
      }
    }
    return expression.substituting { .input(places[$0]) }
  }

  /// Writes constants that are one number into the expression, as long as an input remains and the shape stays.
  private func embedNumbers(in chain: inout Chain, shape: Shape, _ graph: Graph, _ constants: ConstantTable) {
    for value in chain.inputs {
      guard chain.inputs.count > 1, graph.type(of: value).element == .f32, let id = graph.constant(of: value),
        let number = constants[id].uniformValue, let index = chain.inputs.firstIndex(of: value)
      else { continue }
      var rest = chain.inputs
      rest.remove(at: index)
      let types = rest.map { graph.type(of: $0) }
      guard types.contains(where: { $0.element != .bool }) else { continue }
      var left: Shape? = []
      for type in types { left = left.flatMap { Shape.broadcast($0, type.shape) } }
      guard left == shape else { continue }
      chain.inputs = rest
      chain.expression = chain.expression.substituting { input in
        if input == index { return .number(Float(number)) }
        return .input(input > index ? input - 1 : input)
      }
    }
  }

  private func replace(_ chain: Chain, in graph: inout Graph) throws {
    let root = chain.nodes[0]
    let old = graph[root].results[0]
    let name = graph[old].name
    let node = try graph.addNode(
      FusedElementwise(chain.expression), chain.inputs, names: [name], origin: graph[root].origin)
    graph.replaceUses(of: old, with: graph[node].results[0])
    for node in chain.nodes { graph.erase(node) }
    graph.rename(graph[node].results[0], to: name)
  }
}

extension ScalarExpression {
  /// The number of functions; counting ends above `limit`.
  fileprivate func functionCount(limit: Int) -> Int {
    switch self {
    case .input, .constant: return 0
    case .unary(_, let x): return 1 + x.functionCount(limit: limit)
    case .binary(_, let x, let y):
      let left = x.functionCount(limit: limit)
      return left > limit ? left : 1 + left + y.functionCount(limit: limit)
    case .select(let c, let x, let y):
      let left = c.functionCount(limit: limit)
      return left > limit ? left : 1 + left + x.functionCount(limit: limit) + y.functionCount(limit: limit)
    }
  }
}
