import Base
import IR
import Tensors

extension TFLiteOperators {
  /// Parts of tensors.
  static let slices: [TFLiteOperator] = [
    TFLiteOperator("SLICE") { node, importer in
      let begins = try importer.integers(node.input(1)), counts = try importer.integers(node.input(2))
      try move(node, &importer) { x, importer in
        let sizes = try importer.sizes(x)
        guard begins.count == sizes.count, counts.count == sizes.count else {
          throw CompileError(.input, "'SLICE' of shape \(sizes) from \(begins) on")
        }
        var result = x
        for axis in sizes.indices {
          guard begins[axis] >= 0, begins[axis] <= sizes[axis], counts[axis] >= -1,
            case let count = counts[axis] == -1 ? sizes[axis] - begins[axis] : counts[axis],
            count <= sizes[axis] - begins[axis]
          else { throw CompileError(.input, "'SLICE' of shape \(sizes) from \(begins) on of \(counts)") }
          if count == sizes[axis] { continue }
          result = try importer.builder.emit(
            Slice(axis: axis, start: .fixed(begins[axis]), size: .fixed(count)), result)
        }
        return result
      }
    },
    TFLiteOperator("STRIDED_SLICE") { node, importer in
      let lists = try (1...3).map { try importer.integers(node.input($0)) }
      try move(node, &importer) { x, importer in try stridedSlice(node, x, lists, &importer) }
    },
    TFLiteOperator("SPLIT") { node, importer in
      guard let place = try importer.integers(node.input(0)).first, !node.outputs.isEmpty else {
        throw CompileError(.input, "'SPLIT' has no axis or no outputs")
      }
      let sizes = try importer.sizes(importer.raw(node.input(1)))
      let index = try axis(place, rank: sizes.count, "SPLIT")
      guard sizes[index] % node.outputs.count == 0 else {
        throw CompileError(.input, "'SPLIT' of \(sizes[index]) into \(node.outputs.count)")
      }
      let part = sizes[index] / node.outputs.count
      try split(node, &importer, input: 1, axis: index, parts: node.outputs.map { _ in part })
    },
    TFLiteOperator("SPLIT_V") { node, importer in
      var parts = try importer.integers(node.input(1))
      let sizes = try importer.sizes(importer.raw(node.input(0)))
      guard let place = try importer.integers(node.input(2)).first else {
        throw CompileError(.input, "'SPLIT_V' has no axis")
      }
      let index = try axis(place, rank: sizes.count, "SPLIT_V")
      if let open = parts.firstIndex(of: -1) { parts[open] = sizes[index] - parts.reduce(1, +) }
      guard parts.count == node.outputs.count, parts.allSatisfy({ $0 >= 0 && $0 <= sizes[index] }),
        parts.reduce(0, +) == sizes[index]
      else { throw CompileError(.input, "'SPLIT_V' of \(sizes[index]) into \(parts)") }
      try split(node, &importer, input: 0, axis: index, parts: parts)
    },
    TFLiteOperator("UNPACK") { node, importer in
      let sizes = try importer.sizes(importer.raw(node.input(0)))
      let index = try axis(node.integer(TFLiteSchema.Unpack.axis), rank: sizes.count, "UNPACK")
      guard sizes[index] == node.outputs.count else {
        throw CompileError(.input, "'UNPACK' of \(sizes[index]) into \(node.outputs.count)")
      }
      var rest = sizes
      rest.remove(at: index)
      try split(
        node, &importer, input: 0, axis: index, parts: node.outputs.map { _ in 1 }, shape: rest.map { .fixed($0) })
    },
    TFLiteOperator("GATHER") { node, importer in
      typealias Field = TFLiteSchema.Gather
      guard try node.integer(Field.batchDims) == 0 else {
        throw CompileError(.unsupported, "unsupported 'GATHER' with batch axes")
      }
      let indices = try importer.raw(node.input(1))
      let place = try node.integer(Field.axis)
      try move(node, &importer) { x, importer in
        let index = try axis(place, rank: importer.builder.type(of: x).rank, "GATHER")
        return try importer.builder.emit(Gather(axis: index), x, indices)
      }
    },
  ]

