import Base
import Driver
import Formats
import Glibc
import IR
import TestSupport
import Tensors
import Testing

/// `mcc convert` of encoders and of networks with an encoder.
@Suite struct EncoderConversionTests {
  private static func tensors(_ folder: String) throws -> [String: (shape: Shape, values: [Float])] {
    let file = try SafetensorsFile(MappedFile(path: "\(folder)/model.safetensors"))
    return try Dictionary(
      uniqueKeysWithValues: file.tensors.map { tensor in
        (tensor.name, (tensor.type.shape, floats(try tensor.file.slice(tensor.range), tensor.type.element)))
      })
  }

  private static func tokens(_ archive: NumPyArchive, _ name: String) throws -> Tensor {
    let ids = try archive.require(name, file: "expected.npz")
    return Tensor(.i32, [ids.count], ids.integers.map { Int32(truncatingIfNeeded: $0) })
  }

  /// The names that the package gguf gives to the weights of Hugging Face are those in the file, but for what `left` names.
  private static func expectNames(_ source: String, _ file: String, left: [String]) throws {
    guard Fixtures.python(["gguf", "safetensors"]) else { return }
    let script = """
      import sys
      import gguf
      from safetensors import safe_open
      reader = gguf.GGUFReader(sys.argv[2])
      text = reader.get_field("general.architecture").contents()
      arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == text)
      names = gguf.get_tensor_name_map(arch, 16)
      wanted = set()
      for key in safe_open(sys.argv[1] + "/model.safetensors", "np").keys():
          if key not in sys.argv[3:]:
              wanted.add(names.get_name(key, try_suffixes=(".weight", ".bias")))
      found = {tensor.name for tensor in reader.tensors}
      print(sorted(map(str, wanted ^ found)))
      sys.exit(wanted != found)
      """
    let outcome = try Command.run("python3", ["-c", script, source, file] + left)
    #expect(outcome.exitCode == 0, "\(outcome.text)\(outcome.errors)")
  }

