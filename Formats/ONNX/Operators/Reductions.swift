import Base
import IR
import Tensors

extension ONNXOperators {
  /// Reductions over axes.
  static let reductions: [ONNXOperator] = [
    reduction("ReduceSum", .sum, axesInputSince: 13), reduction("ReduceMean", .mean, axesInputSince: 18),
    reduction("ReduceMax", .max, axesInputSince: 18), reduction("ReduceMin", .min, axesInputSince: 18),
    reduction("ReduceProd", .product, axesInputSince: 18),
  ]

  private static func reduction(_ type: String, _ function: Reduce.Function, axesInputSince: Int) -> ONNXOperator {
    ONNXOperator(type) { node, importer in
      let x = try node.input(0, &importer)
      let shape = importer.builder.type(of: x).shape
      let keeps = try node.integer("keepdims", default: 1) != 0
      let skips = try node.integer("noop_with_empty_axes", default: 0) != 0
      let given = importer.opset >= axesInputSince ? try node.integerInput(1, &importer) : try node.integers("axes")
      if (given ?? []).isEmpty && skips { return [x] }
      let axes = try (given.flatMap { $0.isEmpty ? nil : $0 } ?? Array(0..<shape.rank)).map { axis -> Int in
        guard let place = shape.normalizedAxis(axis) else {
          throw CompileError(.input, "'\(type)' over axis \(axis) of shape \(shape)")
        }
        return place
      }
      return [try importer.builder.emit(Reduce(function, axes: axes.sorted(), keepDims: keeps), x)]
    }
  }
}
