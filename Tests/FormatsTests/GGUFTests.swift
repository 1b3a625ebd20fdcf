import Base
import Formats
import Glibc
import IR
import TestSupport
import Tensors
import Testing

@Suite struct GGUFTests {
  private func load(_ file: GGUFBytes) throws -> Model {
    let folder = try TemporaryFolder()
    return try folder.load(file: try folder.write("model.bin", file.bytes))
  }

  private func values(_ model: Model, _ name: String) throws -> [Float] {
    let index = try #require(model.constants.constants.firstIndex { $0.name == name })
    let id = ConstantID(index: Int32(index))
    return try #require(
      try model.withBytes(of: id) { bytes in
        (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
      })
  }

  /// The GGUF file and the Hugging Face folder are one model: the same graph apart from names and the kind of rotary
  /// embedding, and the same weights once the rows of Q and K are put back in order.
  @Test func agreesWithHuggingFaceForm() throws {
    guard let gguf = Fixtures.path("stories260K/stories260K-f32.gguf"), let hf = Fixtures.path("stories260K/hf") else {
      return
    }
    let (a, b) = (try FormatRegistry.load(gguf), try FormatRegistry.load(hf))
    try Verifier.verify(a)
    let (left, right) = (a.functions[0], b.functions[0])
    let (leftOrder, rightOrder) = (left.topologicalOrder(), right.topologicalOrder())
    #expect(leftOrder.count == rightOrder.count)
    for (x, y) in zip(leftOrder, rightOrder) {
      if var rope = left[x].op as? Rope {
        #expect(rope.interleaved)
        rope.interleaved = false
        #expect(rope.isEqual(to: right[y].op))
      } else {
        #expect(left[x].op.isEqual(to: right[y].op))
      }
      #expect(left[x].results.map { left.type(of: $0) } == right[y].results.map { right.type(of: $0) })
    }
    var names = ["model.embed_tokens", "model.norm"]
    for layer in 0..<5 {
      for module in [
        "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
      ] { names.append("model.layers.\(layer).\(module)") }
    }
    for name in names {
      let found = try values(a, name + ".weight")
      var expected = try values(b, name + ".weight")
      if name.hasSuffix("q_proj") || name.hasSuffix("k_proj") {
        expected = interleaved(expected, columns: 64, headDim: 8)
      }
      #expect(found == expected, "\(name)")
    }
    #expect(a.tokenizer?.tokens == b.tokenizer?.tokens)
    // tokenizer.json lists the unknown token among the special ones.
    #expect(a.tokenizer?.kinds.dropFirst() == b.tokenizer?.kinds.dropFirst())
    #expect(a.tokenizer?.kinds.first == .unknown && b.tokenizer?.kinds.first == .control)
    #expect(a.tokenizer?.prefix == [1] && a.tokenizer?.endIDs == [2])
    #expect(a.tokenizer?.algorithm == .scoredBPE && a.tokenizer?.scores.count == 512)
  }

  /// Rows `j` and `j + headDim/2` of each head become neighbours.
  private func interleaved(_ values: [Float], columns: Int, headDim: Int) -> [Float] {
    var result: [Float] = []
    for head in 0..<values.count / columns / headDim {
      for row in 0..<headDim {
        let source = head * headDim + row / 2 + row % 2 * headDim / 2
        result += values[source * columns..<(source + 1) * columns]
      }
    }
    return result
  }

  @Test(
    arguments: [
      (0, TensorType(.f32, [8, 32])), (1, TensorType(.f16, [8, 32])), (30, TensorType(.bf16, [8, 32])),
      (8, TensorType(.f32, [8, 32], encoding: .block(.w8(32)))),
      (2, TensorType(.f32, [8, 32], encoding: .block(.w4(32)))), (6, TensorType(.u8, [8, 22])),
      (20, TensorType(.f32, [8, 32], encoding: .block(.levels(.iq4nl, 32)))),
    ] as [(UInt32, TensorType)])
  func readsTensorTypes(type: UInt32, expected: TensorType) throws {
    for version: UInt32 in [2, 3] {
      var file = GGUFBytes.llama(type: type)
      file.version = version
      let model = try load(file)
      try Verifier.verify(model)
      let embedding = try #require(model.constants.constants.first { $0.name == "model.embed_tokens.weight" })
      #expect(embedding.type == expected)
      let graph = model.functions[0]
      #expect(graph.type(of: graph.states[0].value).element == (type == 0 ? .f32 : .f16))
      #expect(graph.nodeIDs.contains { graph[$0].op is Dequantize } == [2, 8, 20].contains(type))
      #expect(graph.nodeIDs.filter { graph[$0].op is DequantizeGGML }.count == (type == 6 ? 8 : 0))
      let results = try Evaluator(model).run(
        [Tensor(.i32, [2], [Int32(1), 5]), Tensor(.i32, [1], [Int32(0)])], symbols: ["L": 1])
      #expect(results.outputs[0].array(of: Float.self).allSatisfy { $0.isFinite })
    }
  }

