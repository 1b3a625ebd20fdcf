import Base
import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// Convolutions of bytes on every target against the reference meaning of the operator, whose sums are exact.
@Suite struct QuantizedConvTests {
  typealias Sizes = ConvTests.Sizes

  /// Where the numbers of a case come from.
  enum Bytes { case random, extreme }

  static func bytes(_ sizes: [Int], seed: UInt64, _ kind: Bytes = .random) -> Tensor {
    var generator = SplitMix64(seed: seed)
    return Tensor(
      .u8, sizes, (0..<sizes.reduce(1, *)).map { _ in kind == .extreme ? 255 : UInt8(generator.int(below: 256)) })
  }

  /// Rows of codes with scales of different magnitudes; extreme ones are all 127 or all -127 (-128 in no format).
  static func weights(_ rows: Int, _ depth: Int, _ kind: Bytes) -> Tensor {
    var generator = SplitMix64(seed: 7)
    var bytes: [UInt8] = []
    for row in 0..<rows {
      let scale: Float = generator.float(in: 0.001...0.01)
      withUnsafeBytes(of: scale) { bytes += $0 }
      let extreme: Int8 = row % 2 == 0 ? 127 : -127
      bytes += (0..<depth).map { _ in
        UInt8(bitPattern: kind == .extreme ? extreme : Int8(generator.int(below: 255) - 127))
      }
    }
    let tensor = Tensor(TensorType(.f32, [.fixed(rows), .fixed(depth)], encoding: .block(.w8c)))
    tensor.mutableView.bytes.copyBytes(from: bytes)
    return tensor
  }

  static func convolution(
    _ s: Sizes, _ epilogue: Epilogue = .identity, zero: Int = 0,
    output: AffineCode? = AffineCode(scale: 3, zeroPoint: 90),
    other: AffineCode? = nil, runtimeBatch: Bool = false, _ kind: Bytes = .random, tolerance: Double
  ) throws -> KernelCase {
    let op = QuantizedConv2D(
      Conv2D(
        strides: s.strides, padding: s.padding, dilations: s.dilations, groups: s.groups, layout: .last,
        epilogue: epilogue), kernel: s.kernel, input: AffineCode(scale: 0.02, zeroPoint: zero), output: output,
      other: other)
    let depth = s.c / s.groups * s.kernel[0] * s.kernel[1]
    var inputs = [bytes([s.n, s.h, s.w, s.c], seed: 1, kind), weights(s.o, depth, kind)]
    if epilogue.bias { inputs.append(Tensor.random([s.o], seed: 3)) }
    if epilogue.residual != .none {
      let plain = QuantizedConv2D(
        Conv2D(strides: s.strides, padding: s.padding, dilations: s.dilations, groups: s.groups, layout: .last),
        kernel: s.kernel, input: AffineCode())
      let sizes = try plain.inferTypes([inputs[0].type, inputs[1].type])[0].shape.fixedSizes ?? []
      inputs.append(other == nil ? Tensor.random(sizes, seed: 4) : bytes(sizes, seed: 4))
    }
    var types = inputs.map(\.type)
    if runtimeBatch {
      let batch = Dim.symbol(Symbol("N", in: 1...8))
      types[0].shape[0] = batch
      if let index = epilogue.residualIndex { types[index].shape[0] = batch }
    }
    let label = "\(s) \(epilogue) zero \(zero) \(kind)".filter { $0 != "\"" }
    return KernelCase(
      label, op, inputs, types: types, constants: [1], symbols: runtimeBatch ? ["N": s.n] : [:], tolerance: tolerance)
  }

  /// Targets with fused multiply-adds give equal bytes. Without, a sum may be rounded twice: one step of codes up to 255.
  private static func step(_ target: String) -> Double { ["portable", "x86-64-v2"].contains(target) ? 1 / 200 : 0 }

  private func check(_ cases: [KernelCase], on name: String) throws {
    let target = try TargetRegistry.target(named: name)
    let runs = try cases.flatMap { try $0.runs(on: target) }
    for failure in try KernelHarness(target: target).failures(runs) { Issue.record("\(name): \(failure)") }
  }

