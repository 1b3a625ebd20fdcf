import Base
import IR
import Tensors

extension TFLiteOperators {
  /// Operators on pairs of elements, with the broadcasting of NumPy, and choices between elements.
  static let elementwise: [TFLiteOperator] = [
    arithmetic("ADD", Add()), arithmetic("SUB", Subtract()), arithmetic("MUL", Multiply()),
    arithmetic("DIV", Divide()), binary("MAXIMUM", Maximum()), binary("MINIMUM", Minimum()), binary("POW", Power()),
    binary("FLOOR_MOD", Modulo()), comparison("EQUAL", Equal()), comparison("NOT_EQUAL", NotEqual()),
    comparison("LESS", Less()), comparison("LESS_EQUAL", LessOrEqual()), comparison("GREATER", Greater()),
    comparison("GREATER_EQUAL", GreaterOrEqual()), comparison("LOGICAL_AND", And()), comparison("LOGICAL_OR", Or()),
    TFLiteOperator("SQUARED_DIFFERENCE") { node, importer in
      let d = try importer.builder.emit(
        Subtract(), importer.real(node.input(0)), importer.real(node.input(1)))
      try importer.define(node.output(), numbers: importer.builder.emit(Multiply(), d, d))
    },
    TFLiteOperator("FLOOR_DIV") { node, importer in
      let (a, b) = (try importer.real(node.input(0)), try importer.real(node.input(1)))
      guard importer.builder.type(of: a).element.isFloat else {
        throw CompileError(.unsupported, "unsupported 'FLOOR_DIV' of whole numbers")
      }
      let quotient = try importer.builder.emit(Divide(), a, b)
      try importer.define(node.output(), numbers: importer.builder.emit(Floor(), quotient))
    },
    TFLiteOperator("ADD_N") { node, importer in
      var sum = try importer.real(node.input(0))
      for index in node.inputs.indices.dropFirst() {
        sum = try importer.builder.emit(Add(), sum, importer.real(node.input(index)))
      }
      try importer.define(node.output(), numbers: sum)
    },
    TFLiteOperator("SELECT") { node, importer in try select(node, &importer) },
    TFLiteOperator("SELECT_V2") { node, importer in try select(node, &importer) },
    // x where positive, else slope * x.
    TFLiteOperator("PRELU") { node, importer in
      let (x, slope) = (try importer.real(node.input(0)), try importer.real(node.input(1)))
      let op = FusedElementwise(
        .select(.binary(.less, .input(0), .number(0)), .binary(.multiply, .input(0), .input(1)), .input(0)))
      try importer.define(node.output(), numbers: importer.builder.emit(op, x, slope))
    },
  ]

  private static func binary(_ type: String, _ op: any Operator) -> TFLiteOperator {
    TFLiteOperator(type) { node, importer in
      let result = try importer.builder.emit(op, importer.real(node.input(0)), importer.real(node.input(1)))
      try importer.define(node.output(), numbers: result)
    }
  }

  private static func comparison(_ type: String, _ op: any Operator) -> TFLiteOperator {
    TFLiteOperator(type) { node, importer in
      let result = try importer.builder.emit(op, importer.real(node.input(0)), importer.real(node.input(1)))
      try importer.define(node.output(), raw: result)
    }
  }

  private static func arithmetic(_ type: String, _ op: any Operator) -> TFLiteOperator {
    TFLiteOperator(type) { node, importer in
      let result = try importer.builder.emit(op, importer.real(node.input(0)), importer.real(node.input(1)))
      let activation = try node.activation(TFLiteSchema.Arithmetic.activation)
      try importer.define(node.output(), numbers: importer.activated(result, activation))
    }
  }

  private static func select(_ node: TFLiteNode, _ importer: inout TFLiteImporter) throws {
    let operands = [
      try importer.raw(node.input(0)), try importer.real(node.input(1)), try importer.real(node.input(2)),
    ]
    try importer.define(node.output(), numbers: importer.builder.emit(Select(), operands))
  }
}
