import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// 3 x 3 convolutions by the minimal filtering algorithm on every target, against the reference meaning of the operator.
@Suite struct WinogradTests {
  /// The bound that the kernels state, relative to the largest result: the transforms of F(4 x 4, 3 x 3) multiply and divide by
  /// up to 10, those of F(2 x 2, 3 x 3) by 2, and lose as many more digits than sums in order.
  static let tolerances = ["mcc_winograd2_": 1e-5, "mcc_winograd4_": 1e-4]

  private static func convolution(
    _ sizes: ConvTests.Sizes, _ epilogue: Epilogue = .identity, runtimeBatch: Bool = false
  ) throws -> KernelCase {
    var item = try ConvTests.convolution(sizes, epilogue, runtimeBatch: runtimeBatch)
    item.kernels = "mcc_winograd"
    return item
  }

  /// The kernels that a target has for a convolution.
  private func kernels(_ item: KernelCase, _ target: String) throws -> [String] {
    let target = try TargetRegistry.target(named: target)
    return try KernelRegistry(target: target).choices(for: item.query()).map(\.name)
  }

  @Test(arguments: ConvTests.targets) func sizes(target: String) throws {
    let sizes = [
      // No tile is whole; whole tiles; one more line than whole tiles.
      ConvTests.Sizes(h: 3, w: 2, c: 8, o: 8, kernel: [3, 3], padding: [1, 1, 1, 1]),
      ConvTests.Sizes(h: 9, w: 13, c: 17, o: 40, kernel: [3, 3], padding: [1, 1, 1, 1]),
      // No zeros around, many, other numbers on each side.
      ConvTests.Sizes(h: 10, w: 6, c: 16, o: 33, kernel: [3, 3]),
      ConvTests.Sizes(h: 6, w: 7, c: 9, o: 11, kernel: [3, 3], padding: [4, 5, 6, 3]),
    ]
    let cases = try sizes.map { try Self.convolution($0) }
    for item in cases {
      let names = try kernels(item, target)
      for prefix in ["mcc_winograd2_", "mcc_winograd4_"] { #expect(names.contains { $0.hasPrefix(prefix) }) }
    }
    try ConvTests.check(cases, on: target)
  }

  /// Several blocks of tiles, the last of them shorter; sums of 9 x 512 products.
  @Test(arguments: ConvTests.targets) func manyChannels(target: String) throws {
    let cases = [
      try Self.convolution(.init(h: 17, w: 18, c: 512, o: 20, kernel: [3, 3], padding: [1, 1, 1, 1])),
      try Self.convolution(
        .init(n: 2, h: 13, w: 14, c: 512, o: 9, kernel: [3, 3], padding: [1, 1, 1, 1]), runtimeBatch: true),
    ]
    try ConvTests.check(cases, on: target)
  }

  @Test(arguments: ConvTests.targets) func epilogues(target: String) throws {
    let sizes = ConvTests.Sizes(h: 6, w: 5, c: 8, o: 41, kernel: [3, 3], padding: [1, 1, 1, 1])
    var cases = [try Self.convolution(sizes, Epilogue(bias: true, activation: .silu), runtimeBatch: true)]
    for residual in [Epilogue.Residual.beforeActivation, .afterActivation] {
      cases.append(try Self.convolution(sizes, Epilogue(bias: true, activation: .relu, residual: residual)))
    }
    try ConvTests.check(cases, on: target)
  }

  /// Images far from zero, where the differences that the transforms take are small against the numbers.
  @Test(arguments: ConvTests.targets) func imagesFarFromZero(target: String) throws {
    var item = try Self.convolution(
      .init(h: 8, w: 8, c: 64, o: 16, kernel: [3, 3], padding: [1, 1, 1, 1]))
    item.inputs[0].mutableView.bytes.withMemoryRebound(to: Float.self) { numbers in
      for index in numbers.indices { numbers[index] = 1000 + numbers[index] }
    }
    try ConvTests.check([item], on: target)
  }

  /// Other windows, strides, dilations and groups have no such kernels.
  @Test func others() throws {
    for sizes in [
      ConvTests.Sizes(h: 9, w: 9, c: 16, o: 16, kernel: [3, 1]),
      ConvTests.Sizes(h: 9, w: 9, c: 16, o: 16, kernel: [3, 3], strides: [2, 2]),
      ConvTests.Sizes(h: 9, w: 9, c: 16, o: 16, kernel: [3, 3], dilations: [2, 2]),
      ConvTests.Sizes(h: 9, w: 9, c: 16, o: 16, kernel: [3, 3], groups: 2),
    ] {
      #expect(try kernels(Self.convolution(sizes), "x86-64-v4").allSatisfy { !$0.contains("winograd") })
    }
  }
}