  /// Blocks of 32 numbers as recorded from ggml: the values mcc gives them.
  @Test(arguments: [("Q8_0", BlockFormat.w8(32)), ("Q4_0", BlockFormat.w4(32))])
  func blocksMeanWhatGGMLMeans(name: String, format: BlockFormat) throws {
    guard let path = Fixtures.path("gguf_blocks.npz") else { return }
    let archive = try NumPyArchive(path: path)
    let blocks = try archive.require("\(name).bytes", file: path)
    let expected = try archive.require("\(name).values", file: path).floats
    let rows = expected.count / 32
    let type = TensorType(.f32, [rows, 32], encoding: .block(format))
    let result = Tensor(TensorType(.f32, [rows, 32]))
    try blocks.bytes.withUnsafeBytes {
      try Dequantize(.f32).evaluate([TensorView(type, $0)], into: [result.mutableView])
    }
    #expect(result.array(of: Float.self) == expected)
  }

  @Test func readsAlignmentAndRotaryMetadata() throws {
    var file = GGUFBytes.llama()
    file.alignment = 64
    file.set("general.alignment", .u32(64))
    file.set("llama.rope.freq_base", .f32(100))
    file.set("llama.rope.scaling.type", .string("linear"))
    file.set("llama.rope.scaling.factor", .f32(2))
    #expect(try frequencies(file)[1] == Float(0.5 * 0.5623413251903491))
    file.set("llama.rope.scaling.type", .string("none"))
    let factors = FileBytes.f32([1, 2, 4, 8, 8, 8, 8, 8])
    file.tensors.append(.init(name: "rope_freqs.weight", sizes: [8], data: factors))
    #expect(try frequencies(file)[1] == Float(0.5 * 0.5623413251903491))
    #expect(try frequencies(file)[0] == 1)
    file.tensors[file.tensors.count - 1].data = FileBytes.f32([1, 0, 4, 8, 8, 8, 8, 8])
    expectFailure(.input, "a factor of 0.0 in 'rope_freqs.weight'") { _ = try frequencies(file) }
    file.set("llama.rope.scaling.type", .string("yarm"))
    file.tensors.removeLast()
    expectFailure(.unsupported, "'yarm'") { _ = try frequencies(file) }
  }

  private func frequencies(_ file: GGUFBytes) throws -> [Float] {
    let model = try load(file)
    guard
      case .inline(let bytes)? = model.constants.constants.first(where: { $0.name == "rope.inverse_frequencies" })?
        .source
    else { return [] }
    return bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
  }

  @Test func readsUntiedHeadAndBiases() throws {
    var file = GGUFBytes.llama()
    file.tensors.append(.init(name: "output.weight", sizes: [32, 8], data: [UInt8](repeating: 0, count: 1024)))
    for (name, size) in [("attn_q", 32), ("attn_k", 16), ("attn_v", 16)] {
      file.tensors.append(
        .init(name: "blk.0.\(name).bias", sizes: [UInt64(size)], data: [UInt8](repeating: 0, count: 4 * size)))
    }
    let model = try load(file)
    try Verifier.verify(model)
    #expect(model.constants.count == 16)
  }

