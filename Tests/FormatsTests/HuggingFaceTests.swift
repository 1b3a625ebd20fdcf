import Base
import Formats
import IR
import Tensors
import TestSupport
import Testing

@Suite struct HuggingFaceTests {
  @Test func loadsStories260K() throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    let model = try FormatRegistry.load(path)
    try Verifier.verify(model)
    let graph = try #require(model.function(role: "main"))
    #expect(graph.symbols == [Symbol("T", in: 1...512), Symbol("L", in: 1...512)])
    #expect(graph.inputs.map { graph[$0].name } == ["tokens", "position"])
    #expect(graph.states.count == 10)
    #expect(
      graph.states.allSatisfy { graph.type(of: $0.value) == TensorType(.f32, [512, 32]) && $0.value != $0.update })
    #expect(graph.outputNames == ["logits"])
    #expect(graph.type(of: graph.outputs[0]).description == "f32[L, 512]")
    #expect(model.archives.count == 1)
    // 5 blocks of 9 tensors, embedding (also the head), last norm, frequencies.
    #expect(model.constants.count == 5 * 9 + 3)
    let down = try #require(model.constants.constants.first { $0.name == "model.layers.3.mlp.down_proj.weight" })
    #expect(down.type == TensorType(.f32, [64, 172]))
    #expect(graph.nodeIDs.contains { graph[$0].origin?.text == "model.layers.3.mlp.down_proj" })
    let tokenizer = try #require(model.tokenizer)
    #expect(tokenizer.tokens.count == 512)
    #expect(tokenizer.merges.count == 2 * 165)
    #expect(tokenizer.prefix == [1])
    #expect(tokenizer.specials == [0, 1, 2])
    #expect(tokenizer.kinds[3] == .byte)
    #expect(model.generation?.topP == 0.9)
    #expect(model.generation?.samples == true)
  }

  @Test func loadsPycode7m() throws {
    guard let path = Fixtures.path("pycode7m") else { return }
    let model = try FormatRegistry.load(path)
    try Verifier.verify(model)
    let graph = try #require(model.function(role: "main"))
    #expect(graph.type(of: graph.states[0].value) == TensorType(.f16, [1024, 128]))
    let tokenizer = try #require(model.tokenizer)
    #expect(tokenizer.algorithm == .byteLevelBPE)
    #expect(tokenizer.splitters.map(\.kind) == [.split, .bytes] && tokenizer.splitters[0].pattern?.rule == .gpt2)
    #expect(tokenizer.merges.count == 2 * 3839)
    #expect(tokenizer.prefix.isEmpty)
    #expect(tokenizer.beginID == 0)
  }

  /// Two correct f32 implementations differ by 1e-4 of the largest logit on these networks.
  @Test(arguments: [
    ("stories260K/hf", "stories260K/expected_logits.npz"),
    ("stories260K/stories260K-f32.gguf", "stories260K/expected_logits.npz"),
  ])
  func logitsOfStories260K(checkpoint: String, recorded: String) throws {
    guard let path = Fixtures.path(checkpoint), let expected = Fixtures.path(recorded) else { return }
    let archive = try NumPyArchive(path: expected)
    let found = try logits(
      of: try FormatRegistry.load(path), for: archive.require("input_ids", file: expected).integers)
    let error = maxRelativeError(found, try archive.require("logits", file: expected).floats)
    #expect(error < 1e-4, "\(error)")
  }

  @Test(
    arguments: [
      "gemma2", "gemma3", "gpt-neox", "gpt2", "llama", "llama3-rope", "mistral", "olmo2", "phi3", "qwen2", "qwen3",
    ])
  func logitsOfArchitecture(name: String) throws {
    guard let path = Fixtures.path("architectures/\(name)") else { return }
    let archive = try NumPyArchive(path: path + "/expected.npz")
    let model = try FormatRegistry.load(path)
    #expect(model.tokenizer == nil)
    for index in 0...1 {
      let ids = try archive.require("input_ids_\(index)", file: path).integers
      let error = maxRelativeError(
        try logits(of: model, for: ids), try archive.require("output_\(index)", file: path).floats)
      #expect(error < 1e-4, "\(error)")
    }
  }

  private func logits(of model: Model, for ids: [Int64]) throws -> [Float] {
    let evaluator = try Evaluator(model)
    let tokens = Tensor(.i32, [ids.count], ids.map { Int32($0) })
    let results = try evaluator.run([tokens, Tensor(.i32, [1], [Int32(0)])], symbols: ["L": ids.count])
    return results.outputs[0].array(of: Float.self)
  }

  @Test func cacheFollowsOptionsAndWeights() throws {
    let folder = try TinyCheckpoint().write()
    func cache(_ options: LoadOptions) throws -> TensorType {
      let graph = try #require(try folder.load(options).functions.first)
      return graph.type(of: graph.states[0].value)
    }
    #expect(try cache(LoadOptions()) == TensorType(.f32, [16, 2]))
    #expect(try cache(LoadOptions(context: 5, cacheType: .f16)) == TensorType(.f16, [5, 2]))
    expectFailure(.usage, "context of 17", "1 to 16") { _ = try cache(LoadOptions(context: 17)) }
    expectFailure(.usage, "context of 0") { _ = try cache(LoadOptions(context: 0)) }
    expectFailure(.unsupported, "8-bit KV cache needs heads of a multiple of 4") {
      _ = try cache(LoadOptions(cacheType: .i8))
    }
    var long = TinyCheckpoint()
    long.config["max_position_embeddings"] = 131072
    let longFolder = try long.write()
    let graph = try #require(try longFolder.load().functions.first)
    #expect(graph.symbols[0].maximum == LoadOptions.defaultContext)
  }

  @Test func untiedHeadAndBiasesAreUsed() throws {
    var checkpoint = TinyCheckpoint()
    checkpoint.config["tie_word_embeddings"] = false
    expectFailure(.input, "missing tensor 'lm_head.weight'") {
      _ = try checkpoint.write().load()
    }
    checkpoint.tensors.append(("lm_head.weight", [8, 4]))
    #expect(try checkpoint.write().load().constants.count == 13)
    checkpoint.config["attention_bias"] = true
    checkpoint.config["mlp_bias"] = true
    for (name, size) in [("self_attn.q", 4), ("self_attn.k", 2), ("self_attn.v", 2), ("self_attn.o", 4)] {
      checkpoint.tensors.append(("model.layers.0.\(name)_proj.bias", [size]))
    }
    for (name, size) in [("gate", 6), ("up", 6), ("down", 4)] {
      checkpoint.tensors.append(("model.layers.0.mlp.\(name)_proj.bias", [size]))
    }
    let model = try checkpoint.write().load()
    try Verifier.verify(model)
    #expect(model.constants.count == 20)
  }

  /// A tied head and buffers that old versions saved may be there and are not used.
  @Test func knownSuperfluousTensorsAreIgnored() throws {
    var checkpoint = TinyCheckpoint()
    checkpoint.tensors.append(("lm_head.weight", [8, 4]))
    checkpoint.tensors.append(("model.layers.0.self_attn.rotary_emb.inv_freq", [1]))
    #expect(try checkpoint.write().load().constants.count == 12)
  }

  @Test func damagedFilesGiveErrors() throws {
    var checkpoint = TinyCheckpoint()
    checkpoint.tokenizer = TinyCheckpoint.llamaTokenizer
    checkpoint.files["generation_config.json"] = "{\"eos_token_id\": [2, 1], \"top_p\": 0.5}"
    for name in ["config.json", "tokenizer.json", "generation_config.json"] {
      let folder = try checkpoint.write()
      let file = try MappedFile(path: folder.path(name))
      expectOnlyCompileErrors(Array(file.bytes), mutations: 1000) { bytes in
        try folder.write(name, bytes)
        try Verifier.verify(folder.load())
      }
    }
  }
}
