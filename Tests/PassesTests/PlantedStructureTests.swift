import Formats
import IR
import Passes
import Tensors
import TestSupport
import Testing

/// What is planted in a model without changing its function is what passes find, all of it and nothing else.
@Suite struct PlantedStructureTests {
  /// Perceptrons with residuals and norms, and convolutions of several kinds.
  static let text = """
    model @planted {
      func @main (%i: i32[3]) -> (y: f32[3, 6]) {
        %e = constant random(seed = 1, deviation = 1.0) : f32[9, 8]
        %g = constant random(seed = 2, deviation = 1.0) : f32[8]
        %u = constant random(seed = 3, deviation = 0.5) : f32[13, 8]
        %p = constant random(seed = 4, deviation = 0.5) : f32[13]
        %v = constant random(seed = 5, deviation = 0.5) : f32[8, 13]
        %b = constant random(seed = 6, deviation = 0.5) : f32[8]
        %s = constant random(seed = 7, deviation = 0.5) : f32[14, 8]
        %t = constant random(seed = 8, deviation = 0.5) : f32[8, 7]
        %o = constant random(seed = 9, deviation = 0.5) : f32[6, 8]
        %x0 = gather(%e, %i) {axis = 0}
        %n0 = layer_norm(%x0, %g, %b)
        %h0 = matmul(%n0, %u, %p) {transposeB = true, epilogue = {bias = true, activation = gelu}}
        %x1 = matmul(%h0, %v, %b, %x0) {transposeB = true, epilogue = {bias = true, residual = after_activation}}
        %n1 = rms_norm(%x1, %g)
        %h1 = matmul(%n1, %s) {transposeB = true, epilogue = {activation = silu, gated = true}}
        %x2 = matmul(%h1, %t, %x1) {transposeB = true, epilogue = {residual = after_activation}}
        %n2 = rms_norm(%x2, %b)
        %y = matmul(%n2, %o) {transposeB = true}
        return %y
      }
    }
    """

  static let image = """
    model @planted {
      func @main (%x: f32[1, 4, 7, 6]) -> (y: f32[1, 6, 4, 3]) {
        %a = constant random(seed = 1, deviation = 0.3) : f32[4, 4, 3, 3]
        %b = constant random(seed = 2, deviation = 0.3) : f32[4, 1, 5, 5]
        %c = constant random(seed = 3, deviation = 0.3) : f32[4, 2, 3, 3]
        %d = constant random(seed = 4, deviation = 0.3) : f32[6, 4, 3, 3]
        %e = constant random(seed = 5, deviation = 0.3) : f32[6, 6, 1, 1]
        %p = constant random(seed = 6, deviation = 0.3) : f32[4]
        %f = conv2d(%x, %a, %p) {padding = [1, 1, 1, 1], epilogue = {bias = true}}
        %g = relu(%f)
        %h = conv2d(%g, %b) {padding = [2, 2, 2, 2], groups = 4}
        %i = relu(%h)
        %j = conv2d(%i, %c) {padding = [2, 2, 2, 2], dilations = [2, 2], groups = 2}
        %k = relu(%j)
        %l = conv2d(%k, %d) {strides = [2, 2], padding = [1, 1, 1, 1]}
        %m = relu(%l)
        %y = conv2d(%m, %e)
        return %y
      }
    }
    """

  /// Runs passes; counters by name.
  static func run(_ pipeline: String, on model: inout Model) throws -> [String: Int] {
    var context = PassContext()
    let reports = try PassManager().run(Pipeline(parsing: pipeline, registry: .all), on: &model, &context)
    return Dictionary(reports.flatMap(\.counters).map { ($0.name, $0.count) }, uniquingKeysWith: +)
  }

  /// The operators that run, with their numbers.
  static func operators(of model: Model) -> [String: Int] {
    let graph = model.functions[0]
    var counts: [String: Int] = [:]
    for id in graph.nodeIDs where !ConstantEvaluator.isRecipe(graph[id].results[0], in: graph) {
      counts[graph[id].op.name, default: 0] += 1
    }
    return counts
  }

