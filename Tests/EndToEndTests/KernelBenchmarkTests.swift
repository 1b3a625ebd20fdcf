import Base
import CodeGen
import Driver
import Formats
import IR
import TestSupport
import Tensors
import Testing

/// `mcc bench-kernels`, `mcc targets --measure`, `mcc compile --tune`, and types that do not pay.
@Suite(.serialized) struct KernelBenchmarkTests {
  private func json(_ arguments: [String]) throws -> JSON {
    let outcome = try MCCProgram.run(arguments)
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    return try JSON.parse(outcome.output, file: "mcc")
  }

  @Test func candidatesOfAProductAreTimed() throws {
    let folder = try TemporaryFolder()
    let cache = ["--cache-dir", folder.path]
    let result = try json(["bench-kernels", "--shapes", "matmul:4x64x96:w4g32", "--threads", "2", "--json"] + cache)
    #expect(result["threads"]?.int == 2 && (result["machine"]?["float_operations"]?.double ?? 0) > 0)
    let calls = result["calls"]?.array ?? []
    #expect(calls.contains { $0["operation"]?.string?.hasPrefix("quantize") == true })
    let product = try #require(calls.first { $0["operation"]?.string?.hasPrefix("matmul") == true })
    #expect(product["operations"]?.double == Double(4 * 2 * 64 * 96))
    let candidates = product["candidates"]?.array ?? []
    #expect(candidates.filter { $0["chosen"]?.bool == true }.count == 1)
    for candidate in candidates {
      #expect((candidate["seconds"]?.double ?? 0) > 0 && (candidate["share_of_limit"]?.double ?? 0) > 0)
      #expect(candidate["name"]?.string?.contains("w4g32a8") == true)
    }
    // The machine was measured once, and is listed with the cache.
    let listed = try MCCProgram.run(["cache", "ls"] + cache).text
    #expect(listed.contains("machines/"))
    let text = try MCCProgram.run(["bench-kernels", "--shapes", "matmul:1x64x96:w4g32", "--filter", "matmul"] + cache)
    #expect(text.exitCode == 0 && text.text.contains(" * mcc_matmul") && !text.text.contains("mcc_quantize"))
  }

  @Test func savedTimesAreInTheManifest() throws {
    let folder = try TemporaryFolder()
    let cache = ["--cache-dir", folder.path("cache")]
    let model = folder.path("product.mir")
    try AtomicFile.write(Printer.print(KernelBenchmark.model(ofShapes: "matmul:2x64x96")), to: model)
    let program = folder.path("product")
    let tuned = try MCCProgram.run(["compile", "-q", "--tune", model, "-o", program] + cache)
    #expect(tuned.exitCode == 0, "\(tuned.errors)")
    let manifest = try JSON.parse(Command.run(program, ["--manifest"]).output, file: "manifest")
    #expect(manifest["machine"]?["kernels_sha256"]?.string?.count == 64)
    #expect((manifest["machine"]?["machine"]?["memory_bytes_all"]?.double ?? 0) > 0)
    let plain = try MCCProgram.run(
      ["compile", "-q", model, "-o", program, "--cache-dir", folder.path("other")])
    #expect(plain.exitCode == 0, "\(plain.errors)")
    #expect(try JSON.parse(Command.run(program, ["--manifest"]).output, file: "manifest")["machine"] == nil)
  }

  @Test func wrongShapesAndTargetsAreSaid() throws {
    func fails(_ arguments: [String], _ code: Int32, _ word: String) throws {
      let outcome = try MCCProgram.run(["bench-kernels"] + arguments)
      #expect(outcome.exitCode == code && outcome.errors.contains(word), "\(outcome)")
    }
    for shapes in ["matmul", "matmul:1x2", "matmul:0x8x8", "matmul:1x8x8:w9", "conv:1x2x3", "matmul:1x8x8:w8:x", ""] {
      try fails(["--shapes", shapes], 64, shapes.hasSuffix("w9") ? "w9" : "--shapes")
    }
    try fails([], 64, "--shapes")
    try fails(["--shapes", "matmul:1x8x8", "--threads", "0"], 64, "--threads")
    let foreign = HostCPU.features().contains("avx2") ? "aarch64-neon" : "x86-64-v3"
    try fails(["--shapes", "matmul:1x8x8", "--target", foreign], 69, foreign)
  }

  /// With a made-up machine whose byte products are slow, 8-bit weights lose against floating point.
  @Test func narrowTypesThatAreSlowerAreRefused() throws {
    func record(byte: Double) throws -> MachineRecord {
      var record = MachineRecord(target: .x86v3, version: "1", processor: "made up")
      record.machine = try #require(
        Machine([
          "threads": 1, "memory_bytes": 1e10, "memory_bytes_all": 1e10, "level2_bytes": 1e11, "level3_bytes": 5e10,
          "float_operations": 1e11, "byte_operations": .number(byte), "nibble_operations": .number(byte),
        ]))
      return record
    }
    func check(_ spec: String, byte: Double) throws {
      var options = FrontendOptions()
      options.quantization = try QuantizationSpec(parsing: spec)
      options.reproducerFolder = nil
      var frontend = Frontend(options)
      let model = try frontend.run(CompiledModels.stories, to: .transform)
      let generator = CodeGenerator(target: .x86v3, record: try record(byte: byte))
      try NarrowTypeCheck(generator).check(model, options)
    }
    for spec in ["w8", "w4g32"] {
      try check(spec, byte: 1e12)
      #expect {
        try check(spec, byte: 1e9)
      } throws: { error in
        guard let error = error as? CompileError else { return false }
        return error.kind == .unsupported && error.message.contains("\(spec)") && error.message.contains("slower")
          && error.message.split(separator: " ").filter { $0 == "ms" || $0 == "s" }.count == 2
      }
    }
    // Types that only narrow have nothing wider but themselves.
    try check("wbf16", byte: 1e9)
  }

  /// What the products of a 4-bit model would take with another type is what those of a model of that type take.
  @Test(arguments: ["w8", "w8a32", nil]) func productsWithOtherTypesTakeTheirTime(_ spec: String?) throws {
    let generator = CodeGenerator(targets: try TargetRegistry.targets(named: "x86-64-v3,x86-64-v2"))
    func model(_ spec: QuantizationSpec?) throws -> Model {
      var options = FrontendOptions()
      options.quantization = spec
      options.reproducerFolder = nil
      var frontend = Frontend(options)
      return try frontend.run(CompiledModels.stories, to: .transform)
    }
    let type = try spec.map { try QuantizationSpec(parsing: $0) }
    let check = NarrowTypeCheck(generator)
    let products = try check.products(of: try model(try QuantizationSpec(parsing: "w4g32")))
    let asked = try check.seconds(products, with: type)
    let entries = try generator.survey(try model(type)).entries.filter { $0.role == "decode" && $0.operation is MatMul }
    let real = entries.reduce(0) { sum, entry in
      sum + Double(entry.count) * (entry.choices.map(\.cost).min() ?? .infinity)
    }
    #expect(asked.own > 0 && asked.other != asked.own)
    #expect(abs(asked.other - real) <= 1e-9 * real)
  }
}
