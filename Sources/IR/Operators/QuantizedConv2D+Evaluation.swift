import Base
import Tensors

extension QuantizedConv2D {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let (scales, codes) = weights(inputs[1])
    let count = inputs[1].sizes[0], depth = inputs[1].sizes[1]
    let image = Tensor(TensorType(.f64, inputs[0].type.shape))
    let bytes = inputs[0].elements(as: UInt8.self), pixels = image.mutableView.elements(as: Double.self)
    for i in 0..<bytes.count { pixels[i] = Double(Int(bytes[i]) - input.zeroPoint) }
    let factor = Tensor(.f64, [count, depth / (kernel[0] * kernel[1])] + kernel, codes)
    // Whole numbers below 2^53: exact in f64, in any order.
    let sums = Tensor(TensorType(.f64, outputs[0].type.shape))
    try window.evaluate([image.view, factor.view], into: [sums.mutableView])
    let values = sums.view.elements(as: Double.self)
    let bias = epilogue.biasIndex.map { inputs[$0].elements(as: Float.self) }
    let residual = epilogue.residualIndex.map { steps(inputs[$0]) }
    let inner = layout == .first ? sums.view.sizes[2] * sums.view.sizes[3] : 1
    func channel(_ i: Int) -> Int { i / max(inner, 1) % max(count, 1) }
    if let plan = requantization, let output {
      let codes = outputs[0].elements(as: UInt8.self)
      let factors = scales.map { $0 * plan.sum }
      for i in 0..<values.count {
        let o = channel(i)
        let added = bias.map { $0[o] * plan.bias } ?? 0
        var v = added.addingProduct(Float(Int32(values[i])), factors[o])
        if let residual { v = v.addingProduct(residual[i], plan.residual) }
        v = v.isNaN ? plan.low : max(plan.low, min(plan.high, v))
        codes[i] = UInt8(Int(v.rounded(.toNearestOrEven)) + output.zeroPoint)
      }
      return
    }
    let activated = Tensor(TensorType(.f32, outputs[0].type.shape))
    let real = activated.mutableView.elements(as: Float.self)
    let factors = scales.map { $0 * input.scale }
    for i in 0..<values.count {
      real[i] = (bias.map { $0[channel(i)] } ?? 0).addingProduct(Float(Int32(values[i])), factors[channel(i)])
    }
    func add() {
      guard let residual else { return }
      for i in 0..<real.count { real[i] = real[i].addingProduct(residual[i], other?.scale ?? 1) }
    }
    if epilogue.residual == .beforeActivation { add() }
    if epilogue.activation != .none {
      try FusedElementwise(epilogue.activation.function).evaluate([activated.view], into: [activated.mutableView])
    }
    if epilogue.residual == .afterActivation { add() }
    guard let output else {
      outputs[0].bytes.copyMemory(from: activated.view.bytes)
      return
    }
    let codes8 = outputs[0].elements(as: UInt8.self)
    let zero = Float(output.zeroPoint), factor8 = 1 / output.scale
    for i in 0..<real.count {
      let v = real[i] * factor8
      codes8[i] = UInt8((v.isNaN ? -zero : max(-zero, min(255 - zero, v))).rounded(.toNearestOrEven) + zero)
    }
  }

  /// A residual before it is scaled: codes less their zero point, or the numbers themselves.
  private func steps(_ view: TensorView) -> [Float] {
    guard let other else { return Array(view.elements(as: Float.self)) }
    return view.elements(as: UInt8.self).map { Float(Int($0) - other.zeroPoint) }
  }

  /// The scales and codes of the rows of weights.
  private func weights(_ view: TensorView) -> (scales: [Float], codes: [Double]) {
    let depth = view.sizes[1]
    let rowBytes = BlockFormat.w8c.rowBytes(columns: depth)
    var scales: [Float] = [], codes: [Double] = []
    codes.reserveCapacity(view.count)
    for row in 0..<view.sizes[0] {
      let start = row * rowBytes
      scales.append(depth == 0 ? 0 : view.bytes.loadUnaligned(fromByteOffset: start, as: Float.self))
      for k in 0..<depth { codes.append(Double(Int8(bitPattern: view.bytes[start + 4 + k]))) }
    }
    return (scales, codes)
  }
}
