import IR
import Tensors

/// Values that sums and moves connect, such as the residual stream of a transformer, with all that writes to them and reads
/// them: what a change of their basis has to be folded into.
///
/// Every value `x` of the stream may become `x Q^T` for an orthogonal `Q` if all that meet it take part:
/// - a layer whose result is added turns the rows of its weight, and its bias; a table its rows; a constant itself;
/// - a layer that reads turns the columns of its weight;
/// - a root mean square norm sees lengths alone, and so gives what it gave, turned; a gain must go into the layers behind;
/// - sums, moves of rows, and factors that are the same for all channels stay as they are.
///
/// Where something else writes or reads, or a weight may not be changed, the value has to be turned when the program
/// runs: an entry or an exit of the stream.
struct ResidualStream {
  /// A recipe of which one axis runs along the channels.
  struct Recipe: Hashable {
    var node: NodeID
    var operand: Int
    var axis: Int
  }

  /// A place where the basis has to be changed at run time, and why.
  struct Crossing: Hashable {
    enum Place: Hashable {
      /// What is computed is turned.
      case entry(ValueID)
      /// What an operator reads is turned back.
      case exit(NodeID, operand: Int)
      /// An output is turned back.
      case output(Int)
    }

    var place: Place
    var reason: String
  }

  /// The number of channels.
  private(set) var width = 0
  /// What is turned at compile time, in the order it was found.
  private(set) var recipes: [Recipe] = []
  /// Norms whose gains go into the weights behind, with these.
  private(set) var norms: [(node: NodeID, readers: [Recipe])] = []
  private(set) var crossings: [Crossing] = []
  /// All its values.
  private(set) var values: Set<ValueID> = []

  /// The number of weights that are turned: layers and tables.
  var weights: Int { recipes.count + norms.reduce(0) { $0 + $1.readers.count } - terms }
  /// Biases and constants among the recipes.
  private var terms = 0

  /// A value of the stream and its axis along which the channels run.
  private struct Place: Hashable {
    var value: ValueID
    var axis: Int
  }

  /// The stream that `value` belongs to; its values are added to `done`.
  ///
  /// - Returns: the stream, or the place and the reason why its basis may not change at all.
  static func find(
    from value: ValueID, in lookup: RecipeGraph, _ constants: ConstantTable, done: inout Set<ValueID>
  ) -> (stream: ResidualStream, obstacle: (value: ValueID, reason: String)?) {
    let type = lookup.type(of: value)
    let start = Place(value: value, axis: type.rank - 1)
    var walk = Walk(lookup: lookup, constants: constants)
    walk.stream.width = type.shape.last.fixedValue ?? 0
    var seen: Set<ValueID> = [value]
    var waiting = [start]
    var obstacle: (ValueID, String)?
    while let place = waiting.popLast() {
      walk.next = []
      let reason = walk.visit(place)
      if obstacle == nil, let reason { obstacle = (place.value, reason) }
      for place in walk.next where !lookup.isRecipe(place.value) && seen.insert(place.value).inserted {
        waiting.append(place)
      }
    }
    done.formUnion(seen)
    walk.stream.values = seen
    return (walk.stream, obstacle)
  }

  /// The walk along a stream.
  private struct Walk {
    let lookup: RecipeGraph
    let constants: ConstantTable
    var stream = ResidualStream()
    var next: [Place] = []

    var graph: Graph { lookup.graph }

    func name(_ value: ValueID) -> String { "'%\(graph[value].name)'" }

    /// Notes what writes and reads a value; the reason if its basis may not change.
    mutating func visit(_ place: Place) -> String? {
      let type = graph.type(of: place.value)
      guard type.element == .f32, type.isDense else { return "\(name(place.value)) is not in f32" }
      guard type.shape[place.axis].fixedValue == stream.width else {
        return "\(name(place.value)) has other channels"
      }
      if let reason = addDefinition(of: place) { return reason }
      for use in graph[place.value].uses {
        if let reason = addUse(use, of: place) { return reason }
      }
      return nil
    }

    // MARK: Writers

    private mutating func enter(_ place: Place, _ reason: String) -> String? {
      guard place.axis == graph.type(of: place.value).rank - 1 else { return reason }
      stream.crossings.append(Crossing(place: .entry(place.value), reason: reason))
      return nil
    }

