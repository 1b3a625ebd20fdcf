import Base
import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// Poolings with channels last on every target against the reference meaning of the operators.
@Suite struct PoolTests {
  private func check(_ cases: [KernelCase], on name: String) throws {
    try KernelHarness.check(cases, on: name)
  }

  private struct Sizes {
    var image: [Int]
    var kernel: [Int]
    var strides = [1, 1]
    var padding = [0, 0, 0, 0]
    var dilations = [1, 1]
  }

  private static let sizes = [
    Sizes(image: [1, 6, 7, 1], kernel: [2, 2], strides: [2, 2]),
    Sizes(image: [1, 6, 7, 3], kernel: [3, 3], strides: [2, 2], padding: [1, 1, 1, 1]),
    Sizes(image: [2, 9, 33, 17], kernel: [3, 3], strides: [2, 2], padding: [0, 0, 1, 1]),
    Sizes(image: [1, 9, 33, 8], kernel: [3, 3], padding: [1, 1, 1, 1]),
    Sizes(image: [1, 5, 8, 40], kernel: [3, 2], strides: [1, 3], padding: [2, 0, 1, 1]),
    Sizes(image: [1, 7, 7, 130], kernel: [7, 7]),
    Sizes(image: [1, 1, 1, 5], kernel: [1, 1]),
    // The window is larger than the image; a wide window, whose columns are looped over.
    Sizes(image: [1, 2, 3, 5], kernel: [5, 5], padding: [2, 2, 2, 2]),
    Sizes(image: [1, 2, 40, 5], kernel: [2, 39], padding: [1, 20, 0, 20]),
  ]

  private func random(_ sizes: [Int]) -> Tensor { Tensor.random(sizes, seed: 5) }

  /// The largest number is exact.
  @Test(arguments: ConvTests.targets) func largest(target: String) throws {
    var cases = Self.sizes.map { s in
      KernelCase(
        "max \(s.image) \(s.kernel)",
        MaxPool2D(kernel: s.kernel, strides: s.strides, padding: s.padding, layout: .last), [random(s.image)],
        tolerance: 0)
    }
    cases.append(
      KernelCase(
        "max dilated",
        MaxPool2D(kernel: [3, 2], strides: [1, 2], padding: [2, 1, 1, 3], dilations: [2, 3], layout: .last),
        [random([1, 9, 12, 6])], tolerance: 0))
    let special = random([1, 4, 5, 3])
    for (index, value) in [Float.nan, -.infinity, .infinity, -0.0].enumerated() {
      special.mutableView.elements(as: Float.self)[13 * index] = value
    }
    cases.append(
      KernelCase(
        "max of special numbers", MaxPool2D(kernel: [2, 2], padding: [1, 1, 0, 0], layout: .last), [special],
        tolerance: 0))
    let x = random([3, 6, 7, 4])
    var type = x.type
    type.shape[0] = .symbol(Symbol("N", in: 1...8))
    cases.append(
      KernelCase(
        "max of some images", MaxPool2D(kernel: [2, 2], strides: [2, 2], layout: .last), [x], types: [type],
        symbols: ["N": 3], tolerance: 0))
    try check(cases, on: target)
  }

  /// Means of up to 78 numbers, in f32 in another order than the reference's: 1e-5 of the largest.
  @Test(arguments: ConvTests.targets) func averages(target: String) throws {
    let cases = Self.sizes.flatMap { s in
      [false, true].map { whole in
        KernelCase(
          "average \(s.image) \(s.kernel) \(whole)",
          AveragePool2D(
            kernel: s.kernel, strides: s.strides, padding: s.padding, countIncludePad: whole, layout: .last),
          [random(s.image)], tolerance: 1e-5)
      }
    }
    try check(cases, on: target)
  }

  /// What only the slow kernel takes: channels first, sizes that are not known, half precision.
  @Test(arguments: ConvTests.targets) func allKinds(target: String) throws {
    let x = random([2, 3, 7, 8])
    var type = x.type
    type.shape[2] = .symbol(Symbol("H", in: 3...100))
    let maximum = MaxPool2D(kernel: [3, 2], strides: [2, 1], padding: [1, 0, 2, 1], layout: .first)
    let half = Tensor(TensorType(.f16, x.type.shape))
    try Cast(.f16).evaluate([x.view], into: [half.mutableView])
    var cases = [
      KernelCase("max", maximum, [x], tolerance: 0), KernelCase("max f16", maximum, [half], tolerance: 0),
      KernelCase("max of unknown size", maximum, [x], types: [type], symbols: ["H": 7], tolerance: 0),
    ]
    for whole in [false, true] {
      let average = AveragePool2D(
        kernel: [3, 2], strides: [2, 1], padding: [1, 0, 2, 1], countIncludePad: whole, layout: .first)
      cases.append(KernelCase("average \(whole)", average, [x], tolerance: 1e-5))
    }
    try check(cases, on: target)
  }

  /// The mean over all pixels, as networks for images end.
  @Test(arguments: ConvTests.targets) func global(target: String) throws {
    let cases = [1, 17, 200].map { channels in
      KernelCase(
        "mean of \(channels)", Reduce(.mean, axes: [1, 2], keepDims: true), [random([2, 7, 7, channels])],
        tolerance: 1e-5)
    }
    try check(cases, on: target)
  }
}
