import Base
import Tensors

/// Where an operator may stand: in graphs of every stage, or only after lowering to a CPU.
package enum OperatorLevel: String, Sendable {
  case core, target
}

/// A computation with attributes: the stored properties of a conforming struct are its attributes.
///
/// Printing, parsing and hashing follow from `Codable` and `Hashable`; an attribute whose value equals the one of
/// `init()` may be left out in the text. Floating-point attributes are wrapped in ``Exact``.
package protocol Operator: Hashable, Codable, Sendable {
  /// The mnemonic in the text form and in messages, such as `rms_norm`.
  static var name: String { get }

  /// Where the operator may stand; `.core` unless said otherwise.
  static var level: OperatorLevel { get }

  /// The operator with default attributes.
  init()

  /// The types of the results; throws ``CompileError`` if attributes and inputs do not fit: this is also the verifier.
  func inferTypes(_ inputs: [TensorType]) throws -> [TensorType]

  /// The reference meaning: computes the results of inputs with known sizes.
  func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws
}

extension Operator {
  package static var level: OperatorLevel { .core }

  /// The mnemonic of this operator.
  package var name: String { Self.name }

  /// Whether `other` is the same operator with the same attributes.
  package func isEqual(to other: any Operator) -> Bool { (other as? Self) == self }

  /// An error of this operator.
  package func failure(_ message: String) -> CompileError { CompileError(.input, "\(Self.name): \(message)") }

  /// Throws unless the number of inputs lies in `range`.
  package func expect(_ inputs: [TensorType], count range: ClosedRange<Int>) throws {
    guard range.contains(inputs.count) else {
      let wanted = range.count == 1 ? "\(range.lowerBound)" : "\(range.lowerBound) to \(range.upperBound)"
      throw failure("found \(inputs.count) inputs, expected \(wanted)")
    }
  }
}

/// An operator whose two inputs may be exchanged.
package protocol Commutative: Operator {}

/// An operator that computes each result element from the elements at the same (broadcast) place of its inputs.
package protocol Elementwise: Operator {
  /// The computation on one element; `input(i)` is the element of input `i`.
  var expression: ScalarExpression { get }
}

/// An operator whose outermost result rows depend only on some outermost rows of each input, so that a constant can
/// be computed in blocks of rows without holding it whole.
package protocol RowMapped: Operator {
  /// Blocks of result rows start at multiples of this number.
  func rowGranularity(_ inputs: [TensorType]) -> Int

  /// For result rows `rows`: the rows of each input that `evaluate` needs, given the full types of the inputs; nil for
  /// an input that is needed whole. `evaluate` is then called with views of these rows and of the result rows alone.
  /// The outer value is nil if this operator, with these inputs, needs everything whole.
  func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]?
}

extension RowMapped {
  package func rowGranularity(_ inputs: [TensorType]) -> Int { 1 }
}

/// An operator that can be written with simpler operators, for targets that have no kernel for it.
package protocol Decomposable: Operator {
  /// Emits the replacement of this operator on `inputs` and returns its results.
  func decompose(_ inputs: [ValueID], in builder: inout GraphBuilder) throws -> [ValueID]
}

/// A floating-point attribute: equal and hashed by bit pattern, so that NaN equals itself and -0 differs from 0.
@propertyWrapper
package struct Exact<Value: BinaryFloatingPoint & Codable & Sendable>: Hashable, Codable, Sendable {
  package var wrappedValue: Value

  package init(wrappedValue: Value) { self.wrappedValue = wrappedValue }

  package static func == (left: Self, right: Self) -> Bool {
    left.wrappedValue.sign == right.wrappedValue.sign
      && (left.wrappedValue == right.wrappedValue || (left.wrappedValue.isNaN && right.wrappedValue.isNaN))
  }

  package func hash(into hasher: inout Hasher) {
    hasher.combine(wrappedValue.sign)
    hasher.combine(wrappedValue.isNaN ? 0 : wrappedValue)
  }

  package init(from decoder: any Decoder) throws {
    wrappedValue = try decoder.singleValueContainer().decode(Value.self)
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(wrappedValue)
  }
}
