import Base
import Formats
import IR
import Tensors
import TestSupport
import Testing

@Suite struct QuantizedCheckpointTests {
  /// The factors of all products with a weight, by the name of the weight; values whose codes have that name already are
  /// numbered.
  private static func weights(_ graph: Graph) -> [String: ValueID] {
    var result: [String: ValueID] = [:]
    for id in graph.nodeIDs where graph[id].op is MatMul {
      let value = graph[id].inputs[1]
      let name = graph[value].name
      result[name.hasSuffix(".weight_1") ? String(name.dropLast(2)) : name] = value
    }
    return result
  }

  /// What each form evaluates to, bit for bit, and whether the codes are kept in blocks.
  @Test(arguments: QuantizedCheckpoints.forms)
  func evaluatesToTheNumbersOfTheDefinition(form: String) throws {
    guard let folder = try QuantizedCheckpoints.make(form) else { return }
    let model = try FormatRegistry.load(folder.path)
    try Verifier.verify(model)
    let graph = try #require(model.functions.first)
    let expected = try NumPyArchive(path: folder.path("expected.npz"))
    let weights = Self.weights(graph)
    #expect(expected.names.count == 7)
    let evaluator = ConstantEvaluator(model, graph)
    for (name, array) in zip(expected.names, expected.arrays) {
      let value = try #require(weights[name], "\(weights.keys)")
      #expect(graph.type(of: value) == TensorType(.f32, array.shape))
      let found = try evaluator.tensor(value).array(of: Float.self)
      #expect(found == array.floats, "\(form): \(name)")
    }
    let notes = model.metadata.filter { $0.key == Model.noteKey }.map(\.value)
    let dense = [
      "gptq8", "gptq4_order", "ct_int8_asym", "bnb_nf4",
      "bnb_nf4_double", "bitnet",
    ]
    #expect(notes.contains { $0.contains(dense.contains(form) ? "no kernel reads those of 7" : "7 ") }, "\(notes)")
    #expect(notes.contains { $0.contains("no kernel") } == dense.contains(form), "\(form): \(notes)")
    // The text form carries recipes.
    let text = try Printer.print(model, relativeTo: folder.path)
    let back = try Parser.parse(text, file: folder.path("m.mir"))
    #expect(back.functions.count == 1)
  }

  /// Damaged files give errors; codes and scales that disagree about sizes do so too.
  @Test(arguments: ["gptq4_order", "awq", "ct_pack4_asym", "bnb_nf4_double", "bitnet_auto", "ct_nvfp4"])
  func damagedFilesGiveErrors(form: String) throws {
    guard let folder = try QuantizedCheckpoints.make(form) else { return }
    let bytes = try MappedFile.contents(path: folder.path("model.safetensors"))
    var random = SplitMix64(seed: 9)
    let header = 8 + Int(bytes[0]) + Int(bytes[1]) << 8
    for _ in 0..<150 {
      var form = bytes
      for _ in 0...random.int(below: 3) {
        form[8 + random.int(below: header - 8)] = UInt8(ascii: "0") + UInt8(random.int(below: 10))
      }
      try folder.write("model.safetensors", form)
      do {
        try Verifier.verify(try folder.load())
      } catch is CompileError {}
    }
  }

  @Test func refusesMethodsByName() throws {
    var checkpoint = TinyCheckpoint()
    for (value, message): (JSON, String) in [
      (["quant_method": "hqq"], "the 'quant_method' 'hqq' is not supported"),
      (["quant_method": "gptq", "bits": 5], "'bits' is 5"),
      (["quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"], "'checkpoint_format' 'marlin'"),
      (["quant_method": "awq", "version": "gemv"], "'gemv'"),
      (
        ["quant_method": "compressed-tensors", "sparsity_config": ["format": "sparse-24-bitmask"]], "'sparsity_config'"
      ),
    ] {
      checkpoint.config["quantization_config"] = value
      let folder = try checkpoint.write()
      do {
        _ = try folder.load()
        Issue.record("accepted \(value)")
      } catch let error as CompileError {
        #expect(error.description.contains(message) && error.description.contains("config.json"), "\(error)")
      }
    }
  }
}
