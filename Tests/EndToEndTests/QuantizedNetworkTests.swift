import Base
import Driver
import Formats
import Glibc
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Networks with activations in bytes, by measured ranges, against recorded outputs and labels.
@Suite(.serialized) struct QuantizedNetworkTests {
  /// The program and the evaluated model of a network in 8 bits, calibrated on `samples`.
  private func quantized(
    _ path: String, _ name: String, samples: NumPyArray, range: Calibrate.Range = .minmax, in folder: TemporaryFolder
  ) async throws -> (program: String, evaluator: Evaluator) {
    var archive = NumPyArchive()
    archive["input"] = samples
    try archive.write(to: folder.path("samples.npz"))
    let calibration = Calibrate(samples: folder.path("samples.npz"), range: range)
    let program = try await CompiledModels.compile(path, name + "-w8", quantize: "w8", calibration: calibration)
    var options = FrontendOptions()
    options.quantization = try QuantizationSpec(parsing: "w8")
    options.calibration = calibration
    options.reproducerFolder = nil
    var frontend = Frontend(options)
    return (program, try Evaluator(try frontend.run(path)))
  }

  /// Of the last 800 spoken words the float network finds 717 (89.6%), TFLite's in int8 90.2%.
  @Test func keywordSpotterKeepsItsAccuracy() async throws {
    guard let model = Fixtures.path("mlperf-tiny/kws_ref_model_float32.onnx"),
      let data = Fixtures.path("mlperf-tiny/kws_eval.npz")
    else { return }
    let archive = try NumPyArchive(path: data)
    let inputs = try archive.require("input", file: data).floats
    let labels = try archive.require("label", file: data).integers
    let size = 49 * 10, calibrated = 200
    let folder = try TemporaryFolder()
    let (program, evaluator) = try await quantized(
      model, "kws", samples: NumPyArray(Array(inputs[..<(calibrated * size)]), [calibrated, 49, 10, 1]), in: folder)
    var right = 0, different = 0
    for run in calibrated..<labels.count {
      let input = NumPyArray(Array(inputs[run * size..<(run + 1) * size]), [1, 49, 10, 1])
      let evaluated = NumPyArray(try evaluator.run([input.tensor]).outputs[0].view).floats
      if evaluated.withUnsafeBufferPointer({ indexOfLargest($0) }) == Int(labels[run]) { right += 1 }
      guard run % 8 == 0 else { continue }
      try input.write(to: folder.path("x.npy"))
      _ = try CompiledModels.run(
        program, ["--threads", "1", "--input", folder.path("x.npy"), "--output", folder.path("y.npz")])
      let computed = try #require(try NumPyArchive(path: folder.path("y.npz")).arrays.first).floats
      // Codes are equal; the softmax of equal numbers differs by its last bits.
      if zip(evaluated, computed).contains(where: { abs($0 - $1) > 1e-5 }) { different += 1 }
    }
    #expect(labels.count == 1000)
    #expect(Double(right) >= 0.895 * 800, "\(right) of 800")
    #expect(different == 0, "\(different) of 100 programs' results differ")
  }

