import IR
import Tensors

/// Any pooling, one number at a time: channels first or last, sizes known late, elements in f32, f16 or bf16. Slow; for what
/// the other kernel does not take.
package enum PoolScalarKernel: Kernel {
  package static let name = "pool2d_scalar"
  package static let summary = "poolings of all kinds, slowly: unknown sizes, channels first"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard query.isPlain(), let image = query.operands.first?.type, let element = image.element.scalar, element.isFloat,
      element != .f64, let result = try query.resultTypes().first
    else { return [] }
    var extents = ExtentTable()
    let window: ScalarWindow?
    let isMaximum: Bool, countsPadding: Bool
    switch query.operation.op {
    case let op as MaxPool2D:
      (isMaximum, countsPadding) = (true, false)
      window = ScalarWindow(
        op.layout, image: image.shape, result: result.shape, kernel: op.kernel, strides: op.strides,
        padding: op.padding, dilations: op.dilations, &extents)
    case let op as AveragePool2D:
      (isMaximum, countsPadding) = (false, op.countIncludePad)
      window = ScalarWindow(
        op.layout, image: image.shape, result: result.shape, kernel: op.kernel, strides: op.strides,
        padding: op.padding, dilations: [1, 1], &extents)
    default: return []
    }
    guard let window else { return [] }
    let kind = isMaximum ? "max" : countsPadding ? "average_of_window" : "average"
    let hash = shortHash("\(query.operation.op) \(window) \(element)")
    let k = KernelBuilder("mcc_pool_\(kind)_scalar_\(window.text)_\(hash)_\(target.suffix)", target: target)
    k.comment = ["y = \(kind) of x under a window, channels \(window.layout.rawValue), \(window.channels) channels."]
    let x = k.input("x", element)
    let y = k.output("y", element)
    window.forEachResult(in: k, channels: window.channels) { image, channel, line, column, place in
      let folded = k.variable("folded", .real(isMaximum ? -.infinity : 0))
      let count = window.forEachTap(in: k, line: line, column: column) { _, _, h, w in
        let from = window.index(
          image: image, channel: channel, line: h, column: w, channels: window.channels,
          height: k.extent(window.height), width: k.extent(window.width))
        let value = k.define("value", x[from])
        if isMaximum {
          k.condition((value > folded) | value.isNotEqual(to: value), then: { k.assign(folded, value) })
        } else {
          k.assign(folded, folded + value)
        }
      }
      var value = folded
      if !isMaximum {
        value = value / (countsPadding ? .real(Float(window.kernel[0] * window.kernel[1])) : count.asFloat)
      }
      k.store(y, place, value)
    }
    let reads = Double(result.maximumCount) * Double(window.kernel[0] * window.kernel[1])
    let work = KernelWork(
      floatOperations: 160 * reads, bytes: Double(image.maximumByteCount) + Double(result.maximumByteCount))
    return [
      KernelChoice(
        k.finish(), work: work, target: target, pointers: [.input(0), .result(0)], extents: extents,
        layouts: query.unpacked)
    ]
  }
}
