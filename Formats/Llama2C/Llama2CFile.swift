import Base
import IR
import Tensors

/// A checkpoint of llama2.c: versions 0 (f32), 1 (f32, other order) and 2 (int8 with a scale per group).
///
/// Version 0 is seven 32-bit integers (width, feed-forward width, layers, heads, key and value heads, tokens, which are
/// negative if the output weights are not those of the embedding, context) and the numbers; versions 1 and 2 have a magic
/// number, the version, the integers, a byte that says whether the output weights are shared, in version 2 the length of a
/// group, and zeros up to byte 256. Quantized tensors are their codes and then their scales. The tensors get the names of
/// Hugging Face; the rows of Q and K, which llama2.c turns as pairs of neighbours, are brought into the order of halves.
struct Llama2CFile: Sendable {
  let file: MappedFile
  private(set) var version = 0
  private(set) var width = 0
  private(set) var feedForward = 0
  private(set) var layers = 0
  private(set) var heads = 0
  private(set) var kvHeads = 0
  private(set) var vocabulary = 0
  private(set) var context = 0
  private(set) var sharesOutput = true
  /// Numbers with one scale; 0 for f32.
  private(set) var group = 0
  private(set) var tensors: [CheckpointTensor] = []

  private static let magic: UInt32 = 0x616B_3432
  private static let headerBytes = 256

  /// Whether a file has the magic number of versions 1 and 2, or is exactly as long as its first numbers say.
  static func sniff(_ file: MappedFile) -> Bool {
    guard file.size >= 28 else { return false }
    if file.bytes.loadUnaligned(as: UInt32.self).littleEndian == magic { return true }
    return (try? Llama2CFile(file)) != nil
  }

  private func failure(_ message: String, at offset: Int? = nil, kind: CompileError.Kind = .input) -> CompileError {
    CompileError(kind, message, subject: .init(file: file.path, offset: offset))
  }

  init(_ file: MappedFile, limits: LoadLimits = LoadLimits()) throws {
    self.file = file
    var reader = ByteReader(file)
    if file.size >= 4, file.bytes.loadUnaligned(as: UInt32.self).littleEndian == Self.magic {
      try reader.skip(4)
      let number = try reader.u32()
      guard number == 1 || number == 2 else {
        throw failure("llama2.c version \(number) is not supported, only 0, 1 and 2", at: 4, kind: .unsupported)
      }
      version = Int(number)
    }
    try readSizes(&reader, limits)
    if version > 0 {
      let shared = try reader.u8()
      guard shared <= 1 else { throw reader.failure("a boolean of value \(shared)", at: reader.offset - 1) }
      sharesOutput = shared == 1
      if version == 2 {
        group = Int(try reader.i32())
        guard group > 0, group <= 1 << 20 else {
          throw reader.failure("groups of \(group) numbers", at: reader.offset - 4)
        }
      }
      try reader.skip(Self.headerBytes - reader.offset, "the header")
    }
    try place(&reader)
    guard reader.isAtEnd else {
      throw failure("the tensors end at byte \(reader.offset), but the file has \(file.size) bytes")
    }
  }

  private mutating func readSizes(_ reader: inout ByteReader, _ limits: LoadLimits) throws {
    func number(_ what: String, _ range: ClosedRange<Int>, _ reader: inout ByteReader) throws -> Int {
      let value = Int(try reader.i32())
      guard range.contains(value) else {
        throw reader.failure(
          "\(what) is \(value), expected \(range.lowerBound) to \(range.upperBound)", at: reader.offset - 4)
      }
      return value
    }
    width = try number("the width", 1...limits.width, &reader)
    feedForward = try number("the feed-forward width", 1...limits.width, &reader)
    layers = try number("the number of layers", 1...limits.layers, &reader)
    heads = try number("the number of heads", 1...65536, &reader)
    kvHeads = try number("the number of key and value heads", 1...65536, &reader)
    let tokens = try number("the number of tokens", -limits.tokens...limits.tokens, &reader)
    guard tokens != 0 else { throw reader.failure("the number of tokens is 0", at: reader.offset - 4) }
    vocabulary = abs(tokens)
    sharesOutput = tokens > 0
    guard version == 0 || tokens > 0 else {
      throw reader.failure("the number of tokens is \(tokens)", at: reader.offset - 4)
    }
    context = try number("the context", 1...limits.context, &reader)
    guard width % heads == 0, width / heads % 2 == 0, heads % kvHeads == 0 else {
      throw failure("\(heads) heads and \(kvHeads) key and value heads do not divide a width of \(width)")
    }
  }

  // MARK: - Tensors

  private var headDim: Int { width / heads }

  /// A run of tensors of one kind, one for each layer.
  private struct Kind {
    var name: String
    var sizes: [Int]
    /// Heads whose rows are pairs of neighbours.
    var heads: Int?
  }

