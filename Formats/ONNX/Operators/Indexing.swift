import Base
import IR
import Tensors

extension ONNXOperators {
  /// Operators on places: triangles, largest elements, one-hot rows, blocks of pixels.
  static let indexing: [ONNXOperator] = [
    ONNXOperator("Trilu") { node, importer in
      let x = try node.input(0, &importer)
      let shape = importer.builder.type(of: x).shape
      let upper = try node.integer("upper", default: 1) != 0
      let k = try node.integerInput(1, &importer)?.first ?? 0
      guard shape.rank >= 2, k.magnitude <= 1 << 40 else {
        throw CompileError(.input, "'Trilu' of shape \(shape), \(k) above the diagonal")
      }
      let lines = try importer.builder.places(shape[shape.rank - 2], axis: 0, rank: 2)
      let columns = try importer.builder.emit(Iota(shape.last), [])
      let limit = try importer.builder.emit(Add(), lines, importer.scalar(Int64(k)))
      let keeps = try importer.builder.emit(upper ? GreaterOrEqual() : LessOrEqual(), columns, limit)
      return [try importer.builder.emit(Select(), keeps, x, importer.zero(importer.builder.type(of: x).element))]
    },
    ONNXOperator("ArgMax") { node, importer in try [argument(.max, &node, &importer)] },
    ONNXOperator("ArgMin") { node, importer in try [argument(.min, &node, &importer)] },
    // 1 at the first largest element along an axis, before operator set 13 over all axes from that on.
    ONNXOperator("Hardmax") { node, importer in
      var x = try node.input(0, &importer)
      let shape = importer.builder.type(of: x).shape
      var axis = try normalized(
        node.integer("axis", default: importer.opset < 13 ? 1 : -1), shape.rank, "Hardmax")
      if importer.opset < 13 {
        guard let rows = Shape.product(Array(shape.dims[..<axis])),
          let columns = Shape.product(Array(shape.dims[axis...]))
        else { throw CompileError(.unsupported, "unsupported 'Hardmax' of shape \(shape)") }
        x = try importer.builder.emit(Reshape([rows, columns]), x)
        axis = 1
      }
      let type = importer.builder.type(of: x)
      let place = try importer.place(.max, x, axis: axis, last: false)
      let places = try importer.builder.places(type.shape[axis], axis: axis, rank: type.rank)
      let isPlace = try importer.builder.emit(Equal(), importer.builder.emit(Cast(.f32), places), place)
      let y = try importer.builder.emit(Cast(type.element), isPlace)
      return [try importer.builder.emit(Reshape(shape.dims), y)]
    },
    // values[1] at the place of the index along a new axis, values[0] elsewhere; indices may count from the end.
    ONNXOperator("OneHot") { node, importer in
      let indices = try node.input(0, &importer)
      let shape = importer.builder.type(of: indices).shape
      guard let depth = try node.wholeInput(1, &importer)?.first, (1...1 << 24).contains(depth) else {
        throw CompileError(.unsupported, "unsupported depth of 'OneHot'")
      }
      let values = try node.input(2, &importer)
      guard importer.builder.type(of: values).shape == [2] else {
        throw CompileError(.input, "'OneHot' with values of type \(importer.builder.type(of: values))")
      }
      let axis = try normalized(node.integer("axis", default: -1), shape.rank + 1, "OneHot")
      var wide = shape.dims
      wide.insert(1, at: axis)
      let whole = try importer.builder.emit(Cast(.i64), importer.builder.emit(Reshape(wide), indices))
      // Indices outside have no place.
      let isInside = try importer.builder.emit(
        And(), importer.builder.emit(GreaterOrEqual(), whole, importer.scalar(Int64(-depth))),
        importer.builder.emit(Less(), whole, importer.scalar(Int64(depth))))
      let wrapped = try importer.builder.emit(Modulo(), whole, importer.scalar(Int64(depth)))
      let places = try importer.builder.places(.fixed(depth), axis: axis, rank: shape.rank + 1)
      let isPlace = try importer.builder.emit(
        And(), isInside, importer.builder.emit(Equal(), wrapped, places))
      func value(_ index: Int) throws -> ValueID {
        let part = try importer.builder.emit(Slice(axis: 0, start: .fixed(index), size: 1), values)
        return try importer.builder.emit(Reshape([]), part)
      }
      return [try importer.builder.emit(Select(), isPlace, value(1), value(0))]
    },
    ONNXOperator("SpaceToDepth") { node, importer in
      let block = try node.integer("blocksize", default: 0)
      let mode = try node.string("mode", default: "DCR")
      let x = try node.input(0, &importer)
      let shape = importer.builder.type(of: x).shape
      guard shape.rank == 4, (1...1 << 10).contains(block), mode == "DCR" || mode == "CRD",
        let height = Dim.exactQuotient(shape[2], .fixed(block)),
        let width = Dim.exactQuotient(shape[3], .fixed(block))
      else { throw CompileError(.input, "'SpaceToDepth' of shape \(shape) in blocks of \(block)") }
      let b = Dim.fixed(block)
      let apart = try importer.builder.emit(Reshape([shape[0], shape[1], height, b, width, b]), x)
      let turned = try importer.builder.emit(
        Transpose(mode == "DCR" ? [0, 3, 5, 1, 2, 4] : [0, 1, 3, 5, 2, 4]), apart)
      return [try importer.builder.emit(Reshape([shape[0], shape[1] * (block * block), height, width]), turned)]
    },
    ONNXOperator("DepthToSpace") { node, importer in
      let block = try node.integer("blocksize", default: 0)
      let mode = try node.string("mode", default: "DCR")
      let x = try node.input(0, &importer)
      let shape = importer.builder.type(of: x).shape
      guard shape.rank == 4, (1...1 << 10).contains(block), mode == "DCR" || mode == "CRD",
        let depth = Dim.exactQuotient(shape[1], .fixed(block * block))
      else { throw CompileError(.input, "'DepthToSpace' of shape \(shape) in blocks of \(block)") }
      let b = Dim.fixed(block), (n, h, w) = (shape[0], shape[2], shape[3])
      let apart = try importer.builder.emit(
        Reshape(mode == "DCR" ? [n, b, b, depth, h, w] : [n, depth, b, b, h, w]), x)
      let turned = try importer.builder.emit(
        Transpose(mode == "DCR" ? [0, 3, 4, 1, 5, 2] : [0, 1, 4, 2, 5, 3]), apart)
      return [try importer.builder.emit(Reshape([n, depth, h * block, w * block]), turned)]
    },
    // The identity matrix of the shape of the input, k above the diagonal.
    ONNXOperator("EyeLike") { node, importer in
      let type = try node.inputType(0, &importer)
      let k = try node.integer("k", default: 0)
      let element =
        try node.has("dtype")
        ? DType.onnx(Int32(clamping: node.integer("dtype", default: 1)), of: "'EyeLike'") : type.element
      guard type.rank == 2, k.magnitude <= 1 << 40 else { throw CompileError(.input, "'EyeLike' of type \(type)") }
      let rows = try importer.builder.places(type.shape[0], axis: 0, rank: 2)
      let moved = try importer.builder.emit(Add(), rows, importer.scalar(Int64(k)))
      let isOne = try importer.builder.emit(Equal(), importer.builder.emit(Iota(type.shape[1]), []), moved)
      return [element == .bool ? isOne : try importer.builder.emit(Cast(element), isOne)]
    },
    // data[i..., j...] for tuples of indices along the last axis of `indices`: rows of the flat tensor.
    ONNXOperator("GatherND") { node, importer in
      let data = try node.input(0, &importer)
      let batch = try node.integer("batch_dims", default: 0)
      let rows = try importer.rows(of: data, at: node.input(1, &importer), batch: batch, node.type)
      let flat = try importer.builder.emit(Reshape([.fixed(rows.count)] + rows.rest), data)
      return [try importer.builder.emit(Gather(axis: 0), flat, rows.places)]
    },
    // The data with the rows at tuples of indices replaced or changed.
    ONNXOperator("ScatterND") { node, importer in
      let data = try node.input(0, &importer)
      let shape = importer.builder.type(of: data).shape
      let rows = try importer.rows(of: data, at: node.input(1, &importer), batch: 0, node.type)
      guard let width = Shape.product(rows.rest),
        let count = Shape.product(importer.builder.type(of: rows.places).shape.dims)
      else { throw CompileError(.unsupported, "unsupported 'ScatterND' of shape \(shape)") }
      let operands = [
        try importer.builder.emit(Reshape([.fixed(rows.count), width]), data),
        try importer.builder.emit(Reshape([count]), rows.places),
        try importer.builder.emit(Reshape([count, width]), node.input(2, &importer)),
      ]
      let y = try importer.builder.emit(ScatterRows(reduction(&node)), operands)
      return [try importer.builder.emit(Reshape(shape.dims), y)]
    },
    ONNXOperator("ScatterElements") { node, importer in [try scatterElements(&node, &importer)] },
    ONNXOperator("Scatter") { node, importer in [try scatterElements(&node, &importer)] },
    ONNXOperator("CumSum") { node, importer in
      let x = try node.input(0, &importer)
      guard let axis = try node.integerInput(1, &importer)?.first else {
        throw CompileError(.input, "'CumSum' has no axis")
      }
      let op = CumulativeSum(
        axis: try normalized(axis, importer.builder.type(of: x).rank, "CumSum"),
        exclusive: try node.integer("exclusive", default: 0) != 0,
        backward: try node.integer("reverse", default: 0) != 0)
      return [try importer.builder.emit(op, x)]
    },
    // Values and places; "sorted" is what they are in any case.
    ONNXOperator("TopK") { node, importer in
      node.ignore("sorted")
      let x = try node.input(0, &importer)
      let shape = importer.builder.type(of: x).shape
      let axis = try normalized(node.integer("axis", default: -1), shape.rank, "TopK")
      let given = importer.opset < 10 ? [try node.integer("k", default: 0)] : try node.integerInput(1, &importer)
      guard let count = given?.first, count > 0 else { throw CompileError(.input, "'TopK' has no positive k") }
      let op = TopPlaces(axis: axis, count: count, largest: try node.integer("largest", default: 1) != 0)
      let places = try importer.builder.emit(op, x)
      return [try importer.elements(of: x, at: places, axis: axis), places]
    },
  ]

