import Base
import IR
import Tensors

extension ONNXOperators {
  /// Operators on single elements, with the broadcasting of NumPy.
  static let elementwise: [ONNXOperator] =
    [
      unary("Neg", Negate()), unary("Abs", Abs()), unary("Sqrt", Sqrt()), unary("Reciprocal", Reciprocal()),
      unary("Exp", Exp()), unary("Log", Log()), unary("Sin", Sin()), unary("Cos", Cos()), unary("Tanh", Tanh()),
      unary("Sigmoid", Sigmoid()), unary("Relu", ReLU()), unary("Erf", Erf()), unary("Floor", Floor()),
      unary("Ceil", Ceil()), unary("Round", Round()), unary("Sign", Sign()), unary("Softplus", Softplus()),
      unary("HardSwish", HardSwish()),
      binary("Add", Add()), binary("Sub", Subtract()), binary("Mul", Multiply()), binary("Div", Divide()),
      binary("Equal", Equal()), binary("Less", Less()), binary("Greater", Greater()),
      binary("LessOrEqual", LessOrEqual()), binary("GreaterOrEqual", GreaterOrEqual()), binary("And", And()),
      binary("Or", Or()), unary("Not", Not()),
      variadic("Min", Minimum()), variadic("Max", Maximum()), variadic("Sum", Add()),
      // Of two element types the result has that of the base.
      ONNXOperator("Pow") { node, importer in
        var base = try node.input(0, &importer), exponent = try node.input(1, &importer)
        let element = importer.builder.type(of: base).element, other = importer.builder.type(of: exponent).element
        guard element != other else { return [try importer.builder.emit(Power(), base, exponent)] }
        let common: DType = element.isFloat ? element : other.isFloat ? other : .i64
        if element != common { base = try importer.builder.emit(Cast(common), base) }
        if other != common { exponent = try importer.builder.emit(Cast(common), exponent) }
        let power = try importer.builder.emit(Power(), base, exponent)
        return [element == common ? power : try importer.builder.emit(Cast(element), power)]
      },
      ONNXOperator("Identity") { node, importer in [try node.input(0, &importer)] },
      ONNXOperator("Dropout") { node, importer in
        node.ignore("ratio", "seed")
        if let mode = try node.optionalInput(2, &importer), try importer.number(of: mode) != 0 {
          throw CompileError(.unsupported, "unsupported 'Dropout' with a training mode that is on or computed")
        }
        return [try node.input(0, &importer)]
      },
      ONNXOperator("Clip") { node, importer in
        let x = try node.input(0, &importer)
        var low = -Float.infinity
        var high = Float.infinity
        if importer.opset < 11 {
          low = try node.number("min", default: low)
          high = try node.number("max", default: high)
        } else {
          low = try bound(node, 1, &importer) ?? low
          high = try bound(node, 2, &importer) ?? high
        }
        return [try importer.builder.emit(Clip(minimum: low, maximum: high), x)]
      },
      ONNXOperator("Mod") { node, importer in
        let (a, b) = (try node.input(0, &importer), try node.input(1, &importer))
        if try node.integer("fmod", default: 0) != 0 {
          // The rest of the magnitudes with the sign of the dividend.
          let magnitudes = ScalarExpression.binary(.modulo, .unary(.abs, .input(0)), .unary(.abs, .input(1)))
          let rest = ScalarExpression.select(
            .binary(.less, .input(0), .number(0)), .unary(.negate, magnitudes), magnitudes)
          return [try importer.builder.emit(FusedElementwise(rest), a, b)]
        }
        return [try importer.builder.emit(Modulo(), a, b)]
      },
      ONNXOperator("LeakyRelu") { node, importer in
        let slope = try node.number("alpha", default: 0.01)
        return [try importer.builder.emit(LeakyReLU(slope: slope), node.input(0, &importer))]
      },
      ONNXOperator("Gelu") { node, importer in
        let x = try node.input(0, &importer)
        switch try node.string("approximate", default: "none") {
        case "none": return [try importer.builder.emit(GELU(), x)]
        case "tanh": return [try importer.builder.emit(GELUTanh(), x)]
        case let other: throw CompileError(.unsupported, "unsupported 'Gelu' approximated by '\(other)'")
        }
      },
      ONNXOperator("Cast") { node, importer in
        node.ignore("saturate", "round_mode")
        let element = try DType.onnx(Int32(clamping: node.integer("to", default: 0)), of: "'Cast'")
        return [try importer.builder.emit(Cast(element), node.input(0, &importer))]
      },
      ONNXOperator("Where") { node, importer in
        [try importer.builder.emit(Select(), node.inputs(&importer))]
      },
    ]

  private static func unary(_ type: String, _ op: any Operator) -> ONNXOperator {
    ONNXOperator(type) { node, importer in [try importer.builder.emit(op, node.input(0, &importer))] }
  }

  private static func binary(_ type: String, _ op: any Operator) -> ONNXOperator {
    ONNXOperator(type) { node, importer in
      [try importer.builder.emit(op, node.input(0, &importer), node.input(1, &importer))]
    }
  }

  private static func variadic(_ type: String, _ op: any Operator) -> ONNXOperator {
    ONNXOperator(type) { node, importer in
      let inputs = try node.inputs(&importer)
      guard var result = inputs.first else { throw CompileError(.input, "'\(type)' has no inputs") }
      for input in inputs.dropFirst() { result = try importer.builder.emit(op, result, input) }
      return [result]
    }
  }

  private static func bound(_ node: ONNXNode, _ index: Int, _ importer: inout ONNXImporter) throws -> Float? {
    guard let value = try node.optionalInput(index, &importer) else { return nil }
    guard let number = try importer.number(of: value) else {
      throw CompileError(.unsupported, "unsupported 'Clip' with a bound that is computed at run time")
    }
    return number
  }
}
