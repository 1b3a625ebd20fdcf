import IR
import Passes
import Tensors
import Testing

/// Which attentions compute with products of bytes.
@Suite struct QuantizeAttentionTests {
  /// The same twice but for the scores, which are 30 times as large in the second.
  private static let network = """
    model @encoder {
      func @main role = main <T in 1...64> (%tokens: i32[T]) -> (y: f32[T, 64]) {
        %table = constant random(seed = 1, deviation = 1.0) : f32[50, 64]
        %x = gather(%table, %tokens) {axis = 0}
        %calm = attention(%x, %x, %x) {heads = 2, kvHeads = 2, scale = 0.02, causal = false}
        %s = add(%calm, %x)
        %sharp = attention(%s, %x, %s) {heads = 2, kvHeads = 2, scale = 0.6, causal = false}
        %y = add(%s, %sharp)
        return %y
      }
    }
    """

  private static func run(_ options: String) throws -> (model: Model, report: PassManager.Report) {
    var model = try Parser.parse(network)
    var context = PassContext()
    context.tokenSamples = { _, _, _, _ in
      [[FunctionInputs(inputs: [Tensor(.i32, [60], (0..<60).map { Int32($0 * 7 % 50) })])]]
    }
    let pipeline = try Pipeline(parsing: "quantize-attention{\(options)}", registry: .all)
    let reports = try PassManager().run(pipeline, on: &model, &context)
    return (model, reports[0])
  }

  /// The names of attentions in bytes.
  private static func chosen(_ model: Model) -> [String] {
    let graph = model.functions[0]
    return graph.topologicalOrder().compactMap { node in
      (graph[node].op as? Attention)?.int8.map { _ in graph[graph[node].results[0]].name }
    }
  }

  /// Between the errors of the two attentions the bound leaves out the one with the larger.
  @Test func errorsOnSamplesDecide() throws {
    let all = try Self.run("text=\"t\", maxError=1")
    let errors = Dictionary(all.report.figures.map { ($0.name, $0.value) }, uniquingKeysWith: { a, _ in a })
    #expect(errors.count == 2 && errors.values.allSatisfy { $0 > 0 && $0 < 0.02 }, "\(errors)")
    #expect(Self.chosen(all.model) == ["calm", "sharp"])
    let least = try #require(errors.min { $0.value < $1.value })
    let most = try #require(errors.values.max())
    let bound = (least.value + most) / 2
    #expect(bound > least.value)
    let one = try Self.run("text=\"t\", maxError=\(bound)")
    #expect(Self.chosen(one.model) == [least.key])
    #expect(one.report.counters.contains { $0.name == "attentions left in f32" && $0.count == 1 })
    #expect(Self.chosen(try Self.run("text=\"t\", maxError=0").model).isEmpty)
    // Without samples nothing is measured.
    let none = try Self.run("maxError=0")
    #expect(Self.chosen(none.model) == ["calm", "sharp"] && none.report.figures.isEmpty)
  }

  @Test(arguments: ["block=20", "block=0", "maxError=-1"]) func refuses(_ options: String) {
    #expect(throws: (any Error).self) { try Self.run(options) }
  }
}
