import IR
import Tensors

/// A value between layers whose channels may be divided by positive numbers where it is computed and multiplied by them
/// where it is read, without a change of the function.
struct EqualizedValue {
  /// Why a value is none.
  struct Refusal: Error {
    var reason: String
  }

  var value: ValueID
  /// The node that computes it: a layer, or a norm.
  var writer: NodeID
  var channels: Int
  /// The layers that read it, perhaps behind operators that leave channels whole, and the results of these operators.
  var readers: [NodeID] = []
  var between: [ValueID] = []
  /// Whether numbers may be taken from the channels as well: writer and readers have biases, and nothing lies between.
  var takesShifts = false

  /// What comes of the first and the second site of the pass: values of layers, and of norms.
  static func all(
    in lookup: RecipeGraph, at sites: [Equalize.Site], explain: (ValueID, String) -> Void
  ) -> [EqualizedValue] {
    var found: [EqualizedValue] = []
    for id in lookup.graph.topologicalOrder() {
      guard let result = lookup.graph[id].results.first, !lookup.isRecipe(result) else { continue }
      do throws(Refusal) {
        if sites.contains(.layers), let layer = AffineLayer(id, in: lookup) {
          found.append(try behind(id, layer, result, lookup))
        } else if sites.contains(.norms), lookup.graph[id].op is LayerNorm || lookup.graph[id].op is RMSNorm {
          found.append(try behindNorm(id, result, lookup))
        }
      } catch {
        explain(result, error.reason)
      }
    }
    return found
  }

  private static func behind(
    _ id: NodeID, _ layer: AffineLayer, _ result: ValueID, _ lookup: RecipeGraph
  ) throws(Refusal) -> EqualizedValue {
    let epilogue: Epilogue
    switch layer.operation {
    case .product(let op): epilogue = op.epilogue
    case .convolution(let op): epilogue = op.epilogue
    case .transposed: epilogue = Epilogue(bias: layer.bias != nil)
    }
    guard !epilogue.gated, epilogue.residual == .none else {
      throw Refusal(reason: "a residual or a gate is part of the layer")
    }
    guard epilogue.activation == .none || epilogue.activation == .relu else {
      throw Refusal(reason: "\(epilogue.activation.rawValue) does not keep positive factors")
    }
    guard lookup.type(of: result).element == .f32 else { throw Refusal(reason: "the value is not in f32") }
    if let reason = lookup.obstacle(toChanging: layer.weight) { throw Refusal(reason: reason) }
    if let bias = layer.bias, lookup.type(of: bias).element != .f32 {
      throw Refusal(reason: "the bias is not in f32")
    }
    var found = EqualizedValue(value: result, writer: id, channels: layer.outputs)
    try found.follow(result, axis: layer.channelAxis(rank: lookup.type(of: result).rank), lookup)
    return found
  }

  private static func behindNorm(
    _ id: NodeID, _ result: ValueID, _ lookup: RecipeGraph
  ) throws(Refusal) -> EqualizedValue {
    let node = lookup.graph[id], type = lookup.type(of: result)
    guard type.element == .f32, let width = type.shape.last.fixedValue,
      node.inputs.dropFirst().allSatisfy({
        lookup.isRecipe($0) && lookup.type(of: $0).rank == 1 && lookup.type(of: $0).element == .f32
      })
    else { throw Refusal(reason: "gain and bias are no vectors of constants") }
    var found = EqualizedValue(value: result, writer: id, channels: width)
    try found.follow(result, axis: type.rank - 1, lookup)
    found.takesShifts =
      node.inputs.count == 3 && found.between.isEmpty
      && found.readers.allSatisfy { reader in
        guard let layer = AffineLayer(reader, in: lookup), case .product = layer.operation, let bias = layer.bias else {
          return false
        }
        return lookup.type(of: bias).element == .f32
      }
    return found
  }

  /// Notes the layers that read the channels along an axis of a value.
  private mutating func follow(
    _ value: ValueID, axis: Int, _ lookup: RecipeGraph, depth: Int = 0
  ) throws(Refusal) {
    let graph = lookup.graph, name = graph[value].name
    guard depth < 8 else { throw Refusal(reason: "too many operators lie between '%\(name)' and its layers") }
    guard !graph[value].uses.isEmpty else { throw Refusal(reason: "nothing reads '%\(name)'") }
    for use in graph[value].uses {
      guard case .operand(let id, 0) = use else {
        throw Refusal(reason: "'%\(name)' is an output, or is added to something")
      }
      let op = graph[id].op
      if let layer = AffineLayer(id, in: lookup) {
        guard axis == layer.channelAxis(rank: lookup.type(of: value).rank), layer.channels == channels else {
          throw Refusal(reason: "'\(op.name)' reads the channels along another axis")
        }
        if let reason = lookup.obstacle(toChanging: layer.weight) { throw Refusal(reason: reason) }
        readers.append(id)
      } else if let result = graph[id].results.first, graph[id].results.count == 1,
        let after = Self.axisBehind(op, axis, from: value, to: result, lookup)
      {
        between.append(result)
        try follow(result, axis: after, lookup, depth: depth + 1)
      } else {
        throw Refusal(reason: "'\(op.name)' uses '%\(name)' as it is")
      }
    }
  }

  /// The axis along which channels run behind an operator that does the same to a channel whatever its positive factor;
  /// nil if it does not.
  private static func axisBehind(
    _ op: any Operator, _ axis: Int, from value: ValueID, to result: ValueID, _ lookup: RecipeGraph
  ) -> Int? {
    switch op {
    case is Transpose, is Reshape, is Slice:
      axisAfter(op, axis, from: lookup.type(of: value).shape, to: lookup.type(of: result).shape)
    case let pool as MaxPool2D: axis == (pool.layout == .first ? 1 : 3) ? axis : nil
    case let pool as AveragePool2D: axis == (pool.layout == .first ? 1 : 3) ? axis : nil
    case let pad as Pad: pad.value == 0 && pad.before[axis] == 0 && pad.after[axis] == 0 ? axis : nil
    case is ReLU: axis
    default: nil
    }
  }
}
