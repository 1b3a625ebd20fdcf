import Base
import IR
import Tensors

extension ONNXOperators {
  /// Operators that move numbers without computing.
  static let shapes: [ONNXOperator] = [
    ONNXOperator("Reshape") { node, importer in
      let x = try node.input(0, &importer)
      guard let target = try node.sizeInput(1, &importer) else {
        throw CompileError(.input, "'Reshape' has no shape")
      }
      let keepsZero = try node.integer("allowzero", default: 0) != 0
      let shape = try importer.builder.type(of: x).shape.reshaped(target, zeroKeeps: !keepsZero)
      return [try importer.builder.emit(Reshape(shape), x)]
    },
    ONNXOperator("Flatten") { node, importer in
      let x = try node.input(0, &importer)
      let shape = importer.builder.type(of: x).shape
      let axis = try node.integer("axis", default: 1)
      let place = axis < 0 ? axis + shape.rank : axis
      guard (0...shape.rank).contains(place), let rows = Shape.product(Array(shape.dims[..<place])),
        let columns = Shape.product(Array(shape.dims[place...]))
      else { throw CompileError(.unsupported, "unsupported 'Flatten' at axis \(axis) of shape \(shape)") }
      return [try importer.builder.emit(Reshape([rows, columns]), x)]
    },
    ONNXOperator("Transpose") { node, importer in
      let x = try node.input(0, &importer)
      let rank = importer.builder.type(of: x).rank
      let permutation = try node.integers("perm") ?? Array((0..<rank).reversed())
      return [try importer.builder.emit(Transpose(permutation), x)]
    },
    ONNXOperator("Squeeze") { node, importer in
      let x = try node.input(0, &importer)
      let shape = importer.builder.type(of: x).shape
      let given = importer.opset >= 13 ? try node.integerInput(1, &importer) : try node.integers("axes")
      guard given != nil || shape.dims.allSatisfy({ $0.isFixed || !$0.bounds.contains(1) }) else {
        throw CompileError(.unsupported, "unsupported 'Squeeze' of shape \(shape) without axes")
      }
      let axes =
        try given?.map { try normalized($0, shape.rank, "Squeeze") }
        ?? shape.dims.indices.filter { shape[$0] == 1 }
      guard axes.allSatisfy({ shape[$0] == 1 }) else {
        throw CompileError(.input, "'Squeeze' of axes \(axes) of shape \(shape), which are not all 1")
      }
      let rest = shape.dims.indices.filter { !axes.contains($0) }.map { shape[$0] }
      return [try importer.builder.emit(Reshape(rest), x)]
    },
    ONNXOperator("Unsqueeze") { node, importer in
      let x = try node.input(0, &importer)
      var dims = importer.builder.type(of: x).shape.dims
      guard let given = importer.opset >= 13 ? try node.integerInput(1, &importer) : try node.integers("axes"),
        given.count <= 16
      else { throw CompileError(.input, "'Unsqueeze' has no axes") }
      let axes = try given.map { try normalized($0, dims.count + given.count, "Unsqueeze") }
      guard Set(axes).count == axes.count else { throw CompileError(.input, "'Unsqueeze' names an axis twice") }
      for axis in axes.sorted() { dims.insert(1, at: axis) }
      return [try importer.builder.emit(Reshape(dims), x)]
    },
    ONNXOperator("Concat") { node, importer in
      let inputs = try node.inputs(&importer)
      guard let first = inputs.first else { throw CompileError(.input, "'Concat' has no inputs") }
      let axis = try normalized(
        node.integer("axis", default: 0), importer.builder.type(of: first).rank, "Concat")
      return [try importer.builder.emit(Concat(axis: axis), inputs)]
    },
    ONNXOperator("Split") { node, importer in
      let x = try node.input(0, &importer)
      let shape = importer.builder.type(of: x).shape
      let axis = try normalized(node.integer("axis", default: 0), shape.rank, "Split")
      let given = importer.opset >= 13 ? try node.integerInput(1, &importer) : try node.integers("split")
      let count = try node.integer("num_outputs", default: node.proto.output.count)
      guard let size = shape[axis].fixedValue, count > 0, count <= max(size, 1) else {
        throw CompileError(.unsupported, "unsupported 'Split' of axis \(axis) of shape \(shape) into \(count)")
      }
      let chunk = (size + count - 1) / count
      let sizes = given ?? (0..<count).map { min(chunk, size - $0 * chunk) }
      guard sizes.allSatisfy({ $0 >= 0 && $0 <= size }), sizes.reduce(0, +) == size else {
        throw CompileError(.input, "'Split' of \(size) into \(sizes)")
      }
      var start = 0
      return try sizes.map { part in
        defer { start += part }
        return try importer.builder.emit(Slice(axis: axis, start: .fixed(start), size: .fixed(part)), x)
      }
    },
    ONNXOperator("Pad") { node, importer in
      let x = try node.input(0, &importer)
      let rank = importer.builder.type(of: x).rank
      let mode = try node.string("mode", default: "constant")
      var value: Float = 0
      var pads: [Int]?
      if importer.opset < 11 {
        pads = try node.integers("pads")
        value = try node.number("value", default: 0)
      } else {
        pads = try node.integerInput(1, &importer)
        if let input = try node.optionalInput(2, &importer) {
          guard let number = try importer.number(of: input) else {
            throw CompileError(.unsupported, "unsupported 'Pad' with a value that is computed at run time")
          }
          value = number
        }
        if let axes = try node.integerInput(3, &importer), let given = pads, given.count == 2 * axes.count {
          var all = [Int](repeating: 0, count: 2 * rank)
          for (index, axis) in axes.enumerated() {
            let place = try normalized(axis, rank, "Pad")
            (all[place], all[place + rank]) = (given[index], given[index + axes.count])
          }
          pads = all
        }
      }
      guard let pads, pads.count == 2 * rank, pads.allSatisfy({ $0.magnitude <= 1 << 31 }) else {
        throw CompileError(.input, "'Pad' of \(rank) axes by \(pads ?? [])")
      }
      var result = x
      // Negative numbers cut off.
      for axis in 0..<rank where pads[axis] < 0 || pads[axis + rank] < 0 {
        let (before, after) = (max(0, -pads[axis]), max(0, -pads[axis + rank]))
        let size = importer.builder.type(of: result).shape[axis] - .fixed(before + after)
        guard size.bounds.lowerBound >= 0 else { throw CompileError(.input, "'Pad' by \(pads) leaves nothing") }
        result = try importer.builder.emit(Slice(axis: axis, start: .fixed(before), size: size), result)
      }
      let (before, after) = (pads[..<rank].map { max(0, $0) }, pads[rank...].map { max(0, $0) })
      guard mode != "constant" else {
        return [try importer.builder.emit(Pad(before: before, after: after, value: value), result)]
      }
      for axis in 0..<rank where before[axis] + after[axis] > 0 {
        guard let size = importer.builder.type(of: result).shape[axis].fixedValue, size > 0,
          before[axis] + after[axis] + size <= 4096
        else {
          throw CompileError(
            .unsupported, "unsupported 'Pad' in the mode '\(mode)' of shape \(importer.builder.type(of: x).shape)")
        }
        let places = try (-before[axis]..<size + after[axis]).map { place -> Int in
          switch mode {
          case "edge": return min(max(place, 0), size - 1)
          case "wrap": return (place % size + size) % size
          case "reflect":
            let period = max(2 * (size - 1), 1)
            let inside = (place % period + period) % period
            return min(inside, period - inside) % max(size, 1)
          default: throw CompileError(.input, "'Pad' has the mode '\(mode)'")
          }
        }
        result = try importer.builder.taking(result, places, axis: axis)
      }
      return [result]
    },
    ONNXOperator("Gather") { node, importer in
      let data = try node.input(0, &importer)
      let axis = try normalized(
        node.integer("axis", default: 0), importer.builder.type(of: data).rank, "Gather")
      return [try importer.builder.emit(Gather(axis: axis), data, node.input(1, &importer))]
    },
  ]