  /// Defines the outputs of a node as parts of one axis.
  private static func split(
    _ node: TFLiteNode, _ importer: inout TFLiteImporter, input: Int, axis: Int, parts: [Int], shape: [Dim]? = nil
  ) throws {
    let x = try node.input(input)
    var start = 0
    for (y, part) in zip(node.outputs, parts) {
      let isSame = try importer.sharesCode(x, y)
      var value = try importer.builder.emit(
        Slice(axis: axis, start: .fixed(start), size: .fixed(part)), isSame ? importer.raw(x) : importer.real(x))
      if let shape { value = try importer.builder.emit(Reshape(shape), value) }
      if isSame { try importer.define(y, raw: value) } else { try importer.define(y, numbers: value) }
      start += part
    }
  }

  /// NumPy's slices: `begin`, `end` and `step` for each axis, with bits that leave ends open and drop axes.
  private static func stridedSlice(
    _ node: TFLiteNode, _ x: ValueID, _ lists: [[Int]], _ importer: inout TFLiteImporter
  ) throws -> ValueID {
    typealias Field = TFLiteSchema.StridedSlice
    let sizes = try importer.sizes(x)
    let (begins, ends, steps) = (lists[0], lists[1], lists[2])
    guard begins.count <= sizes.count, ends.count == begins.count, steps.count == begins.count,
      begins.count <= 16
    else { throw CompileError(.input, "'STRIDED_SLICE' of shape \(sizes) from \(begins) to \(ends)") }
    guard try node.integer(Field.ellipsisMask) == 0, try node.integer(Field.newAxisMask) == 0,
      try !node.flag(Field.offset)
    else { throw CompileError(.unsupported, "unsupported 'STRIDED_SLICE' with an ellipsis, new axes or an offset") }
    func isSet(_ field: Field, _ axis: Int) throws -> Bool { try node.integer(field) >> axis & 1 != 0 }
    var result = x
    var rest: [Dim] = []
    for (axis, size) in sizes.enumerated() {
      guard axis < begins.count else {
        rest.append(.fixed(size))
        continue
      }
      func place(_ index: Int) -> Int { index < 0 ? index + size : index }
      let step = steps[axis]
      if try isSet(.shrinkAxisMask, axis) {
        let index = place(begins[axis])
        guard (0..<size).contains(index) else {
          throw CompileError(.input, "'STRIDED_SLICE' of place \(begins[axis]) of \(size)")
        }
        result = try importer.builder.emit(Slice(axis: axis, start: .fixed(index), size: 1), result)
        continue
      }
      guard step != 0, abs(step) <= 1 << 20 else {
        throw CompileError(.input, "'STRIDED_SLICE' in steps of \(step)")
      }
      if step > 0 {
        let from = try isSet(.beginMask, axis) ? 0 : min(max(place(begins[axis]), 0), size)
        let to = try isSet(.endMask, axis) ? size : min(max(place(ends[axis]), 0), size)
        let count = max(0, (to - from + step - 1) / step)
        if count != size {
          result = try importer.builder.emit(
            Slice(axis: axis, start: .fixed(count == 0 ? 0 : from), size: .fixed(count), step: step), result)
        }
        rest.append(.fixed(count))
      } else {
        let from = try isSet(.beginMask, axis) ? size - 1 : min(max(place(begins[axis]), -1), size - 1)
        let to = try isSet(.endMask, axis) ? -1 : min(max(place(ends[axis]), -1), size - 1)
        let places = Array(stride(from: from, to: to, by: step))
        guard !places.isEmpty, places.count <= 4096 else {
          throw CompileError(.unsupported, "unsupported 'STRIDED_SLICE' from \(from) to \(to) in steps of \(step)")
        }
        result = try importer.builder.taking(result, places, axis: axis)
        rest.append(.fixed(places.count))
      }
    }
    return try importer.builder.emit(Reshape(rest), result)
  }
}
