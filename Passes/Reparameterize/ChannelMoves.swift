import IR
import Tensors

/// Along which axes of a value a recipe that is broadcast to it varies.
enum Variation: Hashable {
  /// Along none: it is one number.
  case none
  /// Along this axis of the value.
  case axis(Int)

  /// The axis, if there is one.
  var axis: Int? {
    if case .axis(let axis) = self { return axis }
    return nil
  }
}

/// The axis of the input of a transpose, reshape or slice that is axis `axis` of its result with all its numbers in place; nil
/// if there is none.
func axisBefore(_ op: any Operator, _ axis: Int, from source: Shape, to target: Shape) -> Int? {
  switch op {
  case let op as Transpose: return op.permutation[axis]
  case is Reshape: return sameAxis(axis, of: target, in: source)
  case let op as Slice: return source.normalizedAxis(op.axis) == axis ? nil : axis
  default: return nil
  }
}

/// As above, from the input to the result.
func axisAfter(_ op: any Operator, _ axis: Int, from source: Shape, to target: Shape) -> Int? {
  switch op {
  case let op as Transpose: return op.permutation.firstIndex(of: axis)
  case is Reshape: return sameAxis(axis, of: source, in: target)
  case let op as Slice: return source.normalizedAxis(op.axis) == axis ? nil : axis
  default: return nil
  }
}

/// The axis of `other`, a reshape of `shape`, that `axis` becomes: one of its size behind as many elements.
private func sameAxis(_ axis: Int, of shape: Shape, in other: Shape) -> Int? {
  let dims = shape.dims[..<axis].filter { $0 != 1 }
  return other.dims.indices.first { index in
    guard other[index] == shape[axis] else { return false }
    let others = other.dims[..<index].filter { $0 != 1 }
    if dims == others { return true }
    guard let count = Shape.product(dims) else { return false }
    return count == Shape.product(others)
  }
}

/// Whether an operator only moves numbers, as far as whole channels are followed through it.
func isMove(_ op: any Operator) -> Bool { op is Transpose || op is Reshape || op is Slice }

extension Rewriter {
  /// Operators that move numbers between two values, those next to the first of them in front.
  struct Moves {
    var ops: [any Operator] = []
  }

  /// The most moves that are looked through.
  private static var longestPath: Int { 8 }

  /// Along which axis of `value` a recipe that is broadcast to it varies; nil if along several, or if it is no recipe.
  func variation(of recipe: ValueID, over value: ValueID) -> Variation? {
    guard isRecipe(recipe) else { return nil }
    let (given, shape) = (type(of: recipe).shape, type(of: value).shape)
    guard given.rank <= shape.rank else { return nil }
    var found = Variation.none
    for (index, dim) in given.dims.enumerated() where dim != 1 {
      let axis = shape.rank - given.rank + index
      guard found == .none, dim == shape[axis] else { return nil }
      found = .axis(axis)
    }
    return found
  }

  /// A recipe that varies along one axis at most, as a vector of `count` numbers in f32.
  mutating func channelVector(_ recipe: ValueID, count: Int) throws -> ValueID {
    let type = type(of: recipe)
    if type.maximumCount == 1, count != 1 {
      if let number = number(recipe) { return constant(number, TensorType(.f32, [count])) }
      return try emit(Expand([.fixed(count)]), try emit(Reshape([1]), widened(recipe)))
    }
    let wide = try widened(recipe)
    return type.rank == 1 ? wide : try emit(Reshape([.fixed(count)]), wide)
  }

  /// The layer that computes `value`, and what moves its numbers in between; nothing else uses any of these values. The
  /// numbers along `axis` of the value (any, if it is `.none`) are whole channels of the layer.
  func movedLayer(_ value: ValueID, _ axis: Variation) -> (layer: AffineLayer, moves: Moves)? {
    var (value, axis) = (value, axis.axis)
    let isNumber = axis == nil
    var moves = Moves()
    for _ in 0...Self.longestPath {
      guard useCount(of: value) == 1, let node = definingNode(of: value) else { return nil }
      if let layer = layer(at: node) {
        guard isNumber || axis == layer.channelAxis(rank: type(of: value).rank) else { return nil }
        return (layer, moves)
      }
      let op = self[node].op
      guard isMove(op) else { return nil }
      let input = inputs(of: node)[0]
      if let old = axis {
        guard let new = axisBefore(op, old, from: type(of: input).shape, to: type(of: value).shape) else {
          return nil
        }
        axis = new
      }
      moves.ops.insert(op, at: 0)
      value = input
    }
    return nil
  }

  /// Moves the numbers of `value` again.
  mutating func emit(_ moves: Moves, _ value: ValueID) throws -> ValueID {
    var result = value
    for op in moves.ops { result = try emit(op, result) }
    return result
  }
}

extension Rewriter {
  /// What a layer reads, before it is moved: the value, the axis along which the layer's channels run there (nil where they are
  /// no axis), and the moves. Nothing else uses the moved values.
  func movedInput(of layer: AffineLayer) -> (value: ValueID, axis: Int?, moves: Moves) {
    var value = layer.input
    var axis: Int? = layer.channelAxis(rank: type(of: value).rank)
    var moves = Moves()
    for _ in 0..<Self.longestPath {
      guard useCount(of: value) == 1, let node = definingNode(of: value), isMove(self[node].op) else { break }
      let input = inputs(of: node)[0]
      axis = axis.flatMap {
        axisBefore(self[node].op, $0, from: type(of: input).shape, to: type(of: value).shape)
      }
      moves.ops.insert(self[node].op, at: 0)
      value = input
    }
    return (value, axis, moves)
  }

  /// Why some user of `value` cannot take into its weights what is done to the channels along `axis` (nil for one number
  /// throughout): a factor, or with `terms` a term. Nil if all users are layers, perhaps behind moves, that can.
  func obstacle(
    toFoldingInto value: ValueID, axis: Int?, terms: Bool, changesWeight: Bool = true, force: Bool, depth: Int = 0
  ) -> String? {
    let users = users(of: value)
    guard users.count == useCount(of: value), (1...64).contains(users.count) else {
      return "'%\(name(of: value))' is an output, or is used more than once by one operator"
    }
    for user in users {
      let op = self[user].op
      if let layer = layer(at: user), layer.input == value {
        guard axis == nil || axis == layer.channelAxis(rank: type(of: value).rank) else {
          return "'\(op.name)' reads the channels along another axis"
        }
        if terms, !layer.takesTerms { return "zeros of padding come between" }
        if changesWeight, let reason = obstacle(toChanging: layer.weight, force: force) { return reason }
      } else if isMove(op), depth < Self.longestPath {
        let result = self[user].results[0]
        var moved: Int?
        if let axis {
          moved = axisAfter(op, axis, from: type(of: value).shape, to: type(of: result).shape)
          if moved == nil { return "'\(op.name)' takes channels apart" }
        }
        guard useCount(of: result) == 1 else { return "'%\(name(of: result))' has several users" }
        let reason = obstacle(
          toFoldingInto: result, axis: moved, terms: terms, changesWeight: changesWeight, force: force,
          depth: depth + 1)
        if let reason { return reason }
      } else {
        return "'\(op.name)' uses '%\(name(of: value))' as it is"
      }
    }
    return nil
  }
}
