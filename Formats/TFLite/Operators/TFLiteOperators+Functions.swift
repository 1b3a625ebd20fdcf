import Base
import IR
import Tensors

extension TFLiteOperators {
  /// Functions of one tensor, conversions, and softmax.
  static let functions: [TFLiteOperator] = [
    unary("RELU", ReLU()), unary("RELU6", Clip(minimum: 0, maximum: 6)),
    unary("RELU_N1_TO_1", Clip(minimum: -1, maximum: 1)), unary("RELU_0_TO_1", Clip(minimum: 0, maximum: 1)),
    unary("LOGISTIC", Sigmoid()), unary("TANH", Tanh()), unary("HARD_SWISH", HardSwish()), unary("EXP", Exp()),
    unary("LOG", Log()), unary("SQRT", Sqrt()), unary("RSQRT", Rsqrt()), unary("NEG", Negate()),
    unary("ABS", Abs()), unary("SIN", Sin()), unary("COS", Cos()), unary("FLOOR", Floor()), unary("CEIL", Ceil()),
    unary("ROUND", Round()), unary("SIGN", Sign()), unary("LOGICAL_NOT", Not()),
    unary(
      "ELU",
      FusedElementwise(
        .select(
          .binary(.less, .input(0), .number(0)),
          .binary(.subtract, .unary(.exp, .input(0)), .number(1)), .input(0)))),
    unary("SQUARE", FusedElementwise(.binary(.multiply, .input(0), .input(0)))),
    TFLiteOperator("LEAKY_RELU") { node, importer in
      let op = LeakyReLU(slope: try node.number(TFLiteSchema.LeakyReLU.alpha))
      try importer.define(node.output(), numbers: importer.builder.emit(op, importer.real(node.input(0))))
    },
    TFLiteOperator("GELU") { node, importer in
      let op: any Operator = try node.flag(TFLiteSchema.GELU.approximate) ? GELUTanh() : GELU()
      try importer.define(node.output(), numbers: importer.builder.emit(op, importer.real(node.input(0))))
    },
    TFLiteOperator("SOFTMAX") { node, importer in
      var x = try importer.real(node.input(0))
      let beta = try node.number(TFLiteSchema.Softmax.beta)
      if beta != 1 { x = try importer.builder.emit(Multiply(), x, importer.number(beta)) }
      try importer.define(node.output(), numbers: importer.builder.emit(Softmax(axis: -1), x))
    },
    unary("LOG_SOFTMAX", LogSoftmax(axis: -1)),
    // x / sqrt(max(sum of squares, 1e-6)) along the last axis.
    TFLiteOperator("L2_NORMALIZATION") { node, importer in
      let x = try importer.real(node.input(0))
      let squares = try importer.builder.emit(Multiply(), x, x)
      let sum = try importer.builder.emit(Reduce(.sum, axes: [-1], keepDims: true), squares)
      let op = FusedElementwise(
        .binary(.divide, .input(0), .unary(.sqrt, .binary(.maximum, .input(1), .number(1e-6)))))
      let y = try importer.builder.emit(op, x, sum)
      let activation = try node.activation(TFLiteSchema.Arithmetic.activation)
      try importer.define(node.output(), numbers: importer.activated(y, activation))
    },
    TFLiteOperator("CAST") { node, importer in
      let output = try importer.tensor(node.output(), "the outputs")
      guard importer.code(of: output) == nil else {
        throw CompileError(.unsupported, "unsupported 'CAST' to a quantized tensor")
      }
      let result = try importer.builder.emit(Cast(output.element), importer.raw(node.input(0)))
      try importer.define(node.output(), raw: result)
    },
    TFLiteOperator("QUANTIZE") { node, importer in
      let (x, y) = (try node.input(0), try node.output())
      let isSame = try importer.code(of: importer.tensor(x, "the inputs")) != nil && importer.sharesCode(x, y)
      if isSame { return try importer.define(y, raw: importer.raw(x)) }
      try importer.define(y, numbers: importer.real(x))
    },
    TFLiteOperator("DEQUANTIZE") { node, importer in
      var x = try importer.real(node.input(0))
      if importer.builder.type(of: x).element == .f16 { x = try importer.builder.emit(Cast(.f32), x) }
      try importer.define(node.output(), numbers: x)
    },
  ]

  private static func unary(_ type: String, _ op: any Operator) -> TFLiteOperator {
    TFLiteOperator(type) { node, importer in
      try importer.define(node.output(), numbers: importer.builder.emit(op, importer.real(node.input(0))))
    }
  }
}