  private mutating func place(_ reader: inout ByteReader) throws {
    let kv = kvHeads * headDim
    let attentionNorm = Kind(name: "input_layernorm", sizes: [width])
    let feedForwardNorm = Kind(name: "post_attention_layernorm", sizes: [width])
    let q = Kind(name: "self_attn.q_proj", sizes: [width, width], heads: heads)
    let k = Kind(name: "self_attn.k_proj", sizes: [kv, width], heads: kvHeads)
    let v = Kind(name: "self_attn.v_proj", sizes: [kv, width])
    let o = Kind(name: "self_attn.o_proj", sizes: [width, width])
    let gate = Kind(name: "mlp.gate_proj", sizes: [feedForward, width])
    let down = Kind(name: "mlp.down_proj", sizes: [width, feedForward])
    let up = Kind(name: "mlp.up_proj", sizes: [feedForward, width])
    let embedding = ("model.embed_tokens.weight", [vocabulary, width])
    let norm = ("model.norm.weight", [width])
    if version == 0 {
      try add(embedding.0, embedding.1, &reader)
      for kind in [attentionNorm, q, k, v, o, feedForwardNorm, gate, down, up] { try addLayers(kind, &reader) }
      try add(norm.0, norm.1, &reader)
      // Cosines and sines of the rotary embedding, which are computed.
      try reader.skip(context * headDim * 4, "the table of angles")
    } else {
      try addLayers(attentionNorm, &reader)
      try addLayers(feedForwardNorm, &reader)
      try add(norm.0, norm.1, &reader)
      try add(embedding.0, embedding.1, &reader, isQuantized: version == 2)
      for kind in [q, k, v, o, gate, down, up] { try addLayers(kind, &reader, isQuantized: version == 2) }
    }
    if !sharesOutput { try add("lm_head.weight", embedding.1, &reader, isQuantized: version == 2) }
  }

  private mutating func addLayers(_ kind: Kind, _ reader: inout ByteReader, isQuantized: Bool = false) throws {
    for layer in 0..<layers {
      let name = "model.layers.\(layer).\(kind.name).weight"
      try add(name, kind.sizes, &reader, isQuantized: isQuantized, heads: kind.heads)
    }
  }

  private mutating func add(
    _ name: String, _ sizes: [Int], _ reader: inout ByteReader, isQuantized: Bool = false, heads: Int? = nil
  ) throws {
    let count = try Shape.checkedCount(sizes, of: "tensor '\(name)'")
    let codeBytes = isQuantized ? 1 : 4
    let (need, overflow) = count.multipliedReportingOverflow(by: codeBytes)
    guard !overflow else { throw reader.failure("the shape \(sizes) of tensor '\(name)' is out of range") }
    let start = reader.offset
    try reader.skip(need, "tensor '\(name)'")
    var tensor = CheckpointTensor(
      name: name, type: TensorType(isQuantized ? .i8 : .f32, sizes), file: file, range: start..<reader.offset)
    if isQuantized {
      guard count % group == 0 else {
        throw reader.failure("\(count) numbers of tensor '\(name)' do not divide into groups of \(group)", at: start)
      }
      let scales = reader.offset
      try reader.skip(count / group * 4, "the scales of tensor '\(name)'")
      tensor = Self.quantized(tensor, sizes, group, scales: scales..<reader.offset)
    }
    tensors.append(heads.map { Self.inHalves(tensor, sizes, heads: $0) } ?? tensor)
  }

  /// Codes and scales as one tensor: blocks where groups lie within rows, else numbers.
  private static func quantized(
    _ codes: CheckpointTensor, _ sizes: [Int], _ group: Int, scales: Range<Int>
  ) -> CheckpointTensor {
    var result = codes
    result.type = TensorType(.f32, sizes)
    result.recipe = { model, builder in
      var op = UnpackCodes()
      op.layout = .signedBytes
      op.bits = 8
      op.zero = 128
      op.group = group
      let columns = sizes[sizes.count - 1]
      let isWithinRows = columns % group == 0
      op.columns = isWithinRows ? columns : group
      op.rows = codes.range.count / op.columns
      if isWithinRows, BlockFormat.isValid(bits: 8, group: group, scale: .f32, codes: .signed) {
        op.format = .a8(group)
      }
      let archive = model.addArchive(codes.file)
      let bytes = builder.constant(
        Constant(
          name: codes.name, type: TensorType(.i8, [op.rows, op.columns]), source: .archive(archive, codes.range)))
      let steps = builder.constant(
        Constant(
          name: codes.name + ".scales", type: TensorType(.f32, [op.rows, op.groupCount]),
          source: .archive(archive, scales)))
      var value = try builder.emit(op, bytes, steps)
      if op.format != nil { value = try builder.emit(Dequantize(.f32), value, name: codes.name) }
      return isWithinRows ? value : try builder.emit(Reshape(sizes.map { .fixed($0) }), value, name: codes.name)
    }
    return result
  }

  /// The rows of each head with the even ones first.
  private static func inHalves(_ tensor: CheckpointTensor, _ sizes: [Int], heads: Int) -> CheckpointTensor {
    var result = tensor
    result.recipe = { model, builder in
      let pairs = sizes[0] / heads / 2
      var value = try tensor.constant(into: &model, &builder)
      value = try builder.emit(Reshape([.fixed(heads), .fixed(pairs), 2, .fixed(sizes[1])]), value)
      value = try builder.emit(Transpose([0, 2, 1, 3]), value)
      return try builder.emit(Reshape(sizes.map { .fixed($0) }), value, name: tensor.name)
    }
    return result
  }
}
