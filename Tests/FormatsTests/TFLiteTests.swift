import Base
import Formats
import IR
import Tensors
import TestSupport
import Testing

@Suite struct TFLiteTests {
  private static let folder = Fixtures.packageRoot + "/Tests/EndToEndTests/Fixtures/tflite"

  /// All cases that `tflite_reference.py` writes.
  static let cases = [
    "abs", "add_relu", "average_pool", "batch_matmul", "cast", "conv_same_relu", "conv_valid_relu6",
    "depth_to_space", "depthwise", "elu", "exp", "floor", "fully_connected", "gather", "gelu_tanh", "half_weights",
    "hard_swish", "hybrid", "l2_normalization", "leaky_relu", "less", "log_softmax", "logistic", "max_pool", "mean",
    "mirror_pad", "mul", "neg", "pad", "pad_v2", "parts", "prelu", "q_add", "q_classifier", "q_conv", "q_depthwise",
    "q_hard_swish", "q_logistic", "q_mean", "q_moves", "q_mul", "q_pools", "q_quantize", "q_sub", "q_tanh",
    "reshape", "resize_bilinear_align", "resize_bilinear_half", "resize_bilinear_plain", "resize_nearest_align",
    "resize_nearest_half", "resize_nearest_plain", "round", "rsqrt", "slice", "softmax", "space_to_depth", "square",
    "squared_difference", "squeeze", "strided_slice", "sub_relu6", "sum_keep", "tanh", "tile", "transpose",
    "transpose_conv",
  ]

  /// Outputs of the interpreter: float ones within 1e-5 of the largest (sums of at most 54 products, and approximations of
  /// exponentials that differ), codes of 8 bits within one step, of which at most one in ten may differ at all.
  @Test(arguments: cases) func matchesTheInterpreter(name: String) throws {
    let path = "\(Self.folder)/\(name).tflite"
    let archive = try NumPyArchive(path: Self.folder + "/cases.npz")
    let model = try FormatRegistry.load(path)
    let function = try #require(model.function(role: "main"))
    let inputs = try function.inputs.indices.map { try archive.require("\(name).in\($0)", file: path).tensor }
    for (input, value) in zip(inputs, function.inputs) { #expect(input.type == function.type(of: value)) }
    let results = try Evaluator(model).run(inputs).outputs
    for (index, result) in results.enumerated() {
      let expected = try archive.require("\(name).out\(index)", file: path)
      let found = NumPyArray(result.view)
      try #require(found.shape == expected.shape && result.type == expected.tensor.type)
      let differences = zip(found.doubles, expected.doubles).map { abs($0 - $1) }
      if result.type.element.isFloat {
        let largest = expected.doubles.map(abs).max() ?? 1
        #expect((differences.max() ?? 0) <= 1e-5 * max(largest, 1e-3), "\(name) output \(index)")
      } else {
        let most = result.type.element == .i8 ? 1.0 : 0
        #expect((differences.max() ?? 0) <= most, "\(name) output \(index)")
        #expect(differences.count { $0 > 0 } * 10 <= differences.count, "\(name) output \(index)")
      }
    }
  }

  @Test func namesFollowTheTensors() throws {
    let model = try FormatRegistry.load("\(Self.folder)/q_add.tflite")
    let function = try #require(model.function(role: "main"))
    #expect(function.inputs.map { function[$0].name } == ["x", "x2"])
    #expect(function.outputNames == ["y"])
    #expect(function.type(of: function.inputs[0]) == TensorType(.i8, [1, 4, 5, 3]))
  }

  private func bytes(_ name: String) throws -> [UInt8] {
    Array(try MappedFile(path: "\(Self.folder)/\(name).tflite").bytes)
  }

  /// Loads, checks and touches all constants.
  private func load(_ path: String) throws {
    let model = try FormatRegistry.load(path)
    try Verifier.verify(model)
    for function in model.functions {
      for value in function.valueIDs {
        if let id = function.constant(of: value) { _ = try model.withBytes(of: id) { $0.last } }
      }
    }
  }

  @Test(arguments: ["q_classifier", "strided_slice", "q_conv"]) func damagedFilesAreRefused(name: String) throws {
    let whole = try bytes(name)
    try expectOnlyCompileErrors(whole, fileName: "m.tflite", mutations: 1500, seed: 5) { try load($0) }
  }

  /// Offsets with all values at the ends of their ranges, at every place of the file.
  @Test func offsetsAreChecked() throws {
    let whole = try bytes("softmax")
    let folder = try TemporaryFolder()
    for place in stride(from: 0, to: whole.count - 3, by: 1) {
      for value: UInt32 in [0, 1, 4, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFC, UInt32(whole.count - place)] {
        var form = whole
        for byte in 0..<4 { form[place + byte] = UInt8(truncatingIfNeeded: value >> (8 * byte)) }
        do { try load(folder.write("m.tflite", form)) } catch is CompileError {}
      }
    }
  }

  @Test func anotherIdentifierIsNoModel() throws {
    var form = try bytes("softmax")
    form[7] = UInt8(ascii: "2")
    let folder = try TemporaryFolder()
    let path = try folder.write("m.tflite", form)
    expectFailure(.unsupported, "is in no format") { try load(path) }
  }

  @Test func unknownOperatorsAreNamed() throws {
    var form = try bytes("softmax")
    // The number of the operator stands in a table of its own, twice: 25 is SOFTMAX, 16 is LSTM.
    for place in form.indices where form[place] == 25 { form[place] = 16 }
    let folder = try TemporaryFolder()
    let path = try folder.write("m.tflite", form)
    expectFailure(.unsupported, "'LSTM'", "subgraph 0, operator 0") { try load(path) }
  }
}
