import IR
import Tensors

/// An orthogonal change of basis along an axis of `n` numbers: reflections one after the other, then Hadamard matrices.
///
///     x -> H R_k ... R_1 x,   R_j = I - 2 u_j u_j^T
struct Turning {
  var hadamard: Hadamard
  /// The unit vectors `u_j`, each of `n` numbers.
  var reflections: [[Float]] = []
  /// Whether it undoes that: `x -> R_1 ... R_k H^T x`.
  private(set) var isInverse = false

  init(_ hadamard: Hadamard, reflections: [[Float]] = []) {
    self.hadamard = hadamard
    self.reflections = reflections
  }

  /// What undoes it.
  var inverted: Turning {
    var result = Turning(hadamard.inverted, reflections: reflections.reversed())
    result.isInverse = !isInverse
    return result
  }
}

extension GraphBuilder {
  /// Turns the numbers along an axis of a value, or of a recipe.
  mutating func emit(_ turning: Turning, _ value: ValueID, axis: Int = -1, name: String) throws -> ValueID {
    let hadamard = turning.hadamard.along(axis)
    guard !turning.reflections.isEmpty else { return try emit(hadamard, value, name: name) }
    var value = value
    if turning.isInverse { value = try emit(hadamard, value) }
    let rank = type(of: value).rank
    let place = axis < 0 ? axis + rank : axis
    for (index, unit) in turning.reflections.enumerated() {
      let isLast = turning.isInverse && index == turning.reflections.count - 1
      value = try reflect(value, by: unit, axis: place, name: isLast ? name : nil)
    }
    return turning.isInverse ? value : try emit(hadamard, value, name: name)
  }

  /// `x - 2 (x . u) u` along an axis.
  private mutating func reflect(_ value: ValueID, by unit: [Float], axis: Int, name: String?) throws -> ValueID {
    let sizes = [unit.count] + [Int](repeating: 1, count: type(of: value).rank - 1 - axis)
    let vector = constant(.inline("reflection", .f32, sizes, unit))
    let twice = constant(.inline("reflection_twice", .f32, sizes, unit.map { 2 * $0 }))
    let products = try emit(Multiply(), value, vector)
    let sum = try emit(Reduce(.sum, axes: [axis], keepDims: true), products)
    let part = try emit(Multiply(), sum, twice)
    return try emit(Subtract(), value, part, name: name)
  }
}
