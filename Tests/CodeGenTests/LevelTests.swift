import Base
import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// Programs for several targets: kernels on the layouts that all levels share, weights stored once.
@Suite struct LevelTests {
  /// Levels whose layouts follow a wider target or one with another form of 8-bit codes.
  static let levels: [Target] = {
    var levels = [Target.x86v2, .x86v3, .x86v4, .neonInt8MatMul, .neonDotProduct, .portable]
    for index in levels.indices {
      let own = levels[index].vocabulary.eightBitWeights
      levels[index].joint = Target.JointLayout(lanes: 16, eightBitWeights: own == .u8 ? .i8 : .u8)
    }
    return levels
  }()

  /// The tolerance is that of `KernelTests`: sums in another order, functions a few ulp apart.
  private func products() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (n, k) in [(6, 8), (34, 40), (70, 100)] {
      let dense = Tensor.random([n, k], seed: 1), bias = Tensor.random([n], seed: 2)
      for format in [nil, BlockFormat.w8c, .w8(32), .w4(32)] {
        let w = try format.map { try dense.quantized($0) } ?? dense
        for tokens in [1, 5] {
          let x = Tensor.random([tokens, k], seed: 3)
          let a = try format.map { try x.quantized(.a8($0.group ?? 32)) } ?? x
          var type = a.type
          type.shape[0] = .symbol(Symbol("T", in: 1...64))
          for gated in [false, true] {
            let epilogue = Epilogue(bias: true, activation: .silu, gated: gated)
            cases.append(
              KernelCase(
                "\(format?.name ?? "f32") \(tokens)x\(k)x\(n) \(gated)",
                MatMul(transposeB: true, epilogue: epilogue), [a, w, bias],
                types: tokens == 1 ? nil : [type, w.type, bias.type], constants: [1, 2],
                dequantized: format == nil ? [] : [0, 1], symbols: ["T": tokens], tolerance: 2e-5))
          }
        }
        cases.append(
          KernelCase(
            "gather \(format?.name ?? "f32") \(n)x\(k)", Gather(axis: 0, type: .f32),
            [w, Tensor(.i32, [3], [Int32(n - 1), 0, 5])], constants: [0], tolerance: 1e-7))
      }
    }
    return cases
  }

  private func convolutions() throws -> [KernelCase] {
    let relu = Epilogue(bias: true, activation: .relu)
    return [
      try ConvTests.convolution(.init(h: 6, w: 7, c: 5, o: 3, kernel: [3, 3], padding: [1, 1, 1, 1]), relu),
      try ConvTests.convolution(.init(h: 5, w: 6, c: 8, o: 40, kernel: [1, 1]), relu),
      try ConvTests.convolution(.init(h: 7, w: 6, c: 36, o: 24, kernel: [3, 3], strides: [2, 2], groups: 2)),
      try ConvTests.convolution(
        .init(h: 6, w: 9, c: 37, o: 37, kernel: [3, 3], padding: [1, 1, 1, 1], groups: 37), relu),
      try ConvTests.convolution(.init(h: 8, w: 5, c: 16, o: 16, kernel: [5, 3], strides: [2, 1], groups: 16)),
      try ConvTests.convolution(.init(h: 9, w: 7, c: 20, o: 33, kernel: [3, 3], padding: [1, 1, 1, 1]), relu),
    ]
  }

  /// Sums are exact; without fused multiply-adds a result may be rounded twice, which is one step of codes up to 255.
  private func quantizedConvolutions() throws -> [KernelCase] {
    let relu = Epilogue(bias: true, activation: .relu)
    return try [
      (ConvTests.Sizes(h: 5, w: 6, c: 8, o: 40, kernel: [1, 1]), 9),
      (.init(h: 6, w: 7, c: 5, o: 3, kernel: [3, 3]), 0),
      (.init(h: 7, w: 6, c: 36, o: 24, kernel: [3, 3], strides: [2, 2], groups: 2), 130),
      (.init(h: 6, w: 9, c: 37, o: 37, kernel: [3, 3], padding: [1, 1, 1, 1], groups: 37), 0),
      (.init(h: 8, w: 5, c: 16, o: 16, kernel: [5, 3], strides: [2, 1], groups: 16), 77),
    ].map { try QuantizedConvTests.convolution($0.0, relu, zero: $0.1, tolerance: 1 / 200) }
  }

  @Test(arguments: levels.indices) func kernelsReadTheLayoutOfAnotherLevel(_ index: Int) throws {
    let target = Self.levels[index]
    let harness = KernelHarness(target: target)
    let runs = try harness.sample(try products() + convolutions() + quantizedConvolutions())
      .flatMap { try $0.runs(on: target) }
    for failure in try harness.failures(runs) { Issue.record("\(target.name): \(failure)") }
  }

  private func schedule(_ model: Model, _ targets: [Target]) throws -> Schedule {
    var model = model
    var context = PassContext()
    let generator = CodeGenerator(targets: targets)
    try generator.lower(&model, &context)
    return try generator.schedule(model)
  }

  /// A program for several targets has the weights of one for the widest alone, each once.
  @Test(arguments: ["x86-64", "aarch64", "x86-64-v3,x86-64-v4"]) func weightsAreStoredOnce(_ name: String) throws {
    let targets = try TargetRegistry.targets(named: name)
    let widest = try #require(targets.max { $0.lanes < $1.lanes }?.name)
    let alone = try TargetRegistry.targets(named: widest)
    for model in [
      try LoweringModels.blocks(3), try LoweringModels.blocks(2, format: .w8c),
      try LoweringModels.blocks(2, format: .w4(32)),
      try LoweringModels.decoder(layers: 2), try LoweringModels.images(),
    ] {
      let joint = try schedule(model, targets), single = try schedule(model, alone)
      #expect(joint.weights.map(\.name) == single.weights.map(\.name), "\(model.name)")
      #expect(joint.functions.count == targets.count * single.functions.count)
      #expect(Set(joint.kernelLevels) == Set(targets.indices))
    }
  }

  /// Convolutions of a program for several targets: of whatever kind, their weights are stored once, and where the widest
  /// target's panels are full, in as many bytes as alone.
  @Test(arguments: ["x86-64", "aarch64", "x86-64-v3,x86-64-v4"]) func convolutionsAreStoredOnce(_ name: String) throws {
    let targets = try TargetRegistry.targets(named: name)
    let model = try LoweringModels.convolutions()
    let joint = try schedule(model, targets)
    #expect(joint.weights.map(\.name).sorted() == ["codes", "codes_depthwise", "point", "square"])
    #expect(joint.functions.count == targets.count)
    let square = try #require(joint.weights.first { $0.name == "square" })
    // 9, 16 or 36 numbers for each pair of channels, by the kernel that all levels share.
    #expect([9, 16, 36].contains(square.byteCount / (4 * 64 * 64)) && square.byteCount % (4 * 64 * 64) == 0)
    let widest = try schedule(model, [try #require(targets.max { $0.lanes < $1.lanes })])
    for weight in joint.weights where weight.name != "square" {
      // Headers of panels of 16 instead of 4 lanes.
      let alone = try #require(widest.weights.first { $0.name == weight.name })
      #expect(Double(weight.byteCount) < 1.1 * Double(alone.byteCount), "\(weight.name)")
    }
  }

  @Test func theTextOfSeveralLevelsReadsBack() throws {
    var model = try LoweringModels.decoder(layers: 1)
    var context = PassContext()
    let generator = CodeGenerator(targets: try TargetRegistry.targets(named: "x86-64"))
    try generator.lower(&model, &context)
    #expect(
      model.functions.map(\.target) == ["x86-64-v4", "x86-64-v3", "x86-64-v2"].flatMap { [$0, $0, $0] })
    let text = try Printer.print(model)
    var parsed = try Parser.parse(text, operators: OperatorRegistry.core.adding(LoweringRegistry.operators))
    parsed.compact()
    #expect(parsed == model)
    #expect(text.contains("func @prefill_avx2 role = prefill target = \"x86-64-v3\""))
    #expect(throws: CompileError.self) { try CodeGenerator(target: .x86v3).schedule(model) }
  }

  @Test func listsOfTargetsAreSortedAndChecked() throws {
    func names(_ list: String) throws -> [String] { try TargetRegistry.targets(named: list).map(\.name) }
    #expect(try names("x86-64-v2,x86-64-v4") == ["x86-64-v4", "x86-64-v2"])
    #expect(try names("x86-64-v3,x86-64") == ["x86-64-v4", "x86-64-v3", "x86-64-v2"])
    #expect(try names("aarch64") == ["aarch64-i8mm", "aarch64-dotprod", "aarch64-neon"])
    #expect(try TargetRegistry.targets(named: "x86-64-v3")[0].joint == nil)
    #expect(
      try TargetRegistry.targets(named: "x86-64").allSatisfy { $0.panelLanes == 16 && $0.storedEightBitWeights == .u8 })
    for list in ["x86-64-v3,aarch64", "", "x86-64-v3,", "avx2"] {
      do {
        _ = try TargetRegistry.targets(named: list)
        Issue.record("'\(list)' was accepted")
      } catch let error as CompileError { #expect(error.kind == .usage) }
    }
  }
}
