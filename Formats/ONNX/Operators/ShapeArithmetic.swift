import Base
import IR
import Tensors

extension ONNXOperators {
  /// Operators on shapes, and those whose results have shapes that are computed.
  static let shapeArithmetic: [ONNXOperator] = [
    ONNXOperator("Shape") { node, importer in
      let dims = try node.inputType(0, &importer).shape.dims
      func place(_ index: Int) -> Int { min(max(index < 0 ? index + dims.count : index, 0), dims.count) }
      let start = place(try node.integer("start", default: 0))
      let end = place(try node.integer("end", default: dims.count))
      return [try importer.constant("shape", sizes: Array(dims[start..<max(start, end)]))]
    },
    ONNXOperator("Size") { node, importer in
      let shape = try node.inputType(0, &importer).shape
      guard let count = Shape.product(shape.dims) else {
        throw CompileError(.unsupported, "unsupported 'Size' of shape \(shape)")
      }
      return [try importer.builder.emit(Reshape([]), importer.constant("size", sizes: [count]))]
    },
    ONNXOperator("ConstantOfShape") { node, importer in
      guard let shape = try node.sizeInput(0, &importer) else {
        throw CompileError(.input, "'ConstantOfShape' has no shape")
      }
      try checkShape(shape, node.type)
      let value: ValueID
      if let tensor = try node.tensor("value") {
        value = try importer.builder.emit(Reshape([]), importer.value(of: tensor, name: "value"))
      } else {
        value = importer.builder.constant(.inline("value", .f32, [], [Float(0)]))
      }
      return [try importer.broadcast(value, to: shape)]
    },
    ONNXOperator("Expand") { node, importer in
      let x = try node.input(0, &importer)
      guard let target = try node.sizeInput(1, &importer) else {
        throw CompileError(.input, "'Expand' has no shape")
      }
      try checkShape(target, node.type)
      let shape = importer.builder.type(of: x).shape
      guard let result = Shape.broadcast(shape, Shape(target)) else {
        throw CompileError(.input, "'Expand' of shape \(shape) to \(Shape(target))")
      }
      return [try importer.broadcast(x, to: result.dims)]
    },
    ONNXOperator("Tile") { node, importer in
      let x = try node.input(0, &importer)
      let dims = importer.builder.type(of: x).shape.dims
      guard let repeats = try node.integerInput(1, &importer), repeats.count == dims.count,
        repeats.allSatisfy({ (1...1 << 20).contains($0) }), dims.count <= 8
      else { throw CompileError(.unsupported, "unsupported 'Tile' of shape \(Shape(dims))") }
      let apart = try importer.builder.emit(Reshape(dims.flatMap { [1, $0] }), x)
      let repeated = try importer.broadcast(apart, to: zip(repeats, dims).flatMap { [.fixed($0), $1] })
      let result = zip(repeats, dims).map { $1 * $0 }
      try checkShape(result, node.type)
      return [try importer.builder.emit(Reshape(result), repeated)]
    },
    ONNXOperator("Range") { node, importer in
      node.ignore("stash_type")
      let operands = try (0..<3).map { try node.input($0, &importer) }
      if importer.builder.type(of: operands[0]).element == .f32 {
        return [try numbers(from: operands, &importer)]
      }
      let known = operands.map { importer.sizes(of: $0) }
      let element = importer.builder.type(of: operands[0]).element
      guard operands.allSatisfy({ importer.builder.type(of: $0).element == element }),
        element == .i64 || element == .i32,
        let start = known[0]?.first, let limit = known[1]?.first, let step = known[2]?.first?.fixedValue, step != 0,
        step.magnitude <= 1 << 40
      else { throw CompileError(.unsupported, "unsupported 'Range' that is not of known numbers") }
      let room = step > 0 ? limit - start : start - limit
      let size = (room + .fixed(abs(step) - 1)) / abs(step)
      guard size.bounds.upperBound <= 1 << 32 else {
        throw CompileError(.unsupported, "unsupported 'Range' of \(size) numbers")
      }
      if let count = size.fixedValue, count <= Constant.inlineLimit, let first = start.fixedValue, element == .i64 {
        return [importer.constant("range", integers: (0..<max(count, 0)).map { first + $0 * step })]
      }
      guard size.bounds.lowerBound >= 0 else {
        throw CompileError(.unsupported, "unsupported 'Range' of \(size) numbers")
      }
      var result = try importer.builder.emit(Iota(size), [])
      if step != 1 { result = try importer.builder.emit(Multiply(), result, importer.scalar(Int64(step))) }
      if start != 0 {
        let first = element == .i64 ? operands[0] : try importer.builder.emit(Cast(.i64), operands[0])
        result = try importer.builder.emit(Add(), result, first)
      }
      return [element == .i64 ? result : try importer.builder.emit(Cast(element), result)]
    },
    ONNXOperator("Slice") { node, importer in
      let x = try node.input(0, &importer)
      let starts: [Dim]?, ends: [Dim]?, axes: [Int]?, steps: [Int]?
      if importer.opset < 10 {
        starts = try node.integers("starts")?.map { .fixed($0) }
        ends = try node.integers("ends")?.map { .fixed($0) }
        (axes, steps) = (try node.integers("axes"), nil)
      } else {
        (starts, ends) = (try node.sizeInput(1, &importer), try node.sizeInput(2, &importer))
        (axes, steps) = (try node.integerInput(3, &importer), try node.integerInput(4, &importer))
      }
      guard let starts, let ends, starts.count == ends.count, axes?.count ?? starts.count == starts.count,
        steps?.count ?? starts.count == starts.count
      else { throw CompileError(.input, "'Slice' has lists of different lengths, or none") }
      var result = x
      for index in starts.indices {
        let axis = try normalized(axes?[index] ?? index, importer.builder.type(of: x).rank, "Slice")
        result = try importer.slice(
          result, axis: axis, from: starts[index], to: ends[index], step: steps?[index] ?? 1)
      }
      return [result]
    },
    // data[..., indices[i, j, k], ...] with the indices' own places along the other axes: rows of the flat tensor.
    ONNXOperator("GatherElements") { node, importer in
      let data = try node.input(0, &importer), indices = try node.input(1, &importer)
      let axis = try normalized(
        node.integer("axis", default: 0), importer.builder.type(of: data).rank, "GatherElements")
      return [try importer.elements(of: data, at: indices, axis: axis)]
    },
  ]

