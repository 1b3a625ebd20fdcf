import Base
import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// Convolutions with channels last on every target against the reference meaning of the operator.
@Suite struct ConvTests {
  static let targets = TargetRegistry.all.map(\.name)

  /// The sizes of one convolution.
  struct Sizes {
    var n = 1
    var h, w, c, o: Int
    var kernel: [Int]
    var strides = [1, 1]
    var padding = [0, 0, 0, 0]
    var dilations = [1, 1]
    var groups = 1
  }

  /// Sums in another order than the reference's, in f32: 1e-5 of the largest result.
  static let tolerance = 1e-5

  static func convolution(
    _ s: Sizes, _ epilogue: Epilogue = .identity, runtimeBatch: Bool = false
  ) throws -> KernelCase {
    let op = Conv2D(
      strides: s.strides, padding: s.padding, dilations: s.dilations, groups: s.groups, layout: .last,
      epilogue: epilogue)
    var inputs = [
      Tensor.random([s.n, s.h, s.w, s.c], seed: 1), Tensor.random([s.o, s.c / s.groups] + s.kernel, seed: 2),
    ]
    if epilogue.bias { inputs.append(Tensor.random([s.o], seed: 3)) }
    if epilogue.residual != .none {
      let result = try op.with(epilogue: Epilogue()).inferTypes([inputs[0].type, inputs[1].type])[0]
      inputs.append(Tensor.random(result.shape.fixedSizes ?? [], seed: 4))
    }
    var types = inputs.map(\.type)
    if runtimeBatch {
      let batch = Dim.symbol(Symbol("N", in: 1...8))
      types[0].shape[0] = batch
      if let index = epilogue.residualIndex { types[index].shape[0] = batch }
    }
    let label = "\(s) \(epilogue)".filter { $0 != "\"" }
    var item = KernelCase(
      label, op, inputs, types: types, constants: [1], symbols: runtimeBatch ? ["N": s.n] : [:], tolerance: tolerance)
    item.tolerances = WinogradTests.tolerances
    return item
  }

  static func check(_ cases: [KernelCase], on name: String, compiler: String = "clang") throws {
    try KernelHarness.check(cases, on: name, compiler: compiler)
  }

  /// One input channel, a few, not a multiple of any vector; likewise output channels.
  @Test(arguments: Self.targets) func channels(target: String) throws {
    var cases: [KernelCase] = []
    for (c, o) in [(1, 1), (1, 17), (3, 7), (7, 8), (8, 3), (17, 17), (17, 1)] {
      cases.append(try Self.convolution(Sizes(h: 3, w: 4, c: c, o: o, kernel: [3, 3], padding: [1, 1, 1, 1])))
      cases.append(try Self.convolution(Sizes(h: 5, w: 6, c: c, o: o, kernel: [1, 1])))
    }
    cases.append(try Self.convolution(Sizes(h: 9, w: 9, c: 20, o: 150, kernel: [1, 1])))
    cases.append(try Self.convolution(Sizes(h: 4, w: 4, c: 33, o: 70, kernel: [3, 3], padding: [1, 1, 1, 1])))
    try Self.check(cases, on: target)
  }

  /// Windows of many forms at the edges of images.
  @Test(arguments: Self.targets) func windows(target: String) throws {
    let sizes = [
      Sizes(h: 23, w: 37, c: 3, o: 17, kernel: [7, 7], strides: [2, 2], padding: [3, 3, 3, 3]),
      Sizes(h: 11, w: 40, c: 5, o: 8, kernel: [5, 5], padding: [2, 2, 2, 2]),
      Sizes(h: 12, w: 31, c: 4, o: 9, kernel: [3, 3], padding: [2, 2, 2, 2], dilations: [2, 2]),
      Sizes(h: 12, w: 14, c: 4, o: 9, kernel: [3, 3], strides: [2, 2], padding: [0, 0, 1, 1]),
      Sizes(h: 12, w: 15, c: 4, o: 9, kernel: [3, 2], strides: [1, 3], padding: [2, 0, 1, 1]),
      Sizes(h: 13, w: 15, c: 4, o: 9, kernel: [2, 3], strides: [3, 2], padding: [0, 2, 1, 0], dilations: [3, 1]),
      Sizes(h: 9, w: 17, c: 6, o: 20, kernel: [1, 1], strides: [2, 2]),
      Sizes(h: 9, w: 17, c: 6, o: 20, kernel: [1, 1], padding: [1, 0, 2, 1]),
      // The window is larger than the image; places whose window sees no pixel at all.
      Sizes(h: 2, w: 3, c: 3, o: 5, kernel: [5, 5], padding: [2, 2, 2, 2]),
      Sizes(h: 2, w: 2, c: 3, o: 5, kernel: [2, 2], padding: [4, 4, 4, 4]),
      Sizes(h: 3, w: 3, c: 3, o: 5, kernel: [3, 3], padding: [4, 5, 4, 5], dilations: [4, 4]),
      Sizes(h: 1, w: 1, c: 3, o: 5, kernel: [3, 3], padding: [1, 1, 1, 1]),
      Sizes(h: 1, w: 1, c: 40, o: 70, kernel: [1, 1]),
      Sizes(h: 7, w: 7, c: 12, o: 10, kernel: [7, 7]),
    ]
    try Self.check(try sizes.map { try Self.convolution($0) }, on: target)
  }

