import Tensors

/// `a + b`.
package struct Add: BinaryOperator, Commutative {
  package static let function: BinaryFunction = .add
  package init() {}
}

/// `a - b`.
package struct Subtract: BinaryOperator {
  package static let function: BinaryFunction = .subtract
  package init() {}
}

/// `a * b`.
package struct Multiply: BinaryOperator, Commutative {
  package static let function: BinaryFunction = .multiply
  package init() {}
}

/// `a / b`; whole numbers towards zero, and 0 where `b` is.
package struct Divide: BinaryOperator {
  package static let function: BinaryFunction = .divide
  package init() {}
}

/// The smaller one; NaN if one is.
package struct Minimum: BinaryOperator, Commutative {
  package static let function: BinaryFunction = .minimum
  package init() {}
}

/// The larger one; NaN if one is.
package struct Maximum: BinaryOperator, Commutative {
  package static let function: BinaryFunction = .maximum
  package init() {}
}

/// `a` to the power of `b`.
package struct Power: BinaryOperator {
  package static let function: BinaryFunction = .power
  package init() {}
}

/// `a - floor(a / b) * b`, which has the sign of `b`; 0 where whole `b` is.
package struct Modulo: BinaryOperator {
  package static let function: BinaryFunction = .modulo
  package init() {}
}

/// `a < b`, as bool.
package struct Less: BinaryOperator {
  package static let function: BinaryFunction = .less
  package init() {}
}

/// `a <= b`, as bool.
package struct LessOrEqual: BinaryOperator {
  package static let function: BinaryFunction = .lessOrEqual
  package init() {}
}

/// `a > b`, as bool.
package struct Greater: BinaryOperator {
  package static let function: BinaryFunction = .greater
  package init() {}
}

/// `a >= b`, as bool.
package struct GreaterOrEqual: BinaryOperator {
  package static let function: BinaryFunction = .greaterOrEqual
  package init() {}
}

/// `a == b`, as bool.
package struct Equal: BinaryOperator, Commutative {
  package static let function: BinaryFunction = .equal
  package init() {}
}

/// `a != b`, as bool.
package struct NotEqual: BinaryOperator, Commutative {
  package static let function: BinaryFunction = .notEqual
  package init() {}
}

/// Whether both are true; for bool.
package struct And: BinaryOperator, Commutative {
  package static let function: BinaryFunction = .and
  package init() {}
}

/// Whether one is true; for bool.
package struct Or: BinaryOperator, Commutative {
  package static let function: BinaryFunction = .or
  package init() {}
}