  /// `start + i * step` below, or for negative steps above, a limit, of three constants.
  private static func numbers(from operands: [ValueID], _ importer: inout ONNXImporter) throws -> ValueID {
    let known = try operands.compactMap { try importer.number(of: $0) }
    guard known.count == 3, known.allSatisfy(\.isFinite), known[2] != 0,
      case let count = ((Double(known[1]) - Double(known[0])) / Double(known[2])).rounded(.up), count <= 0x1p24
    else { throw CompileError(.unsupported, "unsupported 'Range' that is not of known numbers") }
    let places = try importer.builder.emit(
      Cast(.f32), importer.builder.emit(Iota(.fixed(Int(max(0, count)))), []))
    let expression = ScalarExpression.binary(
      .add, .number(known[0]), .binary(.multiply, .input(0), .number(known[2])))
    return try importer.builder.emit(FusedElementwise(expression), places)
  }

  /// Throws unless all sizes are such.
  private static func checkShape(_ shape: [Dim], _ type: String) throws {
    guard shape.count <= 16, shape.allSatisfy({ $0.bounds.lowerBound >= 0 && $0.maximum <= 1 << 40 }) else {
      throw CompileError(.input, "'\(type)' to the shape \(Shape(shape))")
    }
  }
}

extension ONNXImporter {
  /// A list of sizes: a constant, where they are numbers.
  fileprivate mutating func constant(_ name: String, sizes: [Dim]) throws -> ValueID {
    let numbers = sizes.compactMap(\.fixedValue)
    if numbers.count == sizes.count { return constant(name, integers: numbers) }
    return try builder.emit(Sizes(sizes))
  }

  /// A value broadcast to a shape; of a constant of one number the number in that shape.
  fileprivate mutating func broadcast(_ value: ValueID, to shape: [Dim]) throws -> ValueID {
    if builder.type(of: value).shape == Shape(shape) { return value }
    return try builder.emit(Expand(shape), value)
  }

  /// ONNX `Slice` along one axis: negative places count from the end, places outside are moved to the ends.
  fileprivate mutating func slice(
    _ x: ValueID, axis: Int, from start: Dim, to end: Dim, step: Int
  ) throws -> ValueID {
    let size = builder.type(of: x).shape[axis]
    func failure() -> CompileError {
      CompileError(.unsupported, "unsupported 'Slice' of \(size) elements from \(start) to \(end) in steps of \(step)")
    }
    if step < 0 {
      guard let count = size.fixedValue, let first = start.fixedValue, let last = end.fixedValue, step > -1 << 31 else {
        throw failure()
      }
      let from = min(first < 0 ? first + count : first, count - 1)
      let to = max(last < 0 ? last &+ count : last, -1)
      let places = to < from ? Array(Swift.stride(from: from, to: last < -count ? -1 : to, by: step)) : []
      guard places.count <= Constant.inlineLimit else { throw failure() }
      return try builder.emit(Gather(axis: axis), x, constant("places", integers: places))
    }
    guard step > 0, let from = clamped(start, size), let to = clamped(end, size) else { throw failure() }
    let length = to - from
    if length.bounds.upperBound <= 0 { return try builder.emit(Slice(axis: axis, start: 0, size: 0), x) }
    guard length.bounds.lowerBound >= 0 else { throw failure() }
    if from == 0, to == size, step == 1 { return x }
    return try builder.emit(
      Slice(axis: axis, start: from, size: step == 1 ? length : (length + .fixed(step - 1)) / step, step: step), x)
  }

  /// A place in 0...size; nil where that depends on symbols.
  private func clamped(_ place: Dim, _ size: Dim) -> Dim? {
    if let number = place.fixedValue {
      // Any number beyond what sizes reach means the end.
      if number <= -1 << 40 { return 0 }
      if number >= 1 << 40 { return size }
    }
    let absolute: Dim
    if place.bounds.lowerBound >= 0 {
      absolute = place
    } else if place.bounds.upperBound < 0 {
      absolute = size + place
    } else {
      return nil
    }
    if (size - absolute).bounds.upperBound <= 0 { return size }
    if absolute.bounds.upperBound <= 0 { return 0 }
    guard absolute.bounds.lowerBound >= 0, (size - absolute).bounds.lowerBound >= 0 else { return nil }
    return absolute
  }
}
