import Base
import Tensors

extension QuantizedConv2D {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    guard outputs[0].count > 0 else { return }
    let sizes = Sizes(self, image: inputs[0].sizes, weights: inputs[1].sizes, result: outputs[0].sizes)
    let (scales, codes) = weights(inputs[1], sizes)
    let sums = UnsafeMutablePointer<Int32>.allocate(capacity: outputs[0].count)
    defer { sums.deallocate() }
    codes.withUnsafeBufferPointer { codes in
      guard let codes = codes.baseAddress else { return }
      sum(inputs[0], codes, sizes, into: sums)
    }
    try finish(sums, scales, sizes, inputs, into: outputs[0])
  }

  /// The sizes of one convolution.
  private struct Sizes: Sendable {
    let batch, channels, height, width: Int
    let outputs, outHeight, outWidth: Int
    var positions: Int { outHeight * outWidth }
    /// From one channel of the image to the next, and from one pixel.
    let channelStep, pixelStep: Int
    /// Output channels of neighbouring results: one after the other, or `positions` equal ones.
    let repeats: Int

    init(_ op: QuantizedConv2D, image: [Int], weights: [Int], result: [Int]) {
      let first = op.layout == .first
      batch = image[0]
      channels = image[first ? 1 : 3]
      height = image[first ? 2 : 1]
      width = image[first ? 3 : 2]
      outputs = weights[0]
      outHeight = result[first ? 2 : 1]
      outWidth = result[first ? 3 : 2]
      channelStep = first ? height * width : 1
      pixelStep = first ? 1 : channels
      repeats = first ? outHeight * outWidth : 1
    }
  }

  // MARK: Sums

  /// The scales of the rows of weights, and their codes with the channels of each tap together.
  private func weights(_ view: TensorView, _ sizes: Sizes) -> (scales: [Float], codes: [Int16]) {
    let depth = view.sizes[1], taps = kernel[0] * kernel[1], channels = sizes.channels / groups
    let rowBytes = BlockFormat.w8c.rowBytes(columns: depth)
    var scales: [Float] = []
    var codes = [Int16](repeating: 0, count: sizes.outputs * depth)
    for row in 0..<sizes.outputs {
      let start = row * rowBytes
      scales.append(depth == 0 ? 0 : view.bytes.loadUnaligned(fromByteOffset: start, as: Float.self))
      for channel in 0..<channels {
        for tap in 0..<taps {
          codes[row * depth + tap * channels + channel] =
            Int16(Int8(bitPattern: view.bytes[start + 4 + channel * taps + tap]))
        }
      }
    }
    return (scales, codes)
  }

  /// The sums of all places: whole numbers, the values under the window less their zero point times the codes.
  private func sum(
    _ image: TensorView, _ codes: UnsafePointer<Int16>, _ sizes: Sizes, into sums: UnsafeMutablePointer<Int32>
  ) {
    nonisolated(unsafe) let (codes, sums) = (codes, sums)
    let channels = sizes.channels / groups, outputs = sizes.outputs / groups
    let depth = kernel[0] * kernel[1] * channels
    // The image as numbers, channels last.
    let numbers = UnsafeMutablePointer<Int16>.allocate(capacity: image.count)
    defer { numbers.deallocate() }
    let pixels = sizes.height * sizes.width
    let bytes = image.elements(as: UInt8.self), zero = Int16(input.zeroPoint)
    nonisolated(unsafe) let (source, x) = (bytes, numbers)
    parallelFor(sizes.batch * sizes.height, grain: max(1, 65536 / max(1, sizes.width * sizes.channels))) { range in
      for pixel in (range.lowerBound * sizes.width)..<(range.upperBound * sizes.width) {
        let (number, place) = pixel.quotientAndRemainder(dividingBy: pixels)
        let from = number * pixels * sizes.channels + place * sizes.pixelStep
        for c in 0..<sizes.channels {
          x[pixel * sizes.channels + c] = Int16(source[from + c * sizes.channelStep]) - zero
        }
      }
    }
    parallelFor(sizes.batch * sizes.outHeight) { range in
      let window = UnsafeMutablePointer<Int16>.allocate(capacity: depth)
      let row = UnsafeMutablePointer<Int32>.allocate(capacity: sizes.outputs)
      defer {
        window.deallocate()
        row.deallocate()
      }
      for line in range {
        let (number, i) = line.quotientAndRemainder(dividingBy: sizes.outHeight)
        for j in 0..<sizes.outWidth {
          for group in 0..<groups {
            gather(x + number * pixels * sizes.channels + group * channels, i, j, channels, sizes, into: window)
            multiplyWhole(
              window, by: codes + group * outputs * depth, count: outputs, depth: depth,
              into: row + group * outputs)
          }
          let place = i * sizes.outWidth + j
          if layout == .last {
            (sums + (number * sizes.positions + place) * sizes.outputs).update(from: row, count: sizes.outputs)
          } else {
            let target = sums + number * sizes.outputs * sizes.positions + place
            for o in 0..<sizes.outputs { target[o * sizes.positions] = row[o] }
          }
        }
      }
    }
  }

  /// What the window sees of one group at a place of the result, zeros in the padding.
  private func gather(
    _ x: UnsafePointer<Int16>, _ i: Int, _ j: Int, _ channels: Int, _ sizes: Sizes,
    into window: UnsafeMutablePointer<Int16>
  ) {
    var target = window
    for u in 0..<kernel[0] {
      let line = i * strides[0] + u * dilations[0] - padding[0]
      for v in 0..<kernel[1] {
        let column = j * strides[1] + v * dilations[1] - padding[1]
        if line >= 0, line < sizes.height, column >= 0, column < sizes.width {
          target.update(from: x + (line * sizes.width + column) * sizes.channels, count: channels)
        } else {
          target.update(repeating: 0, count: channels)
        }
        target += channels
      }
    }
  }

  // MARK: Results

  /// What the operator makes of its sums.
  private func finish(
    _ sums: UnsafePointer<Int32>, _ scales: [Float], _ sizes: Sizes, _ inputs: [TensorView],
    into result: MutableTensorView
  ) throws {
    let bias = epilogue.biasIndex.map { inputs[$0].elements(as: Float.self) }
    let residual = epilogue.residualIndex.map { steps(inputs[$0]) }
    let real = Tensor(TensorType(.f32, result.type.shape))
    let values = real.mutableView.elements(as: Float.self)
    /// The first and last of neighbouring results with a channel, and that.
    func forEachRun(_ body: (Range<Int>, Int) -> Void) {
      for run in 0..<(result.count / sizes.repeats) {
        body((run * sizes.repeats)..<((run + 1) * sizes.repeats), run % sizes.outputs)
      }
    }
    func add(_ factor: Float) {
      guard let residual else { return }
      for i in 0..<result.count { values[i] = values[i].addingProduct(residual[i], factor) }
    }
    let plan = requantization
    let scale = plan?.sum ?? input.scale
    forEachRun { range, o in
      let factor = scales[o] * scale, added = bias.map { $0[o] * (plan?.bias ?? 1) } ?? 0
      for i in range { values[i] = added.addingProduct(Float(sums[i]), factor) }
    }
    if let plan, let output {
      add(plan.residual)
      round(values, low: plan.low, high: plan.high, zero: output.zeroPoint, into: result)
    } else {
      if epilogue.residual == .beforeActivation { add(other?.scale ?? 1) }
      if epilogue.activation != .none {
        try FusedElementwise(epilogue.activation.function).evaluate([real.view], into: [real.mutableView])
      }
      if epilogue.residual == .afterActivation { add(other?.scale ?? 1) }
      if let output {
        let factor = 1 / output.scale, zero = Float(output.zeroPoint)
        for i in 0..<result.count { values[i] *= factor }
        round(values, low: -zero, high: 255 - zero, zero: output.zeroPoint, into: result)
      } else {
        result.bytes.copyMemory(from: real.view.bytes)
      }
    }
  }

  /// The codes of numbers of steps: within limits (NaN is the lower one), half to even, from the zero point on.
  private func round(
    _ values: UnsafeMutableBufferPointer<Float>, low: Float, high: Float, zero: Int, into result: MutableTensorView
  ) {
    let codes = result.elements(as: UInt8.self)
    for i in 0..<codes.count {
      let value = values[i].isNaN ? low : max(low, min(high, values[i]))
      codes[i] = UInt8(Int(value.rounded(.toNearestOrEven)) + zero)
    }
  }

  /// A residual before it is scaled: codes less their zero point, or the numbers themselves.
  private func steps(_ view: TensorView) -> [Float] {
    guard let other else { return Array(view.elements(as: Float.self)) }
    return view.elements(as: UInt8.self).map { Float(Int($0) - other.zeroPoint) }
  }
}