  /// Weights in half precision become f32 panels.
  @Test(arguments: Self.targets) func narrowWeights(target: String) throws {
    var cases: [KernelCase] = []
    for element in [DType.f16, .bf16] {
      for groups in [1, 6] {
        var item = try Self.convolution(
          Sizes(h: 3, w: 4, c: 6, o: 6, kernel: [3, 3], padding: [1, 1, 1, 1], groups: groups))
        let narrow = Tensor(TensorType(element, item.inputs[1].type.shape))
        try Cast(element).evaluate([item.inputs[1].view], into: [narrow.mutableView])
        item.inputs[1] = narrow
        item.types[1] = narrow.type
        cases.append(item)
      }
    }
    try Self.check(cases, on: target)
  }

  /// Several images, also as many as are given at run time, and several strips of lines.
  @Test(arguments: Self.targets) func batches(target: String) throws {
    let small = Sizes(n: 3, h: 5, w: 7, c: 5, o: 9, kernel: [3, 3], padding: [1, 1, 1, 1])
    let flat = Sizes(n: 3, h: 5, w: 7, c: 5, o: 37, kernel: [1, 1])
    let strips = Sizes(n: 2, h: 19, w: 40, c: 260, o: 12, kernel: [1, 1])
    let rows = Sizes(n: 2, h: 31, w: 33, c: 100, o: 9, kernel: [3, 3], padding: [1, 1, 1, 1])
    var cases: [KernelCase] = []
    for sizes in [small, flat, strips, rows] {
      for runtimeBatch in [false, true] { cases.append(try Self.convolution(sizes, runtimeBatch: runtimeBatch)) }
    }
    let epilogue = Epilogue(bias: true, activation: .relu, residual: .beforeActivation)
    cases.append(try Self.convolution(small, epilogue, runtimeBatch: true))
    try Self.check(cases, on: target)
  }

  @Test(arguments: Self.targets) func groups(target: String) throws {
    let sizes = [
      Sizes(h: 8, w: 9, c: 12, o: 18, kernel: [3, 3], padding: [1, 1, 1, 1], groups: 3),
      Sizes(h: 8, w: 9, c: 40, o: 80, kernel: [1, 1], groups: 2),
      Sizes(h: 8, w: 9, c: 64, o: 64, kernel: [3, 3], strides: [2, 2], padding: [1, 1, 1, 1], groups: 2),
      // A multiple of outputs for each channel, and one input for all.
      Sizes(h: 8, w: 9, c: 5, o: 15, kernel: [3, 3], padding: [1, 1, 1, 1], groups: 5),
      Sizes(h: 8, w: 9, c: 1, o: 3, kernel: [3, 3], padding: [1, 1, 1, 1], groups: 1),
      Sizes(h: 8, w: 9, c: 14, o: 7, kernel: [3, 3], padding: [2, 2, 2, 2], dilations: [2, 2], groups: 7),
    ]
    let epilogue = Epilogue(bias: true, residual: .afterActivation)
    try Self.check(try sizes.flatMap { [try Self.convolution($0), try Self.convolution($0, epilogue)] }, on: target)
  }

