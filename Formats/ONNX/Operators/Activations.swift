import Base
import IR
import Tensors

extension ONNXOperators {
  /// Functions of one number with parameters, written as expressions.
  static let activations: [ONNXOperator] = [
    function("Elu") { node in .elu(alpha: try node.number("alpha", default: 1)) },
    // max(0, x) + min(0, alpha (exp(x / alpha) - 1))
    function("Celu") { node in
      let alpha = try node.number("alpha", default: 1)
      let scaled = ScalarExpression.binary(.divide, x, .number(alpha))
      return .select(
        isNegative, .binary(.multiply, .number(alpha), .binary(.subtract, .unary(.exp, scaled), .number(1))), x)
    },
    function("Selu") { node in
      .elu(
        alpha: try node.number("alpha", default: 1.673_263_2), gamma: try node.number("gamma", default: 1.050_700_9))
    },
    function("HardSigmoid") { node in
      .hardSigmoid(alpha: try node.number("alpha", default: 0.2), beta: try node.number("beta", default: 0.5))
    },
    function("ThresholdedRelu") { node in
      .select(.binary(.greater, x, .number(try node.number("alpha", default: 1))), x, .number(0))
    },
    function("Softsign") { _ in .softsign },
    function("Shrink") { node in
      let limit = try node.number("lambd", default: 0.5), bias = try node.number("bias", default: 0)
      return .select(
        .binary(.less, x, .number(-limit)), .binary(.add, x, .number(bias)),
        .select(.binary(.greater, x, .number(limit)), .binary(.subtract, x, .number(bias)), .number(0)))
    },
    function("Swish") { node in
      let alpha = try node.number("alpha", default: 1)
      return .binary(.multiply, x, .unary(.sigmoid, .binary(.multiply, x, .number(alpha))))
    },
    function("Mish") { _ in .binary(.multiply, x, .unary(.tanh, .unary(.softplus, x))) },
    function("Tan") { _ in .binary(.divide, .unary(.sin, x), .unary(.cos, x)) },
    function("Cosh") { _ in
      .binary(
        .multiply, .number(0.5), .binary(.add, .unary(.exp, x), .unary(.exp, .unary(.negate, x))))
    },
    function("IsNaN") { _ in .binary(.notEqual, x, x) },
    function("IsInf") { node in
      let high = try node.integer("detect_positive", default: 1) != 0
      let low = try node.integer("detect_negative", default: 1) != 0
      let infinity = ScalarExpression.number(.infinity), negative = ScalarExpression.number(-.infinity)
      switch (high, low) {
      case (true, true): return .binary(.equal, .unary(.abs, x), infinity)
      case (true, false): return .binary(.equal, x, infinity)
      case (false, true): return .binary(.equal, x, negative)
      case (false, false): return .binary(.and, .binary(.equal, x, infinity), .binary(.equal, x, negative))
      }
    },
    ONNXOperator("PRelu") { node, importer in
      let operands = [try node.input(0, &importer), try node.input(1, &importer)]
      let expression = ScalarExpression.select(
        isNegative, .binary(.multiply, x, .input(1)), x)
      return [try importer.builder.emit(FusedElementwise(expression), operands)]
    },
    ONNXOperator("CastLike") { node, importer in
      node.ignore("saturate", "round_mode")
      let element = try node.inputType(1, &importer).element
      return [try importer.builder.emit(Cast(element), node.input(0, &importer))]
    },
    ONNXOperator("Mean") { node, importer in
      let inputs = try node.inputs(&importer)
      guard var sum = inputs.first else { throw CompileError(.input, "'Mean' has no inputs") }
      for input in inputs.dropFirst() { sum = try importer.builder.emit(Add(), sum, input) }
      let expression = ScalarExpression.binary(.divide, x, .number(Float(inputs.count)))
      return [try importer.builder.emit(FusedElementwise(expression), sum)]
    },
    ONNXOperator("Xor") { node, importer in
      [try importer.builder.emit(NotEqual(), node.input(0, &importer), node.input(1, &importer))]
    },
  ]

  private static let x = ScalarExpression.input(0)
  private static let isNegative = ScalarExpression.binary(.less, x, .number(0))

  private static func function(
    _ type: String, _ expression: @escaping @Sendable (inout ONNXNode) throws -> ScalarExpression
  ) -> ONNXOperator {
    ONNXOperator(type) { node, importer in
      let expression = try expression(&node)
      return [try importer.builder.emit(FusedElementwise(expression), node.input(0, &importer))]
    }
  }
}
