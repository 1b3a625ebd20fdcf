import IR
import Tensors

/// A window over images in either order of axes, with sizes known late: what kernels that compute one number at a time share.
struct ScalarWindow: Hashable, Sendable {
  var layout: ImageLayout
  var batch: Extent
  var channels: Int
  var height: Extent
  var width: Extent
  var outHeight: Extent
  var outWidth: Extent
  var kernel: [Int]
  var strides: [Int]
  var padding: [Int]
  var dilations: [Int]

  /// Nil if channels are not known.
  init?(
    _ layout: ImageLayout, image: Shape, result: Shape, kernel: [Int], strides: [Int], padding: [Int],
    dilations: [Int], _ extents: inout ExtentTable
  ) {
    let (from, to) = (layout.split(image), layout.split(result))
    guard let channels = from.channels.fixedValue else { return nil }
    self.layout = layout
    self.channels = channels
    batch = extents.extent(from.batch, "N")
    height = extents.extent(from.height, "H")
    width = extents.extent(from.width, "W")
    outHeight = extents.extent(to.height, "OH")
    outWidth = extents.extent(to.width, "OW")
    self.kernel = kernel
    self.strides = strides
    self.padding = padding
    self.dilations = dilations
  }

  var text: String {
    "\(layout.rawValue)_\(batch.text)x\(height.text)x\(width.text)x\(channels)_"
      + kernel.map(String.init).joined(separator: "x")
  }

  /// The index of an element of an image of some sizes.
  func index(
    image: Expression, channel: Expression, line: Expression, column: Expression, channels: Int, height: Expression,
    width: Expression
  ) -> Expression {
    switch layout {
    case .first: ((image * .integer(channels) + channel) * height + line) * width + column
    case .last: ((image * height + line) * width + column) * .integer(channels) + channel
    }
  }

  /// Emits the loops over the calling thread's share of the lines of the result with `channels` channels.
  func forEachResult(
    in k: KernelBuilder, channels: Int,
    _ body: (_ image: Expression, _ channel: Expression, _ line: Expression, _ column: Expression, _ index: Expression)
      -> Void
  ) {
    let height = k.extent(outHeight), width = k.extent(outWidth)
    let part = k.partition(k.extent(batch) * .integer(channels) * height)
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let line = k.define("i", unit % height)
      let plane = k.define("plane", unit / height)
      let channel = k.define("o", plane % .integer(channels))
      let image = k.define("n", plane / .integer(channels))
      k.loop("j", to: width) { column in
        let place = index(
          image: image, channel: channel, line: line, column: column, channels: channels, height: height, width: width)
        body(image, channel, line, column, k.define("place", place))
      }
    }
  }

  /// The taps along an axis that see the image when the window stands at `place`.
  private func taps(_ axis: Int, at place: Expression, in k: KernelBuilder) -> (Expression, Expression) {
    let count = Expression.integer(kernel[axis])
    if padding[axis] == 0, padding[axis + 2] == 0 { return (0, count) }
    let size = k.extent(axis == 0 ? height : width)
    let start = k.define("start", place * .integer(strides[axis]))
    let before = Expression.maximum(.integer(padding[axis]) - start, 0).dividedRoundingUp(by: dilations[axis])
    let room = Expression.maximum(size + .integer(padding[axis]) - start, 0).dividedRoundingUp(by: dilations[axis])
    return (k.define("first", before), k.define("end", .minimum(room, count)))
  }

  /// Emits the loops over the taps that see the image; returns how many they are.
  func forEachTap(
    in k: KernelBuilder, line: Expression, column: Expression,
    _ body: (_ u: Expression, _ v: Expression, _ line: Expression, _ column: Expression) -> Void
  ) -> Expression {
    let lines = taps(0, at: line, in: k), columns = taps(1, at: column, in: k)
    k.loop("u", from: lines.0, to: lines.1) { u in
      let h = k.define("h", line * .integer(strides[0]) + u * .integer(dilations[0]) - .integer(padding[0]))
      k.loop("v", from: columns.0, to: columns.1) { v in
        let w = k.define("w", column * .integer(strides[1]) + v * .integer(dilations[1]) - .integer(padding[1]))
        body(u, v, h, w)
      }
    }
    return (lines.1 - lines.0) * (columns.1 - columns.0)
  }
}

