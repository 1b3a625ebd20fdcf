import Base
import CodeGen
import Driver
import Formats
import IR
import Tensors
import TestSupport
import Testing

/// ONNX networks through the evaluator and as programs, against recorded outputs.
@Suite(.serialized) struct NetworkTests {
  /// Runs `model` on each input in both ways; the largest differences, relative to the largest magnitude of the output.
  static func differences(
    _ model: String, _ name: String, inputs: NumPyArray, outputs: NumPyArray
  ) async throws -> (evaluator: Double, program: Double) {
    let program = try await CompiledModels.compile(model, name)
    let loaded = try ModelLoader.load(model)
    let function = try #require(loaded.function(role: "main"))
    let evaluator = try Evaluator(loaded)
    let type = function.type(of: function.inputs[0])
    let shape = try #require(type.shape.fixedSizes)
    let size = shape.reduce(1, *)
    let runs = inputs.count / size
    let expected = outputs.doubles
    let each = expected.count / runs
    let largest = expected.map(abs).max() ?? 1
    let folder = try TemporaryFolder()
    var worst = (evaluator: 0.0, program: 0.0)
    for run in 0..<runs {
      let input = NumPyArray(Array(inputs.floats[run * size..<(run + 1) * size]), shape)
      let reference = expected[run * each..<(run + 1) * each]
      let evaluated = NumPyArray(try evaluator.run([input.tensor]).outputs[0].view).doubles
      try input.write(to: folder.path("x.npy"))
      _ = try CompiledModels.run(
        program, ["--input", folder.path("x.npy"), "--output", folder.path("y.npz")])
      let computed = try #require(try NumPyArchive(path: folder.path("y.npz")).arrays.first).doubles
      #expect(evaluated.count == each && computed.count == each)
      for (index, value) in reference.enumerated() {
        worst.evaluator = max(worst.evaluator, abs(evaluated[index] - value) / largest)
        worst.program = max(worst.program, abs(computed[index] - value) / largest)
      }
    }
    return worst
  }

  /// The tolerance of recorded float32 outputs is 1e-4 of the largest value. The keyword spotter's recorded outputs come
  /// from TFLite, which runs its int8 weights with quantized activations; ONNX Runtime differs from them by 3.6e-3, so
  /// that network is also compared with ONNX Runtime's own output (the fixture beside this file).
  @Test(arguments: [
    ("ad01_fp32", 1e-4), ("pretrainedResnet", 1e-4), ("vww_96_float", 1e-4), ("kws_ref_model_float32", 5e-3),
  ])
  func tinyNetworksMatchTheirRecordedOutputs(name: String, tolerance: Double) async throws {
    guard let model = Fixtures.path("mlperf-tiny/\(name).onnx"),
      let recorded = Fixtures.path("mlperf-tiny/\(name).expected.npz")
    else { return }
    let archive = try NumPyArchive(path: recorded)
    let worst = try await Self.differences(
      model, name, inputs: archive.require("input", file: recorded), outputs: archive.require("output", file: recorded))
    #expect(worst.evaluator <= tolerance && worst.program <= tolerance, "\(name): \(worst)")
  }

  @Test func keywordSpotterMatchesONNXRuntime() async throws {
    guard let model = Fixtures.path("mlperf-tiny/kws_ref_model_float32.onnx"),
      let recorded = Fixtures.path("mlperf-tiny/kws_ref_model_float32.expected.npz")
    else { return }
    let inputs = try NumPyArchive(path: recorded).require("input", file: recorded)
    let outputs = try NumPyArray.read(
      path: Fixtures.packageRoot + "/Tests/EndToEndTests/Fixtures/kws_onnxruntime.npy")
    let worst = try await Self.differences(model, "kws", inputs: inputs, outputs: outputs)
    #expect(worst.evaluator <= 1e-4 && worst.program <= 1e-4, "\(worst)")
  }

