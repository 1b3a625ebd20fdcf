extension Expression: ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral {
  package init(integerLiteral value: Int) { self = .integer(value) }
  package init(floatLiteral value: Float) { self = .real(value) }

  /// The value of an integer literal.
  package var constant: Int? {
    if case .integer(let value) = self { value } else { nil }
  }

  /// The operands brought to one type: literals take the type of the other side, scalars are broadcast to vectors.
  static func matched(_ left: Expression, _ right: Expression) -> (Expression, Expression) {
    if left.type == right.type { return (left, right) }
    return (left.adapted(to: right.type), right.adapted(to: left.type))
  }

  func adapted(to type: ValueType) -> Expression {
    if self.type == type { return self }
    switch (self, type) {
    case (.integer(let value), .scalar(.f32)): return .real(Float(value))
    case (.integer(let value), .vector(.f32)): return .broadcast(.real(Float(value)))
    case (.integer, .vector(.i32)): return .broadcast(self)
    case (.integer, .scalar(.i32)): return .convert(self, .i32)
    case (_, .vector(.f32)) where self.type == .f32: return .broadcast(self)
    case (_, .vector(.i32)) where self.type == .scalar(.i32) || self.type == .index: return .broadcast(self)
    default: return self
    }
  }

  static func make(_ operation: BinaryOperation, _ left: Expression, _ right: Expression) -> Expression {
    let (a, b) = matched(left, right)
    precondition(a.type == b.type, "operands of \(operation) differ: \(a.type) and \(b.type)")
    return .binary(operation, a, b)
  }

  package static func + (left: Expression, right: Expression) -> Expression {
    switch (left, right) {
    case (.integer(let a), .integer(let b)): .integer(a + b)
    case (.integer(0), _) where right.type == .index: right
    case (_, .integer(0)) where left.type == .index: left
    case (.binary(.add, let base, .integer(let a)), .integer(let b)): base + .integer(a + b)
    default: make(.add, left, right)
    }
  }

  package static func - (left: Expression, right: Expression) -> Expression {
    switch (left, right) {
    case (.integer(let a), .integer(let b)): .integer(a - b)
    case (_, .integer(0)) where left.type == .index: left
    default: make(.subtract, left, right)
    }
  }

  package static func * (left: Expression, right: Expression) -> Expression {
    switch (left, right) {
    case (.integer(let a), .integer(let b)): .integer(a * b)
    case (.integer(1), _) where right.type == .index: right
    case (_, .integer(1)) where left.type == .index: left
    case (.integer(0), _) where right.type == .index: 0
    case (_, .integer(0)) where left.type == .index: 0
    default: make(.multiply, left, right)
    }
  }

  /// Quotient; of index expressions rounded down (operands are never negative).
  package static func / (left: Expression, right: Expression) -> Expression {
    switch (left, right) {
    case (.integer(let a), .integer(let b)) where b != 0: .integer(a / b)
    case (_, .integer(1)) where left.type == .index: left
    default: make(.divide, left, right)
    }
  }

  /// Remainder of index expressions (operands are never negative).
  package static func % (left: Expression, right: Expression) -> Expression {
    switch (left, right) {
    case (.integer(let a), .integer(let b)) where b != 0: .integer(a % b)
    case (_, .integer(1)) where left.type == .index: 0
    default: make(.remainder, left, right)
    }
  }

  package static prefix func - (value: Expression) -> Expression {
    switch value {
    case .integer(let a): .integer(-a)
    case .real(let a): .real(-a)
    default: .unary(.negate, value)
    }
  }

  package static func & (left: Expression, right: Expression) -> Expression { make(.and, left, right) }
  package static func | (left: Expression, right: Expression) -> Expression { make(.or, left, right) }
  package static func ^ (left: Expression, right: Expression) -> Expression { make(.exclusiveOr, left, right) }
  package static func << (left: Expression, right: Int) -> Expression {
    right == 0 ? left : .binary(.shiftLeft, left, .integer(right))
  }

  /// Logical right shift by a literal.
  package static func >> (left: Expression, right: Int) -> Expression {
    right == 0 ? left : .binary(.shiftRight, left, .integer(right))
  }

  /// Arithmetic right shift by a literal.
  package func shiftedRightArithmetically(by count: Int) -> Expression {
    count == 0 ? self : .binary(.shiftRightArithmetic, self, .integer(count))
  }

  static func comparison(_ comparison: Comparison, _ left: Expression, _ right: Expression) -> Expression {
    let (a, b) = matched(left, right)
    precondition(a.type == b.type, "operands of \(comparison) differ: \(a.type) and \(b.type)")
    return .compare(comparison, a, b)
  }

  package static func < (left: Expression, right: Expression) -> Expression { comparison(.less, left, right) }
  package static func <= (left: Expression, right: Expression) -> Expression { comparison(.lessEqual, left, right) }
  package static func > (left: Expression, right: Expression) -> Expression { comparison(.greater, left, right) }
  package static func >= (left: Expression, right: Expression) -> Expression { comparison(.greaterEqual, left, right) }

  /// Equality of the values at run time (`==` compares the trees).
  package func isEqual(to other: Expression) -> Expression { Expression.comparison(.equal, self, other) }

  /// Inequality of the values at run time.
  package func isNotEqual(to other: Expression) -> Expression { Expression.comparison(.notEqual, self, other) }

  /// The smaller of two values; the second one if one of them is NaN.
  package static func minimum(_ left: Expression, _ right: Expression) -> Expression {
    if let a = left.constant, let b = right.constant { return .integer(min(a, b)) }
    return make(.minimum, left, right)
  }

  /// The larger of two values; the second one if one of them is NaN.
  package static func maximum(_ left: Expression, _ right: Expression) -> Expression {
    if let a = left.constant, let b = right.constant { return .integer(max(a, b)) }
    return make(.maximum, left, right)
  }

  /// `left * right + addend`.
  package static func multiplyAdd(_ left: Expression, _ right: Expression, _ addend: Expression) -> Expression {
    let vector = [left, right, addend].contains { $0.type == .vector(.f32) }
    let type: ValueType = vector ? .vector(.f32) : .f32
    return .fma(left.adapted(to: type), right.adapted(to: type), addend.adapted(to: type))
  }

  /// `condition ? a : b` with literals adapted to the other side.
  package static func choose(_ condition: Expression, _ a: Expression, _ b: Expression) -> Expression {
    var (left, right) = matched(a, b)
    if condition.type == .mask, !left.type.isVector {
      let lane: ValueType = .vector(left.type == .f32 ? .f32 : .i32)
      (left, right) = (left.adapted(to: lane), right.adapted(to: lane))
    }
    precondition(left.type == right.type, "branches of select differ: \(left.type) and \(right.type)")
    return .select(condition, left, right)
  }

  /// Smallest quotient not below `self / divisor`.
  package func dividedRoundingUp(by divisor: Int) -> Expression { (self + .integer(divisor - 1)) / .integer(divisor) }

  package var absolute: Expression { .unary(.absolute, self) }
  package var squareRoot: Expression { .unary(.squareRoot, self) }
  package var asFloat: Expression {
    if case .integer(let value) = self { return .real(Float(value)) }
    return type == .f32 || type == .vector(.f32) ? self : .convert(self, .f32)
  }
  package var asInt32: Expression { type == .scalar(.i32) || type == .vector(.i32) ? self : .convert(self, .i32) }
  package var asIndex: Expression { type == .index ? self : .convert(self, .i64) }
}
