import Base
import CodeGen
import Glibc
import IR
import TestSupport
import Tensors
import Testing

/// Whole programs: compiled, run, and compared with the evaluator.
@Suite struct EmissionTests {
  /// Objects are shared by all tests of a run.
  private static let cacheFolder = try? TemporaryFolder()

  private func emission(_ model: Model, _ generator: CodeGenerator) throws -> CodeGenerator.Emission {
    var model = model
    var context = PassContext()
    try generator.lower(&model, &context)
    return try generator.emit(try generator.schedule(model), of: model, manifest: Manifest(compiler: "mcc test"))
  }

  private func build(_ model: Model, _ target: Target, to path: String) async throws -> CodeGenerator.BuildReport {
    let generator = CodeGenerator(target: target)
    let toolchain = Toolchain(
      compiler: try await CCompiler.find(), cache: Self.cacheFolder.map { ObjectCache(folder: $0.path) })
    return try await generator.build(
      try emission(model, generator), to: path, toolchain: toolchain, in: try WorkFolder())
  }

  private static let targets: [Target] = {
    let native = TargetRegistry.native(features: HostCPU.features())
    return native.name == Target.portable.name ? [.portable] : [.portable, native]
  }()

  /// Runs a network on a dense f32 input and compares its only output with that of the evaluator.
  private func check(
    _ model: Model, _ sizes: [Int], program: String, in folder: TemporaryFolder, tolerance: Double, threads: Int = 2
  ) throws {
    let values = (0..<sizes.reduce(1, *)).map { Float(($0 * 37) % 41) / 41 - 0.5 }
    let expected = try Evaluator(model).run([Tensor(.f32, sizes, values)]).outputs[0].array(of: Float.self)
    let input = try folder.write("x.npy", NumPyFile.npy("<f4", sizes, NumPyFile.bytes(values)))
    let output = folder.path("y.npz")
    let outcome = try Command.run(program, ["--input", input, "--output", output, "--threads", "\(threads)"])
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    let found = try NumPyFile.archive(path: output)[0].values(of: Float.self)
    #expect(found.count == expected.count)
    let largest = expected.map(abs).max() ?? 0
    for (a, b) in zip(found, expected) { #expect(abs(Double(a) - Double(b)) <= tolerance * Double(largest)) }
  }

  /// Sums of 24 products in another order, five layers deep: 1e-5 of the largest value is ten times what was seen.
  @Test(arguments: targets.map(\.name)) func aLoopOfLayersComputesWhatTheEvaluatorDoes(target: String) async throws {
    let folder = try TemporaryFolder()
    let model = try LoweringModels.blocks(5)
    let program = folder.path("blocks")
    _ = try await build(model, try TargetRegistry.target(named: target), to: program)
    for rows in [1, 2, 7] {
      for threads in [1, 3] {
        try check(model, [rows, 16], program: program, in: folder, tolerance: 1e-5, threads: threads)
      }
    }
    // A size outside of its range is refused.
    let input = try folder.write(
      "big.npy", NumPyFile.npy("<f4", [8, 16], [UInt8](repeating: 0, count: 8 * 16 * 4)))
    let outcome = try Command.run(program, ["--input", input, "--output", folder.path("z.npz")])
    #expect(outcome.exitCode == 65)
  }

  @Test(arguments: [BlockFormat.w8c, .w4(32)])
  func quantizedWeightsComputeWhatTheEvaluatorDoes(format: BlockFormat) async throws {
    let folder = try TemporaryFolder()
    let model = try LoweringModels.blocks(2, format: format)
    _ = try await build(model, .portable, to: folder.path("blocks"))
    try check(model, [3, 16], program: folder.path("blocks"), in: folder, tolerance: 1e-5)
  }

  @Test func imagesComputeWhatTheEvaluatorDoes() async throws {
    let folder = try TemporaryFolder()
    let model = try LoweringModels.images()
    for target in Self.targets {
      _ = try await build(model, target, to: folder.path("images"))
      try check(model, [1, 3, 9, 7], program: folder.path("images"), in: folder, tolerance: 1e-5)
    }
  }

  /// A decoder fed in one piece, and token by token, gives the logits of the evaluator.
  @Test func aDecoderWithoutTokenizerTakesIds() async throws {
    let folder = try TemporaryFolder()
    let model = try LoweringModels.decoder(layers: 3)
    let program = folder.path("decoder")
    _ = try await build(model, .portable, to: program)
    let ids: [Int32] = [3, 49, 0, 7, 7, 21]
    let input = try folder.write("ids.npy", NumPyFile.npy("<i8", [1, 6], NumPyFile.bytes(ids.map { Int64($0) })))
    let outcome = try Command.run(program, ["logits", "--ids", input, "--output", folder.path("l.npz")])
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    let found = try NumPyFile.archive(path: folder.path("l.npz"))[0].values(of: Float.self)
    let expected = try Evaluator(model).run(
      [Tensor(.i32, [6], ids), Tensor(.i32, [1], [0] as [Int32])], symbols: ["L": 6]
    ).outputs[0].array(of: Float.self)
    #expect(found.count == expected.count)
    for (a, b) in zip(found, expected) { #expect(abs(a - b) <= 1e-5 * (1 + abs(b))) }
    let generated = try Command.run(
      program, ["--prompt-ids", "3,49,0", "-n", "5", "--print-ids", "--ignore-eos", "--temperature", "0"])
    #expect(generated.exitCode == 0, "\(generated.errors)")
    #expect(generated.text.hasPrefix("3,49,0,") || generated.text.hasPrefix("3 49 0 "))
  }

  /// Blocks of two kinds in turn become a loop whose rounds have two pairs of states; attention that differs in scale, window
  /// or cap alone is a function of its own.
  @Test func blocksThatAlternateKeepTheirStatesAndScales() async throws {
    let folder = try TemporaryFolder()
    let model = try LoweringModels.decoder(layers: 8) { layer, attention in
      switch layer % 4 {
      case 0: attention.window = 3
      case 1: attention.scale = 0.9
      case 2: attention.softcap = 0.5
      default: attention.softcap = 2
      }
    }
    let program = folder.path("decoder")
    _ = try await build(model, .portable, to: program)
    let ids: [Int32] = [3, 49, 0, 7, 7, 21, 30, 2]
    let input = try folder.write("ids.npy", NumPyFile.npy("<i8", [1, 8], NumPyFile.bytes(ids.map { Int64($0) })))
    let outcome = try Command.run(program, ["logits", "--ids", input, "--output", folder.path("l.npz")])
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    let found = try NumPyFile.archive(path: folder.path("l.npz"))[0].values(of: Float.self)
    let expected = try Evaluator(model).run(
      [Tensor(.i32, [8], ids), Tensor(.i32, [1], [0] as [Int32])], symbols: ["L": 8]
    ).outputs[0].array(of: Float.self)
    // Sums of a few dozen products in other orders.
    #expect(maxRelativeError(found, expected) <= 1e-5)
  }

  /// The folder of `--emit c` is a program for any compiler, without warnings.
  @Test(arguments: ["clang", "gcc"]) func theSourcesCompileByThemselves(compiler: String) async throws {
    guard try Command.run("sh", ["-c", "command -v \(compiler) make"]).exitCode == 0 else {
      Fixtures.skip("needs \(compiler) and make")
      return
    }
    let folder = try TemporaryFolder()
    let model = try LoweringModels.blocks(4)
    let generator = CodeGenerator(target: .portable)
    try generator.writeSources(try emission(model, generator), to: folder.path("c"))
    let made = try Command.run(
      "make", ["-s", "-C", folder.path("c"), "CC=\(compiler)", "CFLAGS=-O0 -Wall -Wextra -Werror"])
    #expect(made.exitCode == 0, "\(made.errors)")
    try check(model, [3, 16], program: folder.path("c/blocks"), in: folder, tolerance: 1e-5)
  }

  /// So is that of `--emit c --kernels swift`, with a Swift compiler.
  @Test func theSwiftSourcesCompileByThemselves() async throws {
    guard try Command.run("sh", ["-c", "command -v swiftc make"]).exitCode == 0 else {
      Fixtures.skip("needs swiftc and make")
      return
    }
    let folder = try TemporaryFolder()
    let model = try LoweringModels.blocks(4)
    let generator = CodeGenerator(target: .portable, kernels: .swift)
    try generator.writeSources(try emission(model, generator), to: folder.path("c"))
    let made = try Command.run("make", ["-s", "-C", folder.path("c"), "CC=clang", "CFLAGS=-O0 -Wall -Wextra -Werror"])
    #expect(made.exitCode == 0, "\(made.errors)")
    try check(model, [3, 16], program: folder.path("c/blocks"), in: folder, tolerance: 1e-5)
  }

  @Test func theSourcesReadLikeTheModel() throws {
    let generator = CodeGenerator(target: .portable)
    let sources = try emission(try LoweringModels.decoder(layers: 4), generator).sources
    let model = try #require(sources.sources.first { $0.name == "model.c" }?.text)
    let header = try #require(sources.headers.first { $0.name == "model.h" }?.text)
    #expect(sources.face == .languageModel)
    // One loop for each function, one call of attention in each, names from the checkpoint, shapes beside the buffers.
    #expect(model.components(separatedBy: "for (int l = 0; l < 4; l++) {").count == 5)
    #expect(model.components(separatedBy: "mcc_attention").count == 4)
    #expect(header.contains("layer_weights layers[4];"))
    #expect(header.contains("const float *qkv;"))
    #expect(model.contains("/* f32[T, 16] */"))
    for file in sources.sources + sources.headers {
      for line in file.text.split(separator: "\n") where file.name.hasPrefix("model") {
        #expect(line.count <= 120, "\(file.name): \(line)")
      }
    }
    // A kernel is one function, however many layers call it.
    let kernels = sources.sources.filter { $0.name.hasPrefix("kernels") }.map(\.text).joined()
    let definitions = kernels.split(separator: "\n").filter { $0.hasPrefix("void mcc_") }
    #expect(Set(definitions).count == definitions.count)
    #expect(definitions.filter { $0.contains("mcc_attention") }.count == 2)
  }

  @Test func equalModelsGiveEqualSources() throws {
    let generator = CodeGenerator(target: .portable)
    let first = try emission(try LoweringModels.decoder(layers: 2), generator).sources
    let second = try emission(try LoweringModels.decoder(layers: 2), generator).sources
    #expect(first.sources == second.sources && first.headers == second.headers && first.identity == second.identity)
    let other = try emission(try LoweringModels.decoder(layers: 3), generator).sources
    #expect(first.identity != other.identity)
  }

  @Test func theManifestTellsWhatTheProgramIs() async throws {
    let folder = try TemporaryFolder()
    let report = try await build(try LoweringModels.blocks(2), .portable, to: folder.path("blocks"))
    let program = try ProgramFile(try MappedFile(path: folder.path("blocks")))
    let manifest = try program.manifest()
    #expect(manifest["name"]?.string == "blocks")
    #expect(manifest["target"]?.string == Target.portable.name)
    #expect(manifest["functions"]?.array?.first?["inputs"]?.array?.first?["name"]?.string == "x")
    #expect(manifest["weights"]?.array?.count == 7)
    let printed = try Command.run(folder.path("blocks"), ["--manifest"])
    #expect(printed.output == Array(program.bytes(of: .manifest)))
    #expect(report.codeBytes == program.codeBytes)
    #expect(report.fileBytes == program.file.size)
  }

  @Test func anOutputThatCannotBeWrittenLeavesNothing() async throws {
    let folder = try TemporaryFolder()
    let model = try LoweringModels.blocks(1)
    for path in [folder.path("missing/program"), folder.path(".")] {
      do {
        _ = try await build(model, .portable, to: path)
        Issue.record("\(path) was written")
      } catch let error as CompileError {
        #expect(error.kind == .create)
      }
    }
    #expect(folder.names().isEmpty)
  }

  @Test func aFullDiskIsSaid() async throws {
    guard access("/dev/full", W_OK) == 0 else { return }
    do {
      _ = try await build(try LoweringModels.blocks(1), .portable, to: "/dev/full")
      Issue.record("a full disk took a program")
    } catch let error as CompileError {
      #expect(error.kind == .io && error.message.contains("/dev/full"))
    }
  }

  @Test func everyFileOfTheRuntimeIsInThePrograms() {
    let folder = Fixtures.packageRoot + "/Sources/CodeGen/Runtime"
    let names = WorkFolder.names(in: folder).filter { $0.hasSuffix(".c") || $0.hasSuffix(".h") }
    #expect(!names.isEmpty)
    #expect(Set(names) == Set(RuntimeSources.names))
  }

  @Test func aModelLoweredForAnotherTargetIsRefused() throws {
    var model = try LoweringModels.blocks(1)
    var context = PassContext()
    try CodeGenerator(target: .x86v3).lower(&model, &context)
    do {
      _ = try CodeGenerator(target: .portable).schedule(model)
      Issue.record("kernels of x86-64-v3 were scheduled for another target")
    } catch let error as CompileError {
      #expect(error.kind == .usage && error.message.contains("x86-64-v3"))
    }
  }
}

extension String {
  /// The parts between occurrences of a text.
  fileprivate func components(separatedBy separator: String) -> [String] {
    var parts: [String] = []
    var rest = self[...]
    while let range = rest.firstRange(of: separator) {
      parts.append(String(rest[..<range.lowerBound]))
      rest = rest[range.upperBound...]
    }
    return parts + [String(rest)]
  }
}
