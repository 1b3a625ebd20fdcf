/// Operations on one value; on vectors they work lane by lane.
package enum UnaryOperation: String, Hashable, Sendable {
  case negate = "neg"
  case absolute = "abs"
  case squareRoot = "sqrt"
  case floor
  /// Nearest integral value, ties to even, as f32.
  case round
  /// Logical not of a mask or condition.
  case not
}

/// Operations on two values of the same type; on vectors they work lane by lane.
package enum BinaryOperation: String, Hashable, Sendable {
  case add, subtract = "sub", multiply = "mul", divide = "div"
  /// `minimum(a, b)` is `a < b ? a : b`: the second operand wins when one is NaN. `maximum` likewise.
  case minimum = "min", maximum = "max"
  /// Remainder of index expressions (operands are never negative).
  case remainder = "rem"
  /// Bit operations on i32 lanes and integers, logical operations on masks and conditions.
  case and, or, exclusiveOr = "xor"
  /// Shifts by a literal; right shifts are logical or arithmetic.
  case shiftLeft = "shl", shiftRight = "shr", shiftRightArithmetic = "sra"
}

/// Comparisons; false when an operand is NaN, except `notEqual`.
package enum Comparison: String, Hashable, Sendable {
  case less = "lt", lessEqual = "le", greater = "gt", greaterEqual = "ge", equal = "eq", notEqual = "ne"
}

/// Operations that fold the lanes of a vector into a scalar.
package enum Reduction: String, Hashable, Sendable {
  case sum, maximum = "max", minimum = "min"
}

/// A value of KernelIR: a typed tree without side effects.
package indirect enum Expression: Hashable, Sendable {
  case integer(Int)
  case real(Float)
  case variable(String, ValueType)
  /// One element of memory, converted to its computed type.
  case element(Pointer, Expression)
  /// A full vector from consecutive elements starting at an index, converted to lanes: f32, f16 and bf16 give f32
  /// lanes, i32, i8 and u8 give i32 lanes. With a count only the first `count` (1...lanes) elements are read; the other
  /// lanes are 0.
  case load(Pointer, Expression, count: Expression?)
  case broadcast(Expression)
  /// `count` (2 or 4) consecutive f32 elements from an index on, again and again.
  case repeated(Pointer, Expression, count: Int)
  /// Lane i of f32 lanes gets lane i ^ `distance` (a power of two below the number of lanes).
  case exchanged(Expression, distance: Int)
  /// Lane numbers 0, 1, 2, ... as i32.
  case laneNumbers
  case unary(UnaryOperation, Expression)
  case binary(BinaryOperation, Expression, Expression)
  /// a * b + c with one rounding where the target has it.
  case fma(Expression, Expression, Expression)
  case compare(Comparison, Expression, Expression)
  case select(Expression, Expression, Expression)
  /// Between f32 and i32 (to nearest even) lanes, or between scalar types (C conversion).
  case convert(Expression, ScalarType)
  /// The same bits seen as another lane type.
  case reinterpret(Expression, LaneType)
  case reduce(Reduction, Expression)
  case call(MathFunction, [Expression])
  /// One step of a byte dot product: accumulator, weights, activations (four bytes in each i32 lane, or blocks).
  case dotStep(ByteDot, Expression, Expression, Expression)
  /// Ends up to `ByteDot.stepsPerFlush` steps: adds the partial sums to an i32 accumulator.
  case dotFlush(ByteDot, Expression, Expression)
  /// Bytes of a table of 16, which is repeated in a vector of i32 lanes, by the numbers 0...15 in the bytes of another.
  case lookup(table: Expression, Expression)
  /// Operands and sums of steps over blocks.
  case dotArrange(ByteDot.Arrangement, Expression, Expression)
  /// The activations of two tokens for a step over blocks: two words from an index of the first's, two of the second's.
  case dotTokens(Pointer, Expression, Pointer, Expression)

  /// The type of the value.
  package var type: ValueType {
    switch self {
    case .integer: .index
    case .real: .f32
    case .variable(_, let type): type
    case .element(let pointer, _): .scalar(pointer.element.loaded)
    case .load(let pointer, _, _): .vector(pointer.element.isFloat ? .f32 : .i32)
    case .broadcast(let value): .vector(value.type == .f32 ? .f32 : .i32)
    case .laneNumbers, .lookup, .dotStep, .dotFlush, .dotArrange, .dotTokens: .vector(.i32)
    case .repeated, .exchanged: .vector(.f32)
    case .unary(_, let value), .fma(let value, _, _): value.type
    case .binary(_, let left, _): left.type
    case .compare(_, let left, _): left.type.isVector ? .mask : .condition
    case .select(_, let value, _): value.type
    case .convert(let value, let scalar):
      value.type.isVector ? .vector(scalar == .f32 ? .f32 : .i32) : .scalar(scalar)
    case .reinterpret(_, let lane): .vector(lane)
    case .reduce(_, let value): .scalar(value.type == .vector(.f32) ? .f32 : .i32)
    case .call(_, let arguments): arguments[0].type
    }
  }
}

/// A typed pointer parameter or a pointer derived from one.
package struct Pointer: Hashable, Sendable {
  package let name: String
  package let element: ScalarType
  package let isMutable: Bool

  /// A pointer of that C name.
  package init(_ name: String, _ element: ScalarType, isMutable: Bool = false) {
    self.name = name
    self.element = element
    self.isMutable = isMutable
  }

  /// The element at an index, as a scalar.
  package subscript(index: Expression) -> Expression { .element(self, index) }

  /// A vector from an index on; with a count only that many elements are touched.
  package func load(_ index: Expression, count: Expression? = nil) -> Expression {
    .load(self, index, count: count)
  }
}
