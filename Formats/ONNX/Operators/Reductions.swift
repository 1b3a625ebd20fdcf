import Base
import IR
import Tensors

extension ONNXOperators {
  /// Reductions over axes.
  static let reductions: [ONNXOperator] = [
    reduction("ReduceSum", .sum, axesInputSince: 13), reduction("ReduceMean", .mean, axesInputSince: 18),
    reduction("ReduceMax", .max, axesInputSince: 18), reduction("ReduceMin", .min, axesInputSince: 18),
    reduction("ReduceProd", .product, axesInputSince: 18),
    reduction("ReduceL1", .sum, axesInputSince: 18, before: .unary(.abs, .input(0))),
    reduction("ReduceL2", .sum, axesInputSince: 18, before: square, after: .unary(.sqrt, .input(0))),
    reduction("ReduceSumSquare", .sum, axesInputSince: 18, before: square),
    reduction("ReduceLogSum", .sum, axesInputSince: 18, after: .unary(.log, .input(0))),
    // The largest number is taken out of the exponentials.
    ONNXOperator("ReduceLogSumExp") { node, importer in
      let x = try node.input(0, &importer)
      guard let axes = try axes(&node, &importer, axesInputSince: 18) else { return [x] }
      let keeps = try node.integer("keepdims", default: 1) != 0
      let finite = ScalarExpression.clamp(
        .input(0), -.greatestFiniteMagnitude, .greatestFiniteMagnitude)
      let most = try importer.builder.emit(
        FusedElementwise(finite), importer.builder.emit(Reduce(.max, axes: axes, keepDims: true), x))
      let parts = try importer.builder.emit(
        FusedElementwise(.unary(.exp, .binary(.subtract, .input(0), .input(1)))), x, most)
      let sum = try importer.builder.emit(Reduce(.sum, axes: axes, keepDims: true), parts)
      let result = try importer.builder.emit(
        FusedElementwise(.binary(.add, .unary(.log, .input(0)), .input(1))), sum, most)
      if keeps { return [result] }
      let dims = importer.builder.type(of: x).shape.dims
      return [
        try importer.builder.emit(Reshape(dims.indices.filter { !axes.contains($0) }.map { dims[$0] }), result)
      ]
    },
  ]

  private static let square = ScalarExpression.binary(.multiply, .input(0), .input(0))

  /// The axes of a reduction from the front; nil if it does nothing.
  private static func axes(
    _ node: inout ONNXNode, _ importer: inout ONNXImporter, axesInputSince: Int
  ) throws -> [Int]? {
    let shape = try node.inputType(0, &importer).shape
    let skips = try node.integer("noop_with_empty_axes", default: 0) != 0
    let given = importer.opset >= axesInputSince ? try node.integerInput(1, &importer) : try node.integers("axes")
    if (given ?? []).isEmpty && skips { return nil }
    return try (given.flatMap { $0.isEmpty ? nil : $0 } ?? Array(0..<shape.rank)).map { axis -> Int in
      guard let place = shape.normalizedAxis(axis) else {
        throw CompileError(.input, "'\(node.type)' over axis \(axis) of shape \(shape)")
      }
      return place
    }.sorted()
  }

  private static func reduction(
    _ type: String, _ function: Reduce.Function, axesInputSince: Int, before: ScalarExpression? = nil,
    after: ScalarExpression? = nil
  ) -> ONNXOperator {
    ONNXOperator(type) { node, importer in
      var x = try node.input(0, &importer)
      let keeps = try node.integer("keepdims", default: 1) != 0
      let axes = try axes(&node, &importer, axesInputSince: axesInputSince)
      if let before { x = try importer.builder.emit(FusedElementwise(before), x) }
      // Without axes there is nothing to reduce, but functions apply.
      var y = x
      let rank = importer.builder.type(of: x).rank
      if let axes, rank > 0 {
        // Truth values are 0 and 1.
        let isTruth = importer.builder.type(of: x).element == .bool
        if isTruth { x = try importer.builder.emit(Cast(.i32), x) }
        y = try importer.builder.emit(Reduce(function, axes: axes, keepDims: keeps), x)
        if isTruth { y = try importer.builder.emit(Cast(.bool), y) }
      }
      if let after { y = try importer.builder.emit(FusedElementwise(after), y) }
      return [y]
    }
  }
}