  private static func reduction(_ node: inout ONNXNode) throws -> ScatterRows.Reduction {
    switch try node.string("reduction", default: "none") {
    case "none": .replace
    case "add": .add
    case "mul": .multiply
    case "min": .minimum
    case "max": .maximum
    case let other: throw CompileError(.input, "'\(node.type)' has the reduction '\(other)'")
    }
  }

  /// The data with elements replaced or changed, which stand where the indices say along one axis.
  private static func scatterElements(_ node: inout ONNXNode, _ importer: inout ONNXImporter) throws -> ValueID {
    let data = try node.input(0, &importer), indices = try node.input(1, &importer)
    let shape = importer.builder.type(of: data).shape
    let axis = try normalized(node.integer("axis", default: 0), shape.rank, node.type)
    let places = try importer.flatPlaces(of: data, at: indices, axis: axis, node.type)
    guard let size = Shape.product(shape.dims), let count = Shape.product(importer.builder.type(of: places).shape.dims)
    else { throw CompileError(.unsupported, "unsupported '\(node.type)' of shape \(shape)") }
    let operands = [
      try importer.builder.emit(Reshape([size, 1]), data), try importer.builder.emit(Reshape([count]), places),
      try importer.builder.emit(Reshape([count, 1]), node.input(2, &importer)),
    ]
    let y = try importer.builder.emit(ScatterRows(reduction(&node)), operands)
    return try importer.builder.emit(Reshape(shape.dims), y)
  }