  /// Channels that fill no step of four bytes, no vector, several panels; windows at edges, strides, dilations.
  @Test(arguments: ConvTests.targets) func windows(target: String) throws {
    var cases: [KernelCase] = []
    let sizes = [
      Sizes(h: 5, w: 6, c: 7, o: 17, kernel: [1, 1]), Sizes(h: 1, w: 1, c: 40, o: 70, kernel: [1, 1]),
      Sizes(h: 9, w: 17, c: 8, o: 20, kernel: [1, 1], strides: [2, 2]),
      Sizes(h: 4, w: 30, c: 36, o: 70, kernel: [3, 3], padding: [1, 1, 1, 1]),
      Sizes(h: 13, w: 15, c: 4, o: 9, kernel: [2, 3], strides: [3, 2], padding: [0, 2, 1, 0], dilations: [3, 1]),
      Sizes(h: 2, w: 3, c: 4, o: 5, kernel: [5, 5], padding: [2, 2, 2, 2]),
      // Groups, of few channels too.
      Sizes(h: 8, w: 9, c: 12, o: 18, kernel: [3, 3], padding: [1, 1, 1, 1], groups: 3),
      Sizes(h: 8, w: 9, c: 5, o: 15, kernel: [3, 3], padding: [1, 1, 1, 1], groups: 5),
    ]
    for size in sizes { cases.append(try Self.convolution(size, Epilogue(bias: true), tolerance: Self.step(target))) }
    let plain = [
      Sizes(h: 9, w: 9, c: 20, o: 150, kernel: [1, 1]),
      // Lines of the window read without regard to pixels.
      Sizes(h: 11, w: 37, c: 3, o: 17, kernel: [7, 7], strides: [2, 2]), Sizes(h: 9, w: 9, c: 1, o: 5, kernel: [3, 4]),
      Sizes(h: 9, w: 11, c: 3, o: 5, kernel: [3, 2], dilations: [1, 3]),
    ]
    for size in plain { cases.append(try Self.convolution(size, zero: 131, tolerance: Self.step(target))) }
    try check(cases, on: target)
  }

  @Test(arguments: ConvTests.targets) func depthwise(target: String) throws {
    var cases: [KernelCase] = []
    for c in [3, 50] {
      let same = Sizes(h: 5, w: 19, c: c, o: c, kernel: [3, 3], padding: [1, 1, 1, 1], groups: c)
      let half = Sizes(h: 6, w: 9, c: c, o: c, kernel: [3, 3], strides: [2, 2], padding: [0, 0, 1, 1], groups: c)
      let plain = Sizes(h: 6, w: 9, c: c, o: c, kernel: [5, 3], dilations: [1, 2], groups: c)
      cases += [
        try Self.convolution(same, Epilogue(bias: true, activation: .relu6), tolerance: Self.step(target)),
        try Self.convolution(half, tolerance: Self.step(target)),
        try Self.convolution(plain, zero: 77, tolerance: Self.step(target)),
        try Self.convolution(same, .identity, .extreme, tolerance: Self.step(target)),
      ]
    }
    try check(cases, on: target)
  }

  /// The largest sums that bytes give: 255 * 127 in every product, of either sign, in f32 results that show each unit
  /// of sums up to 2^24; products of pairs do not fit 16 bits.
  @Test(arguments: ConvTests.targets) func extremes(target: String) throws {
    var cases: [KernelCase] = []
    for zero in [0, 255] {
      for sizes in [
        Sizes(h: 2, w: 9, c: 64, o: 40, kernel: [1, 1]), Sizes(h: 4, w: 9, c: 3, o: 40, kernel: [3, 3]),
        Sizes(h: 3, w: 9, c: 512, o: 5, kernel: [3, 3]), Sizes(h: 4, w: 9, c: 6, o: 6, kernel: [3, 3], groups: 6),
      ] {
        cases.append(try Self.convolution(sizes, zero: zero, output: nil, .extreme, tolerance: 0))
        cases.append(try Self.convolution(sizes, zero: zero, .extreme, tolerance: Self.step(target)))
      }
    }
    try check(cases, on: target)
  }

