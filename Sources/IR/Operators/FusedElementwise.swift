import Base
import Tensors

/// A chain of functions on the elements of inputs that are broadcast as in NumPy: `expression` with `%i` standing for
/// the element of input `i`.
///
/// Inputs that are not bool have one element type, which is that of the result unless the outermost function compares
/// or combines truth values, which gives bool. Floating-point elements are computed in f32 (f64 for f64) throughout.
package struct FusedElementwise: Elementwise, RowMapped {
  package static let name = "elementwise"

  package var expression: ScalarExpression = .input(0)

  package init() {}

  package init(_ expression: ScalarExpression) { self.expression = expression }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...max(1, inputs.count))
    guard expression.inputCount <= inputs.count else {
      throw failure("the expression names input %\(expression.inputCount - 1), found \(inputs.count) inputs")
    }
    let shape = try broadcastShape(inputs)
    let elements = inputs.map(\.element).filter { $0 != .bool }
    if let first = elements.first, let other = elements.first(where: { $0 != first }) {
      throw failure("found element types \(first.rawValue) and \(other.rawValue), expected equal ones")
    }
    let element = elements.first ?? .bool
    guard element.isFloat || expression.acceptsIntegers else {
      throw failure("the expression '\(expression)' does not take elements of type \(element.rawValue)")
    }
    return [TensorType(expression.isLogical ? .bool : element, shape)]
  }
}

extension ScalarExpression {
  /// Whether all functions take whole numbers and all constants are whole.
  fileprivate var acceptsIntegers: Bool {
    switch self {
    case .input: true
    case .constant(let bits):
      Float(bitPattern: bits).isFinite && Float(bitPattern: bits) == Float(bitPattern: bits).rounded()
        && abs(Float(bitPattern: bits)) < 0x1p62
    case .unary(let function, let x): (function.acceptsIntegers || function == .not) && x.acceptsIntegers
    case .binary(_, let x, let y): x.acceptsIntegers && y.acceptsIntegers
    case .select(let c, let x, let y): c.acceptsIntegers && x.acceptsIntegers && y.acceptsIntegers
    }
  }
}

/// `min(max(x, minimum), maximum)`; NaN stays.
package struct Clip: Elementwise, RowMapped {
  package static let name = "clip"

  @Exact package var minimum: Float = -.infinity
  @Exact package var maximum: Float = .infinity

  package init() {}

  package init(minimum: Float = -.infinity, maximum: Float = .infinity) {
    self.minimum = minimum
    self.maximum = maximum
  }

  package var expression: ScalarExpression { .clamp(.input(0), minimum, maximum) }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    try expectDense(inputs[0], "input")
    guard inputs[0].element != .bool else { throw failure("does not take elements of type bool") }
    guard !minimum.isNaN, !maximum.isNaN else { throw failure("found limits \(minimum) and \(maximum)") }
    return inputs
  }
}

/// `x` where positive, else `slope * x` (Maas and others, 2013).
package struct LeakyReLU: Elementwise, RowMapped {
  package static let name = "leaky_relu"

  @Exact package var slope: Float = 0.01

  package init() {}

  package init(slope: Float) { self.slope = slope }

  package var expression: ScalarExpression {
    .select(
      .binary(.less, .input(0), .number(0)), .binary(.multiply, .input(0), .number(slope)), .input(0))
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    try expectFloat(inputs[0], "input")
    return inputs
  }
}

/// The second input where the first, which is bool, is true; else the third. Inputs are broadcast as in NumPy.
package struct Select: Elementwise, RowMapped {
  package static let name = "select"

  package init() {}

  package var expression: ScalarExpression { .select(.input(0), .input(1), .input(2)) }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 3...3)
    let shape = try broadcastShape(inputs)
    guard inputs[0].element == .bool else {
      throw failure("found condition of element type \(inputs[0].element.rawValue), expected bool")
    }
    guard inputs[1].element == inputs[2].element else {
      throw failure(
        "found element types \(inputs[1].element.rawValue) and \(inputs[2].element.rawValue), expected equal ones")
    }
    return [TensorType(inputs[1].element, shape)]
  }
}