  /// The difference of what two models compute, relative to the largest number.
  static func difference(_ a: Model, _ b: Model) throws -> Double {
    let name = a.functions[0].name
    let (left, right) = (try SeededRun.outputs(of: a, function: name), try SeededRun.outputs(of: b, function: name))
    return zip(left, right).map { maxRelativeError($0, $1) }.max() ?? 0
  }

  @Test func splitUnitsAreMerged() throws {
    let original = try Parser.parse(Self.text)
    var model = original
    let planted = try PlantedStructure.splitUnits(&model, units: [0, 3, 6])
    #expect(planted == 6)
    #expect(try Self.difference(model, original) <= SeededRun.exactTolerance)
    let counters = try Self.run("remove-dead-units{granularity=1}", on: &model)
    #expect(counters["units removed"] == planted)
    #expect(try Self.difference(model, original) <= SeededRun.exactTolerance)
    #expect(try Self.run("remove-dead-units{granularity=1}", on: &model)["units removed"] == nil)
  }

  @Test func unreadUnitsAreRemoved() throws {
    let original = try Parser.parse(Self.text)
    var model = original
    #expect(try PlantedStructure.unreadUnits(&model, count: 5, seed: 40) == 10)
    #expect(try Self.run("remove-dead-units{granularity=1}", on: &model)["units removed"] == 10)
    #expect(try Self.difference(model, original) == 0)
    let widths = model.functions[0].nodeIDs.compactMap { id -> Dim? in
      let node = model.functions[0][id]
      return node.op is MatMul ? model.functions[0].type(of: node.results[0]).shape.last : nil
    }
    #expect(widths == [13, 8, 7, 8, 6])
  }

  /// Huge numbers that cancel cost digits; without them the numbers are those of before, bit by bit.
  @Test func cancelledExpertsAreRemoved() throws {
    let original = try Parser.parse(Self.text)
    var model = original
    let planted = try PlantedStructure.cancelledExperts(&model, pairs: 3, magnitude: 65536, seed: 45)
    #expect(planted == 12)
    // A sum of numbers of about 2^16 is off by about 2^-8.
    #expect(try Self.difference(model, original) > 10 * SeededRun.exactTolerance)
    // A pair is one unit first, with columns that are zero then.
    #expect(try Self.run("remove-dead-units{granularity=1}", on: &model)["units removed"] == planted)
    #expect(try Self.difference(model, original) == 0)
    #expect(try Self.run("remove-dead-units{granularity=1}", on: &model)["units removed"] == nil)
  }

