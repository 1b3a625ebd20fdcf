import Base
import Tensors

extension Reshape {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    outputs[0].bytes.copyMemory(from: inputs[0].bytes)
  }
}

extension Transpose {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let strides = denseStrides(inputs[0].sizes)
    copyElements(inputs[0], strides: permutation.map { strides[$0] }, into: outputs[0])
  }
}

extension Expand {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    copyElements(inputs[0], strides: broadcastStrides(inputs[0].sizes, over: outputs[0].sizes), into: outputs[0])
  }
}

extension Slice {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let (x, y) = (inputs[0], outputs[0])
    let axis = try axisIndex(axis, of: x.type.shape)
    let count = y.sizes[axis]
    guard y.count > 0 else { return }
    guard var start = start.fixedValue else { throw failure("the start \(start) has no value") }
    let extent = (count - 1) * step + 1
    // With a block of rows (RowMapped) the input holds the rows of these results alone.
    if axis == 0, x.sizes[0] == extent { start = 0 }
    guard start >= 0, start <= x.sizes[axis] - extent else {
      throw failure("elements \(start) to \(start + extent) lie outside of axis \(axis) of shape \(x.type.shape)")
    }
    let parts = AxisParts(x.type, x.sizes, axis: axis)
    let run = step == 1 ? count : 1
    for outer in 0..<parts.outer {
      for i in stride(from: 0, to: count, by: run) {
        let source = (outer * x.sizes[axis] + start + i * step) * parts.inner
        let target = (outer * count + i) * parts.inner
        copyBytes(x.bytes, source, into: y.bytes, target, count: run * parts.inner)
      }
    }
  }
}

extension Concat {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let y = outputs[0]
    let axis = try axisIndex(axis, of: y.type.shape)
    guard y.count > 0 else { return }
    let parts = AxisParts(y.type, y.sizes, axis: axis)
    var offset = 0
    for input in inputs {
      let size = input.sizes[axis]
      for outer in 0..<parts.outer {
        copyBytes(
          input.bytes, outer * size * parts.inner, into: y.bytes, (outer * y.sizes[axis] + offset) * parts.inner,
          count: size * parts.inner)
      }
      offset += size
    }
  }
}

extension Interleave {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let y = outputs[0]
    guard y.count > 0 else { return }
    let row = y.bytes.count / y.sizes[0]
    for (index, input) in inputs.enumerated() {
      for i in 0..<input.sizes[0] {
        copyBytes(input.bytes, i * row, into: y.bytes, (i * inputs.count + index) * row, count: row)
      }
    }
  }
}

extension Pad {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let (x, y) = (inputs[0], outputs[0])
    guard y.count > 0 else { return }
    let size = y.type.element.byteCount
    // One element of the padding, then the result filled with it.
    withUnsafeTemporaryAllocation(byteCount: 8, alignment: 8) { element in
      withUnsafeBytes(of: value) {
        convertRow($0, .f32, into: element, y.type.element)
      }
      for i in 0..<y.count { copyBytes(UnsafeRawBufferPointer(element), 0, into: y.bytes, i * size, count: size) }
    }
    guard x.count > 0 else { return }
    let strides = denseStrides(y.sizes)
    let columns = x.sizes.last ?? 1
    let base = zip(before, strides).reduce(0) { $0 + $1.0 * $1.1 }
    for row in 0..<(x.count / columns) {
      var (rest, target) = (row, base)
      for axis in x.sizes.indices.dropLast().reversed() {
        target += rest % x.sizes[axis] * strides[axis]
        rest /= x.sizes[axis]
      }
      copyBytes(x.bytes, row * columns * size, into: y.bytes, target * size, count: columns * size)
    }
  }
}

/// Copies bytes between places in two buffers.
private func copyBytes(
  _ source: UnsafeRawBufferPointer, _ from: Int, into target: UnsafeMutableRawBufferPointer, _ to: Int, count: Int
) {
  UnsafeMutableRawBufferPointer(rebasing: target[to..<(to + count)])
    .copyMemory(from: UnsafeRawBufferPointer(rebasing: source[from..<(from + count)]))
}

/// Writes the elements of a dense result, each from its place given by strides over the axes of the result.
func copyElements(_ x: TensorView, strides: [Int], into y: MutableTensorView) {
  guard y.count > 0 else { return }
  let loops = StridedLoops(sizes: y.sizes, strides: [strides])
  switch y.type.element.byteCount {
  case 1: copyElements(UInt8.self, x, loops, y)
  case 2: copyElements(UInt16.self, x, loops, y)
  case 4: copyElements(UInt32.self, x, loops, y)
  default: copyElements(UInt64.self, x, loops, y)
  }
}

private func copyElements<T: FixedWidthInteger & Sendable>(
  _ type: T.Type, _ x: TensorView, _ loops: StridedLoops, _ y: MutableTensorView
) {
  nonisolated(unsafe) let (source, target) = (x.bytes, y.bytes)
  let size = MemoryLayout<T>.stride
  let stride = loops.innerStrides[0]
  parallelFor(loops.outer, grain: max(1, 65536 / max(loops.inner, 1))) { range in
    for row in range {
      let offset = loops.offsets(row)[0]
      let output = row * loops.inner
      for i in 0..<loops.inner {
        let value = source.loadUnaligned(fromByteOffset: (offset + i * stride) * size, as: T.self)
        target.storeBytes(of: value, toByteOffset: (output + i) * size, as: T.self)
      }
    }
  }
}
