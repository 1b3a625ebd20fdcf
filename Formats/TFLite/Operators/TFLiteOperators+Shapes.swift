import Base
import IR
import Tensors

extension TFLiteOperators {
  /// Operators that move elements without computing: codes stay codes.
  static let shapes: [TFLiteOperator] = [
    TFLiteOperator("RESHAPE") { node, importer in
      let target: [Int]
      if let shape = node.optionalInput(1) {
        target = try importer.integers(shape)
      } else {
        target = try node.options?.integers(TFLiteSchema.Reshape.newShape, Int32.self, limit: 16) ?? []
      }
      try move(node, &importer) { x, importer in
        try importer.builder.emit(Reshape(filled(target, count: importer.sizes(x).reduce(1, *))), x)
      }
    },
    TFLiteOperator("SQUEEZE") { node, importer in
      let given = try node.options?.integers(TFLiteSchema.Squeeze.dims, Int32.self, limit: 16) ?? []
      try move(node, &importer) { x, importer in
        let sizes = try importer.sizes(x)
        let axes = try given.map { try axis($0, rank: sizes.count, "SQUEEZE") }
        guard axes.allSatisfy({ sizes[$0] == 1 }) else {
          throw CompileError(.input, "'SQUEEZE' of axes \(axes) of shape \(sizes), which are not all 1")
        }
        let rest = sizes.indices.filter { axes.isEmpty ? sizes[$0] != 1 : !axes.contains($0) }
        return try importer.builder.emit(Reshape(rest.map { .fixed(sizes[$0]) }), x)
      }
    },
    TFLiteOperator("EXPAND_DIMS") { node, importer in
      guard let place = try importer.integers(node.input(1)).first else {
        throw CompileError(.input, "'EXPAND_DIMS' has no axis")
      }
      try move(node, &importer) { x, importer in
        var sizes = try importer.sizes(x)
        sizes.insert(1, at: try axis(place, rank: sizes.count + 1, "EXPAND_DIMS"))
        return try importer.builder.emit(Reshape(sizes.map { .fixed($0) }), x)
      }
    },
    TFLiteOperator("TRANSPOSE") { node, importer in
      let permutation = try importer.integers(node.input(1))
      try move(node, &importer) { x, importer in
        let rank = importer.builder.type(of: x).rank
        guard permutation.sorted() == Array(0..<rank) else {
          throw CompileError(.input, "'TRANSPOSE' of \(rank) axes by \(permutation)")
        }
        return try importer.builder.emit(Transpose(permutation), x)
      }
    },
    TFLiteOperator("PAD") { node, importer in try pad(node, &importer, value: nil) },
    TFLiteOperator("PADV2") { node, importer in try pad(node, &importer, value: node.input(2)) },
    TFLiteOperator("MIRROR_PAD") { node, importer in
      let pads = try importer.integers(node.input(1))
      // 0 leaves out the element at the edge, 1 repeats it.
      let edge = try node.byte(TFLiteSchema.MirrorPad.mode) == 0 ? 1 : 0
      try move(node, &importer) { x, importer in
        let sizes = try importer.sizes(x)
        guard pads.count == 2 * sizes.count,
          sizes.indices.allSatisfy({ axis in
            pads[2 * axis..<2 * axis + 2].allSatisfy { $0 >= 0 && $0 <= sizes[axis] - edge }
          })
        else { throw CompileError(.input, "'MIRROR_PAD' of shape \(sizes) by \(pads)") }
        var result = x
        for (axis, size) in sizes.enumerated() where pads[2 * axis] + pads[2 * axis + 1] > 0 {
          let before = (0..<pads[2 * axis]).map { pads[2 * axis] - 1 - $0 + edge }
          let after = (0..<pads[2 * axis + 1]).map { size - 1 - edge - $0 }
          let places = before + Array(0..<size) + after
          guard places.count <= 4096 else { throw CompileError(.unsupported, "unsupported 'MIRROR_PAD' of \(size)") }
          result = try importer.builder.taking(result, places, axis: axis)
        }
        return result
      }
    },
    TFLiteOperator("CONCATENATION") { node, importer in
      guard try node.activation(TFLiteSchema.Concatenation.activation) == .none else {
        throw CompileError(.unsupported, "unsupported 'CONCATENATION' with an activation")
      }
      let place = try node.integer(TFLiteSchema.Concatenation.axis)
      try moveAll(node, &importer) { parts, importer in
        guard let first = parts.first else { throw CompileError(.input, "'CONCATENATION' has no inputs") }
        let index = try axis(place, rank: importer.builder.type(of: first).rank, "CONCATENATION")
        return try importer.builder.emit(Concat(axis: index), parts)
      }
    },
    TFLiteOperator("PACK") { node, importer in
      let place = try node.integer(TFLiteSchema.Pack.axis)
      try moveAll(node, &importer) { parts, importer in
        guard let first = parts.first else { throw CompileError(.input, "'PACK' has no inputs") }
        var sizes = try importer.sizes(first)
        let index = try axis(place, rank: sizes.count + 1, "PACK")
        sizes.insert(1, at: index)
        let dims = sizes.map { Dim.fixed($0) }
        let wide = try parts.map { try importer.builder.emit(Reshape(dims), $0) }
        return try importer.builder.emit(Concat(axis: index), wide)
      }
    },
    TFLiteOperator("TILE") { node, importer in
      let repeats = try importer.integers(node.input(1))
      try move(node, &importer) { x, importer in
        let sizes = try importer.sizes(x)
        guard repeats.count == sizes.count, repeats.allSatisfy({ (0...1 << 31).contains($0) }) else {
          throw CompileError(.input, "'TILE' of shape \(sizes) by \(repeats)")
        }
        _ = try TensorType.checkedByteCount(sizes: sizes + repeats, element: .f64, of: "the result of 'TILE'")
        let apart = try importer.builder.emit(Reshape(sizes.flatMap { [1, .fixed($0)] }), x)
        let wide = zip(repeats, sizes).flatMap { [Dim.fixed($0), .fixed($1)] }
        let repeated = try importer.builder.emit(Expand(wide), apart)
        return try importer.builder.emit(Reshape(zip(repeats, sizes).map { .fixed($0 * $1) }), repeated)
      }
    },
    TFLiteOperator("BROADCAST_TO") { node, importer in
      let shape = try importer.integers(node.input(1))
      try move(node, &importer) { x, importer in
        _ = try TensorType.checkedByteCount(sizes: shape, element: .f64, of: "the result of 'BROADCAST_TO'")
        return try importer.builder.emit(Expand(shape.map { .fixed($0) }), x)
      }
    },
    TFLiteOperator("SHAPE") { node, importer in
      let sizes = try importer.sizes(importer.raw(node.input(0)))
      let output = try importer.tensor(node.output(), "the outputs")
      let list: Constant =
        output.element == .i64
        ? .inline("shape", .i64, [sizes.count], sizes.map(Int64.init))
        : .inline("shape", .i32, [sizes.count], sizes.map { Int32(clamping: $0) })
      try importer.define(node.output(), raw: importer.builder.constant(list))
    },
  ]

