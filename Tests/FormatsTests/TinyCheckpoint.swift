import Base
import Formats
import IR
import TestSupport

/// The bytes of files that tests give to loaders.
enum FileBytes {
  /// A safetensors file of a header, given as JSON text, and data.
  static func safetensors(_ header: String, _ data: [UInt8] = []) -> [UInt8] {
    let text = Array(header.utf8)
    return littleEndian(UInt64(text.count)) + text + data
  }

  /// A safetensors file of f32 tensors with seeded values. The header is padded so that the data is aligned.
  static func safetensors(_ tensors: [(name: String, sizes: [Int])], seed: UInt64 = 1) -> [UInt8] {
    var random = SplitMix64(seed: seed)
    var entries: [String] = []
    var data: [UInt8] = []
    for (name, sizes) in tensors {
      let begin = data.count
      data += f32(random.floats(sizes.reduce(1, *)))
      entries.append("\"\(name)\":{\"dtype\":\"F32\",\"shape\":\(sizes),\"data_offsets\":[\(begin),\(data.count)]}")
    }
    var header = "{" + entries.joined(separator: ",") + "}"
    while header.utf8.count % 8 != 0 { header += " " }
    return safetensors(header, data)
  }

  static func littleEndian<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
    withUnsafeBytes(of: number.littleEndian) { Array($0) }
  }

  static func repeating(_ unit: [UInt8], _ count: Int) -> [UInt8] {
    var bytes = unit
    while bytes.count < unit.count * count { bytes += bytes }
    return Array(bytes[..<(unit.count * count)])
  }

  static func f32(_ values: [Float]) -> [UInt8] { values.flatMap { littleEndian($0.bitPattern) } }
}

/// The smallest Llama there is, as a Hugging Face folder whose parts tests exchange.
struct TinyCheckpoint {
  /// `config.json`.
  var config: JSONObject = JSONObject(
    [
      ("architectures", ["LlamaForCausalLM"]), ("model_type", "llama"), ("hidden_size", 4), ("intermediate_size", 6),
      ("num_hidden_layers", 1), ("num_attention_heads", 2), ("num_key_value_heads", 1), ("vocab_size", 8),
      ("max_position_embeddings", 16), ("rms_norm_eps", 1e-5), ("rope_theta", 10000.0), ("hidden_act", "silu"),
      ("tie_word_embeddings", true), ("torch_dtype", "float32"), ("bos_token_id", 1), ("eos_token_id", 2),
    ] as [(String, JSON)])

  /// The tensors of `model.safetensors` in order.
  var tensors: [(name: String, sizes: [Int])] = [
    ("model.embed_tokens.weight", [8, 4]), ("model.layers.0.input_layernorm.weight", [4]),
    ("model.layers.0.mlp.down_proj.weight", [4, 6]), ("model.layers.0.mlp.gate_proj.weight", [6, 4]),
    ("model.layers.0.mlp.up_proj.weight", [6, 4]), ("model.layers.0.post_attention_layernorm.weight", [4]),
    ("model.layers.0.self_attn.k_proj.weight", [2, 4]), ("model.layers.0.self_attn.o_proj.weight", [4, 4]),
    ("model.layers.0.self_attn.q_proj.weight", [4, 4]), ("model.layers.0.self_attn.v_proj.weight", [2, 4]),
    ("model.norm.weight", [4]),
  ]

  /// `tokenizer.json`, left out if nil.
  var tokenizer: JSON?

  /// Other files by name.
  var files: [String: String] = [:]

  /// Whether `model.safetensors` is written.
  var writesWeights = true

  /// Writes the files into a new folder.
  func write() throws -> TemporaryFolder {
    let folder = try TemporaryFolder()
    try folder.write("config.json", JSON.object(config).text())
    if writesWeights { try folder.write("model.safetensors", FileBytes.safetensors(tensors)) }
    if let tokenizer { try folder.write("tokenizer.json", tokenizer.text()) }
    for (name, text) in files { try folder.write(name, text) }
    return folder
  }

  /// A Llama-2 style tokenizer of the eight tokens.
  static let llamaTokenizer: JSON = [
    "added_tokens": [
      ["id": 0, "content": "<unk>", "special": true, "normalized": false],
      ["id": 1, "content": "<s>", "special": true, "normalized": false],
      ["id": 2, "content": "</s>", "special": true, "normalized": false, "rstrip": true],
    ],
    "normalizer": [
      "type": "Sequence",
      "normalizers": [
        ["type": "Prepend", "prepend": "▁"], ["type": "Replace", "pattern": ["String": " "], "content": "▁"],
      ],
    ],
    "pre_tokenizer": nil,
    "post_processor": [
      "type": "TemplateProcessing",
      "single": [["SpecialToken": ["id": "<s>", "type_id": 0]], ["Sequence": ["id": "A", "type_id": 0]]],
      "special_tokens": ["<s>": ["id": "<s>", "ids": [1], "tokens": ["<s>"]]],
    ],
    "decoder": [
      "type": "Sequence",
      "decoders": [
        ["type": "Replace", "pattern": ["String": "▁"], "content": " "], ["type": "ByteFallback"], ["type": "Fuse"],
        ["type": "Strip", "content": " ", "start": 1, "stop": 0],
      ],
    ],
    "model": [
      "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
      "vocab": ["<unk>": 0, "<s>": 1, "</s>": 2, "<0x0A>": 3, "▁": 4, "a": 5, "▁a": 6, "aa": 7],
      "merges": ["▁ a", ["a", "a"]],
    ],
  ]

  /// A byte-level tokenizer of the eight tokens.
  static let byteLevelTokenizer: JSON = [
    "added_tokens": [["id": 7, "content": "<|end|>", "special": true]],
    "normalizer": nil,
    "pre_tokenizer": ["type": "ByteLevel", "add_prefix_space": false, "use_regex": true],
    "post_processor": ["type": "ByteLevel"],
    "decoder": ["type": "ByteLevel"],
    "model": [
      "type": "BPE", "vocab": ["a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġa": 4, "Ġab": 5],
      "merges": ["a b", "Ġ a", "Ġ ab"],
    ],
  ]
}

extension TemporaryFolder {
  /// Loads the checkpoint in the folder.
  func load(_ options: LoadOptions = LoadOptions()) throws -> Model { try FormatRegistry.load(path, options) }
}

extension JSON {
  /// The value with what is under a path of keys replaced, or removed with nil; missing objects are added.
  func setting(_ path: String..., to value: JSON?) -> JSON { setting(path[...], value) }

  private func setting(_ path: ArraySlice<String>, _ value: JSON?) -> JSON {
    guard let key = path.first else { return value ?? .null }
    var object = self.object ?? JSONObject()
    if path.count == 1 {
      object[key] = value
    } else {
      object[key] = (object[key] ?? .object(JSONObject())).setting(path.dropFirst(), value)
    }
    return .object(object)
  }
}
