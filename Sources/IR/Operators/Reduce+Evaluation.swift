import Base
import Tensors

extension Reduce {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    switch inputs[0].type.element {
    case .f64: try run(Double.self, inputs[0], outputs[0], Self.real)
    case let element where element.isFloat: try run(Float.self, inputs[0], outputs[0], Self.real)
    default: try run(Int64.self, inputs[0], outputs[0], Self.whole)
    }
  }

  /// Applies `reduce` to the elements that each result element stands for.
  private func run<S: Computable>(
    _ type: S.Type, _ input: TensorView, _ output: MutableTensorView,
    _ reduce: @Sendable (Function, UnsafePointer<S>, [Int]) -> S
  ) throws {
    let x = Numbers<S>(input)
    let y = Results<S>(output)
    let strides = denseStrides(x.sizes)
    let reduced = try reducedAxes(of: input.type.shape)
    func offsets(_ axes: [Int]) -> [Int] {
      var result = [0]
      for axis in axes {
        result = result.flatMap { base in (0..<x.sizes[axis]).map { base + $0 * strides[axis] } }
      }
      return result
    }
    let axes = Array(x.sizes.indices)
    let kept = offsets(axes.filter { !reduced[$0] })
    let inner = offsets(axes.filter { reduced[$0] })
    if inner.isEmpty, function == .max || function == .min {
      guard kept.isEmpty else { throw failure("the \(function.rawValue) of no elements is asked for") }
    }
    withExtendedLifetime((x, y)) {
      nonisolated(unsafe) let (source, target) = (x.data, y.data)
      parallelFor(kept.count, grain: max(1, 65536 / max(inner.count, 1))) { range in
        for i in range { target[i] = reduce(function, source + kept[i], inner) }
      }
    }
    y.store()
  }

  /// Sums, means and products are accumulated in f64.
  @Sendable private static func real<R: Real>(_ function: Function, _ x: UnsafePointer<R>, _ offsets: [Int]) -> R {
    switch function {
    case .sum, .mean:
      var sum = 0.0
      for offset in offsets { sum += Double(x[offset]) }
      return R(rounding: function == .sum ? sum : sum / Double(offsets.count))
    case .product:
      var product = 1.0
      for offset in offsets { product *= Double(x[offset]) }
      return R(rounding: product)
    case .max:
      var best = -R.infinity
      for offset in offsets where x[offset] > best || x[offset].isNaN {
        best = x[offset]
        if best.isNaN { break }
      }
      return best
    case .min:
      var best = R.infinity
      for offset in offsets where x[offset] < best || x[offset].isNaN {
        best = x[offset]
        if best.isNaN { break }
      }
      return best
    }
  }

  @Sendable private static func whole(_ function: Function, _ x: UnsafePointer<Int64>, _ offsets: [Int]) -> Int64 {
    switch function {
    case .sum, .mean: offsets.reduce(0) { $0 &+ x[$1] }
    case .product: offsets.reduce(1) { $0 &* x[$1] }
    case .max: offsets.reduce(.min) { Swift.max($0, x[$1]) }
    case .min: offsets.reduce(.max) { Swift.min($0, x[$1]) }
    }
  }
}