  /// What a transposed convolution becomes, against its own meaning: the same sums in another order, 1e-5.
  @Test func transposedBecomeConvolutions() throws {
    let forms: [(x: [Int], w: [Int], op: ConvTranspose2D)] = [
      ([2, 3, 4, 5], [3, 4, 2, 2], ConvTranspose2D(strides: [2, 2])),
      (
        [1, 4, 5, 3], [4, 2, 3, 4], ConvTranspose2D(strides: [2, 3], padding: [1, 0, 2, 1], extra: [1, 0], groups: 2)
      ),
      ([1, 2, 1, 7], [2, 3, 1, 16], ConvTranspose2D(strides: [1, 8], padding: [0, 4, 0, 4])),
      ([1, 2, 4, 4], [2, 3, 3, 2], ConvTranspose2D(strides: [1, 2], padding: [2, 1, 1, 1], dilations: [2, 3])),
      // Places that no pixel reaches, and padding that takes away whole pixels.
      ([1, 2, 4, 4], [2, 3, 2, 2], ConvTranspose2D(strides: [3, 4], extra: [2, 3])),
      ([1, 2, 4, 4], [2, 1, 7, 5], ConvTranspose2D(strides: [2, 1], padding: [6, 4, 5, 3], groups: 2)),
      ([1, 2, 5, 5], [2, 3, 2, 2], ConvTranspose2D(strides: [2, 2], padding: [4, 3, 3, 4])),
    ]
    for form in forms {
      let inputs = [
        Tensor.random(form.x, seed: 1), Tensor.random(form.w, seed: 2),
        Tensor.random([form.w[1] * form.op.groups], seed: 3),
      ]
      for count in 2...3 {
        func run(decomposed: Bool) throws -> [Float] {
          var builder = GraphBuilder(name: "main")
          let values = inputs.prefix(count).enumerated().map { builder.input("x\($0)", $1.type) }
          let y = decomposed ? try form.op.decompose(values, in: &builder)[0] : try builder.emit(form.op, values)
          builder.output("y", y)
          var model = Model(name: "transposed")
          model.functions = [builder.graph]
          model.constants = builder.constants
          let result = try Evaluator(model).run(Array(inputs.prefix(count))).outputs[0]
          return Array(result.view.elements(as: Float.self))
        }
        let (expected, found) = (try run(decomposed: false), try run(decomposed: true))
        let largest = expected.map(abs).max() ?? 1
        let worst = zip(expected, found).map { abs($0 - $1) }.max() ?? .infinity
        #expect(expected.count == found.count && worst <= 1e-5 * largest, "\(form.op): \(worst) of \(largest)")
      }
    }
  }

  /// Nearest pixels are copied; means are of four numbers, rounded three times: 1e-6.
  @Test(arguments: Self.targets) func resized(target: String) throws {
    var cases: [KernelCase] = []
    for coordinates in [Resize2D.Coordinates.halfPixel, .pytorchHalfPixel, .alignCorners, .asymmetric] {
      for (height, width) in [(7, 3), (1, 9), (12, 10)] {
        let scales = [Float(height) / 4, Float(width) / 5]
        for (mode, rounding) in [
          (Resize2D.Mode.linear, Resize2D.Rounding.floor), (.nearest, .floor), (.nearest, .ceil),
          (.nearest, .preferFloor), (.nearest, .preferCeil),
        ] {
          let op = Resize2D(
            height: height, width: width, scales: scales, mode: mode, coordinates: coordinates, rounding: rounding,
            layout: .last)
          let x = Tensor.random([2, 4, 5, 19], seed: 5)
          cases.append(KernelCase("\(op)", op, [x], tolerance: mode == .linear ? 1e-6 : 0))
        }
      }
    }
    let first = Resize2D(height: 6, width: 2, scales: [1.7, 0.45], mode: .linear)
    let x = Tensor.random([2, 3, 4, 5], seed: 6)
    var type = x.type
    type.shape[0] = .symbol(Symbol("N", in: 1...8))
    cases.append(KernelCase("channels first", first, [x], types: [type], symbols: ["N": 2], tolerance: 1e-6))
    try Self.check(cases, on: target)
  }