  /// The axis counted from the front.
  static func normalized(_ axis: Int, _ rank: Int, _ type: String) throws -> Int {
    guard axis >= -rank, axis < rank else {
      throw CompileError(.input, "'\(type)' at axis \(axis) of \(rank) axes")
    }
    return axis < 0 ? axis + rank : axis
  }
}

extension Shape {
  /// The shape that ONNX `Reshape` gives: one size may be -1, and 0 stands for the size at the same place.
  func reshaped(_ target: [Dim], zeroKeeps: Bool) throws -> [Dim] {
    func failure() -> CompileError { CompileError(.input, "'Reshape' of shape \(self) to \(Shape(target))") }
    guard target.count <= 16, target.allSatisfy({ $0 == -1 || $0.bounds.lowerBound >= 0 && $0.maximum <= 1 << 40 }),
      target.count(where: { $0 == -1 }) <= 1
    else { throw failure() }
    var dims: [Dim] = []
    for (axis, size) in target.enumerated() {
      if size == 0 && zeroKeeps {
        guard axis < rank else { throw failure() }
        dims.append(self[axis])
      } else {
        dims.append(size == -1 ? 1 : size)
      }
    }
    guard let open = target.firstIndex(of: -1) else { return dims }
    // Equal sizes on both sides are struck out, so that at most one symbolic size need remain.
    var rest = self.dims
    var known: [Dim] = []
    for (axis, dim) in dims.enumerated() where axis != open {
      if let index = rest.firstIndex(of: dim), dim != 0 { rest.remove(at: index) } else { known.append(dim) }
    }
    guard let total = Self.product(rest), let divisor = Self.product(known) else { throw failure() }
    guard let quotient = Dim.exactQuotient(total, divisor) else { throw failure() }
    dims[open] = quotient
    return dims
  }
}
