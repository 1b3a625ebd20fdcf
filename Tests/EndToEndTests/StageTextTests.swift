import Base
import Driver
import Formats
import IR
import TestSupport
import Testing

/// The laws of the text form on real models, at every stage that has text.
@Suite struct StageTextTests {
  @Test(arguments: [
    "stories260K/hf", "stories260K/stories260K-f32.gguf", "mlperf-tiny/ad01_fp32.onnx",
    "mlperf-tiny/kws_ref_model_float32.onnx", "mlperf-tiny/pretrainedResnet.onnx", "mlperf-tiny/vww_96_float.onnx",
    "pycode7m",
  ])
  func textParsesBackToTheSameModel(name: String) throws {
    guard let path = Fixtures.path(name) else { return }
    for spec in [nil, "w8", "w4g32"] as [String?] {
      for stage in Stage.allCases where stage.hasText {
        if spec != nil, stage < .transform { continue }
        var options = FrontendOptions()
        options.reproducerFolder = nil
        options.quantization = try spec.map { try QuantizationSpec(parsing: $0) }
        var model = try Compiler.model(path, at: stage, options)
        model.compact()
        let text = try Printer.print(model)
        let parsed = try Parser.parse(text, operators: ModelLoader.operators)
        #expect(parsed == model, "\(name) at \(stage.rawValue)")
        #expect(try Printer.print(parsed) == text, "\(name) at \(stage.rawValue)")
      }
    }
  }
}