    private mutating func add(_ node: NodeID, _ operand: Int, axis: Int, isTerm: Bool = false) {
      stream.recipes.append(Recipe(node: node, operand: operand, axis: axis))
      if isTerm { stream.terms += 1 }
    }

    /// What computes a value.
    private mutating func addDefinition(of place: Place) -> String? {
      guard let id = graph.definingNode(of: place.value) else {
        return enter(place, "\(name(place.value)) comes from outside")
      }
      let node = graph[id], rank = graph.type(of: place.value).rank
      switch node.op {
      case is Add: return addTerms(of: id, place, Array(node.inputs.indices))
      case let op as Concat where graph.type(of: place.value).shape.normalizedAxis(op.axis) != place.axis:
        return addTerms(of: id, place, Array(node.inputs.indices))
      case is Multiply, is Divide:
        guard let operand = scaled(by: id, axis: place.axis, rank: rank), !lookup.isRecipe(node.inputs[operand]) else {
          return enter(place, "'\(node.op.name)' computes \(name(place.value))")
        }
        let scaled = node.inputs[operand]
        next.append(Place(value: scaled, axis: place.axis - (rank - graph.type(of: scaled).rank)))
        return nil
      case is Gather: return addTable(id, place)
      case is ExpertMatMul: return addExperts(id, place)
      case let op as RMSNorm:
        guard place.axis == rank - 1, graph.type(of: place.value).shape.normalizedAxis(op.axis) == place.axis else {
          return enter(place, "a norm along other axes computes \(name(place.value))")
        }
        guard isUniform(node.inputs[1]) else {
          return enter(place, "\(name(place.value)) is a norm with a gain, which is added to the stream")
        }
        next.append(Place(value: node.inputs[0], axis: place.axis))
        return nil
      case is MatMul, is Conv2D, is ConvTranspose2D: return addLayer(id, place)
      default:
        if isMove(node.op),
          let axis = axisBefore(
            node.op, place.axis, from: graph.type(of: node.inputs[0]).shape, to: graph.type(of: place.value).shape)
        {
          next.append(Place(value: node.inputs[0], axis: axis))
          return nil
        }
        return enter(place, "'\(node.op.name)' computes \(name(place.value))")
      }
    }

    private mutating func addLayer(_ id: NodeID, _ place: Place) -> String? {
      let node = graph[id], rank = graph.type(of: place.value).rank
      guard let layer = AffineLayer(id, in: lookup) else {
        let epilogue = (node.op as? MatMul)?.epilogue ?? (node.op as? Conv2D)?.epilogue
        let reason = "weights that are computed give \(name(place.value))"
        return epilogue?.residualIndex == nil ? enter(place, reason) : reason
      }
      var reason: String?
      if layer.groups != 1 || layer.channelAxis(rank: rank) != place.axis || !layer.hasPlainSumsButResidual {
        reason = "what \(name(place.value)) adds is no plain sum over the channels"
      } else {
        reason = lookup.obstacle(toTurning: layer.weight)
      }
      if let reason { return layer.residual == nil ? enter(place, reason) : reason }
      add(id, 1, axis: layer.weightAxes.outputs)
      if layer.bias != nil { add(id, 2, axis: 0, isTerm: true) }
      guard let residual = layer.residual else { return nil }
      guard lookup.isRecipe(residual) else {
        next.append(Place(value: residual, axis: place.axis))
        return nil
      }
      add(id, layer.bias == nil ? 2 : 3, axis: place.axis, isTerm: true)
      return nil
    }

    private mutating func addExperts(_ id: NodeID, _ place: Place) -> String? {
      let node = graph[id]
      guard let op = node.op as? ExpertMatMul, node.inputs.count == 4, op.activation == .none, !op.gated,
        place.axis == graph.type(of: place.value).rank - 1, lookup.isRecipe(node.inputs[1])
      else { return enter(place, "what \(name(place.value)) adds is no plain sum over the channels") }
      if let reason = lookup.obstacle(toTurning: node.inputs[1]) { return enter(place, reason) }
      add(id, 1, axis: 1)
      return nil
    }

    private mutating func addTable(_ id: NodeID, _ place: Place) -> String? {
      let node = graph[id], table = graph.type(of: node.inputs[0])
      guard let op = node.op as? Gather, lookup.isRecipe(node.inputs[0]), table.rank == 2,
        table.shape.normalizedAxis(op.axis) == 0, place.axis == graph.type(of: place.value).rank - 1
      else { return enter(place, "\(name(place.value)) is gathered from what is no table") }
      if let reason = lookup.obstacle(toTurning: node.inputs[0]) { return enter(place, reason) }
      add(id, 0, axis: 1)
      return nil
    }

