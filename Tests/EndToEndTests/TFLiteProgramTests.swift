import Base
import Driver
import Formats
import IR
import Tensors
import TestSupport
import Testing

/// TensorFlow Lite networks through the evaluator and as programs.
@Suite(.serialized) struct TFLiteProgramTests {
  /// Recorded float outputs are matched within 1e-4 of the largest value. Codes of quantized networks may be one step off: their
  /// sums are exact, but become codes by products of f32 that may round to either side of a half.
  @Test(arguments: [
    "ad01_fp32", "kws_ref_model_float32", "pretrainedResnet", "vww_96_float", "ad01_int8", "kws_ref_model",
    "pretrainedResnet_quant", "vww_96_int8",
  ])
  func tinyNetworksMatchTheirRecordedOutputs(name: String) async throws {
    guard let model = Fixtures.path("mlperf-tiny/\(name).tflite"),
      let recorded = Fixtures.path("mlperf-tiny/\(name).expected.npz")
    else { return }
    let archive = try NumPyArchive(path: recorded)
    let inputs = try archive.require("input", file: recorded), outputs = try archive.require("output", file: recorded)
    let program = try await CompiledModels.compile(model, "tflite_\(name)")
    let loaded = try ModelLoader.load(model)
    let function = try #require(loaded.function(role: "main"))
    let type = function.type(of: function.inputs[0])
    let evaluator = try Evaluator(loaded)
    let folder = try TemporaryFolder()
    let (source, expected) = (inputs.tensor, outputs.doubles)
    let runs = inputs.shape[0], size = try #require(type.byteCount), each = expected.count / runs
    let isFloat = type.element == .f32
    #expect(type.element == source.type.element && isFloat == (outputs.tensor.type.element == .f32))
    let most = isFloat ? 1e-4 * (expected.map(abs).max() ?? 1) : 1
    for run in 0..<runs {
      let input = Tensor(type)
      input.mutableView.bytes.copyMemory(
        from: UnsafeRawBufferPointer(rebasing: source.view.bytes[run * size..<(run + 1) * size]))
      let result = try evaluator.run([input]).outputs[0]
      let evaluated = withExtendedLifetime(result) { NumPyArray(result.view) }
      try NumPyArray(input.view).write(to: folder.path("x.npy"))
      _ = try CompiledModels.run(program, ["--input", folder.path("x.npy"), "--output", folder.path("y.npz")])
      let computed = try #require(try NumPyArchive(path: folder.path("y.npz")).arrays.first)
      for (label, found) in [("evaluator", evaluated), ("program", computed)] {
        try #require(found.count == each && found.tensor.type.element == outputs.tensor.type.element)
        let worst = zip(found.doubles, expected[run * each..<(run + 1) * each]).map { abs($0 - $1) }.max() ?? 0
        #expect(worst <= most, "\(label), run \(run)")
      }
    }
  }

  /// A size that the file leaves open is that of `--dim`.
  @Test(arguments: ["ad01_fp32", "kws_ref_model"]) func openSizesAreGiven(name: String) throws {
    guard let model = Fixtures.path("mlperf-tiny/\(name).tflite"),
      let recorded = Fixtures.path("mlperf-tiny/\(name).expected.npz")
    else { return }
    let archive = try NumPyArchive(path: recorded)
    let inputs = try archive.require("input", file: recorded), outputs = try archive.require("output", file: recorded)
    let function = try #require(try ModelLoader.load(model).functions.first)
    let size = "\(function[function.inputs[0]].name).0", runs = inputs.shape[0]
    let loaded = try ModelLoader.load(model, LoadOptions(dimensions: [size: runs...runs]))
    let source = inputs.tensor
    let input = Tensor(loaded.functions[0].type(of: loaded.functions[0].inputs[0]))
    try #require(input.view.bytes.count == source.view.bytes.count)
    input.mutableView.bytes.copyMemory(from: source.view.bytes)
    let result = try Evaluator(loaded).run([input]).outputs[0]
    let found = withExtendedLifetime(result) { NumPyArray(result.view).doubles }
    let expected = outputs.doubles
    let most = result.type.element == .f32 ? 1e-4 * (expected.map(abs).max() ?? 1) : 1
    try #require(found.count == expected.count)
    #expect(zip(found, expected).allSatisfy { abs($0 - $1) <= most })
    for dimensions in [[size: 1...8], ["nothing": 2...2]] {
      #expect(throws: CompileError.self) { try ModelLoader.load(model, LoadOptions(dimensions: dimensions)) }
    }
  }

  /// Of 1000 spoken words the program gets 902 right, as TensorFlow Lite does.
  @Test func quantizedKeywordSpotterIsRightNineTimesInTen() throws {
    guard let model = Fixtures.path("mlperf-tiny/kws_ref_model.tflite"),
      let data = Fixtures.path("mlperf-tiny/kws_eval.npz")
    else { return }
    let archive = try NumPyArchive(path: data)
    let values = try archive.require("input", file: data).floats
    let labels = try archive.require("label", file: data).integers
    let loaded = try ModelLoader.load(model)
    let evaluator = try Evaluator(loaded)
    let code = AffineCode(scale: 0.5847029, zeroPoint: 83)
    var right = 0
    for (run, label) in labels.enumerated() {
      let input = Tensor(TensorType(.i8, [1, 49, 10, 1]))
      let codes = input.mutableView.elements(as: Int8.self)
      for i in 0..<490 {
        let steps = (values[run * 490 + i] / code.scale).rounded() + Float(code.zeroPoint)
        codes[i] = Int8(max(-128, min(127, steps)))
      }
      let result = try evaluator.run([input]).outputs[0]
      let scores = withExtendedLifetime(result) { NumPyArray(result.view).floats }
      if scores.withUnsafeBufferPointer({ indexOfLargest($0) }) == Int(label) { right += 1 }
    }
    #expect(labels.count == 1000 && (899...905).contains(right), "\(right) of 1000")
  }
}
