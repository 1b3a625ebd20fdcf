import IR
import Tensors

/// Numbers the recipes on constants so that equal ones in different functions have one number.
package struct RecipeTable {
  private enum Key: Hashable {
    case constant(ConstantID)
    case result(NestedOperator, [Int], Int)
  }

  private var numbers: [Key: Int] = [:]
  private var known: [[ValueID: Int]] = []

  package init() {}

  /// The number of a value of function `function` that depends on constants alone.
  package mutating func number(of value: ValueID, in graph: Graph, function: Int) -> Int {
    while known.count <= function { known.append([:]) }
    if let number = known[function][value] { return number }
    let key: Key
    switch graph[value].definition {
    case .constant(let id): key = .constant(id)
    case .result(let node, let result):
      let inputs = graph[node].inputs.map { self.number(of: $0, in: graph, function: function) }
      key = .result(NestedOperator(graph[node].op), inputs, result)
    case .input, .state: preconditionFailure("'%\(graph[value].name)' is no recipe")
    }
    let number = numbers[key] ?? numbers.count
    numbers[key] = number
    known[function][value] = number
    return number
  }
}
