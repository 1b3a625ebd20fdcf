import Base
import Tensors

/// Numbers as bytes in equal steps: `min(max(round(x / scale) + zero point, 0), 255)`, rounded half to even, one scale
/// for all numbers (ONNX `QuantizeLinear`). NaN becomes an unspecified code.
package struct QuantizeLinear: Elementwise, RowMapped {
  package static let name = "quantize_linear"

  package var code = AffineCode()

  package init() {}

  package init(_ code: AffineCode) { self.code = code }

  package var expression: ScalarExpression {
    let zero = Float(code.zeroPoint)
    let steps: ScalarExpression = .clamp(
      .unary(.round, .binary(.divide, .input(0), .number(code.scale))), -zero, 255 - zero)
    return code.zeroPoint == 0 ? steps : .binary(.add, steps, .number(zero))
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    try expectDense(inputs[0], "input")
    guard inputs[0].element == .f32 else { throw failure("found input of type \(inputs[0]), expected f32 elements") }
    try expectValid(code)
    return [TensorType(.u8, inputs[0].shape)]
  }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let x = inputs[0].elements(as: Float.self), codes = outputs[0].elements(as: UInt8.self)
    let zero = Float(code.zeroPoint), scale = code.scale
    for i in 0..<x.count {
      let steps = (x[i] / scale).rounded(.toNearestOrEven)
      codes[i] = UInt8(max(0, min(255, (steps.isNaN ? -zero : max(-zero, min(255 - zero, steps))) + zero)))
    }
  }
}

/// The numbers that bytes stand for: `(code - zero point) * scale`, the inverse of ``QuantizeLinear`` up to rounding.
package struct DequantizeLinear: Elementwise, RowMapped {
  package static let name = "dequantize_linear"

  package var code = AffineCode()

  package init() {}

  package init(_ code: AffineCode) { self.code = code }

  package var expression: ScalarExpression {
    let steps: ScalarExpression =
      code.zeroPoint == 0 ? .input(0) : .binary(.subtract, .input(0), .number(Float(code.zeroPoint)))
    return .binary(.multiply, steps, .number(code.scale))
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    try expectDense(inputs[0], "input")
    guard inputs[0].element == .u8 else { throw failure("found input of type \(inputs[0]), expected u8 elements") }
    try expectValid(code)
    return [TensorType(.f32, inputs[0].shape)]
  }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let codes = inputs[0].elements(as: UInt8.self), x = outputs[0].elements(as: Float.self)
    let numbers = (0...255).map { Float($0 - code.zeroPoint) * code.scale }
    for i in 0..<codes.count { x[i] = numbers[Int(codes[i])] }
  }
}

extension Operator {
  /// Throws unless a code has a positive normal scale and a zero point in 0 ... 255.
  func expectValid(_ code: AffineCode) throws {
    guard code.isValid else {
      throw failure(
        "found scale \(code.scale) and zero point \(code.zeroPoint), expected a positive scale and 0 to 255")
    }
  }
}
