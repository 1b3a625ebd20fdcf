import Base
import IR
import Tensors

extension ONNXExportRules {
  static func matMul(_ exporter: inout ONNXExporter, _ node: Node, _ op: MatMul) throws -> [String] {
    let (x, w) = (exporter.type(node.inputs[0]), exporter.type(node.inputs[1]))
    let left = try exporter.wide(node.inputs[0])
    var right = try exporter.wide(node.inputs[1])
    var product: String
    if x.rank == 2, w.rank == 2 {
      product = exporter.writer.node("Gemm", [left, right], op.transposeB ? [("transB", .int(1))] : [])
    } else {
      if op.transposeB {
        right = exporter.transpose(right, Array(0..<w.rank - 2) + [w.rank - 1, w.rank - 2])
      }
      product = exporter.writer.node("MatMul", [left, right])
    }
    return [try epilogue(&exporter, node, op.epilogue, product, channelAxes: 0)]
  }

  /// Bias, activation and residual; `channelAxes` axes follow that of the channels.
  private static func epilogue(
    _ exporter: inout ONNXExporter, _ node: Node, _ epilogue: Epilogue, _ sums: String, channelAxes: Int
  ) throws -> String {
    guard !epilogue.gated else { throw exporter.failure(node, "with a gate is not written as ONNX") }
    var result = sums
    if let index = epilogue.biasIndex {
      var bias = try exporter.wide(node.inputs[index])
      if channelAxes > 0 { bias = try exporter.reshape(bias, [.fixed(-1)] + Array(repeating: 1, count: channelAxes)) }
      result = exporter.writer.node("Add", [result, bias])
    }
    func addResidual() throws {
      guard let index = epilogue.residualIndex else { return }
      result = exporter.writer.node("Add", [result, try exporter.wide(node.inputs[index])])
    }
    if epilogue.residual == .beforeActivation { try addResidual() }
    if epilogue.activation != .none {
      result = try exporter.apply(epilogue.activation.expression(of: .input(0)), to: result)
    }
    if epilogue.residual == .afterActivation { try addResidual() }
    return result
  }

  static func rmsNorm(_ exporter: inout ONNXExporter, _ node: Node, _ op: RMSNorm) throws -> [String] {
    let rank = exporter.type(node.inputs[0]).rank
    let axes = Array((op.axis < 0 ? op.axis + rank : op.axis)..<rank)
    let x = try exporter.wide(node.inputs[0])
    let square = exporter.writer.node("Mul", [x, x])
    let mean = exporter.writer.node("ReduceMean", [square], [("axes", .ints(axes)), ("keepdims", .int(1))])
    let root = exporter.writer.node(
      "Sqrt", [exporter.writer.node("Add", [mean, exporter.writer.scalar(op.epsilon, .f32)])])
    let normal = exporter.writer.node("Div", [x, root])
    return [exporter.writer.node("Mul", [normal, try exporter.wide(node.inputs[1])])]
  }

  static func layerNorm(_ exporter: inout ONNXExporter, _ node: Node, _ op: LayerNorm) throws -> [String] {
    [
      exporter.writer.node(
        "LayerNormalization", try node.inputs.map { try exporter.wide($0) },
        [("axis", .int(op.axis)), ("epsilon", .float(op.epsilon))])
    ]
  }

  static func batchNorm(_ exporter: inout ONNXExporter, _ node: Node, _ op: BatchNorm) throws -> [String] {
    [
      exporter.writer.node(
        "BatchNormalization", try node.inputs.map { try exporter.wide($0) }, [("epsilon", .float(op.epsilon))])
    ]
  }

  // MARK: Images

  private static func window(
    _ strides: [Int], _ padding: [Int], _ dilations: [Int]
  ) -> [(String, ONNXGraphWriter.Attribute)] {
    [("strides", .ints(strides)), ("pads", .ints(padding)), ("dilations", .ints(dilations))]
  }

  private static func expectChannelsFirst(_ exporter: ONNXExporter, _ node: Node, _ layout: ImageLayout) throws {
    guard layout == .first else { throw exporter.failure(node, "with channels last is not written as ONNX") }
  }

  static func conv2D(_ exporter: inout ONNXExporter, _ node: Node, _ op: Conv2D) throws -> [String] {
    try expectChannelsFirst(exporter, node, op.layout)
    let sums = exporter.writer.node(
      "Conv", [try exporter.wide(node.inputs[0]), try exporter.wide(node.inputs[1])],
      window(op.strides, op.padding, op.dilations) + [("group", .int(op.groups))])
    return [try epilogue(&exporter, node, op.epilogue, sums, channelAxes: 2)]
  }

  static func convTranspose2D(
    _ exporter: inout ONNXExporter, _ node: Node, _ op: ConvTranspose2D
  ) throws -> [String] {
    [
      exporter.writer.node(
        "ConvTranspose", try node.inputs.map { try exporter.wide($0) },
        window(op.strides, op.padding, op.dilations) + [
          ("group", .int(op.groups)), ("output_padding", .ints(op.extra)),
        ])
    ]
  }

  static func maxPool2D(_ exporter: inout ONNXExporter, _ node: Node, _ op: MaxPool2D) throws -> [String] {
    try expectChannelsFirst(exporter, node, op.layout)
    return [
      exporter.writer.node(
        "MaxPool", [try exporter.name(node.inputs[0])],
        window(op.strides, op.padding, op.dilations) + [("kernel_shape", .ints(op.kernel))])
    ]
  }

  static func averagePool2D(_ exporter: inout ONNXExporter, _ node: Node, _ op: AveragePool2D) throws -> [String] {
    try expectChannelsFirst(exporter, node, op.layout)
    return [
      exporter.writer.node(
        "AveragePool", [try exporter.name(node.inputs[0])],
        [
          ("strides", .ints(op.strides)), ("pads", .ints(op.padding)), ("kernel_shape", .ints(op.kernel)),
          ("count_include_pad", .int(op.countIncludePad ? 1 : 0)),
        ])
    ]
  }
}

extension ONNXExporter {
  /// A function of one f32 value.
  mutating func apply(_ expression: ScalarExpression, to name: String) throws -> String {
    try emit(expression, [(name, false)], .f32).name
  }
}
