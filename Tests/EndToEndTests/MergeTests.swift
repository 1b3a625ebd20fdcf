import Base
import Driver
import Formats
import Glibc
import IR
import TestSupport
import Tensors
import Testing

/// `mcc merge`, against NumPy and against what was planted.
@Suite struct MergeTests {
  private static let script = Fixtures.packageRoot + "/Tests/EndToEndTests/Fixtures/merge_reference.py"

  private static func python(_ command: String, _ folder: TemporaryFolder) throws {
    let outcome = try Command.run("python3", [script, command, folder.path])
    guard outcome.exitCode == 0 else { throw CompileError(.check, "python3 failed: \(outcome.errors)") }
  }

  /// One merge of the checkpoints that the script makes.
  private struct Job {
    var inputs = ["a", "b", "c"]
    var options = MergeOptions()
    /// What the script is told beside method and inputs.
    var facts: [(String, JSON)] = []

    init(_ method: MergeMethod, _ facts: [(String, JSON)] = [], _ change: (inout MergeOptions) -> Void = { _ in }) {
      options.method = method
      if method.needsBase { options.base = "base" }
      self.facts = facts
      change(&options)
    }
  }

  private static func numbers(_ values: [Double]) -> JSON { .array(values.map { .number($0) }) }

  private static let jobs: [Job] = {
    var slerp = Job(.slerp, [("t", 0.3)]) { $0.interpolation = 0.3 }
    slerp.inputs = ["a", "b"]
    var alone = Job(.mean, [("names", [])])
    alone.inputs = ["a"]
    var pair = Job(.ties, [("density", 1.0)]) { $0.density = 1 }
    pair.inputs = ["a", "b"]
    return [
      Job(.mean),
      Job(.mean, [("weights", numbers([3, 0, 1]))]) { $0.weights = [3, 0, 1] },
      Job(.mwa, [("values", numbers([2, 1.5, 1])), ("metric", "loss"), ("penalty", 1.0)]) {
        ($0.metric, $0.values) = (.loss, [2, 1.5, 1])
      },
      Job(.mwa, [("values", numbers([100, 200, 300])), ("metric", "step"), ("penalty", 0.7)]) {
        ($0.metric, $0.values, $0.penalty) = (.step, [100, 200, 300], 0.7)
      },
      Job(.taskArithmetic, [("scale", 0.4)]) { $0.scale = 0.4 },
      Job(.taskArithmetic, [("weights", numbers([1, -0.5, 0.25]))]) { $0.weights = [1, -0.5, 0.25] },
      Job(.ties, [("density", 0.2)]),
      Job(.ties, [("density", 0.5), ("scale", 1.5), ("weights", numbers([1, 2, 0.5]))]) {
        ($0.density, $0.scale, $0.weights) = (0.5, 1.5, [1, 2, 0.5])
      },
      pair,
      Job(.dare, [("density", 0.1)]),
      Job(.dare, [("density", 0.6), ("scale", 0.5)]) { ($0.density, $0.scale, $0.seed) = (0.6, 0.5, 11) },
      slerp, alone,
      Job(.mean, [("names", ["narrow", "vector"])]) { $0.layers = ["n*w", "vec?or"] },
      Job(.ties, [("density", 0.2), ("names", ["matrix"]), ("unselected", "base")]) { $0.layers = ["matrix"] },
    ]
  }()

  /// Every method on f64, f32, f16 and bf16, odd shapes, vectors, numbers, zeros and nothing: the nearest number of the
  /// type to what NumPy finds in f64.
  @Test func formulas() async throws {
    guard Fixtures.python(["numpy"]) else { return }
    let folder = try TemporaryFolder()
    try Self.python("make", folder)
    var records: [JSON] = []
    for (index, job) in Self.jobs.enumerated() {
      var options = job.options
      options.base = options.base.map { folder.path($0 + ".safetensors") }
      let output = "merged\(index).safetensors"
      let notes = try await Merger(options).merge(
        job.inputs.map { folder.path($0 + ".safetensors") }, to: folder.path(output))
      #expect(notes.contains { $0.hasPrefix("weights: ") } == (options.method == .mwa || options.weights == [3, 0, 1]))
      let rest = options.base ?? folder.path("a.safetensors")
      let partial = "tensors are merged; the others are those of '\(rest)'"
      #expect(notes.contains { $0.hasSuffix(partial) } == !options.layers.isEmpty)
      var record = JSONObject(job.facts)
      record["method"] = .string(options.method.rawValue)
      record["inputs"] = .array(job.inputs.map { .string($0) })
      record["output"] = .string(output)
      if options.method == .dare {
        let file = try SafetensorsFile(MappedFile(path: folder.path("a.safetensors")))
        record["seeds"] = .object(
          JSONObject(file.tensors.map { ($0.name, .int(Merger.seed(UInt64(options.seed ?? 0), of: $0.name))) }))
      }
      records.append(.object(record))
    }
    try folder.write("jobs.json", JSON.array(records).text())
    try Self.python("check", folder)
  }