  @Test(arguments: Self.targets) func depthwise(target: String) throws {
    var cases: [KernelCase] = []
    for c in [3, 8, 17, 150] {
      cases.append(
        try Self.convolution(Sizes(h: 5, w: 19, c: c, o: c, kernel: [3, 3], padding: [1, 1, 1, 1], groups: c)))
      cases.append(
        try Self.convolution(
          Sizes(h: 6, w: 9, c: c, o: c, kernel: [3, 3], strides: [2, 2], padding: [0, 0, 1, 1], groups: c)))
    }
    let sizes = [
      Sizes(h: 12, w: 9, c: 7, o: 7, kernel: [5, 5], strides: [2, 2], padding: [2, 2, 2, 2], groups: 7),
      Sizes(h: 12, w: 9, c: 7, o: 7, kernel: [3, 3], padding: [2, 4, 2, 4], dilations: [2, 4], groups: 7),
      Sizes(h: 2, w: 3, c: 20, o: 20, kernel: [7, 7], padding: [3, 3, 3, 3], groups: 20),
      Sizes(h: 2, w: 41, c: 9, o: 9, kernel: [1, 33], padding: [0, 16, 0, 16], groups: 9),
      Sizes(h: 1, w: 1, c: 9, o: 9, kernel: [1, 1], groups: 9),
    ]
    for size in sizes { cases.append(try Self.convolution(size)) }
    let plain = Sizes(n: 2, h: 4, w: 5, c: 19, o: 19, kernel: [3, 3], padding: [1, 1, 1, 1], groups: 19)
    cases.append(try Self.convolution(plain, runtimeBatch: true))
    for residual in [Epilogue.Residual.beforeActivation, .afterActivation] {
      let epilogue = Epilogue(bias: true, activation: .hardSwish, residual: residual)
      cases.append(try Self.convolution(plain, epilogue))
    }
    try Self.check(cases, on: target)
  }

  /// What only the slow kernel takes: channels first, weights and sizes that are not known, images in half precision.
  @Test(arguments: Self.targets) func allKinds(target: String) throws {
    let epilogue = Epilogue(bias: true, activation: .relu, residual: .beforeActivation)
    let first = Conv2D(
      strides: [2, 1], padding: [1, 2, 1, 0], dilations: [1, 2], groups: 2, layout: .first, epilogue: epilogue)
    let x = Tensor.random([2, 4, 7, 8], seed: 1), w = Tensor.random([6, 2, 3, 3], seed: 2)
    let bias = Tensor.random([6], seed: 3), residual = Tensor.random([2, 6, 4, 6], seed: 4)
    var cases = [
      KernelCase("channels first", first, [x, w, bias, residual], constants: [1], tolerance: Self.tolerance),
      KernelCase("computed weights", first, [x, w, bias, residual], tolerance: Self.tolerance),
    ]
    var type = x.type
    type.shape[2] = .symbol(Symbol("H", in: 3...100))
    type.shape[3] = .symbol(Symbol("W", in: 3...100))
    cases.append(
      KernelCase(
        "unknown sizes", Conv2D(strides: [2, 2], padding: [1, 1, 1, 1], layout: .first),
        [x, Tensor.random([3, 4, 3, 3], seed: 5)],
        types: [type, TensorType(.f32, [3, 4, 3, 3])], constants: [1], symbols: ["H": 7, "W": 8],
        tolerance: Self.tolerance))
    // One rounding to f16 or bf16: half a unit in the last of 11 or 8 places.
    for (element, tolerance) in [(DType.f16, 0x1p-11), (.bf16, 0x1p-8)] {
      let narrow = try [x, w, bias, residual].map { tensor in
        let cast = Tensor(TensorType(element, tensor.type.shape))
        try Cast(element).evaluate([tensor.view], into: [cast.mutableView])
        return cast
      }
      cases.append(KernelCase("\(element)", first, narrow, tolerance: tolerance))
    }
    try Self.check(cases, on: target)
  }

  @Test(arguments: Self.targets) func epilogues(target: String) throws {
    var cases: [KernelCase] = []
    let sizes = Sizes(h: 1, w: 2, c: 3, o: 19, kernel: [1, 1])
    for activation in Activation.allCases {
      cases.append(try Self.convolution(sizes, Epilogue(bias: true, activation: activation)))
    }
    for residual in [Epilogue.Residual.beforeActivation, .afterActivation] {
      cases.append(try Self.convolution(sizes, Epilogue(activation: .relu, residual: residual)))
      cases.append(try Self.convolution(sizes, Epilogue(bias: true, activation: .relu6, residual: residual)))
    }
    try Self.check(cases, on: target)
  }
}

extension Conv2D {
  fileprivate func with(epilogue: Epilogue) -> Conv2D {
    var copy = self
    copy.epilogue = epilogue
    return copy
  }
}