  private static func argument(
    _ function: Reduce.Function, _ node: inout ONNXNode, _ importer: inout ONNXImporter
  ) throws -> ValueID {
    let x = try node.input(0, &importer)
    let shape = importer.builder.type(of: x).shape
    let axis = try normalized(node.integer("axis", default: 0), shape.rank, node.type)
    let keeps = try node.integer("keepdims", default: 1) != 0
    let last = try node.integer("select_last_index", default: 0) != 0
    let place = try importer.builder.emit(Cast(.i64), importer.place(function, x, axis: axis, last: last))
    guard !keeps else { return place }
    var dims = shape.dims
    dims.remove(at: axis)
    return try importer.builder.emit(Reshape(dims), place)
  }
}

extension ONNXImporter {
  /// A whole number as a constant.
  mutating func scalar(_ value: Int64) -> ValueID { builder.constant(.inline("number", .i64, [], [value])) }

  /// The number 0 of an element type.
  mutating func zero(_ element: DType) -> ValueID {
    builder.constant(Constant(name: "zero", type: TensorType(element, []), source: .splat(0.0)))
  }

  /// The place of the first, or last, largest or smallest element along an axis, which is kept with size 1, as f32.
  mutating func place(_ function: Reduce.Function, _ x: ValueID, axis: Int, last: Bool) throws -> ValueID {
    var (x, type) = (x, builder.type(of: x))
    guard type.shape[axis].maximum <= 1 << 24 else {
      throw CompileError(.unsupported, "unsupported search for a place among \(type.shape[axis])")
    }
    if type.element == .u8 || type.element == .i8 || type.element == .bool || type.element == .i16 {
      x = try builder.emit(Cast(.i32), x)
      type = builder.type(of: x)
    }
    let best = try builder.emit(Reduce(function, axes: [axis], keepDims: true), x)
    // Where there is NaN, it is the best.
    let isBest =
      type.element.isFloat
      ? try builder.emit(
        FusedElementwise(
          .binary(.or, .binary(.equal, .input(0), .input(1)), .binary(.notEqual, .input(0), .input(0)))), x, best)
      : try builder.emit(Equal(), x, best)
    let places = try builder.emit(Cast(.f32), builder.places(type.shape[axis], axis: axis, rank: type.rank))
    let none = builder.constant(.inline("none", .f32, [], [last ? -Float.infinity : .infinity]))
    let candidates = try builder.emit(Select(), isBest, places, none)
    return try builder.emit(Reduce(last ? .max : .min, axes: [axis], keepDims: true), candidates)
  }