  /// All ways from sums to results. Functions of real numbers in f32 differ by their last bits, codes of them by a step.
  @Test(arguments: ConvTests.targets) func epilogues(target: String) throws {
    var cases: [KernelCase] = []
    let code = AffineCode(scale: 0.7, zeroPoint: 33)
    let sizes = Sizes(n: 2, h: 4, w: 9, c: 20, o: 20, kernel: [1, 1])
    let depthwise = Sizes(n: 2, h: 4, w: 9, c: 20, o: 20, kernel: [3, 3], padding: [1, 1, 1, 1], groups: 20)
    for (activation, other) in [(Activation.none, nil), (.relu, code), (.relu6, code), (.relu, nil)] {
      let epilogue = Epilogue(bias: true, activation: activation, residual: .beforeActivation)
      cases.append(try Self.convolution(sizes, epilogue, other: other, tolerance: Self.step(target)))
      cases.append(try Self.convolution(depthwise, epilogue, other: other, tolerance: Self.step(target)))
    }
    cases.append(
      try Self.convolution(
        sizes, Epilogue(activation: .relu6), output: AffineCode(scale: 0.02), tolerance: Self.step(target)))
    let functions: [(Activation, Epilogue.Residual)] = [
      (.silu, .none), (.hardSwish, .beforeActivation), (.relu, .afterActivation),
    ]
    for (activation, residual) in functions {
      let epilogue = Epilogue(bias: true, activation: activation, residual: residual)
      let other = residual == .none ? nil : code
      cases.append(try Self.convolution(sizes, epilogue, other: other, tolerance: 1 / 200))
      cases.append(try Self.convolution(sizes, epilogue, output: nil, other: other, tolerance: 1e-5))
    }
    cases.append(
      try Self.convolution(
        sizes, Epilogue(activation: .gelu, residual: .afterActivation), output: nil, tolerance: 1e-5))
    cases.append(try Self.convolution(depthwise, runtimeBatch: true, tolerance: Self.step(target)))
    cases.append(try Self.convolution(sizes, runtimeBatch: true, tolerance: Self.step(target)))
    try check(cases, on: target)
  }

  /// Rows of a linear layer, as many as are given at run time.
  @Test(arguments: ConvTests.targets) func rows(target: String) throws {
    let item = try Self.convolution(
      Sizes(h: 1, w: 7, c: 24, o: 50, kernel: [1, 1]), zero: 5, tolerance: Self.step(target))
    var open = item
    open.types[0].shape[2] = .symbol(Symbol("T", in: 1...100))
    open.symbols = ["T": 7]
    try check([item, open], on: target)
  }

  @Test(arguments: ConvTests.targets) func pools(target: String) throws {
    let x = Self.bytes([2, 9, 11, 37], seed: 5)
    let cases = [
      KernelCase(
        "3x3", MaxPool2D(kernel: [3, 3], strides: [2, 2], padding: [1, 1, 1, 1], layout: .last), [x], tolerance: 0),
      KernelCase("2x2", MaxPool2D(kernel: [2, 2], strides: [2, 2], layout: .last), [x], tolerance: 0),
    ]
    try check(cases, on: target)
  }

  /// Codes from numbers and back: half to even, beyond the limits.
  @Test(arguments: ConvTests.targets) func codes(target: String) throws {
    var generator = SplitMix64(seed: 9)
    let numbers =
      generator.floats(999, in: -200...200) + [0.5, 1.5, 2.5, -0.5, 1e30, -1e30, .infinity, -.infinity, -0.0]
    var cases: [KernelCase] = []
    for code in [
      AffineCode(scale: 1, zeroPoint: 100), AffineCode(scale: 0.25), AffineCode(scale: 1e-30, zeroPoint: 255),
    ] {
      cases.append(
        KernelCase("to \(code)", QuantizeLinear(code), [Tensor(.f32, [numbers.count], numbers)], tolerance: 0))
      let bytes = Tensor(.u8, [3, 256], (0..<768).map { UInt8(truncatingIfNeeded: $0) })
      cases.append(KernelCase("from \(code)", DequantizeLinear(code), [bytes], tolerance: 0))
    }
    try check(cases, on: target)
  }

  /// Layouts read back from text are those that were written, and damaged ones are none.
  @Test func layoutsReadBack() throws {
    let order = QuantizedConvOrder(rows: 6, groups: 2, channels: 3, kernel: [3, 2], merged: false, panel: 16)
    var op = QuantizedConv2D()
    op.input = AffineCode(scale: 0.3, zeroPoint: 7)
    op.output = AffineCode(scale: 1e-20, zeroPoint: 255)
    let layout = QuantizedConvLayout(order, op)
    #expect(QuantizedConvLayout(layout.packed) == layout)
    // No output channels, more bits than a number has, a zero point that is no code, too few numbers.
    for (index, value) in [(7, 0), (8, 1 << 32), (10, -1), (9, 256), (16, 300)] {
      var damaged = layout.packed
      damaged.parameters[index] = value
      #expect(QuantizedConvLayout(damaged) == nil)
    }
    var damaged = layout.packed
    damaged.parameters.removeLast()
    #expect(QuantizedConvLayout(damaged) == nil)
    damaged.parameters = [1]
    #expect(QuantizedConvLayout(damaged) == nil)
  }
}
