import IR

/// y = f(x0, x1, ...) element by element over an index space in which each input may be broadcast along some dimensions.
///
/// The last dimension is vectorised; the threads share the others, or chunks of a single one. Whole numbers and f64 are
/// computed one by one.
package struct ElementwiseConfig: Hashable, Sendable {
  package var expression: ScalarExpression
  package var dimensions: [Extent]
  /// For each input its element type and for each dimension whether all indices see the same element.
  package var inputs: [Input]
  package var output: ScalarType
  /// Whether results are 1 where the value is not 0, else 0 (conversion to bool).
  package var toTruth = false
  /// Whether the chain is computed in 64-bit integers, or in f64, instead of f32 vectors.
  package var isInteger = false
  package var isDouble = false
  /// Whether inputs or result are codes, which are computed with in f32 vectors.
  package var isOnCodes = false

  package struct Input: Hashable, Codable, Sendable {
    package var element: ScalarType
    package var isBroadcast: [Bool]

    package init(_ element: ScalarType, isBroadcast: [Bool]) {
      self.element = element
      self.isBroadcast = isBroadcast
    }
  }

  package init(expression: ScalarExpression, dimensions: [Extent], inputs: [Input], output: ScalarType) {
    self.expression = expression
    self.dimensions = dimensions
    self.inputs = inputs
    self.output = output
  }
}

extension ElementwiseConfig {
  /// Elements a thread takes at a time of a single dimension.
  private static let chunk = 512

  /// Parameters: inputs in order, output, then the run-time dimensions in order.
  package func build(name: String, target: Target) -> KernelFunction {
    let k = KernelBuilder(name, target: target)
    let pointers = inputs.indices.map { k.input("x\($0)", inputs[$0].element) }
    let y = k.output("y", output)
    let sizes = dimensions.map { k.extent($0) }
    k.comment = ["Elementwise over [\(dimensions.map(\.text).joined(separator: ", "))]."]
    for (index, input) in inputs.enumerated() {
      let shape = zip(dimensions, input.isBroadcast).map { $1 ? "1" : $0.text }
      k.comment.append("x\(index): \(input.element.rawValue)[\(shape.joined(separator: ", "))]")
    }
    let inner = dimensions.count - 1
    /// One stretch along the last dimension: bases of inputs and output, first index, number of elements.
    func stretch(bases: [Expression], base: Expression, from: Expression, count: Expression) {
      if isInteger || isDouble {
        k.loop("i", to: count) { i in
          let values = inputs.indices.map { index in
            pointers[index][inputs[index].isBroadcast[inner] ? bases[index] : bases[index] + from + i]
          }
          k.store(y, base + from + i, scalarValue(values, k))
        }
        return
      }
      k.vectorLoop("i", count: count) { i, tail in
        let values = inputs.indices.map { index -> Expression in
          if inputs[index].isBroadcast[inner] {
            return .broadcast(pointers[index][bases[index]].asFloat)
          }
          return k.define("x", pointers[index].load(bases[index] + from + i, count: tail).asFloat)
        }
        var value = expression.render(values, in: k).adapted(to: .vector(.f32))
        if toTruth { value = .choose(value.isNotEqual(to: 0.0), 1.0, 0.0) }
        k.store(y, base + from + i, output.isFloat ? value : value.asInt32, count: tail)
      }
    }
    if dimensions.count == 1 {
      let size = sizes[0]
      let part = k.partition(size.dividedRoundingUp(by: Self.chunk))
      let begin = k.define("first", part.begin * .integer(Self.chunk))
      let end = k.define("last", .minimum(part.end * .integer(Self.chunk), size))
      k.condition(begin < end) {
        stretch(bases: inputs.map { _ in 0 }, base: 0, from: begin, count: k.define("count", end - begin))
      }
      return k.finish()
    }
    let outer = sizes.dropLast().reduce(1) { $0 * $1 }
    let part = k.partition(outer)
    k.loop("row", from: part.begin, to: part.end) { row in
      var rest = row
      var positions: [Expression] = Array(repeating: 0, count: inner)
      for axis in (0..<inner).reversed() {
        positions[axis] = axis == 0 ? rest : k.define("i\(axis)", rest % sizes[axis])
        if axis > 0 { rest = k.define("rest", rest / sizes[axis]) }
      }
      let bases = inputs.indices.map { index -> Expression in
        var stride: Expression = 1
        var base: Expression = 0
        for axis in sizes.indices.reversed() where !inputs[index].isBroadcast[axis] {
          if axis < inner { base = base + positions[axis] * stride }
          stride = stride * sizes[axis]
        }
        return k.define("base", base)
      }
      stretch(bases: bases, base: k.define("out", row * sizes[inner]), from: 0, count: sizes[inner])
    }
    return k.finish()
  }

