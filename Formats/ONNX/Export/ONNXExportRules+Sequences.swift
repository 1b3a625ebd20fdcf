import Base
import IR
import Tensors

extension ONNXExportRules {
  /// A convolution over the rows of the state and those of the input: the rows that it leaves for the next call, and the
  /// results.
  static func causalConv(_ exporter: inout ONNXExporter, _ node: Node, _ op: CausalConv) throws -> [String] {
    let weight = exporter.type(node.inputs[2]).shape
    guard let taps = weight[0].fixedValue, let channels = weight[1].fixedValue else {
      throw exporter.failure(node, "of open width is not written as ONNX")
    }
    let (state, x) = (try exporter.wide(node.inputs[0]), try exporter.wide(node.inputs[1]))
    let rows = exporter.writer.node("Concat", [state, x], [("axis", .int(0))])
    let rest = exporter.writer.node(
      "Slice", [rows] + [[1 - taps], [Int(Int32.max)], [0]].map { exporter.writer.integers($0) })
    // [channels, rows] with a batch of one, and filters [channels, 1, taps].
    let batch = exporter.writer.node("Unsqueeze", [exporter.transpose(rows, [1, 0]), exporter.writer.integers([0])])
    let filter = exporter.writer.node(
      "Unsqueeze", [exporter.transpose(try exporter.wide(node.inputs[2]), [1, 0]), exporter.writer.integers([1])])
    let bias = node.inputs.count > 4 ? [try exporter.wide(node.inputs[4])] : []
    let sums = exporter.writer.node("Conv", [batch, filter] + bias, [("group", .int(channels))])
    let y = exporter.transpose(exporter.writer.node("Squeeze", [sums, exporter.writer.integers([0])]), [1, 0])
    let result = op.activation == .none ? y : try exporter.apply(op.activation.expression(of: .input(0)), to: y)
    return [rest, result]
  }

  /// A `Scan` over the tokens, whose body is one step of the state.
  static func selectiveScan(_ exporter: inout ONNXExporter, _ node: Node, _ op: SelectiveScan) throws -> [String] {
    let shape = exporter.type(node.inputs[0]).shape
    guard let width = shape[0].fixedValue, let size = shape[1].fixedValue else {
      throw exporter.failure(node, "of open width is not written as ONNX")
    }
    let inputs = try node.inputs.prefix(7).map { try exporter.wide($0) }
    let (x, decays) = (inputs[1], inputs[3])
    let names = ["state", "input", "step", "write", "read"].map { exporter.writer.fresh($0) }
    let sizes = [[width, size], [width], [width], [size], [size]]
    let ports = zip(names, sizes).map { name, sizes -> ONNXGraphWriter.Port in
      (name, .f32, sizes.map { .fixed($0) })
    }
    let body = exporter.writer.nested("step", inputs: ports) { writer in
      let (first, second) = (writer.integers([0]), writer.integers([1]))
      let step = writer.node("Unsqueeze", [names[2], second])
      let kept = writer.node("Mul", [writer.node("Exp", [writer.node("Mul", [step, decays])]), names[0]])
      let value = writer.node("Unsqueeze", [writer.node("Mul", [names[2], names[1]]), second])
      let added = writer.node("Mul", [value, writer.node("Unsqueeze", [names[3], first])])
      let next = writer.node("Add", [kept, added])
      let product = writer.node("MatMul", [next, writer.node("Unsqueeze", [names[4], second])])
      return [
        (next, .f32, [.fixed(width), .fixed(size)]),
        (writer.node("Squeeze", [product, second]), .f32, [.fixed(width)]),
      ]
    }
    let (last, sums) = (exporter.writer.fresh("scan"), exporter.writer.fresh("sums"))
    exporter.writer.nodes(
      "Scan", [inputs[0], x, inputs[2], inputs[4], inputs[5]], [last, sums],
      [("body", .graph(body)), ("num_scan_inputs", .int(4))])
    let direct = exporter.writer.node("Mul", [x, inputs[6]])
    return [last, exporter.writer.node("Add", [sums, direct])]
  }

  /// The numbers of the distances between keys and queries, of which those beyond the ends take the number at the end.
  static func relativeBias(_ exporter: inout ONNXExporter, _ node: Node, _ op: RelativeBias) throws -> [String] {
    guard let width = exporter.type(node.inputs[0]).shape[1].fixedValue else {
      throw exporter.failure(node, "of open width is not written as ONNX")
    }
    var queries = try exporter.range(op.rows)
    let count: String
    if node.inputs.count > 1 {
      queries = exporter.writer.node("Add", [queries, exporter.cast(try exporter.name(node.inputs[1]), to: .i64)])
      // Keys are as many as the cache has after the call, not as many as it has room for.
      let past = exporter.pastRows
      count =
        try past.map { exporter.writer.node("Add", [$0, try exporter.size(op.rows)]) } ?? exporter.size(op.columns)
    } else {
      count = try exporter.size(op.columns)
    }
    let end = exporter.writer.node("Squeeze", [count, exporter.writer.integers([0])])
    let (zero, one) = (exporter.writer.scalar(0, .i64), exporter.writer.scalar(1, .i64))
    let keys = exporter.writer.node("Range", [zero, end, one])
    let column = exporter.writer.node("Unsqueeze", [queries, exporter.writer.integers([1])])
    let distances = exporter.writer.node(
      "Add", [exporter.writer.node("Sub", [keys, column]), exporter.writer.scalar(Float(op.before), .i64)])
    let last = exporter.writer.scalar(Float(width - 1), .i64)
    let places = exporter.writer.node("Clip", [distances, zero, last])
    return [exporter.writer.node("Gather", [try exporter.wide(node.inputs[0]), places], [("axis", .int(1))])]
  }
}
