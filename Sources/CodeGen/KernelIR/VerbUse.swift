/// A vector verb of a vocabulary with its operands: what vector expressions and stores come down to in every language.
struct VerbUse {
  /// An operand as a template receives it.
  enum Operand {
    /// A value, printed so that it may stand beside an infix operator.
    case value(Expression)
    /// A value that stands alone, as an argument.
    case argument(Expression)
    /// The place of the element of an index.
    case address(Pointer, Expression)
    /// The element of an index itself.
    case element(Pointer, Expression)
    /// A number known when the kernel is printed.
    case literal(Int)
  }

  /// The key of the vocabulary, `add.f32`.
  var name: String
  var operands: [Operand]
  /// The type of the result; nil for stores.
  var result: ValueType?

  private init(_ name: String, _ operands: [Operand], _ result: ValueType?) {
    self.name = name
    self.operands = operands
    self.result = result
  }

  private init(_ name: String, values: [Expression], _ result: ValueType?) {
    self.init(name, values.map { .value($0) }, result)
  }

  /// The verb that gives an expression; nil for scalars, variables and mathematical functions, which are no verbs.
  init?(_ expression: Expression) {
    let type = expression.type
    switch expression {
    case .load(let pointer, let index, nil):
      self.init("load.\(pointer.element.rawValue)", [.address(pointer, index)], type)
    case .load(let pointer, let index, let count?):
      self.init("loadTail.\(pointer.element.rawValue)", [.address(pointer, index), .argument(count)], type)
    case .element(let pointer, let index) where pointer.element != pointer.element.loaded:
      self.init("element.\(pointer.element.rawValue)", [.element(pointer, index)], type)
    case .broadcast(let scalar):
      if case .real(let value) = scalar, value == 0, value.sign == .plus {
        self.init("zero.f32", [], type)
      } else if scalar == .integer(0) {
        self.init("zero.i32", [], type)
      } else if case .integer(let value) = scalar {
        self.init("broadcast.i32", [.literal(value)], type)
      } else if scalar.type == .index {
        self.init("broadcast.i32", [.value(.convert(scalar, .i32))], type)
      } else {
        self.init(scalar.type == .f32 ? "broadcast.f32" : "broadcast.i32", [.argument(scalar)], type)
      }
    case .repeated(let pointer, let index, let count):
      self.init("repeat\(count).f32", [.address(pointer, index)], type)
    case .exchanged(let operand, let distance): self.init("exchange\(distance).f32", values: [operand], type)
    case .laneNumbers: self.init("lanes", [], type)
    case .lookup(let table, let places): self.init("lookup.i8", values: [table, places], type)
    case .unary(let operation, let operand) where type.isVector:
      self.init("\(operation.rawValue).\(type.laneName)", values: [operand], type)
    case .binary(let operation, let left, let right) where type.isVector:
      let second: Operand = if case .integer(let count) = right { .literal(count) } else { .value(right) }
      self.init("\(operation.rawValue).\(left.type.laneName)", [.value(left), second], type)
    case .fma(let a, let b, let c):
      self.init(type.isVector ? "fma.f32" : "fmaElement.f32", values: [a, b, c], type)
    case .compare(let comparison, let a, let b) where a.type.isVector:
      self.init("\(comparison.rawValue).\(a.type.laneName)", values: [a, b], type)
    case .select(let condition, let a, let b) where type.isVector:
      self.init("select.\(type.laneName)", values: [condition, a, b], type)
    case .convert(let operand, let scalar) where operand.type.isVector:
      self.init("convert.\(scalar.rawValue)", values: [operand], type)
    case .reinterpret(let operand, let lane) where operand.type != type:
      self.init("reinterpret.\(lane.rawValue)", values: [operand], type)
    case .reduce(let reduction, let operand):
      self.init("reduce.\(reduction.rawValue).\(operand.type.laneName)", values: [operand], type)
    case .dotStep(let dot, let sum, let weights, let activations):
      self.init("dotStep.\(dot.name)", values: [sum, weights, activations], type)
    case .dotFlush(let dot, let sum, let partial):
      self.init("dotFlush.\(dot.name)", values: [sum, partial], type)
    case .dotArrange(let arrangement, let low, let high):
      self.init(arrangement.rawValue, values: [low, high], type)
    case .dotTokens(let first, let index, let second, let other):
      self.init("dotTokens", [.address(first, index), .address(second, other)], type)
    default: return nil
    }
  }

  /// The verb that stores a vector, or converts a scalar to the two bytes of its place (`storeElement.f16`); nil if the
  /// scalar is stored as it is.
  init?(storing value: Expression, at pointer: Pointer, _ index: Expression, count: Expression?) {
    let element = pointer.element.rawValue
    if value.type.isVector {
      let place = Operand.address(pointer, index)
      if let count {
        self.init("storeTail.\(element)", [place, .argument(value), .argument(count)], nil)
      } else {
        self.init("store.\(element)", [place, .argument(value)], nil)
      }
    } else if pointer.element != pointer.element.loaded {
      self.init("storeElement.\(element)", [.argument(value)], .scalar(pointer.element))
    } else {
      return nil
    }
  }
}

extension ValueType {
  /// The last part of a verb's name.
  fileprivate var laneName: String {
    switch self {
    case .vector(let lane): lane.rawValue
    case .mask: "mask"
    case .scalar(let scalar): scalar.rawValue
    case .condition: "condition"
    }
  }
}
