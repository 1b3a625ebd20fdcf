import Base
import IR
import Tensors

extension ONNXExportRules {
  /// Scores, the largest of them, and their shares.
  static func route(_ exporter: inout ONNXExporter, _ node: Node, _ op: Route) throws -> [String] {
    guard op.groups == 1 else { throw exporter.failure(node, "with groups of experts is not written as ONNX") }
    let logits = try exporter.wide(node.inputs[0])
    let scores =
      op.scoring == .softmax
      ? exporter.writer.node("Softmax", [logits], [("axis", .int(-1))]) : exporter.writer.node("Sigmoid", [logits])
    var judged = scores
    if node.inputs.count > 1 {
      judged = exporter.writer.node("Add", [scores, try exporter.wide(node.inputs[1])])
    }
    let (best, ids) = (exporter.writer.fresh("best"), exporter.writer.fresh("experts"))
    exporter.writer.nodes("TopK", [judged, exporter.writer.integers([op.count])], [best, ids], [("axis", .int(-1))])
    var shares = exporter.writer.node("GatherElements", [scores, ids], [("axis", .int(1))])
    if op.normalizes {
      shares = exporter.writer.node(
        "Div", [shares, exporter.writer.node("ReduceSum", [shares, exporter.writer.integers([1])])])
    }
    if op.scale != 1 { shares = exporter.writer.node("Mul", [shares, exporter.writer.scalar(op.scale, .f32)]) }
    return [exporter.cast(ids, to: .i32), shares]
  }

  /// For each expert the rows that chose it, their products, and these put or added where they belong: what an expert was
  /// not chosen for is not computed.
  static func expertMatMul(_ exporter: inout ONNXExporter, _ node: Node, _ op: ExpertMatMul) throws -> [String] {
    let (x, ids) = (exporter.type(node.inputs[0]), exporter.type(node.inputs[2]))
    guard let slots = ids.shape.last.fixedValue, let depth = x.shape.last.fixedValue,
      let columns = exporter.type(node.results[0]).shape.last.fixedValue
    else { throw exporter.failure(node, "of open sizes is not written as ONNX") }
    let line = exporter.writer.integers([-1])
    let chosen = exporter.writer.node("Reshape", [try exporter.name(node.inputs[2]), line])
    var rows = try exporter.wide(node.inputs[0])
    if x.rank == 3 { rows = exporter.writer.node("Reshape", [rows, exporter.writer.integers([-1, depth])]) }
    var shares: String?
    if node.inputs.count > 3 {
      shares = exporter.writer.node(
        "Reshape", [try exporter.wide(node.inputs[3]), exporter.writer.integers([-1, 1])])
    }
    // The result of every place (token and slot), or, with shares, the sum for every token.
    let count = try exporter.size(shares == nil ? x.shape[0] * slots : x.shape[0])
    let shape = exporter.writer.node("Concat", [count, exporter.writer.integers([columns])], [("axis", .int(0))])
    var result = exporter.writer.node("Expand", [exporter.writer.scalar(0, .f32), shape])
    for (expert, weight) in try exporter.experts(node).enumerated() {
      let isChosen = exporter.writer.node("Equal", [chosen, exporter.writer.scalar(Float(expert), .i32)])
      let places = exporter.writer.node("Reshape", [exporter.writer.node("NonZero", [isChosen]), line])
      let tokens = slots == 1 ? places : exporter.writer.node("Div", [places, exporter.writer.integers([slots])])
      let inputs = exporter.writer.node("Gather", [rows, x.rank == 3 ? places : tokens], [("axis", .int(0))])
      var products = try exporter.products(inputs, weight, op, columns: columns)
      if let shares {
        products = exporter.writer.node(
          "Mul", [products, exporter.writer.node("Gather", [shares, places], [("axis", .int(0))])])
      }
      let targets = exporter.writer.node(
        "Reshape", [shares == nil ? places : tokens, exporter.writer.integers([-1, 1])])
      result = exporter.writer.node(
        "ScatterND", [result, targets, products], shares == nil ? [] : [("reduction", .string("add"))])
    }
    if shares != nil { return [result] }
    return [try exporter.reshape(result, exporter.type(node.results[0]).shape.dims)]
  }
}

extension ONNXExporter {
  /// The weights of each expert: those that were stacked, so that each is an initializer of its own.
  fileprivate func experts(_ node: Node) throws -> [ValueID] {
    guard let stack = function.definingNode(of: node.inputs[1]), function[stack].op is Stack else {
      throw failure(node, "of weights that are no stack is not written as ONNX")
    }
    return function[stack].inputs
  }

  /// The results of one expert for some rows; `columns` of them.
  fileprivate mutating func products(
    _ rows: String, _ weight: ValueID, _ op: ExpertMatMul, columns: Int
  ) throws -> String {
    func product(_ weight: ValueID, _ exporter: inout ONNXExporter) throws -> String {
      exporter.writer.node("Gemm", [rows, try exporter.wide(weight)], [("transB", .int(1))])
    }
    func activated(_ sums: String, _ exporter: inout ONNXExporter) throws -> String {
      if op.activation == .none { return sums }
      return try exporter.apply(op.activation.expression(of: .input(0)), to: sums)
    }
    guard op.gated else { return try activated(product(weight, &self), &self) }
    if let node = function.definingNode(of: weight), function[node].op is Interleave, function[node].inputs.count == 2 {
      let parts = function[node].inputs
      return writer.node("Mul", [try activated(product(parts[0], &self), &self), try product(parts[1], &self)])
    }
    // Gates in even, others in odd columns.
    let pairs = try reshape(try product(weight, &self), [.fixed(-1), .fixed(columns), 2])
    func part(_ index: Int, _ exporter: inout ONNXExporter) -> String {
      exporter.writer.node("Gather", [pairs, exporter.writer.scalar(Float(index), .i64)], [("axis", .int(2))])
    }
    return writer.node("Mul", [try activated(part(0, &self), &self), part(1, &self)])
  }
}
