import Base
import Driver
import Formats
import Glibc
import TestSupport
import Testing

/// The `mcc` program as a person uses it: exit codes, messages, and what is left behind.
@Suite struct CommandLineTests {
  private func fails(
    _ arguments: [String], exit code: Int32, saying words: String..., sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let outcome = try MCCProgram.run(arguments)
    #expect(outcome.exitCode == code, "\(outcome.errors)", sourceLocation: sourceLocation)
    for word in words {
      #expect(outcome.errors.contains(word), "\(outcome.errors)", sourceLocation: sourceLocation)
    }
    #expect(outcome.text.isEmpty, sourceLocation: sourceLocation)
  }

  @Test func wrongArgumentsExitWith64() throws {
    try fails(["compile"], exit: 64, saying: "model")
    try fails(["convrt", "a", "b"], exit: 64, saying: "unknown command 'convrt'", "did you mean 'convert'?")
    try fails(["xyzzy"], exit: 64, saying: "unknown command 'xyzzy'", "commands: compile, convert")
    try fails(["compile", "x", "--quantise", "w8"], exit: 64, saying: "--quantise")
    try fails(["compile", CompiledModels.stories, "--quantize", "w9"], exit: 64, saying: "error:", "w9")
    try fails(["compile", CompiledModels.stories, "--target", "z80"], exit: 64, saying: "z80", "x86-64-v3")
    try fails(
      ["compile", CompiledModels.stories, "--pipeline", "fuse", "--quantize", "w8"], exit: 64, saying: "--pipeline")
    try fails(["compile", CompiledModels.stories, "--pipeline", "fusee"], exit: 64, saying: "'fusee'", "'fuse'")
    try fails(["compile", CompiledModels.stories, "--context", "0"], exit: 64, saying: "--context")
    try fails(["opt", CompiledModels.stories, "--pipeline", "canonicalize{x=1}"], exit: 64, saying: "'x'")
  }

  @Test func outputsThatAreNotAskedForGo() throws {
    let folder = try TemporaryFolder()
    try folder.write(
      "heads.mir",
      """
      model @heads {
        func @main (%x: f32[2, 3]) -> (y: f32[2, 3], aux: f32[2, 3]) {
          %y = relu(%x)
          %aux = tanh(%y)
          return %y, %aux
        }
      }
      """)
    let path = folder.path("heads.mir")
    for command in ["opt", "dump"] {
      let kept = try MCCProgram.run([command, path, "--outputs", "y"])
      #expect(kept.exitCode == 0 && kept.text.contains("relu") && !kept.text.contains("tanh"), "\(kept.errors)")
    }
    try fails(["opt", path, "--outputs", "yy"], exit: 64, saying: "'yy'", "y, aux")
    try fails(["opt", path, "--outputs", ","], exit: 64, saying: "--outputs")
  }

  @Test func damagedInputsExitWith65AndLeaveNothing() throws {
    let folder = try TemporaryFolder()
    let output = folder.path("program")
    try fails(["compile", folder.path("nothing"), "-o", output], exit: 65, saying: "nothing")
    let garbage = try folder.write("model.gguf", [UInt8]("GGUF".utf8) + [3, 0, 0, 0, 255, 255])
    try fails(["compile", garbage, "-o", output], exit: 65, saying: "model.gguf")
    try folder.write(
      "bad.mir", "mcc_ir 1 stage = import\nmodel @m {\n  func @f(%x: f32[2]) -> (%y) {\n    %y = relux(%x)\n")
    try fails(["compile", folder.path("bad.mir"), "-o", output], exit: 65, saying: "bad.mir:4", "relux")
    #expect(!folder.names().contains("program"))
    #expect(folder.names().allSatisfy { $0 == "model.gguf" || $0 == "bad.mir" }, "\(folder.names())")
  }

  @Test func emptyModelsExitWith65() throws {
    let folder = try TemporaryFolder()
    try fails(["compile", folder.path, "-o", folder.path("p")], exit: 65, saying: "the empty folder")
    for name in ["empty.gguf", "empty.onnx"] {
      let path = try folder.write(name, "")
      try fails(["compile", path, "-o", folder.path("p")], exit: 65, saying: "the empty file", name)
    }
    try fails(["compile", folder.path, "-o", folder.path("p")], exit: 69, saying: "the folder")
  }

  /// A rotation that finds nothing says so.
  @Test func rotatingNothingIsSaid() throws {
    let folder = try TemporaryFolder()
    let outcome = try MCCProgram.run([
      "compile", Fixtures.packageRoot + "/Examples/keyword_spotting/kws.onnx", "-o", folder.path("p"), "--quantize",
      "w8", "--rotate", "hadamard",
    ])
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    #expect(outcome.text.contains("note: nothing is turned: the network has no stream between layers"))
  }

