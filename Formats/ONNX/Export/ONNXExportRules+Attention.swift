import Base
import IR
import Tensors

extension ONNXExportRules {
  /// Cosines and sines, `[T, 2, W]`.
  static func ropeTable(_ exporter: inout ONNXExporter, _ node: Node, _ op: RopeTable) throws -> [String] {
    let first = exporter.cast(try exporter.name(node.inputs[0]), to: .i64)
    let rows = exporter.writer.node("Add", [try exporter.range(op.length), first])
    let column = exporter.writer.node("Unsqueeze", [exporter.cast(rows, to: .f32), exporter.writer.integers([1])])
    let angles = exporter.writer.node("Mul", [column, try exporter.wide(node.inputs[1])])
    let parts = ["Cos", "Sin"].map { function in
      exporter.writer.node("Unsqueeze", [exporter.writer.node(function, [angles]), exporter.writer.integers([1])])
    }
    return [exporter.writer.node("Concat", parts, [("axis", .int(1))])]
  }

  /// Pairs of each head turned by the angles of the table.
  static func rope(_ exporter: inout ONNXExporter, _ node: Node, _ op: Rope) throws -> [String] {
    let type = exporter.type(node.inputs[0])
    guard let columns = type.shape.last.fixedValue, let half = exporter.type(node.inputs[1]).shape[2].fixedValue else {
      throw exporter.failure(node, "of open width is not written as ONNX")
    }
    let outer = Array(type.shape.dims.dropLast())
    let heads = columns / op.headDim
    let parted = try exporter.reshape(
      try exporter.wide(node.inputs[0]), outer + [.fixed(heads), .fixed(op.headDim)])
    let table = try exporter.name(node.inputs[1])
    let axis = outer.count + 1
    func part(_ x: String, _ from: Int, _ to: Int, _ step: Int = 1) -> String {
      exporter.writer.node(
        "Slice", [x] + [[from], [to], [axis], [step]].map { exporter.writer.integers($0) })
    }
    // [T, 2, W] gives [T, 1, W], which broadcasts over heads.
    let (cos, sin) = (
      exporter.writer.node(
        "Slice", [table] + [[0], [1], [1]].map { exporter.writer.integers($0) }),
      exporter.writer.node(
        "Slice", [table] + [[1], [2], [1]].map { exporter.writer.integers($0) })
    )
    let (a, b) =
      op.interleaved
      ? (part(parted, 0, 2 * half, 2), part(parted, 1, 2 * half, 2))
      : (part(parted, 0, half), part(parted, half, 2 * half))
    func product(_ x: String, _ y: String) -> String { exporter.writer.node("Mul", [x, y]) }
    let left = exporter.writer.node("Sub", [product(a, cos), product(b, sin)])
    let right = exporter.writer.node("Add", [product(b, cos), product(a, sin)])
    var turned: String
    if op.interleaved {
      let pairs = [left, right].map {
        exporter.writer.node("Unsqueeze", [$0, exporter.writer.integers([axis + 1])])
      }
      turned = try exporter.reshape(
        exporter.writer.node("Concat", pairs, [("axis", .int(axis + 1))]),
        outer + [.fixed(heads), .fixed(2 * half)])
    } else {
      turned = exporter.writer.node("Concat", [left, right], [("axis", .int(axis))])
    }
    if 2 * half < op.headDim {
      let rest = part(parted, 2 * half, op.headDim)
      turned = exporter.writer.node("Concat", [turned, rest], [("axis", .int(axis))])
    }
    return [try exporter.reshape(turned, type.shape.dims)]
  }

