import Base
import IR
import Tensors

/// How an operator of the IR is written in ONNX: the names of the results, from the exporter and the node.
typealias ONNXExportRule = @Sendable (inout ONNXExporter, Node) throws -> [String]

/// The operators that are written as ONNX.
enum ONNXExportRules {
  private static let named: [String: ONNXExportRule] = Dictionary(
    uniqueKeysWithValues: [
      entry(MatMul.self, matMul), entry(RMSNorm.self, rmsNorm), entry(LayerNorm.self, layerNorm),
      entry(BatchNorm.self, batchNorm),
      entry(Softmax.self) { exporter, node, op in
        [exporter.writer.node("Softmax", [try exporter.wide(node.inputs[0])], [("axis", .int(op.axis))])]
      },
      entry(LogSoftmax.self) { exporter, node, op in
        [exporter.writer.node("LogSoftmax", [try exporter.wide(node.inputs[0])], [("axis", .int(op.axis))])]
      },
      entry(Attention.self, attention), entry(RopeTable.self, ropeTable), entry(Rope.self, rope),
      entry(Gather.self, gather),
      entry(Reshape.self) { exporter, node, op in
        [try exporter.reshape(try exporter.name(node.inputs[0]), op.shape)]
      },
      entry(Transpose.self) { exporter, node, op in
        [exporter.transpose(try exporter.name(node.inputs[0]), op.permutation)]
      },
      entry(Slice.self, slice),
      entry(Concat.self) { exporter, node, op in
        [exporter.writer.node("Concat", try node.inputs.map { try exporter.name($0) }, [("axis", .int(op.axis))])]
      },
      entry(Expand.self) { exporter, node, op in
        let shape = exporter.writer.node("Concat", try op.shape.map { try exporter.size($0) }, [("axis", .int(0))])
        return [exporter.writer.node("Expand", [try exporter.name(node.inputs[0]), shape])]
      },
      entry(Pad.self) { exporter, node, op in
        let type = exporter.type(node.inputs[0])
        return [
          exporter.writer.node(
            "Pad",
            [
              try exporter.name(node.inputs[0]), exporter.writer.integers(op.before + op.after),
              exporter.writer.scalar(op.value, type.element),
            ])
        ]
      },
      entry(Iota.self) { exporter, node, op in
        [try exporter.range(op.size)]
      },
      entry(Sizes.self) { exporter, node, op in
        [exporter.writer.node("Concat", try op.sizes.map { try exporter.size($0) }, [("axis", .int(0))])]
      },
      entry(Cast.self) { exporter, node, op in [exporter.cast(try exporter.name(node.inputs[0]), to: op.type)] },
      entry(Reduce.self, reduce), entry(Conv2D.self, conv2D), entry(ConvTranspose2D.self, convTranspose2D),
      entry(Route.self, route), entry(ExpertMatMul.self, expertMatMul), entry(MaxPool2D.self, maxPool2D),
      entry(AveragePool2D.self, averagePool2D), entry(CausalConv.self, causalConv),
      entry(SelectiveScan.self, selectiveScan), entry(RelativeBias.self, relativeBias),
    ])

  /// The rule of an operator; nil if ONNX has nothing for it.
  static func rule(for op: any Operator) -> ONNXExportRule? {
    if let rule = named[op.name] { return rule }
    guard let elementwise = op as? any Elementwise else { return nil }
    let expression = elementwise.expression
    return { exporter, node in [try exporter.elementwise(expression, node)] }
  }

  private static func entry<Op: Operator>(
    _ type: Op.Type, _ rule: @escaping @Sendable (inout ONNXExporter, Node, Op) throws -> [String]
  ) -> (String, ONNXExportRule) {
    (
      Op.name,
      { exporter, node in
        guard let op = node.op as? Op else {
          throw CompileError(.internal, "'\(node.op.name)' is not '\(Op.name)'")
        }
        return try rule(&exporter, node, op)
      }
    )
  }
}

extension ONNXExporter {
  /// `0, 1, ..., size - 1` in i64.
  mutating func range(_ size: Dim) throws -> String {
    let end = writer.node("Squeeze", [try self.size(size), writer.integers([0])])
    return writer.node("Range", [writer.scalar(0, .i64), end, writer.scalar(1, .i64)])
  }

  /// An expression on the elements of a node's inputs.
  mutating func elementwise(_ expression: ScalarExpression, _ node: Node) throws -> String {
    let types = node.inputs.map { type($0) }
    let result = type(node.results[0])
    // Sums and products of narrow floats are computed in f32, as the IR does.
    let narrow = types.last.map { $0.element.isFloat && $0.element.byteCount < 4 } ?? false
    let element: DType = narrow ? .f32 : (types.last?.element ?? .f32)
    var inputs: [(name: String, isBool: Bool)] = []
    for (value, type) in zip(node.inputs, types) {
      inputs.append((narrow ? try wide(value) : try name(value), type.element == .bool))
    }
    let (name, isBool) = try emit(expression, inputs, element)
    if result.element == .bool || isBool { return result.element == .bool ? name : cast(name, to: result.element) }
    return element == result.element ? name : cast(name, to: result.element)
  }

  mutating func emit(
    _ expression: ScalarExpression, _ inputs: [(name: String, isBool: Bool)], _ type: DType
  ) throws -> (name: String, isBool: Bool) {
    switch expression {
    case .input(let index): return inputs[index]
    case .constant(let bits): return (writer.scalar(Float(bitPattern: bits), type), false)
    case .unary(let function, let x):
      let x = try emit(x, inputs, type)
      return (unary(function, x.name, type), function == .not)
    case .binary(let function, let x, let y):
      let (x, y) = (try emit(x, inputs, type), try emit(y, inputs, type))
      return (binary(function, x.name, y.name, type), function.isComparison || function.isLogical)
    case .select(let condition, let x, let y):
      let condition = try emit(condition, inputs, type)
      let (x, y) = (try emit(x, inputs, type), try emit(y, inputs, type))
      let truth = condition.isBool ? condition.name : cast(condition.name, to: .bool)
      return (writer.node("Where", [truth, x.name, y.name]), x.isBool && y.isBool)
    }
  }

