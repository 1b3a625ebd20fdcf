import Base
import Tensors

/// An operator that applies one function to each element of its input; the mnemonic is that of the function.
package protocol UnaryOperator: Elementwise, RowMapped {
  static var function: UnaryFunction { get }
}

/// An operator that applies one function to the elements of two inputs of equal element type, which are broadcast as in
/// NumPy; the mnemonic is that of the function. Comparisons give bool.
package protocol BinaryOperator: Elementwise, RowMapped {
  static var function: BinaryFunction { get }
}

extension UnaryFunction {
  /// Whether the function takes and gives whole numbers too.
  package var acceptsIntegers: Bool {
    switch self {
    case .negate, .abs, .relu, .sign: true
    default: false
    }
  }
}

extension BinaryFunction {
  /// Whether the function compares numbers.
  package var isComparison: Bool {
    switch self {
    case .less, .lessOrEqual, .greater, .greaterOrEqual, .equal, .notEqual: true
    default: false
    }
  }

  /// Whether the function combines truth values.
  package var isLogical: Bool { self == .and || self == .or }

  /// Whether the operands may be exchanged.
  package var isCommutative: Bool {
    switch self {
    case .add, .multiply, .minimum, .maximum, .equal, .notEqual, .and, .or: true
    default: false
    }
  }
}

extension ScalarExpression {
  /// Whether the value is a truth value: the outermost function compares or combines truth values.
  package var isLogical: Bool {
    switch self {
    case .unary(let function, _): function == .not
    case .binary(let function, _, _): function.isComparison || function.isLogical
    default: false
    }
  }
}

extension UnaryOperator {
  package static var name: String { function.rawValue }

  package var expression: ScalarExpression { .unary(Self.function, .input(0)) }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    let x = inputs[0]
    try expectDense(x, "input")
    if Self.function == .not {
      guard x.element == .bool else { throw failure("found input of type \(x), expected bool elements") }
    } else {
      guard x.element.isFloat || (x.element.isInteger && Self.function.acceptsIntegers) else {
        throw failure("does not take elements of type \(x.element.rawValue)")
      }
    }
    return [x]
  }
}

extension BinaryOperator {
  package static var name: String { function.rawValue }

  package var expression: ScalarExpression { .binary(Self.function, .input(0), .input(1)) }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 2...2)
    let shape = try broadcastShape(inputs)
    let element = inputs[0].element
    guard inputs[1].element == element else {
      throw failure("found element types \(element.rawValue) and \(inputs[1].element.rawValue), expected equal ones")
    }
    if Self.function.isLogical {
      guard element == .bool else { throw failure("found elements of type \(element.rawValue), expected bool") }
    } else if Self.function != .equal && Self.function != .notEqual {
      guard element != .bool else { throw failure("does not take elements of type bool") }
    }
    return [TensorType(Self.function.isComparison ? .bool : element, shape)]
  }
}

extension Operator {
  /// The shape that dense inputs broadcast to.
  func broadcastShape(_ inputs: [TensorType]) throws -> Shape {
    var shape = inputs.first?.shape ?? []
    for input in inputs {
      try expectDense(input, "input")
      guard let wider = Shape.broadcast(shape, input.shape) else {
        throw failure("shapes \(inputs.map { "\($0.shape)" }.joined(separator: " and ")) do not broadcast")
      }
      shape = wider
    }
    return shape
  }
}

extension RowMapped where Self: Elementwise {
  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    guard let shape = try? broadcastShape(inputs), let count = shape.dims.first else { return nil }
    return inputs.map { $0.rank == shape.rank && $0.shape[0] == count && count != 1 ? rows : nil }
  }
}