  /// Units that are a multiple of others are merged where the activation keeps the factor, and only there.
  @Test(arguments: ["relu", "none", "gelu"]) func scaledTwinsAreMerged(activation: String) throws {
    let original = try Parser.parse(
      """
      model @planted {
        func @main (%x: f32[3, 8]) -> (y: f32[3, 6]) {
          %u = constant random(seed = 3, deviation = 0.5) : f32[13, 8]
          %p = constant random(seed = 4, deviation = 0.5) : f32[13]
          %v = constant random(seed = 5, deviation = 0.5) : f32[6, 13]
          %h = matmul(%x, %u, %p) {transposeB = true, epilogue = {bias = true, activation = \(activation)}}
          %y = matmul(%h, %v) {transposeB = true}
          return %y
        }
      }
      """)
    var model = original
    let planted = try PlantedStructure.scaledTwins(&model, units: [1, 4, 7])
    guard activation != "gelu" else { return #expect(planted == 0) }
    #expect(planted == 3)
    #expect(try Self.difference(model, original) <= SeededRun.exactTolerance)
    #expect(try Self.run("remove-dead-units{granularity=1}", on: &model)["units removed"] == planted)
    #expect(try Self.difference(model, original) <= SeededRun.exactTolerance)
    #expect(try Self.run("remove-dead-units{granularity=1}", on: &model)["units removed"] == nil)
  }

  @Test func idleSublayersAreRemoved() throws {
    let original = try Parser.parse(Self.text)
    var model = original
    #expect(try PlantedStructure.idleSublayers(&model, width: 5, seed: 50) == 3)
    #expect(Self.operators(of: model)["matmul"] == 11)
    let counters = try Self.run("remove-dead-units", on: &model)
    #expect(counters["remove-zero-matmul"] == 3 && counters["units removed"] == nil)
    #expect(Self.operators(of: model) == Self.operators(of: original))
    #expect(try Self.difference(model, original) == 0)
  }

  /// With the gains the outliers leave the norms.
  @Test func outlierChannelsAreFoldedBack() throws {
    let original = try Parser.parse(Self.text)
    var model = original
    #expect(try PlantedStructure.outlierChannels(&model, channels: [2, 7], factor: 1024) == 3)
    #expect(try Self.difference(model, original) == 0)
    #expect(try Self.largestNormOutput(model) > 300 * Self.largestNormOutput(original))
    let counters = try Self.run("fold-norm", on: &model)
    #expect(counters["expose-gain-of-rms-norm"] == 2 && counters["expose-gain-of-layer-norm"] == 1)
    #expect(try Self.difference(model, original) <= SeededRun.exactTolerance)
    // Numbers of unit variance over eight channels are at most sqrt(7) and sqrt(8).
    #expect(try Self.largestNormOutput(model) <= 8.0.squareRoot() + 1e-6)
  }

  /// The largest magnitude among the outputs of norms.
  static func largestNormOutput(_ model: Model) throws -> Double {
    let graph = model.functions[0]
    var largest = 0.0
    let evaluator = try Evaluator(model)
    evaluator.observer = { node, results in
      guard graph[node].op is RMSNorm || graph[node].op is LayerNorm else { return }
      largest = max(largest, results[0].view.doubles.map(\.magnitude).max() ?? 0)
    }
    _ = try evaluator.run(SeededRun.inputs(of: graph, seed: 1))
    return largest
  }

  @Test func branchesAreFolded() throws {
    let original = try Parser.parse(Self.image)
    var model = original
    #expect(try PlantedStructure.repConvBranches(&model, seed: 60) == 4)
    // The one with strides has no image among its branches.
    #expect(Self.operators(of: model) == ["conv2d": 9, "batch_norm": 11, "add": 7, "relu": 4])
    #expect(try Self.difference(model, original) <= SeededRun.exactTolerance)
    let counters = try Self.run("fold-batch-norm,fold-repconv", on: &model)
    #expect(counters["fold-sum-of-branches"] == 4)
    #expect(Self.operators(of: model) == ["conv2d": 5, "relu": 4])
    #expect(try Self.difference(model, original) <= SeededRun.exactTolerance)
  }

  /// The same on a trained network.
  @Test func storiesAreFreedOfWhatWasPlanted() throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    var original = try FormatRegistry.load(path)
    let first = try Self.run(
      "canonicalize,fold-constants,eliminate-common-subexpressions,fuse,remove-dead-units{granularity=1}", on: &original
    )
    #expect(first["units removed"] == nil && first["heads removed"] == nil)
    var model = original
    let split = try PlantedStructure.splitUnits(&model, units: [1, 2, 100])
    let unread = try PlantedStructure.unreadUnits(&model, count: 7, seed: 70)
    let idle = try PlantedStructure.idleSublayers(&model, width: 24, seed: 80)
    #expect(split == 15 && unread == 35 && idle == 11)
    #expect(try Self.difference(model, original) <= SeededRun.exactTolerance)
    let counters = try Self.run("remove-dead-units{granularity=1}", on: &model)
    #expect(counters["units removed"] == split + unread && counters["remove-zero-matmul"] == idle)
    #expect(Self.operators(of: model) == Self.operators(of: original))
    #expect(try Self.difference(model, original) <= SeededRun.exactTolerance)
  }
}