  /// Defines the only output of a node that moves the elements of its first input: codes, or numbers where the codes of the
  /// output are other ones.
  static func move(
    _ node: TFLiteNode, _ importer: inout TFLiteImporter,
    _ body: (ValueID, inout TFLiteImporter) throws -> ValueID
  ) throws {
    let (x, y) = (try node.input(0), try node.output())
    if try importer.sharesCode(x, y) {
      try importer.define(y, raw: body(importer.raw(x), &importer))
    } else {
      try importer.define(y, numbers: body(importer.real(x), &importer))
    }
  }

  /// The same for a node that moves the elements of all its inputs.
  private static func moveAll(
    _ node: TFLiteNode, _ importer: inout TFLiteImporter,
    _ body: ([ValueID], inout TFLiteImporter) throws -> ValueID
  ) throws {
    let y = try node.output()
    let inputs = try node.inputs.indices.map { try node.input($0) }
    if try inputs.allSatisfy({ try importer.sharesCode($0, y) }) {
      try importer.define(y, raw: body(inputs.map { try importer.raw($0) }, &importer))
    } else {
      try importer.define(y, numbers: body(inputs.map { try importer.real($0) }, &importer))
    }
  }

  /// A shape in which one size may be -1.
  private static func filled(_ target: [Int], count: Int) throws -> [Dim] {
    func failure() -> CompileError { CompileError(.input, "'RESHAPE' of \(count) elements to \(target)") }
    guard target.count <= 16, target.allSatisfy({ $0 >= -1 }), target.count(where: { $0 == -1 }) <= 1 else {
      throw failure()
    }
    var sizes = target
    if let open = target.firstIndex(of: -1) {
      sizes[open] = 1
      let rest = try Shape.checkedCount(sizes, of: "the result of 'RESHAPE'")
      guard rest > 0, count % rest == 0 else { throw failure() }
      sizes[open] = count / rest
    }
    guard try Shape.checkedCount(sizes, of: "the result of 'RESHAPE'") == count else { throw failure() }
    return sizes.map { .fixed($0) }
  }

  /// Zeros around the input, or the number in another tensor.
  private static func pad(_ node: TFLiteNode, _ importer: inout TFLiteImporter, value: Int?) throws {
    let pads = try importer.integers(node.input(1))
    let (x, y) = (try node.input(0), try node.output())
    func emit(_ source: ValueID, _ number: Float) throws -> ValueID {
      let rank = importer.builder.type(of: source).rank
      guard pads.count == 2 * rank, pads.allSatisfy({ (0...1 << 31).contains($0) }) else {
        throw CompileError(.input, "'\(node.type)' of \(rank) axes by \(pads)")
      }
      let sizes = try importer.sizes(source)
      _ = try TensorType.checkedByteCount(
        sizes: sizes.indices.map { sizes[$0] + pads[2 * $0] + pads[2 * $0 + 1] }, element: .f64,
        of: "the result of '\(node.type)'")
      return try importer.builder.emit(
        Pad(
          before: (0..<rank).map { pads[2 * $0] }, after: (0..<rank).map { pads[2 * $0 + 1] }, value: number), source)
    }
    if value == nil, try importer.sharesCode(x, y) {
      let zero = importer.code(of: try importer.tensor(x, "the inputs"))?.zeroPoint ?? 0
      try importer.define(y, raw: emit(importer.raw(x), Float(zero)))
    } else {
      try importer.define(y, numbers: emit(importer.real(x), value.map { try importer.float($0) } ?? 0))
    }
  }
}