  @Test func truncatedCheckpointNamesItsFile() throws {
    let folder = try TemporaryFolder()
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
      try folder.write(name, MappedFile.contents(path: "\(CompiledModels.stories)/\(name)"))
    }
    let weights = try MappedFile.contents(path: "\(CompiledModels.stories)/model.safetensors")
    try folder.write("model.safetensors", Array(weights.prefix(weights.count / 2)))
    try fails(["compile", folder.path, "-o", folder.path("program")], exit: 65, saying: "model.safetensors")
    #expect(!folder.names().contains("program"))
  }

  @Test func outputsThatCannotBeWritten() throws {
    try fails(
      ["compile", CompiledModels.stories, "-o", "/nonexistent/folder/x"], exit: 73, saying: "/nonexistent/folder")
    try fails(["dump", CompiledModels.stories, "-o", "/dev/full"], exit: 74, saying: "/dev/full")
    // Before the work: the first thing that is wrong is said, and text and model are never read.
    let folder = try TemporaryFolder()
    let file = try folder.write("file", "x")
    let model = CompiledModels.stories, bad = file + "/x", text = folder.path("no text")
    let calibration = ["--quantize", "w4", "--calibrate", text]
    try fails(["compile", model, "-o", bad] + calibration, exit: 73, saying: bad)
    try fails(["compile", model, "-o", folder.path("a/b")] + calibration, exit: 73, saying: "a/b")
    try fails(["compile", model, "-o", folder.path] + calibration, exit: 73, saying: "it is a directory")
    try fails(["compile", model, "--emit", "c", "-o", bad] + calibration, exit: 73, saying: "the folder '\(bad)'")
    try fails(["compile", model, "--emit", "c", "-o", file] + calibration, exit: 73, saying: "it is no folder")
    try fails(
      ["compile", model, "-o", folder.path("p"), "--keep", bad] + calibration, exit: 73,
      saying: "the folder '\(bad)'")
    for command in ["opt", "dump"] {
      try fails([command, model, "-o", folder.path("a/b")] + calibration, exit: 73, saying: "a/b")
    }
    for name in ["b.gguf", "b"] {
      try fails(["convert", folder.path("no model"), folder.path("a/" + name)], exit: 73, saying: "a/" + name)
      try fails(
        ["merge", folder.path("no model"), folder.path("none"), "-o", folder.path("a/" + name)], exit: 73,
        saying: "a/" + name)
    }
    try fails(["sweep", model, "--text", text, "--plot", folder.path("a/b.svg")], exit: 73, saying: "a/b.svg")
    #expect(folder.names() == ["file"], "\(folder.names())")
  }

  @Test func missingCompilerExitsWith71() throws {
    let folder = try TemporaryFolder()
    guard let mcc = MCCProgram.path else { return #expect(MCCProgram.path != nil) }
    let outcome = try Command.run(
      mcc, ["compile", CompiledModels.stories, "-o", folder.path("x"), "--cache-dir", folder.path("cache")],
      environment: ["PATH": folder.path, "CC": ""])
    #expect(outcome.exitCode == 71)
    #expect(outcome.errors.contains("compiler"), "\(outcome.errors)")
    #expect(!folder.names().contains("x"))
  }

  @Test func unsupportedOperatorExitsWith69() throws {
    // A ModelProto with one node 'Bogus': ir_version 8, opset 17.
    func field(_ number: UInt8, _ bytes: [UInt8]) -> [UInt8] { [number << 3 | 2, UInt8(bytes.count)] + bytes }
    let node = field(1, Array("x".utf8)) + field(2, Array("y".utf8)) + field(4, Array("Bogus".utf8))
    let dims = field(2, field(1, [8, 1]))
    let type = field(2, field(1, [8, 1] + dims))
    let graph = field(1, node) + field(11, field(1, Array("x".utf8)) + type) + field(12, field(1, Array("y".utf8)))
    let model: [UInt8] = [8, 8] + field(7, graph) + field(8, [16, 17])
    let folder = try TemporaryFolder()
    let path = try folder.write("bogus.onnx", model)
    try fails(["compile", path, "-o", folder.path("x")], exit: 69, saying: "'Bogus'", "bogus.onnx")
  }

  @Test func listsSpeakJSON() throws {
    for command in ["passes", "kernels", "formats", "targets"] {
      let outcome = try MCCProgram.run([command, "--json"])
      #expect(outcome.exitCode == 0)
      let rows = try JSON.parse(outcome.output, file: command).array ?? []
      #expect(!rows.isEmpty && rows.allSatisfy { $0["name"]?.string != nil && $0["summary"]?.string != nil })
      #expect(try MCCProgram.run([command]).text.split(separator: "\n").count == rows.count)
    }
  }

  @Test func inspectCountsParameters() throws {
    let outcome = try MCCProgram.run(["inspect", "--json", CompiledModels.stories])
    let json = try JSON.parse(outcome.output, file: "inspect")
    // 512 x 64 embeddings, 5 layers of 4 attention and 3 FFN matrices and 2 gains, and the last gain.
    let layer = 64 * 64 * 2 + 64 * 32 * 2 + 64 * 172 * 3 + 2 * 64
    #expect((json["parameters"]?.int ?? 0) - (512 * 64 + 5 * layer + 64) <= 64, "\(json["parameters"]?.int ?? 0)")
    #expect((json["parameters"]?.int ?? 0) >= 512 * 64 + 5 * layer + 64)
  }

  @Test func documentedPassesAreThePassesThereAre() throws {
    let page = String(decoding: try MappedFile.contents(path: Fixtures.packageRoot + "/docs/passes.md"), as: UTF8.self)
    #expect(try MCCProgram.run(["passes", "--markdown"]).text == page)
  }

  @Test func passesTellWhenAndWhence() throws {
    for pass in PassDescription.all {
      for text in [pass.summary, pass.legality, pass.source] {
        #expect(!text.isEmpty && !text.contains("\n") && text.last != ".", "\(pass.name): \(text)")
      }
    }
    let fuse = try MCCProgram.run(["passes", "fuse"]).text
    // Options without a default are options of the pass.
    let allocate = try PassDescription(named: "allocate-bits")
    #expect(allocate.optional == ["samples", "bits", "bytes", "size", "accept"], "\(allocate.optional)")
    for pass in PassDescription.all where pass.place == .pipeline {
      for option in pass.optional {
        let outcome = try MCCProgram.run(["opt", CompiledModels.stories, "--pipeline", "\(pass.name){\(option)=[[]]}"])
        #expect(outcome.exitCode == 64 && !outcome.errors.contains("unknown"), "\(pass.name): \(outcome.errors)")
      }
    }
    for word in ["fuse: ", "when: ", "fidelity: exact", "source: ", "fuse-silu"] { #expect(fuse.contains(word)) }
    let json = try JSON.parse(try MCCProgram.run(["passes", "--json", "fuse"]).output, file: "passes")
    #expect(json["legality"]?.string?.isEmpty == false && json["rules"]?.array?.isEmpty == false)
    try fails(["passes", "fusee"], exit: 64, saying: "unknown pass 'fusee'", "'fuse'")
  }

  @Test func presetsPrintTheirPipelines() throws {
    func passes(_ preset: String) throws -> [String] {
      try MCCProgram.run(["passes", "--preset", preset]).text.split(separator: "\n").map(String.init)
    }
    #expect(try passes("O0").count < passes("O1").count)
    #expect(try passes("O1").allSatisfy { $0.hasSuffix(" exact") })
    #expect(try passes("O2").contains { $0.hasSuffix(" rounding") })
    #expect(try passes("O1").map { $0.prefix { $0 != " " } } == Presets.simplify().passes.map { $0.name[...] })
    try fails(["passes", "--preset", "01"], exit: 64, saying: "unknown preset '01'", "'O1'")
    try fails(["opt", CompiledModels.stories, "-O1", "--pipeline", "fuse"], exit: 64, saying: "-O1", "--pipeline")
    let plain = try MCCProgram.run(["opt", "-O0", CompiledModels.stories])
    let fused = try MCCProgram.run(["opt", "-O1", CompiledModels.stories])
    #expect(plain.exitCode == 0 && fused.exitCode == 0)
    #expect(try MCCProgram.run(["opt", CompiledModels.stories]).text == fused.text)
    #expect(!plain.text.contains("gated = true") && fused.text.contains("gated = true"))
    // What every level leaves has kernels.
    for level in Presets.Level.allCases {
      for model in [CompiledModels.stories, Fixtures.path("mlperf-tiny/pretrainedResnet.onnx")].compactMap({ $0 }) {
        var options = FrontendOptions()
        options.level = level
        #expect(throws: Never.self, "\(level) \(model)") { _ = try Compiler.model(model, at: .lower, options) }
      }
    }
  }

  @Test func checksAndGates() throws {
    let folder = try TemporaryFolder()
    let output = folder.path("out.mir")
    let good = try MCCProgram.run(["opt", CompiledModels.stories, "--check", "-o", output])
    #expect(good.exitCode == 0, "\(good.errors)")
    #expect(good.errors.contains("check: 1 runs, '") && good.errors.contains("in f64"))
    // Four bits change the next token's distribution, so a gate of nothing stops them, and leaves no output.
    let model = CompiledModels.stories
    try fails(
      ["opt", model, "--quantize", "w4g32", "--max-kl", "1e-9", "-o", folder.path("none.mir")], exit: 1,
      saying: "'quantize'", "KL divergence", "'logits'", "at '%")
    try fails(["opt", model, "--quantize", "w4g32", "--max-error", "1e-9"], exit: 1, saying: "relative error")
    #expect(!folder.names().contains("none.mir"))
    try fails(["opt", model, "--check-inputs", "x.npz"], exit: 64, saying: "--check")
    try fails(["opt", model, "--max-kl", "-1"], exit: 64, saying: "--max-kl")
    let ids = folder.path("ids.npy")
    try NumPyArray([Int64(1), 403, 407, 261, 378], [1, 5]).write(to: ids)
    let real = try MCCProgram.run(["opt", model, "--check", "--check-inputs", ids, "-o", output])
    #expect(real.exitCode == 0 && real.errors.contains("check: 2 runs"), "\(real.errors)")
    // With ids of the user these decide, not the made-up ones.
    let gate = ["opt", model, "--quantize", "w8", "--max-error", "0.1", "-o", output]
    #expect(try MCCProgram.run(gate + ["--check-inputs", ids]).exitCode == 0)
    try NumPyArray([Int64(512)], [1]).write(to: ids)
    try fails(["opt", model, "--check", "--check-inputs", ids], exit: 69, saying: "cannot be checked", "512")
  }

  @Test func manifestsTellOfChecks() throws {
    let folder = try TemporaryFolder()
    let program = folder.path("story")
    let outcome = try MCCProgram.run(
      ["compile", CompiledModels.stories, "-o", program, "--check", "--json", "--cache-dir", folder.path("cache")])
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    let manifest = try JSON.parse(try Command.run(program, ["--manifest"]).output, file: "manifest")
    for json in [try JSON.parse(outcome.output, file: "summary"), manifest] {
      let checks = (json["passes"]?.array ?? []).compactMap { $0["check"] }
      #expect(checks.count >= 2)
      for check in checks {
        let logits = check["outputs"]?.array?.first { $0["output"]?.string == "logits" }
        #expect((logits?["largest"]?.double ?? 1) <= (logits?["bound"]?.double ?? 0))
        #expect((logits?["f64_largest"]?.double ?? 1) <= (logits?["f64_bound"]?.double ?? 0))
      }
    }
  }

  @Test func explanationsNameThePlace() throws {
    let folder = try TemporaryFolder()
    try folder.write(
      "m.mir",
      """
      model @m {
        func @main(%x: f32[2, 3]) -> (y, s) {
          %s = sigmoid(%x)
          %y = multiply(%x, %s)
          return %y, %s
        }
      }
      """)
    for name in ["fuse", "fuse-silu"] {
      let outcome = try MCCProgram.run(["opt", folder.path("m.mir"), "--explain", name])
      #expect(outcome.exitCode == 0)
      #expect(outcome.errors == "%y: fuse-silu: '%s' has another user\n", "\(outcome.errors)")
    }
    try fails(["opt", folder.path("m.mir"), "--explain", "fuse-silo"], exit: 64, saying: "'fuse-silo'", "'fuse-silu'")
  }

  /// The help of mcc and its commands, compared whole. `RECORD=1` writes the snapshots anew.
  @Test(arguments: [
    "", "compile", "convert", "merge", "dump", "opt", "inspect", "audit", "run", "verify", "profile", "bench-kernels",
    "cache",
    "passes", "kernels", "formats", "targets",
  ])
  func helpIsAsRecorded(command: String) throws {
    guard let mcc = MCCProgram.path else { return #expect(MCCProgram.path != nil) }
    let arguments = (command.isEmpty ? [] : [command]) + ["--help"]
    let help = try Command.run(mcc, arguments, environment: ["COLUMNS": "80"])
    #expect(help.exitCode == 0)
    let path = Fixtures.packageRoot + "/Tests/EndToEndTests/Fixtures/help-\(command.isEmpty ? "mcc" : command).txt"
    if getenv("RECORD") != nil { try AtomicFile.write(help.text, to: path) }
    #expect(help.text == String(decoding: try MappedFile.contents(path: path), as: UTF8.self))
  }
}
