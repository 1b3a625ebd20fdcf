import IR
import Tensors

/// Numbers that follow from sizes alone.
package enum SizesKernel: Kernel {
  package static let name = "sizes"
  package static let summary = "counting numbers, and sizes as numbers"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    var extents = ExtentTable()
    let function: KernelFunction
    switch query.operation.op {
    case let op as Iota:
      let size = extents.extent(op.size, "n")
      let k = KernelBuilder("mcc_iota_\(size.text)_\(target.suffix)", target: target)
      k.comment = ["y[i] = i for \(size.text) numbers."]
      let y = k.output("y", .i64)
      let part = k.partition(k.extent(size))
      k.loop("i", from: part.begin, to: part.end) { k.store(y, $0, $0) }
      function = k.finish()
    case let op as Sizes:
      let sizes = op.sizes.enumerated().map { extents.extent($1, "n\($0)") }
      let text = sizes.map(\.text).joined(separator: "_")
      let k = KernelBuilder("mcc_sizes_\(text)_\(target.suffix)", target: target)
      k.comment = ["y = [\(sizes.map(\.text).joined(separator: ", "))]."]
      let y = k.output("y", .i64)
      let values = sizes.map { k.extent($0) }
      let part = k.partition(1)
      k.loop("unit", from: part.begin, to: part.end) { _ in
        for (index, value) in values.enumerated() { k.store(y, .integer(index), value) }
      }
      function = k.finish()
    default: return []
    }
    return [
      KernelChoice(
        function, work: KernelWork(), target: target, pointers: [.result(0)], extents: extents,
        layouts: query.unpacked)
    ]
  }
}