  /// The first linear layers of two Llamas whose texts have no token in common, by the normal equations; embeddings and
  /// gains are means.
  @Test func regressionOfCheckpoints() async throws {
    guard Fixtures.python(["numpy"]) else { return }
    let folder = try TemporaryFolder()
    try Self.python("make", folder)
    for (method, diagonal) in [(MergeMethod.regmean, 0.9), (.regmeanPlusPlus, 1)] {
      var options = MergeOptions()
      options.method = method
      options.diagonal = diagonal
      options.length = 13
      options.calibration = ["x", "y"].map { folder.path($0 + ".npy") }
      let notes = try await Merger(options).merge(
        ["x", "y"].map { folder.path($0) }, to: folder.path(method.rawValue))
      #expect(notes.contains("8 linear layers are merged by regression on 105 and 105 rows of input"), "\(notes)")
      #expect(notes.contains("4 other tensors are means"), "\(notes)")
      #expect(folder.names().allSatisfy { !$0.hasPrefix(".") })
    }
    try Self.python("regression", folder)
    // What only one checkpoint has to say stays as it is.
    var options = MergeOptions()
    options.method = .regmean
    options.calibration = [folder.path("x.npy")]
    _ = try await Merger(options).merge([folder.path("x")], to: folder.path("alone.safetensors"))
    let (before, after) = try (
      SafetensorsFile(MappedFile(path: folder.path("x/model.safetensors"))),
      SafetensorsFile(MappedFile(path: folder.path("alone.safetensors")))
    )
    for tensor in before.tensors {
      let other = try #require(after.tensors.first { $0.name == tensor.name })
      #expect(try tensor.file.slice(tensor.range).elementsEqual(other.file.slice(other.range)))
    }
  }

  /// A checkpoint and itself, with a text of fewer tokens than the layers have inputs: what all agree on stays, to the
  /// bit.
  @Test func textsAndSingularStatistics() async throws {
    guard let source = Fixtures.path("stories260K/hf") else { return }
    let folder = try TemporaryFolder()
    let text = try folder.write("text", "Once upon a time, there was a little girl.\nShe had a dog.")
    var options = MergeOptions()
    options.method = .regmeanPlusPlus
    options.diagonal = 1
    options.calibration = [text, text]
    let notes = try await Merger(options).merge([source, source], to: folder.path("merged"))
    #expect(notes.contains { $0.contains("layers are singular") }, "\(notes)")
    #expect(folder.names() == ["merged", "text"])
    let (before, after) = try (
      SafetensorsFile(MappedFile(path: "\(source)/model.safetensors")),
      SafetensorsFile(MappedFile(path: folder.path("merged/model.safetensors")))
    )
    for tensor in before.tensors {
      let other = try #require(after.tensors.first { $0.name == tensor.name })
      #expect(try tensor.file.slice(tensor.range).elementsEqual(other.file.slice(other.range)), "\(tensor.name)")
    }
  }