  /// The numbers of the rows that tuples of indices along the last axis name, in the shape of the tuples; how many rows there
  /// are, and the sizes of one. The first `batch` axes are counted through instead.
  mutating func rows(
    of data: ValueID, at indices: ValueID, batch: Int, _ type: String
  ) throws -> (places: ValueID, count: Int, rest: [Dim]) {
    let (shape, tuples) = (builder.type(of: data).shape, builder.type(of: indices).shape)
    guard tuples.rank >= 1, let depth = tuples.last.fixedValue, let sizes = shape.fixedSizes, batch >= 0,
      batch < tuples.rank, depth >= 1, batch + depth <= sizes.count,
      Array(shape.dims[..<batch]) == Array(tuples.dims[..<batch])
    else { throw CompileError(.unsupported, "unsupported '\(type)' of shape \(shape) by indices of \(tuples)") }
    let whole = builder.type(of: indices).element == .i64 ? indices : try builder.emit(Cast(.i64), indices)
    let count = sizes[..<(batch + depth)].reduce(1, *)
    let dims = Array(tuples.dims.dropLast())
    var row: ValueID?
    for axis in 0..<batch + depth {
      let stride = sizes[(axis + 1)..<(batch + depth)].reduce(1, *)
      var part: ValueID
      if axis < batch {
        part = try builder.places(dims[axis], axis: axis, rank: dims.count)
      } else {
        let column = try builder.emit(Slice(axis: tuples.rank - 1, start: .fixed(axis - batch), size: 1), whole)
        part = try wrapped(builder.emit(Reshape(dims), column), size: sizes[axis])
      }
      part = try builder.emit(Multiply(), part, scalar(Int64(stride)))
      row = try row.map { try builder.emit(Add(), $0, part) } ?? part
    }
    guard let row else { throw CompileError(.input, "'\(type)' has no indices") }
    return (row, count, sizes[(batch + depth)...].map { .fixed($0) })
  }

  /// Indices of which negative ones count from the end.
  private mutating func wrapped(_ indices: ValueID, size: Int) throws -> ValueID {
    let count = scalar(Int64(size))
    return try builder.emit(Modulo(), builder.emit(Add(), indices, count), count)
  }

  /// Places in the flat tensor of the elements that indices name along an axis, at their own places along the others.
  mutating func flatPlaces(of data: ValueID, at indices: ValueID, axis: Int, _ type: String) throws -> ValueID {
    let (shape, own) = (builder.type(of: data).shape, builder.type(of: indices))
    guard own.rank == shape.rank, let sizes = shape.fixedSizes else {
      throw CompileError(.unsupported, "unsupported '\(type)' of shape \(shape) by indices of \(own.shape)")
    }
    let whole = own.element == .i64 ? indices : try builder.emit(Cast(.i64), indices)
    let strides = sizes.indices.map { sizes[($0 + 1)...].reduce(1, *) }
    var place = try builder.emit(Multiply(), wrapped(whole, size: sizes[axis]), scalar(Int64(strides[axis])))
    for other in sizes.indices where other != axis && own.shape[other] != 1 {
      let along = try builder.places(own.shape[other], axis: other, rank: shape.rank)
      place = try builder.emit(Add(), place, builder.emit(Multiply(), along, scalar(Int64(strides[other]))))
    }
    return place
  }

  /// The elements that indices name along an axis, at their own places along the others.
  mutating func elements(of data: ValueID, at indices: ValueID, axis: Int) throws -> ValueID {
    let place = try flatPlaces(of: data, at: indices, axis: axis, "GatherElements")
    guard let count = Shape.product(builder.type(of: data).shape.dims) else {
      throw CompileError(.unsupported, "unsupported 'GatherElements' of type \(builder.type(of: data))")
    }
    return try builder.emit(Gather(axis: 0), builder.emit(Reshape([count]), data), place)
  }
}