    private mutating func addTerms(of id: NodeID, _ place: Place, _ operands: [Int]) -> String? {
      let rank = graph.type(of: place.value).rank
      for operand in operands {
        let value = graph[id].inputs[operand]
        let axis = place.axis - (rank - graph.type(of: value).rank)
        guard axis >= 0, graph.type(of: value).shape[axis].fixedValue == stream.width else {
          return "\(name(value)) is one number for all channels"
        }
        if lookup.isRecipe(value) {
          if let reason = lookup.obstacle(toTurning: value) { return reason }
          add(id, operand, axis: axis, isTerm: true)
        } else {
          next.append(Place(value: value, axis: axis))
        }
      }
      return nil
    }

    /// The operand of a product or a quotient that the other one scales, all channels alike; nil if there is none.
    private func scaled(by id: NodeID, axis: Int, rank: Int) -> Int? {
      let node = graph[id]
      func size(_ operand: Int) -> Dim? {
        let shape = graph.type(of: node.inputs[operand]).shape
        let place = axis - (rank - shape.rank)
        return place < 0 ? 1 : shape[place]
      }
      guard node.inputs.count == 2, node.inputs[0] != node.inputs[1], stream.width > 1 else { return nil }
      if size(1) == 1, size(0) != 1 { return 0 }
      return node.op is Multiply && size(0) == 1 && size(1) != 1 ? 1 : nil
    }

    /// Whether a gain is the same number for all channels.
    private func isUniform(_ gain: ValueID) -> Bool {
      graph.constant(of: gain).map { constants[$0].uniformValue != nil } ?? false
    }

    // MARK: Readers

    private mutating func exit(_ node: NodeID, _ operand: Int, _ place: Place, _ reason: String) -> String? {
      guard place.axis == graph.type(of: place.value).rank - 1 else { return reason }
      stream.crossings.append(Crossing(place: .exit(node, operand: operand), reason: reason))
      return nil
    }

    /// What reads a value.
    private mutating func addUse(_ use: Use, of place: Place) -> String? {
      let id: NodeID, operand: Int
      switch use {
      case .operand(let node, let index): (id, operand) = (node, index)
      case .update: return "\(name(place.value)) is kept from call to call"
      case .output(let index):
        guard place.axis == graph.type(of: place.value).rank - 1 else { return "\(name(place.value)) is an output" }
        stream.crossings.append(
          Crossing(place: .output(index), reason: "\(name(place.value)) is an output"))
        return nil
      }
      let node = graph[id]
      guard let result = node.results.first else { return exit(id, operand, place, "'\(node.op.name)' reads it") }
      let rank = graph.type(of: result).rank
      let moved = Place(value: result, axis: place.axis + rank - graph.type(of: place.value).rank)
      switch node.op {
      case is Add: next.append(moved)
      case let op as Concat where graph.type(of: place.value).shape.normalizedAxis(op.axis) != place.axis:
        next.append(moved)
      case is Multiply where scaled(by: id, axis: moved.axis, rank: rank) == operand,
        is Divide where scaled(by: id, axis: moved.axis, rank: rank) == operand:
        next.append(moved)
      case is MatMul where operand == (node.op as? MatMul)?.epilogue.residualIndex,
        is Conv2D where operand == (node.op as? Conv2D)?.epilogue.residualIndex:
        next.append(moved)
      case is MatMul, is Conv2D, is ConvTranspose2D, is ExpertMatMul:
        switch reader(id, operand, place) {
        case .success(let recipe): stream.recipes.append(recipe)
        case .failure(let failure): return exit(id, operand, place, failure.reason)
        }
      case let op as RMSNorm:
        guard operand == 0, graph.type(of: place.value).shape.normalizedAxis(op.axis) == place.axis,
          place.axis == rank - 1
        else { return exit(id, operand, place, "a norm along other axes reads \(name(place.value))") }
        if isUniform(node.inputs[1]) {
          next.append(moved)
          break
        }
        guard lookup.isRecipe(node.inputs[1]), graph.type(of: node.inputs[1]).rank == 1 else {
          return exit(id, operand, place, "the gain of \(name(result)) is no constant")
        }
        switch readers(of: moved, depth: 0) {
        case .success(let recipes): stream.norms.append((id, recipes))
        case .failure(let failure):
          return exit(id, operand, place, "the gain of \(name(result)) stays: \(failure.reason)")
        }
      case is LayerNorm:
        return exit(id, operand, place, "\(name(result)) is a layer norm, which sees the mean of the channels")
      default:
        if isMove(node.op),
          let axis = axisAfter(
            node.op, place.axis, from: graph.type(of: place.value).shape, to: graph.type(of: result).shape)
        {
          next.append(Place(value: result, axis: axis))
        } else {
          return exit(id, operand, place, "'\(node.op.name)' reads \(name(place.value)) as it is")
        }
      }
      return nil
    }