  /// To GGUF, where names, shapes and orders of rows differ, as by way of a folder; and from there.
  @Test func otherForms() async throws {
    guard let source = Fixtures.path("architectures/llama") else { return }
    let folder = try TemporaryFolder()
    _ = try Converter().convert(source, to: folder.path("a.gguf"))
    var options = MergeOptions()
    options.weights = [1, 3]
    _ = try await Merger(options).merge([source, folder.path("a.gguf")], to: folder.path("b.gguf"))
    #expect(try MappedFile.contents(path: folder.path("a.gguf")) == MappedFile.contents(path: folder.path("b.gguf")))
    _ = try await Merger(options).merge([folder.path("a.gguf"), source], to: folder.path("folder"))
    _ = try Converter().convert(folder.path("a.gguf"), to: folder.path("c"))
    #expect(
      try MappedFile.contents(path: folder.path("folder/model.safetensors"))
        == MappedFile.contents(path: folder.path("c/model.safetensors")))
  }

  @Test func weightsOfMetrics() throws {
    for metric in MergeMetric.allCases {
      let values = [1.25, 0.5, 3]
      #expect(try metric.weights(values, penalty: 0) == [1.0 / 3, 1.0 / 3, 1.0 / 3])
      for penalty in [0.5, 1, 4, 1e6] {
        let weights = try metric.weights(values, penalty: penalty)
        #expect(abs(weights.reduce(0, +) - 1) < 1e-12)
        let order = weights.indices.sorted { weights[$0] < weights[$1] }
        if penalty < 1e6 { #expect(order == (metric == .loss ? [2, 0, 1] : [1, 0, 2])) }
      }
      #expect(throws: CompileError.self) { try metric.weights([1, 0], penalty: 1) }
      #expect(throws: CompileError.self) { try metric.weights([1, 2], penalty: -1) }
    }
  }

  // MARK: Errors

  /// A file of tensors of zeros.
  private static func file(_ tensors: [(name: String, type: String, sizes: [Int], bytes: Int)]) -> [UInt8] {
    var offset = 0
    let entries = tensors.map { tensor in
      defer { offset += tensor.bytes }
      return "\"\(tensor.name)\":{\"dtype\":\"\(tensor.type)\",\"shape\":\(tensor.sizes),"
        + "\"data_offsets\":[\(offset),\(offset + tensor.bytes)]}"
    }
    var header = "{" + entries.joined(separator: ",") + "}"
    while header.utf8.count % 8 != 0 { header += " " }
    let count = withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Array($0) }
    return count + Array(header.utf8) + [UInt8](repeating: 0, count: offset)
  }

  @Test func firstDifferenceIsNamed() async throws {
    let folder = try TemporaryFolder()
    let a = try folder.write("a.safetensors", Self.file([("p", "F32", [2, 3], 24), ("q", "F32", [2], 8)]))
    func difference(_ bytes: [UInt8]) async throws -> String? {
      let b = try folder.write("b.safetensors", bytes)
      let error = await #expect(throws: CompileError.self) {
        try await Merger(MergeOptions()).merge([a, b], to: folder.path("c.safetensors"))
      }
      #expect(error?.kind == .input && error?.subject?.file == b)
      return error?.message
    }
    #expect(
      try await difference(Self.file([("p", "F32", [2, 3], 24)])) == "tensor 'q' is missing, which is in '\(a)'")
    #expect(
      try await difference(Self.file([("p", "F32", [3, 2], 24), ("q", "F32", [2], 8)]))
        == "tensor 'p' has shape [3, 2], in '\(a)' it has [2, 3]")
    #expect(
      try await difference(Self.file([("p", "F32", [2, 3], 24), ("q", "BF16", [2], 4)]))
        == "tensor 'q' is bf16, in '\(a)' it is f32")
    #expect(
      try await difference(
        Self.file([("p", "F32", [2, 3], 24), ("q", "F32", [2], 8), ("r", "F32", [], 4)]))
        == "tensor 'r' is not in '\(a)'")
    #expect(folder.names() == ["a.safetensors", "b.safetensors"])

    guard let source = Fixtures.path("architectures/llama") else { return }
    _ = try Converter().convert(source, to: folder.path("other"))
    let config = try String(decoding: MappedFile.contents(path: folder.path("other/config.json")), as: UTF8.self)
    let parts = config.split(separator: "\n").map { line in
      line.contains("rms_norm_eps") ? "  \"rms_norm_eps\": 0.25," : String(line)
    }
    try folder.write("other/config.json", parts.joined(separator: "\n"))
    let error = await #expect(throws: CompileError.self) {
      try await Merger(MergeOptions()).merge([source, folder.path("other")], to: folder.path("c"))
    }
    #expect(error?.message.hasPrefix("'rms_norm_eps' of the configuration is 0.25, in '\(source)' it is ") == true)
  }

  /// Configurations are compared by the networks that they describe: spellings of one network merge, whatever their keys;
  /// where networks differ, a key that both have is named, else what is different in the network, with the keys.
  @Test func spellingsOfOneNetwork() async throws {
    guard let source = Fixtures.path("architectures/llama3-rope") else { return }
    let folder = try TemporaryFolder()
    var config = try #require(try JSON.read(path: "\(source)/config.json").object)
    let table = try #require(config["rope_parameters"]?.object)
    // As transformers 4 writes it.
    var scaling = table
    scaling["rope_theta"] = nil
    config["rope_parameters"] = nil
    config["rope_theta"] = table["rope_theta"]
    config["rope_scaling"] = .object(scaling)
    config["torch_dtype"] = config["dtype"]
    config["dtype"] = nil
    func write(_ name: String, _ change: (inout JSONObject) -> Void = { _ in }) throws -> String {
      var changed = config
      change(&changed)
      let path = folder.path(name)
      #expect(mkdir(path, 0o755) == 0)
      #expect(symlink("\(source)/model.safetensors", "\(path)/model.safetensors") == 0)
      try AtomicFile.write(JSON.object(changed).bytes(), to: "\(path)/config.json")
      return path
    }
    let old = try write("old")
    for (index, inputs) in [[source, old], [old, source]].enumerated() {
      _ = try await Merger(MergeOptions()).merge(inputs, to: folder.path("merged\(index)"))
      let model = try ModelLoader.load(folder.path("merged\(index)"))
      let difference = try ModelLoader.load(source).firstDifference(in: model, from: "the source")
      #expect(difference == nil)
    }
    func failure(_ first: String, _ second: String) async -> CompileError? {
      await #expect(throws: CompileError.self) {
        try await Merger(MergeOptions()).merge([first, second], to: folder.path("none"))
      }
    }
    // In the other spelling another base: both have no key in common that says so.
    let base = try write("base") { $0["rope_theta"] = 400.0 }
    var error = await failure(source, base)
    #expect(error?.message.contains("holds other numbers in '") == true, "\(error?.message ?? "")")
    #expect(error?.notes.contains { $0.hasPrefix("'rope_theta' of the configuration is 400") } == true)
    error = await failure(old, base)
    #expect(error?.message.hasPrefix("'rope_theta' of the configuration is 400") == true, "\(error?.message ?? "")")
    // A key that is missing stands for its default, which is another.
    let epsilon = try write("epsilon") { $0["rms_norm_eps"] = nil }
    var other = config["rms_norm_eps"]?.double == 1e-6 ? try write("wider") { $0["rms_norm_eps"] = 0.25 } : old
    error = await failure(other, epsilon)
    #expect(error?.message.hasPrefix("the operator of 'model.layers.0.input_layernorm' is 'rms_norm {") == true)
    // What is no network that is known is compared key by key.
    other = try write("unknown") { $0["made_up"] = 1 }
    let same = try write("same") { $0["made_up"] = 2 }
    error = await failure(other, same)
    #expect(error?.message == "'made_up' of the configuration is 2, in '\(other)' it is 1")
  }

  @Test func wrongOptions() throws {
    let folder = try TemporaryFolder()
    let a = try folder.write("a.safetensors", Self.file([("p", "F32", [2], 8)]))
    func fails(_ arguments: [String], _ words: String..., exit: Int32 = 64) throws {
      let outcome = try MCCProgram.run(["merge"] + arguments)
      #expect(outcome.exitCode == exit, "\(outcome.errors)")
      for word in words { #expect(outcome.errors.contains(word), "\(outcome.errors)") }
    }
    let out = ["-o", folder.path("o.safetensors")]
    try fails([a, a], "--output")
    try fails([a, a, "--method", "tie"] + out, "tie", "regmean++")
    try fails([a, a, "--method", "ties"] + out, "ties needs --base")
    try fails([a, a, "--base", a] + out, "--base is for task-arithmetic, ties, dare, not for mean")
    try fails([a, a, "--weights", "1,x"] + out, "'1,x'")
    try fails([a, a, "--weights", "1"] + out, "1 numbers for 2 checkpoints")
    try fails([a, a, "--weights", "0,0"] + out, "not all 0")
    try fails([a, a, a, "--method", "slerp"] + out, "between 2 checkpoints")
    try fails([a, a, "--method", "dare", "--base", a, "--density", "0"] + out, "--density is 0.0")
    try fails([a, a, "--method", "mwa", "--metric", "loss"] + out, "--values")
    try fails([a, a, "--method", "regmean"] + out, "--calibrate once for each checkpoint")
    try fails([a, a, "--layers", "q*"] + out, "no tensor matches 'q*'", "'p'")
    try fails([a, a, "-o", folder.path("o")], "config.json")
    try fails([a, a, "-o", folder.path("o.onnx")], "not written as .onnx")
    try fails([a, folder.path("none")] + out, "none", exit: 65)
    try fails([a, a, "-o", "/nonexistent/o.safetensors"], "/nonexistent", exit: 73)
    #expect(folder.names() == ["a.safetensors"])
    let outcome = try MCCProgram.run(["merge", a, a] + out)
    #expect(outcome.exitCode == 0 && outcome.text.isEmpty)
    #expect(try MappedFile.contents(path: a).suffix(8) == MappedFile.contents(path: out[1]).suffix(8))
  }
}