  @Test func keywordSpotterIsRightNineTimesInTen() async throws {
    guard let model = Fixtures.path("mlperf-tiny/kws_ref_model_float32.onnx"),
      let data = Fixtures.path("mlperf-tiny/kws_eval.npz")
    else { return }
    let archive = try NumPyArchive(path: data)
    let inputs = try archive.require("input", file: data)
    let labels = try archive.require("label", file: data).integers
    let loaded = try ModelLoader.load(model)
    let evaluator = try Evaluator(loaded)
    let program = try await CompiledModels.compile(model, "kws-accuracy")
    let folder = try TemporaryFolder()
    let size = 49 * 10
    let values = inputs.floats
    var right = (evaluator: 0, program: 0)
    for (run, label) in labels.enumerated() {
      let input = NumPyArray(Array(values[run * size..<(run + 1) * size]), [1, 49, 10, 1])
      func isRight(_ output: [Float]) -> Bool {
        output.withUnsafeBufferPointer { indexOfLargest($0) } == Int(label)
      }
      if isRight(NumPyArray(try evaluator.run([input.tensor]).outputs[0].view).floats) { right.evaluator += 1 }
      try input.write(to: folder.path("x.npy"))
      _ = try CompiledModels.run(
        program, ["--threads", "1", "--input", folder.path("x.npy"), "--output", folder.path("y.npz")])
      if isRight(try #require(try NumPyArchive(path: folder.path("y.npz")).arrays.first).floats) { right.program += 1 }
    }
    #expect(labels.count == 1000)
    // ONNX Runtime gets 901 of these right; TFLite, which made the recorded outputs, 900.
    #expect(right.evaluator == 901 && right.program == 901, "\(right)")
  }

  /// The graph `name` filled with the seeded weights of its recorded outputs, beside what `script` makes, a piece of
  /// Python that has NumPy and the path `folder`; nil, having said so, if that cannot be had. Weights and inputs come
  /// from NumPy's generators (PCG64, ziggurat).
  private static func filled(_ name: String, script: String) throws -> (model: String, recorded: NumPyArchive)? {
    guard let graph = Fixtures.path("onnx/\(name).onnx"), let fill = Fixtures.path("onnx/fill_weights.py"),
      let recorded = Fixtures.path("onnx/\(name).expected.npz")
    else { return nil }
    let folder = try CompiledModels.folder()
    let model = folder.file("\(name).onnx")
    let setup = "import numpy as np; folder = '\(folder.path)'; recorded = np.load('\(recorded)'); "
    guard try Command.run("python3", [fill, graph, model]).exitCode == 0,
      try Command.run("python3", ["-c", setup + script]).exitCode == 0
    else {
      Fixtures.skip("needs the Python packages numpy and onnx")
      return nil
    }
    return (model, try NumPyArchive(path: recorded))
  }

  private static func image(_ name: String, size: Int) -> String {
    "np.save(folder + '/\(name).npy', "
      + "np.random.default_rng([1, 0]).standard_normal((1, 3, \(size), \(size)), dtype=np.float32))"
  }

  /// Convolutions and transposed convolutions over one axis, with two outputs.
  @Test func vocoderMatchesItsRecordedOutputs() async throws {
    let script =
      "np.save(folder + '/vocoder.npy', "
      + "np.random.default_rng([1, 0]).standard_normal((1, 80, 40), dtype=np.float32))"
    guard let (model, recorded) = try Self.filled("vocoder", script: script) else { return }
    try await Self.check(model, "vocoder", recorded, outputs: ["output_0", "output_1"])
  }

  @Test(arguments: ["mobilenet_v2", "resnet50", "repvgg_a0", "efficientnet_b0"])
  func imageNetworksMatchTheirRecordedOutputs(name: String) async throws {
    guard let (model, recorded) = try Self.filled(name, script: Self.image(name, size: 224)) else { return }
    let folder = try CompiledModels.folder()
    let worst = try await Self.differences(
      model, name, inputs: NumPyArray.read(path: folder.file(name + ".npy")),
      outputs: recorded.require("output_0", file: name))
    #expect(worst.evaluator <= 1e-4 && worst.program <= 1e-4, "\(name): \(worst)")
  }

  /// Networks in training form: normalizations and branches are all in the weights. Their outputs are compared above and below.
  @Test(arguments: [
    ("repvgg_a0", ["conv2d": 22, "reduce": 1, "reshape": 1, "matmul": 1]),
    ("yolo_gelan", ["conv2d": 30, "slice": 4, "concat": 5, "max_pool2d": 1, "resize2d": 1]),
  ])
  func trainingFormsEndWithPlainConvolutions(name: String, operators: [String: Int]) throws {
    guard let (path, _) = try Self.filled(name, script: "pass") else { return }
    var model = try ModelLoader.load(path)
    var context = PassContext()
    try PassManager().run(Presets.simplify(), on: &model, &context)
    let graph = model.functions[0]
    var counts: [String: Int] = [:]
    for id in graph.nodeIDs where !ConstantEvaluator.isRecipe(graph[id].results[0], in: graph) {
      counts[graph[id].op.name, default: 0] += 1
    }
    #expect(counts == operators)
  }

  /// The largest difference of a program's outputs from the recorded ones, relative to the largest magnitude of each.
  private static func difference(
    _ program: String, inputs: [String], _ recorded: NumPyArchive, outputs: [String]
  ) throws -> Double {
    let folder = try TemporaryFolder()
    _ = try CompiledModels.run(
      program, inputs.flatMap { ["--input", $0] } + ["--output", folder.path("y.npz")])
    return try difference(of: NumPyArchive(path: folder.path("y.npz")).arrays, recorded, outputs: outputs)
  }

  /// The same of the evaluator's outputs.
  private static func difference(
    evaluating model: Model, inputs: [String], _ recorded: NumPyArchive, outputs: [String]
  ) throws -> Double {
    let function = try #require(model.function(role: "main"))
    let results = try Evaluator(model).run(TensorArchives.inputs(inputs, of: function)).outputs
    return try difference(of: results.map { NumPyArray($0.view) }, recorded, outputs: outputs)
  }

  private static func difference(
    of computed: [NumPyArray], _ recorded: NumPyArchive, outputs: [String]
  ) throws -> Double {
    try #require(computed.count == outputs.count)
    var worst = 0.0
    for (name, array) in zip(outputs, computed) {
      let reference = try recorded.require(name, file: "recorded outputs")
      let expected = reference.doubles
      let largest = try #require(expected.map(abs).max())
      let values = array.doubles
      try #require(values.allSatisfy(\.isFinite) && array.shape.first == reference.shape.first)
      // Of long texts the first positions are recorded.
      let batch = try #require(reference.shape.first)
      let (own, each) = (values.count / batch, expected.count / batch)
      try #require(each <= own)
      for (index, value) in expected.enumerated() {
        worst = max(worst, abs(values[index / each * own + index % each] - value) / largest)
      }
    }
    return worst
  }

  /// Networks with shape arithmetic, in both ways.
  @Test(arguments: [
    ("vit_small", 224, 1), ("swin_tiny", 224, 1), ("shufflenet_v2", 224, 1), ("yolo_gelan", 160, 2),
    ("densenet121", 224, 1), ("squeezenet1_1", 224, 1), ("convnext_tiny", 224, 1),
  ])
  func exportedNetworksMatch(name: String, size: Int, outputs: Int) async throws {
    guard let (model, recorded) = try Self.filled(name, script: Self.image(name, size: size)) else { return }
    try await Self.check(model, name, recorded, outputs: (0..<outputs).map { "output_\($0)" })
  }

  /// Compares program and evaluator with recorded outputs for the input that lies beside the model.
  private static func check(_ model: String, _ name: String, _ recorded: NumPyArchive, outputs: [String]) async throws {
    let program = try await CompiledModels.compile(model, name)
    let input = try CompiledModels.folder().file(name + ".npy")
    let compiled = try difference(program, inputs: [input], recorded, outputs: outputs)
    let evaluated = try difference(
      evaluating: ModelLoader.load(model), inputs: [input], recorded, outputs: outputs)
    #expect(compiled <= 1e-4 && evaluated <= 1e-4, "\(name): \(compiled), \(evaluated)")
  }

  /// One program for any number of texts of any length.
  @Test func encoderWithOpenSizesMatches() async throws {
    let script =
      "[np.save(f'{folder}/bert_{name}.npy', recorded[name]) for name in recorded.files if name[0] != 'o']"
    guard let (model, recorded) = try Self.filled("bert_dynamic", script: script) else { return }
    let folder = try CompiledModels.folder()
    let dimensions = ["b": 1...4, "s": 1...512]
    let program = try await CompiledModels.compile(model, "bert_dynamic", dimensions: dimensions)
    let loaded = try ModelLoader.load(model, LoadOptions(dimensions: dimensions))
    for run in 0..<3 {
      let inputs = ["input_ids", "attention_mask"].map { "\($0)=\(folder.file("bert_\($0)_\(run).npy"))" }
      let compiled = try Self.difference(program, inputs: inputs, recorded, outputs: ["output_\(run)"])
      let evaluated = try Self.difference(evaluating: loaded, inputs: inputs, recorded, outputs: ["output_\(run)"])
      #expect(compiled <= 1e-4 && evaluated <= 1e-4, "run \(run): \(compiled), \(evaluated)")
    }
  }

  /// Recurrent layers.
  @Test(arguments: ["lstm_lm", "gru_tagger"]) func recurrentNetworksMatch(name: String) async throws {
    let script = "np.save(folder + '/\(name).npy', recorded['input'])"
    guard let (model, recorded) = try Self.filled(name, script: script) else { return }
    try await Self.check(model, name, recorded, outputs: ["output_0"])
  }

  /// Decoders as mcc writes them to ONNX, with rotary embedding, groups of heads, masks and soft caps in primitives: the
  /// programs give what the graph gives as it was read.
  @Test(arguments: ["llama", "gemma2"]) func decodersFromPrimitivesMatch(name: String) async throws {
    guard let source = Fixtures.path("architectures/\(name)") else { return }
    let model = try CompiledModels.folder().file("\(name).onnx")
    _ = try Converter().convert(source, to: model)
    let program = try await CompiledModels.compile(
      model, "\(name)_onnx", dimensions: ["sequence": 1...8, "past_sequence": 1...16])
    var check = ProgramCheck()
    check.original = true
    let result = try await check.run(model: model, program: program)
    // Sums of f32 in another order, through three layers.
    #expect(result.differences.count == 7 && result.differences.allSatisfy { $0.relative <= 1e-5 }, "\(result)")
    let reader = try MappedFile(path: program)
    let text = try ProgramFile(reader).manifest().text()
    #expect(text.contains("attention") && text.contains("rope"))
  }
}