  /// Probabilities stay within a few percent of those in float, of networks with residuals and with depthwise layers.
  @Test(arguments: [("pretrainedResnet", 0.05), ("vww_96_float", 0.05)])
  func networksStayCloseToFloat(name: String, tolerance: Double) async throws {
    guard let model = Fixtures.path("mlperf-tiny/\(name).onnx"),
      let recorded = Fixtures.path("mlperf-tiny/\(name).expected.npz")
    else { return }
    let archive = try NumPyArchive(path: recorded)
    let inputs = try archive.require("input", file: recorded)
    let expected = try archive.require("output", file: recorded).doubles
    let sizes = Array(inputs.shape.suffix(3)), size = sizes.reduce(1, *)
    let runs = inputs.count / size
    let folder = try TemporaryFolder()
    for range in [Calibrate.Range.minmax, .percentile(99.99)] {
      let (program, evaluator) = try await quantized(
        model, name, samples: NumPyArray(inputs.floats, [runs] + sizes), range: range, in: folder)
      var worst = (evaluator: 0.0, program: 0.0)
      for run in 0..<runs {
        let input = NumPyArray(Array(inputs.floats[run * size..<(run + 1) * size]), [1] + sizes)
        let evaluated = NumPyArray(try evaluator.run([input.tensor]).outputs[0].view).doubles
        try input.write(to: folder.path("x.npy"))
        _ = try CompiledModels.run(program, ["--input", folder.path("x.npy"), "--output", folder.path("y.npz")])
        let computed = try #require(try NumPyArchive(path: folder.path("y.npz")).arrays.first).doubles
        for (index, value) in expected[run * evaluated.count..<(run + 1) * evaluated.count].enumerated() {
          worst.evaluator = max(worst.evaluator, abs(evaluated[index] - value))
          worst.program = max(worst.program, abs(computed[index] - evaluated[index]))
        }
      }
      #expect(worst.evaluator < tolerance && worst.program < 1e-5, "\(name), \(range): \(worst)")
    }
  }

  /// Samples of another shape, or under another name, are refused with a sentence.
  @Test func refusesOtherSamples() throws {
    guard let model = Fixtures.path("mlperf-tiny/kws_ref_model_float32.onnx") else { return }
    let folder = try TemporaryFolder()
    let graph = try #require(try ModelLoader.load(model).function(role: "main"))
    func load(_ array: NumPyArray, _ name: String = "input") throws -> Int {
      var archive = NumPyArchive()
      archive[name] = array
      archive["other"] = NumPyArray([Int64(0)], [1])
      try archive.write(to: folder.path("x.npz"))
      return try TensorArchives.samples(folder.path("x.npz"), of: graph).count
    }
    let numbers = [Float](repeating: 0, count: 3 * 490)
    #expect(try load(NumPyArray(numbers, [3, 49, 10, 1])) == 3)
    #expect(try load(NumPyArray(numbers, [3, 1, 49, 10, 1])) == 3)
    #expect(throws: CompileError.self) { try load(NumPyArray(numbers, [3, 10, 49, 1])) }
    #expect(throws: CompileError.self) { try load(NumPyArray(numbers, [3 * 490])) }
    #expect(throws: CompileError.self) { try load(NumPyArray(numbers, [3, 49, 10, 1]), "image") }
    #expect(throws: CompileError.self) { try load(NumPyArray([Int64](repeating: 0, count: 490), [1, 49, 10, 1])) }
  }

  /// A folder of samples is what its files hold, by name; other files and folders in it do not count.
  @Test func readsFolders() throws {
    guard let model = Fixtures.path("mlperf-tiny/kws_ref_model_float32.onnx") else { return }
    let folder = try TemporaryFolder()
    let graph = try #require(try ModelLoader.load(model).function(role: "main"))
    func numbers(_ first: Float, _ count: Int) -> [Float] { (0..<count * 490).map { first + Float($0 / 490) } }
    #expect(throws: CompileError.self) { try TensorArchives.samples(folder.path, of: graph) }
    try NumPyArray(numbers(3, 1), [49, 10, 1]).write(to: folder.path("b.npy"))
    try NumPyArray(numbers(1, 2), [2, 49, 10, 1]).write(to: folder.path("a.npy"))
    var archive = NumPyArchive()
    archive["input_1"] = NumPyArray(numbers(4, 1), [1, 49, 10, 1])
    try archive.write(to: folder.path("c.npz"))
    try folder.write("notes.txt", "no samples")
    #expect(mkdir(folder.path("d.npy"), 0o755) == 0)
    let samples = try TensorArchives.samples(folder.path, of: graph)
    let first = samples.map { $0[0].view.elements(as: Float.self)[0] }
    #expect(first == [1, 2, 3, 4])
    #expect(try CalibrationSamples.isArchive(folder.path))
    try folder.write("e.npz", "damaged")
    #expect(throws: CompileError.self) { try TensorArchives.samples(folder.path, of: graph) }
  }
}
