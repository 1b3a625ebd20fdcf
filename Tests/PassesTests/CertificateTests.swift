import Base
import Formats
import IR
import Passes
import Tensors
import TestSupport
import Testing

/// What `--check` does: exact passes pass, broken ones do not, and the error says who did it.
@Suite struct CertificateTests {
  /// Runs passes with a certifier; the reports.
  @discardableResult
  private func check(
    _ passes: [any Pass], on model: Model, _ options: Certifier.Options = .init()
  ) throws -> [PassManager.Report] {
    var model = model
    var context = PassContext()
    var manager = PassManager()
    manager.certifier = Certifier(options)
    return try manager.run(Pipeline(passes), on: &model, &context)
  }

  private func error(
    _ passes: [any Pass], on text: String, sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> CompileError? {
    let model = try Parser.parse(text)
    return #expect(throws: CompileError.self, sourceLocation: sourceLocation) { try check(passes, on: model) }
  }

  /// The error is that of a check, of the pass `name`, and says all `words`.
  private func expect(
    _ error: CompileError?, names name: String, _ words: String..., sourceLocation: SourceLocation = #_sourceLocation
  ) {
    guard let error else { return }
    #expect(error.kind == .check && error.kind.exitCode == 1, "\(error)", sourceLocation: sourceLocation)
    #expect(error.message.contains("'\(name)'"), "\(error)", sourceLocation: sourceLocation)
    for word in words { #expect("\(error)".contains(word), "\(error)", sourceLocation: sourceLocation) }
  }

  // MARK: Broken passes

  @Test func forgottenMeanIsFound() throws {
    // The first normalization has no mean, so that the second firing is the wrong one.
    let error = try error(
      [Canonicalize(), BrokenFoldBatchNorm(), EliminateDeadCode()],
      on: """
        model @m {
          func @main(%x: f32[1, 2, 5, 5]) -> (y) {
            %w = constant random(seed = 1, deviation = 0.3) : f32[2, 2, 3, 3]
            %v = constant random(seed = 2, deviation = 0.3) : f32[2, 2, 3, 3]
            %scale = constant [0.5, 1.5] : f32[2]
            %bias = constant [0.1, 0.2] : f32[2]
            %none = constant [0.0, 0.0] : f32[2]
            %mean = constant [-1.0, 0.5] : f32[2]
            %variance = constant [0.25, 2.0] : f32[2]
            %c = conv2d(%x, %w) {padding = [1, 1, 1, 1]}
            %n = batch_norm(%c, %scale, %bias, %none, %variance)
            %r = relu(%n)
            %d = conv2d(%r, %v) {padding = [1, 1, 1, 1]}
            %y = batch_norm(%d, %scale, %bias, %mean, %variance)
            return %y
          }
        }
        """)
    expect(
      error, names: "broken-fold-batch-norm", "rewrite 2", "'broken-batch-norm-into-conv2d'", "'%y'", "output 'y' of")
  }

  @Test func wrongGateIsFound() throws {
    let error = try error(
      [EliminateCommonSubexpressions(), BrokenFuseSiLU()],
      on: """
        model @m {
          func @main(%x: f32[4, 3], %z: f32[4, 3]) -> (y) {
            %m = negate(%x)
            %a = negate(%m)
            %s = sigmoid(%a)
            %p = multiply(%a, %s)
            %t = sigmoid(%p)
            %q = multiply(%p, %t)
            %g = sigmoid(%z)
            %bad = multiply(%q, %g)
            %h = sigmoid(%bad)
            %y = multiply(%bad, %h)
            return %y
          }
        }
        """)
    expect(error, names: "broken-fuse-silu", "'broken-silu'", "'%bad'")
    #expect(error.map { !"\($0)".contains("right-negate-twice") } == true)
  }

  @Test func exchangedHalvesAreFound() throws {
    let error = try error(
      [Canonicalize(), BrokenMerge(), Canonicalize()],
      on: """
        model @m {
          func @main(%x: f32[3, 8]) -> (y) {
            %w = constant random(seed = 1, deviation = 0.3) : f32[4, 8]
            %v = constant random(seed = 2, deviation = 0.3) : f32[4, 8]
            %a = matmul(%x, %w) {transposeB = true}
            %b = matmul(%x, %v) {transposeB = true}
            %t = tanh(%a)
            %y = multiply(%t, %b)
            return %y
          }
        }
        """)
    // No rule does it, so the first tensor is named.
    expect(error, names: "broken-merge", "'%a'")
  }

  @Test func overlookedAttributesAreFound() throws {
    let error = try error(
      [BrokenEliminate()],
      on: """
        model @m {
          func @main(%x: f32[3, 3]) -> (y) {
            %a = softmax(%x) {axis = 0}
            %b = softmax(%x) {axis = 1}
            %y = subtract(%a, %b)
            return %y
          }
        }
        """)
    expect(error, names: "broken-eliminate", "'%y'")
  }

  @Test func halfAnEpsilonIsFound() throws {
    let error = try error(
      [FoldConstants(), BrokenNorm()],
      on: """
        model @m {
          func @main(%x: f32[4, 8]) -> (y) {
            %g = constant random(seed = 1, deviation = 0.3) : f32[8]
            %w = constant random(seed = 2, deviation = 0.3) : f32[8, 8]
            %n = rms_norm(%x, %g) {epsilon = 1e-05}
            %y = matmul(%n, %w) {transposeB = true}
            return %y
          }
        }
        """)
    expect(error, names: "broken-norm", "rewrite 1", "'broken-epsilon'", "'%n'", "f64")
  }

  @Test func roundedReciprocalIsFound() throws {
    let error = try error(
      [BrokenReciprocal()],
      on: """
        model @m {
          func @main(%x: f32[4, 8]) -> (y) {
            %two = constant splat(2.0) : f32[]
            %three = constant splat(3.0) : f32[]
            %a = divide(%x, %two)
            %b = exp(%a)
            %y = divide(%b, %three)
            return %y
          }
        }
        """)
    // A half is a number of bf16, a third is none.
    expect(error, names: "broken-reciprocal", "rewrite 2", "'%y'")
  }

  // MARK: Right passes

  static let pipeline = FixtureTests.pipeline.joined(separator: ",")

  static let fixtures = [
    "stories260K/hf", "mlperf-tiny/kws_ref_model_float32.onnx", "mlperf-tiny/pretrainedResnet.onnx",
    "mlperf-tiny/vww_96_float.onnx", "mlperf-tiny/ad01_fp32.onnx",
  ]

  @Test(arguments: fixtures, [true, false]) func defaultPipelineIsExact(_ fixture: String, inF64: Bool) throws {
    guard let path = Fixtures.path(fixture) else { return }
    var options = Certifier.Options()
    if !inF64 { options.wideLimit = 0 }
    let reports = try check(
      Pipeline(parsing: Self.pipeline, registry: .all).passes, on: FormatRegistry.load(path), options)
    for report in reports where report.hasChanged {
      let certificate = try #require(report.certificate)
      #expect(!certificate.outputs.isEmpty && certificate.runs == 1)
      for output in certificate.outputs {
        let bound = try #require(output.bound)
        // Bounds beyond a thousandth would say nothing.
        #expect(bound <= 1e-3 * max(output.difference.magnitude, 1e-30), "\(report.name) \(output.name): \(bound)")
        #expect((output.wideBound != nil) == inF64)
        if let wide = output.wideBound {
          #expect(wide <= 1e-5 * max(output.difference.magnitude, 1e-30), "\(report.name) \(output.name): \(wide)")
        }
      }
    }
  }

  /// A thousandth more in one weight, or in one row of it, is no rounding.
  @Test(arguments: fixtures) func plantedErrorsAreFound(_ fixture: String) throws {
    guard let path = Fixtures.path(fixture) else { return }
    let model = try FormatRegistry.load(path)
    for (whole, inF64) in [(false, true), (true, false)] {
      // Of what its first layer sees this autoencoder lets so little through that f32 cannot tell.
      if !inF64, fixture.hasSuffix("ad01_fp32.onnx") { continue }
      var options = Certifier.Options()
      if !inF64 { options.wideLimit = 0 }
      let error = #expect(throws: CompileError.self, "whole \(whole)") {
        try check([PlantError(whole: whole)], on: model, options)
      }
      expect(error, names: "plant-error")
    }
  }

  /// All exact cases of all passes agree within the bound that follows from their operations.
  @Test func exactCasesAreWithinTheirBounds() throws {
    var checked = 0
    for name in CaseTests.names {
      for section in try CaseFile(name).sections where section.errors.isEmpty {
        let pipeline = try Pipeline(parsing: section.pipeline, registry: .all)
        guard pipeline.passes.allSatisfy({ $0.fidelity == .exact }), !section.pipeline.contains("calibrate") else {
          continue
        }
        let model = try Parser.parse(section.text, file: name)
        do {
          try check(pipeline.passes, on: model)
          checked += 1
        } catch let error as CompileError where error.kind == .unsupported {
          continue
        } catch {
          Issue.record("\(name):\(section.firstLine): \(error)")
        }
      }
    }
    #expect(checked >= 15)
  }

  // MARK: Gates

  @Test func gatesStopQuantization() throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    let model = try FormatRegistry.load(path)
    let quantize = try Pipeline(parsing: "canonicalize,quantize{spec=w4g32}", registry: .all).passes
    var options = Certifier.Options()
    options.wideLimit = 0
    let reports = try check(quantize, on: model, options)
    let logits = try #require(reports.last?.certificate?.outputs.first { $0.name == "logits" })
    let (error, divergence) = (logits.total.relativeRMS, try #require(logits.divergence).mean)
    // Four bits move a network by some percent, not by nothing and not to another one.
    #expect(error > 1e-3 && error < 0.5 && divergence > 0 && logits.bound == nil)

    options.maximumError = error * 0.9
    let tooFar = #expect(throws: CompileError.self) { try check(quantize, on: model, options) }
    expect(tooFar, names: "quantize", "relative error", "most of the error comes in at '%")
    options.maximumError = error * 1.1
    options.maximumDivergence = divergence * 0.9
    let otherTokens = #expect(throws: CompileError.self) { try check(quantize, on: model, options) }
    expect(otherTokens, names: "quantize", "KL divergence", "'logits'")
    options.maximumDivergence = divergence * 1.1
    try check(quantize, on: model, options)
  }

  @Test func largeModelsAreRefused() throws {
    let model = try Parser.parse(
      """
      model @m {
        func @main(%x: f32[1, 1024]) -> (y) {
          %w = constant random(seed = 1, deviation = 0.3) : f32[1024, 1024]
          %y = matmul(%x, %w)
          return %y
        }
      }
      """)
    var options = Certifier.Options()
    options.memoryLimit = 1 << 20
    let error = #expect(throws: CompileError.self) { try check([Canonicalize()], on: model, options) }
    #expect(error?.kind == .unsupported && error?.message.contains("4 MiB") == true)
    options.memoryLimit = nil
    try check([Canonicalize()], on: model, options)
  }
}
