import Base
import Tensors

extension Gather {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let (data, output) = (inputs[0], outputs[0])
    let axis = try axisIndex(axis, of: data.type.shape)
    let parts = AxisParts(data.type, data.sizes, axis: axis)
    let size = data.sizes[axis]
    let indices = Scratch<Int64>(inputs[1].count)
    loadNumbers(inputs[1], 0..<inputs[1].count, into: indices.data)
    for i in 0..<inputs[1].count {
      let index = indices.data[i]
      guard index >= -Int64(size), index < Int64(size) else {
        throw failure("index \(index) lies outside of axis \(axis) of shape \(data.type.shape)")
      }
      if index < 0 { indices.data[i] = index + Int64(size) }
    }
    guard output.count > 0 else { return }
    let target = output.bytes.count / (parts.outer * inputs[1].count)
    for outer in 0..<parts.outer {
      for i in 0..<inputs[1].count {
        let start = (outer * size + Int(indices.data[i])) * parts.inner
        let row = (outer * inputs[1].count + i) * target
        try widenRows(
          UnsafeRawBufferPointer(rebasing: data.bytes[start..<(start + parts.inner)]), data.type,
          columns: data.sizes[data.sizes.count - 1],
          into: UnsafeMutableRawBufferPointer(rebasing: output.bytes[row..<(row + target)]), output.type.element)
      }
    }
    withExtendedLifetime(indices) {}
  }
}

/// A tensor as a matrix of pieces that lie together: `outer` times the size of an axis pieces of `inner` bytes.
struct AxisParts {
  let outer, inner: Int

  init(_ type: TensorType, _ sizes: [Int], axis: Int) {
    outer = sizes[..<axis].reduce(1, *)
    inner = TensorType.byteCount(sizes: Array(sizes[(axis + 1)...]), element: type.element, encoding: type.encoding)
  }
}

/// Converts dense numbers or rows of blocks of `columns` numbers to a dense element type.
func widenRows(
  _ source: UnsafeRawBufferPointer, _ type: TensorType, columns: Int, into target: UnsafeMutableRawBufferPointer,
  _ element: DType
) throws {
  switch type.encoding {
  case .dense: convertRow(source, type.element, into: target, element)
  case .block(let format):
    let count = target.count / element.byteCount
    if element == .f32 {
      format.dequantize(source, columns: columns, into: target.bindMemory(to: Float.self))
    } else {
      let values = Scratch<Float>(count)
      let buffer = UnsafeMutableBufferPointer(start: values.data, count: count)
      format.dequantize(source, columns: columns, into: buffer)
      parallelConvert(UnsafeRawBufferPointer(buffer), .f32, into: target, element, count: count)
      withExtendedLifetime(values) {}
    }
  case .packed: throw CompileError(.internal, "the numbers of type \(type) are asked for")
  }
}
