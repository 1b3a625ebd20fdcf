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
    let graph = try #require(model.function(role: "main"))
    #expect(graph.type(of: graph.states[0].value) == TensorType(.f16, [1024, 128]))
    let tokenizer = try #require(model.tokenizer)
    #expect(tokenizer.algorithm == .byteLevelBPE)
    #expect(tokenizer.splitting == .gpt2)
    #expect(tokenizer.merges.count == 2 * 3839)
    #expect(tokenizer.prefix.isEmpty)
    #expect(tokenizer.beginID == 0)
  }
}