  private mutating func unary(_ function: UnaryFunction, _ x: String, _ type: DType) -> String {
    func times(_ y: String, _ writer: inout ONNXGraphWriter) -> String { writer.node("Mul", [x, y]) }
    switch function {
    case .negate: return writer.node("Neg", [x])
    case .rsqrt: return writer.node("Reciprocal", [writer.node("Sqrt", [x])])
    case .silu: return times(writer.node("Sigmoid", [x]), &writer)
    case .gelu:
      let inner = writer.node("Erf", [times(writer.scalar(0.70710678, type), &writer)])
      let sum = writer.node("Add", [inner, writer.scalar(1, type)])
      return writer.node("Mul", [times(sum, &writer), writer.scalar(0.5, type)])
    case .geluTanh:
      let square = times(x, &writer)
      let cubic = writer.node("Mul", [square, writer.scalar(0.044715, type)])
      let factor = times(writer.node("Add", [cubic, writer.scalar(1, type)]), &writer)
      let inner = writer.node("Tanh", [writer.node("Mul", [factor, writer.scalar(0.797884583, type)])])
      let sum = writer.node("Add", [inner, writer.scalar(1, type)])
      return writer.node("Mul", [times(sum, &writer), writer.scalar(0.5, type)])
    case .hardSigmoid:
      return writer.node("HardSigmoid", [x], [("alpha", .float(1 / 6)), ("beta", .float(0.5))])
    case .hardSwish: return writer.node("HardSwish", [x])
    case .abs, .sqrt, .reciprocal, .exp, .log, .sin, .cos, .tanh, .sigmoid, .relu, .erf, .floor, .ceil, .round, .sign,
      .softplus, .not:
      let name = function.rawValue
      return writer.node(name.prefix(1).uppercased() + name.dropFirst(), [x])
    }
  }

  private mutating func binary(_ function: BinaryFunction, _ x: String, _ y: String, _ type: DType) -> String {
    switch function {
    case .add: writer.node("Add", [x, y])
    case .subtract: writer.node("Sub", [x, y])
    case .multiply: writer.node("Mul", [x, y])
    case .divide: writer.node("Div", [x, y])
    case .minimum: writer.node("Min", [x, y])
    case .maximum: writer.node("Max", [x, y])
    case .power: writer.node("Pow", [x, y])
    case .modulo:
      if type.isFloat {
        writer.node("Sub", [x, writer.node("Mul", [writer.node("Floor", [writer.node("Div", [x, y])]), y])])
      } else {
        writer.node("Mod", [x, y])
      }
    case .less: writer.node("Less", [x, y])
    case .lessOrEqual: writer.node("LessOrEqual", [x, y])
    case .greater: writer.node("Greater", [x, y])
    case .greaterOrEqual: writer.node("GreaterOrEqual", [x, y])
    case .equal: writer.node("Equal", [x, y])
    case .notEqual: writer.node("Not", [writer.node("Equal", [x, y])])
    case .and: writer.node("And", [x, y])
    case .or: writer.node("Or", [x, y])
    }
  }
}

extension ONNXExportRules {
  /// Rows of a table, converted if the operator says so.
  static func gather(_ exporter: inout ONNXExporter, _ node: Node, _ op: Gather) throws -> [String] {
    let table = exporter.type(node.inputs[0])
    let result = exporter.type(node.results[0])
    let rows = exporter.writer.node(
      "Gather", [try exporter.name(node.inputs[0]), try exporter.name(node.inputs[1])], [("axis", .int(op.axis))])
    return [table.element == result.element ? rows : exporter.cast(rows, to: result.element)]
  }

  static func slice(_ exporter: inout ONNXExporter, _ node: Node, _ op: Slice) throws -> [String] {
    let rank = exporter.type(node.inputs[0]).rank
    let axis = op.axis < 0 ? op.axis + rank : op.axis
    guard op.step > 0 else { throw exporter.failure(node, "with a negative step is not written as ONNX") }
    let end = op.start + (op.size - 1) * op.step + 1
    return [
      exporter.writer.node(
        "Slice",
        [
          try exporter.name(node.inputs[0]), try exporter.size(op.start), try exporter.size(end),
          exporter.writer.integers([axis]), exporter.writer.integers([op.step]),
        ])
    ]
  }

  static func reduce(_ exporter: inout ONNXExporter, _ node: Node, _ op: Reduce) throws -> [String] {
    let names: [Reduce.Function: String] = [
      .sum: "ReduceSum", .mean: "ReduceMean", .max: "ReduceMax", .min: "ReduceMin", .product: "ReduceProd",
    ]
    let x = try exporter.name(node.inputs[0])
    let keep = ("keepdims", ONNXGraphWriter.Attribute.int(op.keepDims ? 1 : 0))
    let name = names[op.function] ?? "ReduceSum"
    // Opset 17 has the axes of sums as an input, those of the others as an attribute.
    if op.function == .sum, !op.axes.isEmpty {
      return [exporter.writer.node(name, [x, exporter.writer.integers(op.axes)], [keep])]
    }
    return [exporter.writer.node(name, [x], op.axes.isEmpty ? [keep] : [("axes", .ints(op.axes)), keep])]
  }
}
