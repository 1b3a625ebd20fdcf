import Base
import TestSupport

/// Writes GGUF files for tests, right or wrong ones.
struct GGUFBytes {
  /// A metadata value with its type.
  indirect enum Value {
    case u8(UInt8), i8(Int8), u16(UInt16), i16(Int16), u32(UInt32), i32(Int32), u64(UInt64), i64(Int64)
    case f32(Float), f64(Double), bool(UInt8), string(String)
    /// Element type, declared length, elements.
    case array(UInt32, UInt64, [Value])
    /// A type number and bytes that follow it.
    case raw(UInt32, [UInt8])

    static func strings(_ texts: [String]) -> Value { .array(8, UInt64(texts.count), texts.map { .string($0) }) }
    static func floats(_ values: [Float]) -> Value { .array(6, UInt64(values.count), values.map { .f32($0) }) }
    static func ints(_ values: [Int32]) -> Value { .array(5, UInt64(values.count), values.map { .i32($0) }) }

    var type: UInt32 {
      switch self {
      case .u8: 0
      case .i8: 1
      case .u16: 2
      case .i16: 3
      case .u32: 4
      case .i32: 5
      case .f32: 6
      case .bool: 7
      case .string: 8
      case .array: 9
      case .u64: 10
      case .i64: 11
      case .f64: 12
      case .raw(let type, _): type
      }
    }

    var bytes: [UInt8] {
      switch self {
      case .u8(let value), .bool(let value): [value]
      case .i8(let value): FileBytes.littleEndian(value)
      case .u16(let value): FileBytes.littleEndian(value)
      case .i16(let value): FileBytes.littleEndian(value)
      case .u32(let value): FileBytes.littleEndian(value)
      case .i32(let value): FileBytes.littleEndian(value)
      case .u64(let value): FileBytes.littleEndian(value)
      case .i64(let value): FileBytes.littleEndian(value)
      case .f32(let value): FileBytes.littleEndian(value.bitPattern)
      case .f64(let value): FileBytes.littleEndian(value.bitPattern)
      case .string(let text): FileBytes.littleEndian(UInt64(text.utf8.count)) + Array(text.utf8)
      case .array(let type, let count, let elements):
        FileBytes.littleEndian(type) + FileBytes.littleEndian(count) + elements.flatMap(\.bytes)
      case .raw(_, let bytes): bytes
      }
    }
  }

  struct Tensor {
    var name: String
    /// Innermost first, as the file has them.
    var sizes: [UInt64]
    var type: UInt32 = 0
    var data: [UInt8]
    /// Replaces the offset that follows from the tensors before.
    var offset: UInt64?
  }

  var magic = Array("GGUF".utf8)
  var version: UInt32 = 3
  var tensorCount: UInt64?
  var keyCount: UInt64?
  var metadata: [(key: String, value: Value)] = []
  var tensors: [Tensor] = []
  var alignment = 32

  /// The file.
  var bytes: [UInt8] {
    var result = magic + FileBytes.littleEndian(version)
    result += FileBytes.littleEndian(tensorCount ?? UInt64(tensors.count))
    result += FileBytes.littleEndian(keyCount ?? UInt64(metadata.count))
    for (key, value) in metadata {
      result += Value.string(key).bytes + FileBytes.littleEndian(value.type) + value.bytes
    }
    var data: [UInt8] = []
    for tensor in tensors {
      while data.count % alignment != 0 { data.append(0) }
      result += Value.string(tensor.name).bytes + FileBytes.littleEndian(UInt32(tensor.sizes.count))
      result += tensor.sizes.flatMap { FileBytes.littleEndian($0) }
      result += FileBytes.littleEndian(tensor.type) + FileBytes.littleEndian(tensor.offset ?? UInt64(data.count))
      data += tensor.data
    }
    while result.count % alignment != 0 { result.append(0) }
    return result + data
  }

  /// The value under `key` replaced, or removed with nil.
  mutating func set(_ key: String, _ value: Value?) {
    if let index = metadata.firstIndex(where: { $0.key == key }) {
      if let value { metadata[index].value = value } else { metadata.remove(at: index) }
    } else if let value {
      metadata.append((key, value))
    }
  }

  /// The smallest Llama with a scored tokenizer: 32 wide, 2 heads, 1 block, 8 tokens.
  static func llama(type: UInt32 = 0, seed: UInt64 = 1) -> GGUFBytes {
    var file = GGUFBytes()
    file.metadata = [
      ("general.architecture", .string("llama")), ("general.name", .string("tiny")),
      ("llama.context_length", .u32(16)), ("llama.embedding_length", .u32(32)), ("llama.block_count", .u32(1)),
      ("llama.feed_forward_length", .u32(32)), ("llama.attention.head_count", .u32(2)),
      ("llama.attention.head_count_kv", .u32(1)), ("llama.attention.layer_norm_rms_epsilon", .f32(1e-5)),
      ("llama.rope.dimension_count", .u32(16)), ("llama.vocab_size", .u32(8)),
      ("tokenizer.ggml.model", .string("llama")),
      ("tokenizer.ggml.tokens", .strings(["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "▁a", "aa"])),
      ("tokenizer.ggml.scores", .floats([0, 0, 0, 0, -3, -4, -1, -2])),
      ("tokenizer.ggml.token_type", .ints([2, 3, 3, 6, 1, 1, 1, 1])), ("tokenizer.ggml.bos_token_id", .u32(1)),
      ("tokenizer.ggml.eos_token_id", .u32(2)), ("tokenizer.ggml.unknown_token_id", .u32(0)),
    ]
    var random = SplitMix64(seed: seed)
    func add(_ name: String, _ sizes: [UInt64], _ type: UInt32) {
      let count = Int(sizes.reduce(1, *))
      let size: (block: Int, bytes: Int) =
        switch type {
        case 0: (1, 4)
        case 1, 30: (1, 2)
        case 2, 20: (32, 18)
        case 6: (32, 22)
        default: (32, 34)
        }
      var data: [UInt8] = []
      if type == 0 {
        data = FileBytes.f32(random.floats(count))
      } else {
        // The high byte of every 16-bit float is small, so that no value is infinite.
        data = (0..<count / size.block * size.bytes).map { _ in UInt8(random.int(below: 256)) }
        let step = size.block == 1 ? 2 : size.bytes
        for index in stride(from: 1, to: data.count, by: step) { data[index] = UInt8(random.int(below: 0x30)) }
      }
      file.tensors.append(Tensor(name: name, sizes: sizes, type: type, data: data))
    }
    add("token_embd.weight", [32, 8], type)
    for name in ["attn_norm", "ffn_norm"] { add("blk.0.\(name).weight", [32], 0) }
    for (name, rows) in [("attn_q", 32), ("attn_k", 16), ("attn_v", 16), ("attn_output", 32)] as [(String, UInt64)] {
      add("blk.0.\(name).weight", [32, rows], type)
    }
    for name in ["ffn_gate", "ffn_up", "ffn_down"] { add("blk.0.\(name).weight", [32, 32], type) }
    add("output_norm.weight", [32], 0)
    return file
  }
}
