import Base
import CodeGen
import Formats
import IR
import Passes
import Tensors

/// Compares a generated program with the evaluator.
package struct ProgramCheck {
  /// The difference of one output.
  package struct Difference: Hashable, Sendable {
    package var output: String
    /// The largest absolute difference.
    package var absolute: Double
    /// The same, divided by the largest magnitude of the reference.
    package var relative: Double
  }

  package var load = LoadOptions()
  /// Compares with the model as it was read instead of the program's own passes.
  package var original = false
  /// Files with inputs; seeded inputs where empty.
  package var inputs: [String] = []
  package var seed: UInt64 = 0
  /// The most tokens of a call of a language model, of the program and of the evaluator; nil for calls of the program's size,
  /// and of 32 tokens where results depend on how a text is cut.
  package var chunk: Int?

  package init() {}

  /// The result of a check.
  package struct Result: Sendable {
    package var differences: [Difference]
    /// Whether activations are quantized on the way.
    package var quantizesActivations: Bool
  }

  /// Runs `program` and the evaluator on `model` with the same inputs.
  package func run(model path: String, program: String) async throws -> Result {
    let manifest = try ProgramFile(try MappedFile(path: program)).manifest()
    // Passes that a program of another model names might fail on this one.
    let source = try Self.main(try ModelLoader.load(path, loadOptions(manifest)), path)
    try Self.requireSameKind(source, path, manifest, program)
    let (model, quantizes) = try await reference(path, manifest)
    let function = try Self.main(model, path)
    let folder = try WorkFolder()
    let names = function.inputs.map { function[$0].name }
    if !CalibrationSamples.takesTokens(function) { try Self.requireInputs(names, path, manifest, program) }
    let differences: [Difference]
    if names == ["tokens", "position"] {
      differences = try await checkLanguageModel(model, function, program, folder)
    } else if function.role == "encode", names == ["tokens"] {
      differences = try await checkEncoder(model, function, program, folder)
    } else {
      differences = try await checkTensors(model, function, program, folder)
    }
    return Result(differences: differences, quantizesActivations: quantizes)
  }

  /// The function of a model that a program is compared with.
  private static func main(_ model: Model, _ path: String) throws -> Graph {
    guard let function = model.function(role: "main") ?? model.functions.first else {
      throw CompileError(.input, "'\(path)' has no function")
    }
    return function
  }

  /// Checks that a model and a program both read tokens, or both do not.
  private static func requireSameKind(
    _ function: Graph, _ path: String, _ manifest: JSON, _ program: String
  ) throws {
    let tokens = inputs(of: manifest).contains { CalibrationSamples.areTokens($0) }
    guard tokens != CalibrationSamples.takesTokens(function) else { return }
    throw CompileError(
      .input,
      tokens
        ? "'\(program)' reads tokens, which '\(path)' does not: it was made from another model"
        : "'\(program)' reads arrays, where '\(path)' reads tokens: it was made from another model")
  }

  /// Checks that a program has the inputs of the function that it is compared with, for arrays.
  private static func requireInputs(_ names: [String], _ path: String, _ manifest: JSON, _ program: String) throws {
    let found = inputs(of: manifest)
    guard !found.contains(where: { Set($0) == Set(names) }) else { return }
    func list(_ names: [String]) -> String { names.map { "'\($0)'" }.joined(separator: ", ") }
    throw CompileError(
      .input,
      "'\(program)' takes \(list(found.first ?? [])), '\(path)' takes \(list(names)): it was made from another model")
  }

  /// The names of the inputs of the functions of a program.
  private static func inputs(of manifest: JSON) -> [[String]] {
    (manifest["functions"]?.array ?? []).map { ($0["inputs"]?.array ?? []).compactMap { $0["name"]?.string } }
  }

  /// The model after the passes of the manifest, or as it was read; and whether activations are quantized.
  private func reference(_ path: String, _ manifest: JSON) async throws -> (Model, Bool) {
    var options = FrontendOptions()
    options.load = loadOptions(manifest)
    let records = manifest["passes"]?.array ?? []
    let text = records.compactMap { $0["options"]?.string }.joined(separator: ",")
    options.pipeline = try Pipeline(parsing: text, registry: Presets.registry)
    if !original { try await options.readTexts(for: path) }
    var frontend = Frontend(options)
    let model = try frontend.run(path, to: original ? .import : .transform)
    let quantizes = model.functions.contains { function in
      function.nodeIDs.contains {
        if (function[$0].op as? Attention)?.int8 != nil { return true }
        if function[$0].op is CacheUpdate, !function.type(of: function[$0].results[0]).isDense { return true }
        return function[$0].op is Quantize && !ConstantEvaluator.isRecipe(function[$0].inputs[0], in: function)
      }
    }
    let roundsWeights = !original && options.pipeline?.passes.contains { $0 is QuantizeSoftmax } ?? false
    return (model, quantizes || roundsWeights)
  }

  /// The options the program was made with, as far as the caller does not give others.
  private func loadOptions(_ manifest: JSON) -> LoadOptions {
    var options = load
    options.context = options.context ?? manifest["metadata"]?["context"]?.string.flatMap { Int($0) }
    options.cacheType = options.cacheType ?? manifest["metadata"]?["cache"]?.string.flatMap { CacheType(rawValue: $0) }
    let isLanguageModel = manifest["metadata"]?["context"] != nil
    for function in manifest["functions"]?.array ?? [] where !isLanguageModel {
      for symbol in function["symbols"]?.array ?? [] {
        guard let name = symbol["name"]?.string, let low = symbol["minimum"]?.int, let high = symbol["maximum"]?.int,
          low <= high, options.dimensions[name] == nil
        else { continue }
        options.dimensions[name] = low...high
      }
    }
    return options
  }

  private func checkLanguageModel(
    _ model: Model, _ function: Graph, _ program: String, _ folder: WorkFolder
  ) async throws -> [Difference] {
    let vocabulary = function.outputs.first.flatMap { function.type(of: $0).shape.last.fixedValue } ?? 1
    let ids = try ids(of: function, vocabulary: vocabulary)
    let file = folder.file("ids.npy")
    try NumPyArray(ids, [1, ids.count]).write(to: file)
    let output = folder.file("logits.npz")
    let evaluator = try Evaluator(model, function: function.name)
    var symbols: [String: Int] = [:]
    var states = try evaluator.initialStates()
    var arguments = ["--ids", file]
    if let cross = model.function(role: "cross") {
      // The source is seeded as well.
      let isText = cross.inputs.first.map { cross[$0].name } == "tokens"
      var source = TensorArchives.seeded(cross, seed: seed)
      if isText {
        var generator = SplitMix64(seed: seed &+ 1)
        let values = (0..<source[0].view.count).map { _ in Int32(generator.int(below: vocabulary)) }
        source = [Tensor(.i32, [values.count], values)]
      }
      let other = folder.file("source.npy")
      try NumPyArray(source[0].view).write(to: other)
      arguments = isText ? ["--ids", other, "--decoder-ids", file] : ["--features", other, "--decoder-ids", file]
      if isText { symbols["S"] = source[0].view.count }
      let filled = try Evaluator(model, function: cross.name).run(source).states
      let names = cross.states.map { cross[$0.value].name }
      for (index, state) in function.states.enumerated() {
        if let place = names.firstIndex(of: function[state.value].name) { states[index] = filled[place] }
      }
    }
    let chunk = chunk ?? (function.dependsOnCalls ? 32 : nil)
    arguments += chunk.map { ["--chunk", "\($0)"] } ?? []
    try await run(program, ["logits"] + arguments + ["--output", output])
    var rows: [Double] = []
    for start in stride(from: 0, to: ids.count, by: chunk ?? max(ids.count, 1)) {
      let part = ids[start..<min(ids.count, start + (chunk ?? ids.count))]
      symbols["L"] = part.count
      let results = try evaluator.run(
        [
          Tensor(.i32, [part.count], part.map { Int32(truncatingIfNeeded: $0) }),
          Tensor(.i32, [1], [Int32(start)]),
        ], states: states, symbols: symbols)
      guard let logits = results.outputs.first else { return [] }
      rows += NumPyArray(logits.view).doubles
      states = results.states
    }
    let found = try NumPyArchive(path: output).require("output", file: output)
    return [try difference("logits", found, rows)]
  }

  private func checkEncoder(
    _ model: Model, _ function: Graph, _ program: String, _ folder: WorkFolder
  ) async throws -> [Difference] {
    let ids = try ids(of: function, vocabulary: model[metadata: "vocabulary"].flatMap { Int($0) } ?? 1)
    let file = folder.file("ids.npy")
    try NumPyArray(ids, [1, ids.count]).write(to: file)
    let output = folder.file("outputs.npz")
    try await run(program, ["logits", "--ids", file, "--output", output])
    let tokens = Tensor(.i32, [ids.count], ids.map { Int32(truncatingIfNeeded: $0) })
    let results = try Evaluator(model, function: function.name).run([tokens])
    let archive = try NumPyArchive(path: output)
    return try zip(function.outputNames, results.outputs).map { name, tensor in
      try difference(name, try archive.require(name, file: output), tensor)
    }
  }

  /// The given ids, as far as the function takes them, or seeded ones.
  private func ids(of function: Graph, vocabulary: Int) throws -> [Int64] {
    let longest = function.symbols.first { $0.name == "T" }?.maximum ?? 1
    if let path = inputs.first { return Array(try NumPyArray.read(path: path).integers.prefix(longest)) }
    var generator = SplitMix64(seed: seed)
    return (0..<min(32, longest)).map { _ in Int64(generator.int(below: vocabulary)) }
  }

  private func checkTensors(
    _ model: Model, _ function: Graph, _ program: String, _ folder: WorkFolder
  ) async throws -> [Difference] {
    let tensors =
      inputs.isEmpty
      ? TensorArchives.seeded(function, seed: seed) : try TensorArchives.inputs(inputs, of: function)
    var arguments: [String] = []
    for (index, (id, tensor)) in zip(function.inputs, tensors).enumerated() {
      let file = folder.file("input\(index).npy")
      try NumPyArray(tensor.view).write(to: file)
      arguments += ["--input", "\(function[id].name)=\(file)"]
    }
    let output = folder.file("outputs.npz")
    try await run(program, arguments + ["--output", output])
    let results = try Evaluator(model, function: function.name).run(tensors)
    let archive = try NumPyArchive(path: output)
    return try zip(function.outputNames, results.outputs).map { name, tensor in
      try difference(name, try archive.require(name, file: output), tensor)
    }
  }

  private func run(_ program: String, _ arguments: [String]) async throws {
    _ = try await ChildProcess.run(ChildProcess.path(of: program), arguments).printed(by: "'\(program)'")
  }

  private func difference(_ name: String, _ found: NumPyArray, _ wanted: Tensor) throws -> Difference {
    try difference(name, found, NumPyArray(wanted.view).doubles)
  }

  private func difference(_ name: String, _ found: NumPyArray, _ reference: [Double]) throws -> Difference {
    let values = found.doubles
    guard values.count == reference.count else {
      throw CompileError(
        .check, "output '\(name)' has \(values.count) numbers, the evaluator gives \(reference.count)")
    }
    var largest = 0.0
    var worst = 0.0
    for (value, wanted) in zip(values, reference) where value != wanted && !(value.isNaN && wanted.isNaN) {
      let distance = abs(value - wanted)
      worst = distance.isNaN ? .infinity : max(worst, distance)
    }
    for wanted in reference where wanted.isFinite { largest = max(largest, abs(wanted)) }
    return Difference(output: name, absolute: worst, relative: worst == 0 ? 0 : worst / max(largest, 1e-30))
  }
}

extension Graph {
  /// Whether some attention reads rows of a call in another way than those of earlier calls.
  fileprivate var dependsOnCalls: Bool {
    nodeIDs.contains { (self[$0].op as? Attention)?.latent?.wholeCalls == true }
  }
}