  /// BERT to GGUF and back: all tensors but the layer over the first token, which is said; and what is compiled from the
  /// file gives the recorded hidden states.
  @Test func bertThroughGGUF() throws {
    guard let source = Fixtures.path("architectures/bert") else { return }
    let folder = try TemporaryFolder()
    let file = folder.path("model.gguf")
    let notes = try Converter().convert(source, to: file)
    #expect(
      notes == ["2 tensors that do not belong to the encoder are not written, such as 'pooler.dense.bias'"])
    let left = ["pooler.dense.bias", "pooler.dense.weight"]
    try Self.expectNames(source, file, left: left)
    _ = try Converter().convert(file, to: folder.path("back"))
    var before = try Self.tensors(source)
    for name in left { before[name] = nil }
    let after = try Self.tensors(folder.path("back"))
    #expect(before.keys.sorted() == after.keys.sorted())
    for (name, tensor) in before {
      #expect(after[name]?.shape == tensor.shape && after[name]?.values == tensor.values, "\(name)")
    }
    let recorded = try NumPyArchive(path: source + "/expected.npz")
    let expected = try recorded.require("output_1", file: "expected.npz").floats
    for path in [file, folder.path("back")] {
      let results = try Evaluator(ModelLoader.load(path)).run([Self.tokens(recorded, "input_ids_1")])
      #expect(maxRelativeError(try #require(results.outputs.first).array(of: Float.self), expected) <= 1e-4)
    }
  }

  /// A sentence encoder keeps its pooling, its tokenizer and its embeddings; the most tokens of a text are said to be lost.
  @Test func sentenceEncoderThroughGGUF() throws {
    guard let source = Fixtures.path("minilm"), let recorded = Fixtures.path("minilm/expected.json") else { return }
    let folder = try TemporaryFolder()
    let notes = try Converter().convert(source, to: folder.path("model.gguf"))
    #expect(notes.contains("GGUF does not say that texts are cut off at 256 tokens"), "\(notes)")
    _ = try Converter().convert(folder.path("model.gguf"), to: folder.path("back"))
    _ = try Converter().convert(source, to: folder.path("copy"))
    let cases = try #require(try JSON.read(path: recorded).array)
    for path in ["model.gguf", "back", "copy"] {
      let model = try ModelLoader.load(folder.path(path))
      #expect(model.tokenizer?.algorithm == .wordPiece && model.tokenizer?.prefix == [101], "\(path)")
      let graph = try #require(model.functions.first)
      let place = try #require(graph.outputNames.firstIndex(of: "embedding"))
      for wanted in [cases[0], cases[7]] {
        let ids = wanted["input_ids"]?.array?.compactMap(\.int).map { Int32($0) } ?? []
        let results = try Evaluator(model).run([Tensor(.i32, [ids.count], ids)])
        let reference = wanted["embedding"]?.array?.compactMap(\.double).map { Float($0) } ?? []
        // Embeddings have length 1; two f32 implementations differ by about 1e-6.
        #expect(maxRelativeError(results.outputs[place].array(of: Float.self), reference) <= 1e-4, "\(path)")
      }
    }
  }

  @Test func headsOfBertAreRefused() throws {
    guard let source = Fixtures.path("architectures/bert") else { return }
    let folder = try TemporaryFolder()
    var config = try #require(try JSON.read(path: "\(source)/config.json").object)
    let copy = folder.path("hf")
    #expect(mkdir(copy, 0o755) == 0)
    #expect(symlink("\(source)/model.safetensors", "\(copy)/model.safetensors") == 0)
    for (key, value, message) in [
      ("architectures", ["BertForMaskedLM"], "no place for the head of 'BertForMaskedLM'"),
      ("hidden_act", "relu", "'hidden_act' is \"relu\""),
    ] as [(String, JSON, String)] {
      let kept = config[key]
      config[key] = value
      try AtomicFile.write(JSON.object(config).bytes(), to: "\(copy)/config.json")
      let error = #expect(throws: CompileError.self) { try Converter().convert(copy, to: folder.path("model.gguf")) }
      #expect(error?.kind == .unsupported && error?.message.contains(message) == true, "\(error?.message ?? "")")
      config[key] = kept
    }
  }

  private static func logits(_ model: Model, _ recorded: NumPyArchive) throws -> [Float] {
    let (encoder, decoder) = (try Evaluator(model, function: "cross"), try Evaluator(model, function: "main"))
    let main = try #require(model.function(role: "main")), cross = try #require(model.function(role: "cross"))
    let (source, answer) = (try tokens(recorded, "input_ids_1"), try tokens(recorded, "decoder_input_ids_1"))
    let caches = try encoder.run([source]).states
    var states = try decoder.initialStates()
    for (place, state) in main.states.enumerated() {
      let name = main[state.value].name
      if let other = cross.states.firstIndex(where: { cross[$0.value].name == name }) { states[place] = caches[other] }
    }
    let symbols = ["L": answer.view.count, "S": source.view.count]
    let results = try decoder.run([answer, Tensor(.i32, [1], [Int32(0)])], states: states, symbols: symbols)
    return try #require(results.outputs.first).array(of: Float.self)
  }

  /// T5, whose head is the embedding with hidden states scaled before, which readers of GGUF do not: the norm before it has
  /// the scale, a power of two here.
  @Test func t5ThroughGGUF() throws {
    guard let source = Fixtures.path("architectures/t5") else { return }
    let folder = try TemporaryFolder()
    let file = folder.path("model.gguf")
    #expect(try Converter().convert(source, to: file) == [])
    try Self.expectNames(source, file, left: [])
    _ = try Converter().convert(file, to: folder.path("back"))
    let (before, after) = (try Self.tensors(source), try Self.tensors(folder.path("back")))
    #expect(before.keys.sorted() == after.keys.sorted())
    for (name, tensor) in before {
      #expect(after[name]?.shape == tensor.shape && after[name]?.values == tensor.values, "\(name)")
    }
    let recorded = try NumPyArchive(path: source + "/expected.npz")
    let expected = try recorded.require("output_1", file: "expected.npz").floats
    for path in [file, folder.path("back")] {
      let model = try ModelLoader.load(path)
      #expect(model.generation?.beginID == 0)
      #expect(maxRelativeError(try Self.logits(model, recorded), expected) <= 1e-4)
    }
  }

  /// The encoder alone is another architecture of GGUF; without a gate a layer has another name.
  @Test func t5EncoderThroughGGUF() throws {
    guard let source = Fixtures.path("architectures/t5"), Fixtures.python(["safetensors", "numpy"]) else { return }
    let folder = try TemporaryFolder()
    let copy = folder.path("hf")
    #expect(mkdir(copy, 0o755) == 0)
    let script = """
      import sys
      from safetensors.numpy import load_file, save_file
      tensors = load_file(sys.argv[1] + "/model.safetensors")
      save_file({name.replace("wi_1", "wi"): value for name, value in tensors.items()
                 if not name.startswith("decoder.") and "wi_0" not in name}, sys.argv[2] + "/model.safetensors")
      """
    #expect(try Command.run("python3", ["-c", script, source, copy]).exitCode == 0)
    var config = try #require(try JSON.read(path: "\(source)/config.json").object)
    config["architectures"] = ["T5EncoderModel"]
    config["feed_forward_proj"] = "relu"
    config["dense_act_fn"] = "relu"
    config["is_gated_act"] = false
    try AtomicFile.write(JSON.object(config).bytes(), to: "\(copy)/config.json")
    let file = folder.path("model.gguf")
    #expect(try Converter().convert(copy, to: file) == [])
    try Self.expectNames(copy, file, left: [])
    _ = try Converter().convert(file, to: folder.path("back"))
    let recorded = try NumPyArchive(path: source + "/expected.npz")
    func states(_ path: String) throws -> [Float] {
      let results = try Evaluator(ModelLoader.load(path)).run([Self.tokens(recorded, "input_ids_1")])
      return try #require(results.outputs.first).array(of: Float.self)
    }
    let expected = try states(copy)
    #expect(try states(file) == expected)
    #expect(try states(folder.path("back")) == expected)
  }

  /// T5 as two graphs of ONNX: encoder and decoder, the latter at once and token by token through its cache.
  @Test func t5AsONNX() throws {
    guard let source = Fixtures.path("architectures/t5"), Fixtures.python(["numpy", "onnx", "onnxruntime"]) else {
      return
    }
    let folder = try TemporaryFolder()
    let notes = try Converter().convert(source, to: folder.path("t5.onnx"))
    let (encoder, decoder) = (folder.path("t5.encoder.onnx"), folder.path("t5.decoder.onnx"))
    #expect(notes == ["the encoder is written to '\(encoder)'", "the decoder is written to '\(decoder)'"])
    let script = """
      import sys
      import numpy as np, onnx, onnxruntime
      for path in sys.argv[1:3]:
          onnx.checker.check_model(path)
      encoder, decoder = (onnxruntime.InferenceSession(path) for path in sys.argv[1:3])
      expected = np.load(sys.argv[3])
      shapes = {value.name: value.shape for value in decoder.get_inputs()}
      names = [value.name for value in decoder.get_outputs()]
      worst = 0
      for case in "01":
          outputs = encoder.run(None, {"input_ids": expected["input_ids_" + case].astype(np.int64)})
          source = {value.name.replace("present", "past_key_values"): found
                    for value, found in zip(encoder.get_outputs(), outputs) if value.name.startswith("present")}
          empty = {name: np.zeros([1, shape[1], 0, shape[3]], np.float32)
                   for name, shape in shapes.items() if ".decoder." in name}
          ids = expected["decoder_input_ids_" + case].astype(np.int64)
          wanted = expected["output_" + case]
          found = [decoder.run(None, {"input_ids": ids, **source, **empty})[0]]
          past, parts = empty, []
          for token in ids[0]:
              step = dict(zip(names, decoder.run(None, {"input_ids": [[token]], **source, **past})))
              parts.append(step.pop("logits"))
              past = {name.replace("present", "past_key_values"): value for name, value in step.items()}
          found.append(np.concatenate(parts, 1))
          worst = max([worst] + [np.abs(x - wanted).max() / np.abs(wanted).max() for x in found])
      print(worst)
      """
    let outcome = try Command.run("python3", ["-c", script, encoder, decoder, "\(source)/expected.npz"])
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    // Two correct f32 implementations.
    let error = try #require(Double(outcome.text.filter { !$0.isNewline }))
    #expect(error <= 1e-4)
  }

  /// Mamba as a graph of ONNX whose states are those of convolutions and scans: at once, and token by token.
  @Test func mambaAsONNX() throws {
    guard let source = Fixtures.path("architectures/mamba"), Fixtures.python(["numpy", "onnx", "onnxruntime"]) else {
      return
    }
    let folder = try TemporaryFolder()
    #expect(try Converter().convert(source, to: folder.path("mamba.onnx")) == [])
    let script = """
      import sys
      import numpy as np, onnx, onnxruntime
      onnx.checker.check_model(sys.argv[1])
      session = onnxruntime.InferenceSession(sys.argv[1])
      expected = np.load(sys.argv[2])
      names = [value.name for value in session.get_outputs()]
      empty = {value.name: np.zeros(value.shape, np.float32)
               for value in session.get_inputs() if value.name.startswith("past.")}
      ids, wanted = expected["input_ids_1"].astype(np.int64), expected["output_1"]
      found, past, parts = [session.run(None, {"input_ids": ids, **empty})[0]], empty, []
      for start, end in [(0, 1), (1, 3), (3, 4), (4, ids.shape[1])]:
          step = dict(zip(names, session.run(None, {"input_ids": ids[:, start:end], **past})))
          parts.append(step.pop("logits"))
          past = {name.replace("present", "past"): value for name, value in step.items()}
      found.append(np.concatenate(parts, 1))
      print(max(np.abs(x - wanted).max() for x in found) / np.abs(wanted).max())
      """
    let outcome = try Command.run("python3", ["-c", script, folder.path("mamba.onnx"), "\(source)/expected.npz"])
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    let error = try #require(Double(outcome.text.filter { !$0.isNewline }))
    #expect(error <= 1e-4)
  }
}
