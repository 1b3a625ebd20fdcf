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
    if case .block(let format) = cache.type.encoding {
      let columns = cache.sizes[1]
      let numbers = Numbers<Float>(rows)
      withExtendedLifetime(numbers) {
        let rowBytes = format.rowBytes(columns: columns)
        format.quantize(
          UnsafeBufferPointer(start: numbers.data, count: numbers.count), columns: columns,
          into: UnsafeMutableRawBufferPointer(
            rebasing: output[(position * rowBytes)..<((position + rows.sizes[0]) * rowBytes)]), triesScales: false)
      }
      return
    }
    let size = cache.type.element.byteCount
    let start = position * cache.sizes[1] * size
    convertRow(
      rows.bytes, rows.type.element,
      into: UnsafeMutableRawBufferPointer(rebasing: output[start..<(start + rows.count * size)]), cache.type.element)
  }
}