    private struct Failure: Error {
      var reason: String
    }

    /// The weight of a layer that reads a value.
    private func reader(_ id: NodeID, _ operand: Int, _ place: Place) -> Result<Recipe, Failure> {
      let node = graph[id]
      guard operand == 0 else {
        return .failure(Failure(reason: "'\(node.op.name)' reads \(name(place.value)) as weights"))
      }
      let weight: ValueID, axis: Int
      if node.op is ExpertMatMul {
        guard lookup.isRecipe(node.inputs[1]) else { return .failure(Failure(reason: "weights are computed")) }
        (weight, axis) = (node.inputs[1], 2)
      } else {
        guard let layer = AffineLayer(id, in: lookup) else { return .failure(Failure(reason: "weights are computed")) }
        guard layer.groups == 1, layer.channelAxis(rank: graph.type(of: place.value).rank) == place.axis else {
          return .failure(Failure(reason: "'\(node.op.name)' reads the channels along another axis"))
        }
        (weight, axis) = (layer.weight, layer.weightAxes.channels)
      }
      if let reason = lookup.obstacle(toTurning: weight) { return .failure(Failure(reason: reason)) }
      return .success(Recipe(node: id, operand: 1, axis: axis))
    }

    /// The weights of all layers that read a value, perhaps moved.
    private func readers(of place: Place, depth: Int) -> Result<[Recipe], Failure> {
      var recipes: [Recipe] = []
      guard depth <= 8 else { return .failure(Failure(reason: "too many moves")) }
      for use in graph[place.value].uses {
        guard case .operand(let id, let operand) = use else {
          return .failure(Failure(reason: "\(name(place.value)) is an output"))
        }
        let node = graph[id]
        switch node.op {
        case is MatMul, is Conv2D, is ConvTranspose2D, is ExpertMatMul:
          switch reader(id, operand, place) {
          case .success(let recipe): recipes.append(recipe)
          case .failure(let failure): return .failure(failure)
          }
        default:
          guard isMove(node.op),
            let axis = axisAfter(
              node.op, place.axis, from: graph.type(of: place.value).shape,
              to: graph.type(of: node.results[0]).shape)
          else {
            return .failure(Failure(reason: "'\(node.op.name)' reads \(name(place.value)) as it is"))
          }
          switch readers(of: Place(value: node.results[0], axis: axis), depth: depth + 1) {
          case .success(let more): recipes += more
          case .failure(let failure): return .failure(failure)
          }
        }
      }
      return .success(recipes)
    }
  }
}

extension AffineLayer {
  /// Whether the result is the sums with their bias, and what is added to them.
  fileprivate var hasPlainSumsButResidual: Bool {
    switch operation {
    case .product(let op): op.epilogue.activation == .none && !op.epilogue.gated
    case .convolution(let op): op.epilogue.activation == .none && !op.epilogue.gated
    case .transposed: true
    }
  }
}

extension RecipeLookup {
  /// Why a recipe may not be turned; nil if it may. Narrow numbers are widened, as quantization follows.
  func obstacle(toTurning recipe: ValueID) -> String? {
    if let reason = obstacle(toChanging: recipe, force: true) { return reason }
    var stack = [recipe]
    var seen: Set<ValueID> = []
    while let value = stack.popLast() {
      guard seen.insert(value).inserted, let node = definingNode(of: value) else { continue }
      let op = self[node].op
      if op is Dequantize || op is DequantizeGGML || op is UnpackCodes || op is DequantizeLinear {
        return "the weight is stored in codes"
      }
      stack += self[node].inputs
    }
    return nil
  }
}
