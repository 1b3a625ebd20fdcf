import IR
import Tensors

/// What graphs and rewriters can both be asked.
protocol ValueLookup {
  subscript(node: NodeID) -> Node { get }
  func type(of value: ValueID) -> TensorType
  func definingNode(of value: ValueID) -> NodeID?
}

extension Graph: ValueLookup {}

/// What a graph with its recipes and a rewriter can both be asked.
protocol RecipeLookup: ValueLookup {
  func useCount(of value: ValueID) -> Int
  func users(of value: ValueID) -> [NodeID]
  func isRecipe(_ value: ValueID) -> Bool
}

extension Rewriter: RecipeLookup {}

/// A graph with its recipes.
struct RecipeGraph: RecipeLookup {
  var graph: Graph
  var recipes: RecipeSet

  init(_ graph: Graph) {
    self.graph = graph
    recipes = RecipeSet(graph)
  }

  subscript(node: NodeID) -> Node { graph[node] }

  func type(of value: ValueID) -> TensorType { graph.type(of: value) }
  func useCount(of value: ValueID) -> Int { graph[value].uses.count }
  func users(of value: ValueID) -> [NodeID] { graph.users(of: value) }
  func definingNode(of value: ValueID) -> NodeID? { graph.definingNode(of: value) }
  func isRecipe(_ value: ValueID) -> Bool { recipes.contains(value) }
}

extension ValueLookup {
  /// How the rows of a weight are stored: the block format where it is dequantized codes, else dense.
  func storedEncoding(of weight: ValueID) -> Encoding {
    guard let node = definingNode(of: weight), self[node].op is Dequantize else { return type(of: weight).encoding }
    return type(of: self[node].inputs[0]).encoding
  }

  /// The codes that `weights` are dequantized from, and the operator that does it, if it is the same for all.
  ///
  /// Rows of codes can be stacked as they are: `concat(dequantize(a), dequantize(b))` is `dequantize(concat(a, b))`.
  func commonCodes(of weights: [ValueID]) -> (codes: [ValueID], op: Dequantize)? {
    var codes: [ValueID] = []
    var common: Dequantize?
    for weight in weights {
      guard let node = definingNode(of: weight), let op = self[node].op as? Dequantize, op == common ?? op else {
        return nil
      }
      common = op
      codes.append(self[node].inputs[0])
    }
    guard let common, Set(codes.map { type(of: $0).encoding }).count == 1 else { return nil }
    return (codes, common)
  }
}

extension RecipeLookup {
  /// Whether only one operator that runs reads `weight`, and none what of its size it is computed from: what is done to it
  /// then makes no second copy of a large constant. Recipes have copies of their own.
  func isUsedOnce(_ weight: ValueID) -> Bool {
    let count = type(of: weight).maximumCount
    guard runningUses(of: weight) == 1 else { return false }
    var stack = [weight]
    while let id = stack.popLast() {
      guard id == weight || type(of: id).maximumCount < count || runningUses(of: id) == 0 else { return false }
      guard type(of: id).maximumCount >= count, let node = definingNode(of: id) else { continue }
      stack.append(contentsOf: self[node].inputs)
    }
    return true
  }

  /// The uses of a recipe but for those by recipes.
  private func runningUses(of value: ValueID) -> Int {
    var uses = useCount(of: value)
    for user in users(of: value) where self[user].results.allSatisfy({ isRecipe($0) }) {
      uses -= self[user].inputs.count { $0 == value }
    }
    return uses
  }
}