  /// The largest Gemma 2 divides scores by the root of the width over the number of heads, others by that of the width of
  /// a head; GGUF says neither, readers go by the number of layers.
  @Test(arguments: [(45, 16), (46, 8)]) func scoresOfGemma(layers: Int, divisor: Int) throws {
    var file = GGUFBytes()
    file.metadata = [
      ("general.architecture", .string("gemma2")), ("gemma2.context_length", .u32(16)),
      ("gemma2.embedding_length", .u32(32)), ("gemma2.block_count", .u32(UInt32(layers))),
      ("gemma2.feed_forward_length", .u32(32)), ("gemma2.attention.head_count", .u32(4)),
      ("gemma2.attention.head_count_kv", .u32(2)), ("gemma2.attention.key_length", .u32(16)),
      ("gemma2.attention.value_length", .u32(16)), ("gemma2.attention.layer_norm_rms_epsilon", .f32(1e-6)),
    ]
    func add(_ name: String, _ sizes: [UInt64]) {
      let data = [UInt8](repeating: 0, count: Int(sizes.reduce(4, *)))
      file.tensors.append(.init(name: name + ".weight", sizes: sizes, data: data))
    }
    add("token_embd", [32, 8])
    add("output_norm", [32])
    for layer in 0..<layers {
      let block = "blk.\(layer)."
      for norm in ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"] { add(block + norm, [32]) }
      for (module, rows) in [("attn_q", 64), ("attn_k", 32), ("attn_v", 32)] as [(String, UInt64)] {
        add(block + module, [32, rows])
      }
      add(block + "attn_output", [64, 32])
      for module in ["ffn_gate", "ffn_up", "ffn_down"] { add(block + module, [32, 32]) }
    }
    let graph = try load(file).functions[0]
    let scales = graph.nodeIDs.compactMap { (graph[$0].op as? Attention)?.scale }
    #expect(scales == [Float](repeating: Float(1 / Double(divisor).squareRoot()), count: layers))
  }

  @Test func sniffsByContent() throws {
    let folder = try TemporaryFolder()
    let gguf = try folder.write("x.safetensors", GGUFBytes.llama().bytes)
    #expect(try folder.load(file: gguf)[metadata: "format"] == "gguf")
    let cases: [([UInt8], CompileError.Kind, String)] = [
      (Array("hello".utf8), .unsupported, "the file"), ([], .input, "the empty file"),
    ]
    for (bytes, kind, what) in cases {
      let path = try folder.write("model.gguf", bytes)
      expectFailure(kind, what, "GGUF file", "safetensors", "Hugging Face") { _ = try folder.load(file: path) }
    }
    expectFailure(.unsupported, "the folder") { _ = try folder.load() }
    let empty = try TemporaryFolder()
    expectFailure(.input, "the empty folder") { _ = try empty.load() }
    expectFailure(.input, "no such file") { _ = try folder.load(file: folder.path("nothing")) }
    expectFailure(.input, "zero byte") { _ = try folder.load(file: "a\0b") }
  }

  /// A file and the same in three parts give equal numbers; parts that do not belong together are refused.
  @Test func readsSplitFiles() throws {
    let whole = GGUFBytes.llama()
    let folder = try TemporaryFolder()
    func name(_ part: Int) -> String { "tiny-0000\(part)-of-00003.gguf" }
    func part(_ number: Int, _ change: (inout GGUFBytes) -> Void = { _ in }) -> [UInt8] {
      var file = whole
      if number > 1 { file.metadata = [] }
      file.tensors = whole.tensors.enumerated().filter { $0.offset % 3 == number - 1 }.map { $0.element }
      file.set("split.no", .u16(UInt16(number - 1)))
      file.set("split.count", .u16(3))
      file.set("split.tensors.count", .i32(Int32(whole.tensors.count)))
      change(&file)
      return file.bytes
    }
    for number in 1...3 { try folder.write(name(number), part(number)) }
    try folder.write("whole.gguf", whole.bytes)
    func numbers(_ path: String) throws -> [String: [UInt8]] {
      let model = try FormatRegistry.load(folder.path(path))
      try Verifier.verify(model)
      var result: [String: [UInt8]] = [:]
      for constant in model.constants.constants {
        guard case .archive(let archive, let range) = constant.source else { continue }
        result[constant.name] = Array(try model.archives[archive].file.slice(range))
      }
      return result
    }
    #expect(try numbers(name(1)) == numbers("whole.gguf"))
    try folder.write(name(1), part(2))
    expectFailure(.input, "'split.no' is not 0", name(1)) { _ = try FormatRegistry.load(folder.path(name(1))) }
    try folder.write(name(1), part(1))
    try folder.write(name(3), part(2))
    expectFailure(.input, "this is not part 3 of 3", name(3)) { _ = try FormatRegistry.load(folder.path(name(1))) }
    try folder.write(name(3), part(3) { $0.tensors.removeLast() })
    expectFailure(.input, "'split.tensors.count' is 11") { _ = try FormatRegistry.load(folder.path(name(1))) }
    unlink(folder.path(name(3)))
    expectFailure(.input, name(3)) { _ = try FormatRegistry.load(folder.path(name(1))) }
    let path = try folder.write("other.gguf", part(1))
    expectFailure(.input, "is not called '...-00001-of-00003.gguf'") { _ = try FormatRegistry.load(path) }
  }
}

extension TemporaryFolder {
  /// Loads a file, which may lie in the folder.
  func load(file: String) throws -> Model { try FormatRegistry.load(file) }
}