  /// Scores, mask, softmax and the sum of values, by head: `[B, kvHeads, group, T, S]`.
  static func attention(_ exporter: inout ONNXExporter, _ node: Node, _ op: Attention) throws -> [String] {
    let types = node.inputs.map { exporter.type($0) }
    let query = types[0]
    guard op.recent == nil else {
      throw exporter.failure(node, "with the last keys and values apart is not written as ONNX")
    }
    guard op.angleBlock == nil else {
      throw exporter.failure(node, "with keys less their mean is not written as ONNX")
    }
    let optional = op.optionalInputs(types)
    guard let columns = query.shape.last.fixedValue, let values = types[2].shape.last.fixedValue else {
      throw exporter.failure(node, "of open width is not written as ONNX")
    }
    let batch: Dim = query.rank == 3 ? query.shape[0] : 1
    let rows = query.shape[query.rank - 2]
    let (group, width) = (op.heads / op.kvHeads, columns / op.heads)
    let valueWidth = values / op.kvHeads
    let grouped = group > 1
    let parted = try exporter.reshape(
      try exporter.wide(node.inputs[0]),
      [batch, rows, .fixed(op.kvHeads)] + (grouped ? [.fixed(group)] : []) + [.fixed(width)])
    let q = exporter.transpose(parted, grouped ? [0, 2, 3, 1, 4] : [0, 2, 1, 3])
    func byHead(_ value: ValueID) throws -> String {
      let x = try exporter.byHead(value, heads: op.kvHeads)
      return grouped ? exporter.writer.node("Unsqueeze", [x, exporter.writer.integers([2])]) : x
    }
    let (k, v) = (try byHead(node.inputs[1]), try byHead(node.inputs[2]))
    let turned = exporter.transpose(k, grouped ? [0, 1, 2, 4, 3] : [0, 1, 3, 2])
    var scores = exporter.writer.node("MatMul", [q, turned])
    scores = exporter.writer.node("Mul", [scores, exporter.writer.scalar(op.scale, .f32)])
    if let softcap = op.softcap {
      let cap = exporter.writer.scalar(softcap, .f32)
      scores = exporter.writer.node(
        "Mul", [exporter.writer.node("Tanh", [exporter.writer.node("Div", [scores, cap])]), cap])
    }
    var visible: String?
    if op.causal {
      let position = try optional.position.map { exporter.cast(try exporter.name(node.inputs[$0]), to: .i64) }
      visible = try exporter.causalMask(op, queries: rows, keys: k, position, axis: grouped ? 3 : 2)
    }
    if let index = optional.mask {
      let mask = try exporter.mask(node.inputs[index], op)
      if types[index].element == .bool {
        visible = visible.map { exporter.writer.node("And", [$0, mask]) } ?? mask
      } else {
        scores = exporter.writer.node("Add", [scores, mask])
      }
    }
    if let visible {
      // A large negative number instead of infinity, so that rows that see nothing stay numbers.
      scores = exporter.writer.node("Where", [visible, scores, exporter.writer.scalar(-1e30, .f32)])
    }
    var weights = exporter.writer.node("Softmax", [scores], [("axis", .int(-1))])
    if let visible, optional.mask != nil {
      weights = exporter.writer.node("Where", [visible, weights, exporter.writer.scalar(0, .f32)])
    }
    let sums = exporter.writer.node("MatMul", [weights, v])
    let ordered = exporter.transpose(sums, grouped ? [0, 3, 1, 2, 4] : [0, 2, 1, 3])
    let result = exporter.type(node.results[0]).shape.dims
    precondition(result.last == .fixed(op.heads * valueWidth), "one value column per head and width")
    return [try exporter.reshape(ordered, result)]
  }
}

extension ONNXExporter {
  /// Which keys each query sees, `bool[T, S]`; `keys` has its rows on axis `axis`.
  mutating func causalMask(
    _ op: Attention, queries rows: Dim, keys: String, _ position: String?, axis: Int
  ) throws -> String {
    let count = writer.node(
      "Gather", [writer.node("Shape", [keys]), writer.integers([axis])], [("axis", .int(0))])
    let end = writer.node("Squeeze", [count, writer.integers([0])])
    let columns = writer.node("Range", [writer.scalar(0, .i64), end, writer.scalar(1, .i64)])
    let first: String
    if let position {
      first = position
    } else {
      first = writer.node("Sub", [count, try size(rows)])
    }
    let places = writer.node("Add", [try range(rows), first])
    let column = writer.node("Unsqueeze", [places, writer.integers([1])])
    var visible = writer.node("LessOrEqual", [columns, column])
    if let window = op.window {
      let oldest = writer.node("Sub", [column, writer.scalar(Float(window), .i64)])
      visible = writer.node("And", [visible, writer.node("Greater", [columns, oldest])])
    }
    return visible
  }

  /// A mask that broadcasts to `[B, heads, T, S]`, for scores with an axis for groups of heads if there are any.
  mutating func mask(_ value: ValueID, _ op: Attention) throws -> String {
    let name = type(value).element == .bool ? try name(value) : try wide(value)
    let shape = type(value).shape
    guard op.heads > op.kvHeads, shape.rank >= 3 else { return name }
    let heads = shape[shape.rank - 3]
    let dims = shape.dims
    let split: [Dim] = heads == 1 ? [1, 1] : [.fixed(op.kvHeads), .fixed(op.heads / op.kvHeads)]
    return try reshape(name, Array(dims.dropLast(3)) + split + Array(dims.suffix(2)))
  }
}
