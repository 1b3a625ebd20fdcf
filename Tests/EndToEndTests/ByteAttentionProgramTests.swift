import CodeGen
import Driver
import IR
import TestSupport
import Tensors
import Testing

/// Programs whose attention computes with products of bytes.
@Suite(.serialized) struct ByteAttentionProgramTests {
  /// Heads of 32 numbers, which the targets with an instruction for products of bytes compute in them.
  @Test func programAndEvaluatorAgree() async throws {
    guard let model = Fixtures.path("minilm") else { return }
    let program = try await CompiledModels.compile(model, "minilm-at8", quantize: "wf32at8")
    let result = try await ProgramCheck().run(model: model, program: program)
    // The last bit of a sum may move a code by one step, a 127th of the largest number of a row, in each of six layers.
    #expect(try #require(result.differences.map(\.relative).max()) <= 0.02, "\(result.differences)")
    #expect(result.quantizesActivations)
  }

  /// What bytes in attention alone cost embeddings: less than those of all weights and activations, 1 - 0.9993.
  @Test func embeddingsStayClose() async throws {
    guard let model = Fixtures.path("minilm") else { return }
    let folder = try TemporaryFolder()
    let text = try folder.write(
      "lines.txt", "The cat sat on the mat.\nA function that returns the sum of two numbers.\nRain in the mountains.\n")
    var evaluation = ModelEvaluation()
    evaluation.options.quantization = try QuantizationSpec(parsing: "wf32at8")
    let results = try await evaluation.run([model], reference: model, on: .text(text))
    let cosine = try #require(results.last?.value(.cosine))
    #expect(cosine > 0.9995 && cosine < 1, "\(cosine)")
  }
}