/// Any convolution, one number at a time: images with channels first or last, sizes and weights known late, elements in f32,
/// f16 or bf16. Slow; for what the other kernels do not take.
package enum ConvScalarKernel: Kernel {
  package static let name = "conv2d_scalar"
  package static let summary = "convolutions of all kinds, slowly: computed weights, unknown sizes, channels first"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? Conv2D, query.isPlain(), query.operands.count == 2 + op.epilogue.inputCount,
      let weight = query.operands[1].type.shape.fixedSizes, let result = try query.resultTypes().first
    else { return [] }
    let elements = query.operands.compactMap(\.type.element.scalar)
    guard elements.count == query.operands.count, elements.allSatisfy({ $0.isFloat && $0 != .f64 }) else { return [] }
    let image = query.operands[0].type
    var extents = ExtentTable()
    guard
      let window = ScalarWindow(
        op.layout, image: image.shape, result: result.shape, kernel: [weight[2], weight[3]], strides: op.strides,
        padding: op.padding, dilations: op.dilations, &extents)
    else { return [] }
    let hash = shortHash("\(op) \(window) \(elements) \(weight)")
    let k = KernelBuilder("mcc_conv2d_scalar_\(window.text)_\(weight[0])_\(hash)_\(target.suffix)", target: target)
    k.comment = [
      "y = epilogue(conv2d(x)), channels \(op.layout.rawValue), \(weight[0]) output channels, \(op.groups) groups."
    ]
    let pointers =
      ["x", "w"] + (op.epilogue.bias ? ["bias"] : []) + (op.epilogue.residual != .none ? ["residual"] : [])
    let inputs = zip(pointers, elements).map { k.input($0, $1) }
    let y = k.output("y", elements[0])
    let perGroup = weight[1], groupOutputs = max(weight[0] / op.groups, 1)
    window.forEachResult(in: k, channels: weight[0]) { image, channel, line, column, place in
      let sum = k.variable("sum", 0.0)
      let first = op.groups == 1 ? 0 : k.define("c0", channel / .integer(groupOutputs) * .integer(perGroup))
      _ = window.forEachTap(in: k, line: line, column: column) { u, v, h, w in
        k.loop("c", to: .integer(perGroup)) { c in
          let from = window.index(
            image: image, channel: first + c, line: h, column: w, channels: window.channels,
            height: k.extent(window.height), width: k.extent(window.width))
          let tap = ((channel * .integer(perGroup) + c) * .integer(weight[2]) + u) * .integer(weight[3]) + v
          k.assign(sum, sum + inputs[0][from] * inputs[1][tap])
        }
      }
      let value = op.epilogue.result(
        sum, bias: op.epilogue.biasIndex.map { inputs[$0][channel] },
        residual: op.epilogue.residualIndex.map { inputs[$0][place] }, in: k)
      k.store(y, place, value)
    }
    let products = Double(result.maximumCount) * Double(perGroup * weight[2] * weight[3])
    // A product waits for the sum before it: four cycles, in which vectors would have done eight instructions.
    let work = KernelWork(
      floatOperations: 16 * Double(target.lanes) * products,
      bytes: Double(image.maximumByteCount + query.operands[1].type.maximumByteCount + result.maximumByteCount))
    return [
      KernelChoice(
        k.finish(), work: work, target: target, pointers: inputs.indices.map { .input($0) } + [.result(0)],
        extents: extents, layouts: query.unpacked, inPlace: op.epilogue.residualIndex.map { [$0] } ?? [])
    ]
  }
}
