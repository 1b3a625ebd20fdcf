import Base
import Tensors

extension CacheUpdate {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let (cache, rows) = (inputs[0], inputs[1])
    let position = integer(inputs[2])
    guard position >= 0, position <= cache.sizes[0] - rows.sizes[0] else {
      throw failure("\(rows.sizes[0]) rows at position \(position) do not fit into a cache of \(cache.sizes[0]) rows")
    }
    let output = outputs[0].bytes
    // In place when the result is the memory of the cache.
    if let target = output.baseAddress, let source = cache.bytes.baseAddress, UnsafeRawPointer(target) != source {
      target.copyMemory(from: source, byteCount: cache.bytes.count)
    }
    let size = cache.type.element.byteCount
    let start = position * cache.sizes[1] * size
    convertRow(
      rows.bytes, rows.type.element,
      into: UnsafeMutableRawBufferPointer(rebasing: output[start..<(start + rows.count * size)]), cache.type.element)
  }
}