  /// The value of the chain in 64-bit integers or f64, converted to the output's type.
  private func scalarValue(_ operands: [Expression], _ k: KernelBuilder) -> Expression {
    let type: ScalarType = isInteger ? .i64 : .f64
    let values = operands.map { k.define("x", .convert($0, type)) }
    let value = expression.renderScalar(values, in: k)
    if toTruth { return value.isNotEqual(to: .convert(0, type)) }
    if isDouble, !output.isFloat {
      // Towards zero, held to the limits of the type, NaN to 0. The upper limit of i64 is not representable.
      let number = k.define("number", .choose(value.isEqual(to: value), value, .convert(0, .f64)))
      let limits: (low: Int, high: Int)
      switch output {
      case .i8: limits = (-128, 127)
      case .u8: limits = (0, 255)
      case .i16: limits = (-32768, 32767)
      case .i32: limits = (-2_147_483_648, 2_147_483_647)
      default:
        let low = Expression.choose(number < .convert(.real(-0x1p63), .f64), .integer(.min), .convert(number, .i64))
        return .choose(number >= .convert(.real(0x1p63), .f64), .integer(.max), low)
      }
      return .minimum(
        .maximum(number, .convert(.integer(limits.low), .f64)), .convert(.integer(limits.high), .f64))
    }
    return value
  }
}

extension ScalarExpression {
  /// The tree over scalars of one type, 64-bit integers or f64.
  fileprivate func renderScalar(_ inputs: [Expression], in k: KernelBuilder) -> Expression {
    let type = inputs[0].type
    guard case .scalar(let scalar) = type else { preconditionFailure("scalars expected") }
    func literal(_ value: Float) -> Expression {
      type == .index ? .integer(Int(value)) : .convert(.real(value), scalar)
    }
    func operand(_ tree: ScalarExpression) -> Expression { k.define("v", tree.renderScalar(inputs, in: k)) }
    let (zero, one) = (literal(0), literal(1))
    /// The divisor of a whole number, but 1 where the division stops the program: 0, and -1 for the least number, which
    /// stays what it is. Nil where any divisor will do.
    func safe(_ a: Expression, _ b: Expression) -> Expression? {
      guard type == .index else { return nil }
      if let number = b.constant, number != 0, number != -1 { return nil }
      let overflows = a.isEqual(to: .integer(.min)) & b.isEqual(to: .integer(-1))
      return k.define("divisor", .choose(b.isEqual(to: zero) | overflows, one, b))
    }
    switch self {
    case .input(let index): return inputs[index]
    case .constant(let bits): return literal(Float(bitPattern: bits))
    case .unary(let function, let tree):
      let x = operand(tree)
      switch function {
      case .negate: return zero - x
      case .abs: return .choose(x < zero, zero - x, x)
      case .relu: return .choose(x < zero, zero, x)
      case .sign: return .choose(x > zero, one, .choose(x < zero, zero - one, x))
      case .not: return .choose(x.isEqual(to: zero), one, zero)
      case .reciprocal: return one / x
      case .sqrt: return .unary(.squareRoot, x)
      default: preconditionFailure("\(function) of whole numbers")
      }
    case .binary(let function, let left, let right):
      let (a, b) = (operand(left), operand(right))
      if let comparison = function.comparison { return .choose(.compare(comparison, a, b), one, zero) }
      switch function {
      case .add: return .binary(.add, a, b)
      case .subtract: return .binary(.subtract, a, b)
      case .multiply: return .binary(.multiply, a, b)
      case .divide:
        guard let divisor = safe(a, b) else { return .binary(.divide, a, b) }
        return .choose(b.isEqual(to: zero), zero, .binary(.divide, a, divisor))
      case .minimum, .maximum:
        let better: Expression = .choose(function == .minimum ? a < b : a > b, a, b)
        return type == .index ? better : .choose(a.isNotEqual(to: a), a, better)
      case .modulo:
        let rest = k.define("rest", .binary(.remainder, a, safe(a, b) ?? b))
        return .choose(rest.isNotEqual(to: zero) & (rest < zero).isNotEqual(to: b < zero), rest + b, rest)
      case .and: return .choose(a.isNotEqual(to: zero) & b.isNotEqual(to: zero), one, zero)
      case .or: return .choose(a.isNotEqual(to: zero) | b.isNotEqual(to: zero), one, zero)
      default: preconditionFailure("\(function) of whole numbers")
      }
    case .select(let condition, let a, let b):
      return .choose(operand(condition).isNotEqual(to: zero), operand(a), operand(b))
    }
  }
}
