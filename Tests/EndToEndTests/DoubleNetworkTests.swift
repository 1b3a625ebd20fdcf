import Base
import Driver
import Formats
import IR
import TestSupport
import Tensors
import Testing

/// Networks in f64: exact in the evaluator, in f32 in programs, which say so.
@Suite(.serialized) struct DoubleNetworkTests {
  /// A linear layer, a norm, a convolution, sums and functions in f64, against ONNX Runtime or, for what it does not have in
  /// f64, the reference of the package onnx.
  @Test func programsComputeInSingle() async throws {
    guard Fixtures.python(["numpy", "onnx"]) else { return }
    let folder = try TemporaryFolder()
    let script = """
      import sys
      import numpy as np, onnx
      from onnx import TensorProto, helper, numpy_helper
      from onnx.reference import ReferenceEvaluator
      rng = np.random.default_rng(5)
      weights = {"w": rng.standard_normal((7, 9)), "b": rng.standard_normal(9), "g": rng.standard_normal(9),
                 "k": rng.standard_normal((2, 3, 3, 3)), "third": np.array(1 / 3)}
      nodes = [
          helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
          helper.make_node("LayerNormalization", ["h", "g", "b"], ["n"], axis=-1, epsilon=1e-5),
          helper.make_node("Tanh", ["n"], ["t"]), helper.make_node("Mul", ["t", "third"], ["m"]),
          helper.make_node("Softmax", ["m"], ["s"], axis=-1),
          helper.make_node("ReduceMean", ["s"], ["r"], axes=[0], keepdims=1),
          helper.make_node("Sub", ["s", "r"], ["y"]),
          helper.make_node("Conv", ["image", "k"], ["c"], pads=[1, 1, 1, 1]),
          helper.make_node("GlobalAveragePool", ["c"], ["z"]),
      ]
      value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape)
      graph = helper.make_graph(
          nodes, "doubles", [value("x", [5, 7]), value("image", [1, 3, 6, 5])],
          [value("y", [5, 9]), value("z", [1, 2, 1, 1])],
          [numpy_helper.from_array(w, name) for name, w in weights.items()])
      model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
      onnx.checker.check_model(model)
      onnx.save(model, sys.argv[1] + "/model.onnx")
      inputs = {"x": rng.standard_normal((5, 7)), "image": rng.standard_normal((1, 3, 6, 5))}
      outputs = ReferenceEvaluator(model).run(None, inputs)
      np.savez(sys.argv[1] + "/inputs.npz", **inputs)
      np.savez(sys.argv[1] + "/expected.npz", y=outputs[0], z=outputs[1])
      """
    let outcome = try Command.run("python3", ["-c", script, folder.path])
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    var options = CompileOptions()
    options.output = folder.path("program")
    options.cacheFolder = folder.path("cache")
    options.frontend.reproducerFolder = nil
    var compiler = Compiler(options)
    let summary = try await compiler.compile(folder.path("model.onnx"))
    #expect(summary.notes.contains { $0.hasSuffix("operators on f64, for which there are no kernels, compute in f32") })
    _ = try CompiledModels.run(
      folder.path("program"), ["--input", folder.path("inputs.npz"), "--output", folder.path("found.npz")])
    let found = try NumPyArchive(path: folder.path("found.npz"))
    let expected = try NumPyArchive(path: folder.path("expected.npz"))
    let inputs = try NumPyArchive(path: folder.path("inputs.npz"))
    let exact = try Evaluator(ModelLoader.load(folder.path("model.onnx"))).run(
      ["x", "image"].map { try inputs.require($0, file: "inputs.npz").tensor })
    for (place, name) in ["y", "z"].enumerated() {
      let wanted = try expected.require(name, file: "expected.npz")
      let computed = try found.require(name, file: "found.npz")
      #expect(computed.shape == wanted.shape && computed.type == .f64)
      let largest = wanted.doubles.map(abs).max() ?? 1
      // A few sums in f32 on one side, in f64 on the other.
      for (a, b) in zip(computed.doubles, wanted.doubles) { #expect(abs(a - b) <= 1e-5 * largest) }
      for (a, b) in zip(NumPyArray(exact.outputs[place].view).doubles, wanted.doubles) {
        #expect(abs(a - b) <= 1e-12 * largest)
      }
    }
  }
}
