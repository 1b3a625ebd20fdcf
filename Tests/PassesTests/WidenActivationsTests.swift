import Base
import IR
import Passes
import Tensors
import Testing

/// Activations that keep 8 bits where fewer cost too much.
@Suite struct WidenActivationsTests {
  /// Layers that add to a stream what they compute of its norm; in layer 3 channel 5 of the norm is 16 times as large and the
  /// column of the weight behind as much smaller.
  private static func planted() -> String {
    let layers = (0..<6).map { index -> String in
      let gain =
        index == 3
        ? "%g3 = constant [\((0..<64).map { $0 == 5 ? "16.0" : "1.0" }.joined(separator: ", "))] : f32[64]"
        : "%g\(index) = constant splat(1.0) : f32[64]"
      let weight =
        index == 3
        ? """
        %f = constant [\((0..<64).map { $0 == 5 ? "0.0625" : "1.0" }.joined(separator: ", "))] : f32[64]
            %v3 = constant random(seed = 4, deviation = 0.1) : f32[64, 64]
            %w3 = multiply(%v3, %f)
        """ : "%w\(index) = constant random(seed = \(index + 1), deviation = 0.1) : f32[64, 64]"
      return """
            \(gain)
            \(weight)
            %n\(index) = rms_norm(%x\(index), %g\(index))
            %d\(index) = matmul(%n\(index), %w\(index)) {transposeB = true}
            %x\(index + 1) = add(%x\(index), %d\(index))
        """
    }
    return """
      model @planted {
        func @main (%x0: f32[24, 64]) -> (y: f32[24, 64]) {
      \(layers.joined(separator: "\n"))
          return %x6
        }
      }
      """
  }

  private static func run(_ passes: String) throws -> (Model, PassManager.Report, PassContext) {
    var model = try Parser.parse(planted())
    var context = PassContext()
    context.tokenSamples = { _, _, _, model in
      [(0..<2).map { FunctionInputs.seeded(for: model.functions[0], seed: UInt64(50 + $0)) }]
    }
    let reports = try PassManager().run(Pipeline(parsing: passes, registry: .all), on: &model, &context)
    return (model, try #require(reports.last), context)
  }

  /// The names of the activations that have few bits, and of those that have 8.
  private static func bits(_ model: Model) -> (few: [String], eight: [String]) {
    let graph = model.functions[0]
    var found: (few: [String], eight: [String]) = ([], [])
    for node in graph.topologicalOrder() {
      guard let op = graph[node].op as? Quantize, !ConstantEvaluator.isRecipe(graph[node].inputs[0], in: graph) else {
        continue
      }
      let name = graph[graph[node].inputs[0]].name
      if op.codeBits == nil { found.eight.append(name) } else { found.few.append(name) }
    }
    return found
  }

  @Test(arguments: [4, 5, 6]) func thePlantedLayerKeeps8Bits(_ few: Int) throws {
    let (model, report, context) = try Self.run("quantize{spec=w6a\(few)},widen-activations{text=\"t\"}")
    let found = Self.bits(model)
    #expect(found.eight == ["n3"] && found.few == ["n0", "n1", "n2", "n4", "n5"], "\(report.figures)")
    #expect(report.counters.map(\.count) == [1, 5] && report.figures.count == 6)
    #expect(report.figures.allSatisfy { $0.value > 0 && $0.name.hasPrefix("cost of \(few) bits at %n") })
    #expect(model[metadata: "quantization"] == "w6g32a\(few), 1 of 6 activations a8")
    let table = try #require(context.remarks.last?.text)
    #expect(table.split(separator: "\n").count == 7 && table.contains(", has 8"))
  }

  /// A threshold above all costs leaves all as they are, one of 0 widens all.
  @Test func theThresholdDecides() throws {
    let none = try Self.run("quantize{spec=w6a6},widen-activations{text=\"t\",threshold=10}").0
    #expect(Self.bits(none).eight.isEmpty && none[metadata: "quantization"] == "w6g32a6")
    let all = try Self.run("quantize{spec=w6a6},widen-activations{text=\"t\",threshold=0}").0
    #expect(Self.bits(all).few.isEmpty && Self.bits(all).eight.count == 6)
    // What is left is the model with activations of 8 bits.
    let wide = try Self.run("quantize{spec=w6a8}").0
    #expect(all.functions == wide.functions)
  }
}
