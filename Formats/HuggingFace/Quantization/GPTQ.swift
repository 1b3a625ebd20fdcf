import Base
import IR
import Tensors

/// GPTQ checkpoints (Frantar and others, 2022, in the form of AutoGPTQ): `qweight: i32[K * bits / 32, N]` with codes down the
/// columns, `qzeros: i32[G, N * bits / 32]`, `scales: f16[G, N]`, and with act-order the group of each column, `g_idx`.
///
/// `W[n, k] = (q - z) * s`. Version 1 of the form stores z - 1, version 2 (`gptq_v2`) z. Weights without act-order become
/// blocks; with it, f32.
struct GPTQ: QuantizationMethod {
  static let names = ["gptq"]

  private let bits: Int
  private let group: Int?
  /// What is added to stored zero points.
  private let zero: Int

  init(_ config: JSONField) throws {
    bits = try config["bits"].int(in: 2...8)
    guard [2, 3, 4, 8].contains(bits) else { throw config.failure("'bits' is \(bits), expected 2, 3, 4 or 8") }
    let length = try config["group_size"].int(or: -1)
    guard length == -1 || length > 0 else {
      throw config.failure("'group_size' is \(length), expected -1 or more than 0")
    }
    group = length == -1 ? nil : length
    let form = try config["checkpoint_format"].string(or: "gptq")
    guard form == "gptq" || form == "gptq_v2" else {
      throw CompileError(
        .unsupported, "'checkpoint_format' '\(form)' is not supported, only gptq and gptq_v2",
        subject: .init(file: config.file))
    }
    zero = form == "gptq" ? 1 : 0
    if try config["dynamic"].exists && !config["dynamic"].members().isEmpty {
      throw CompileError(
        .unsupported, "'dynamic', settings for single modules, is not supported", subject: .init(file: config.file))
    }
  }

  func join(_ tensors: inout QuantizedTensors) throws {
    for stem in tensors.stems(".qweight") {
      let codes = try tensors.part(stem + ".qweight"), scales = try tensors.part(stem + ".scales")
      let zeros = try tensors.part(stem + ".qzeros"), order = tensors.optionalPart(stem + ".g_idx")
      let words = try codes.sizes(2, .i32)
      var op = UnpackCodes()
      op.layout = .columns
      op.bits = bits
      op.rows = words[1]
      let (total, overflow) = words[0].multipliedReportingOverflow(by: 32)
      guard !overflow, total % bits == 0 else { throw codes.failure("\(words[0]) words of \(bits)-bit codes") }
      op.columns = total / bits
      op.group = min(group ?? op.columns, max(op.columns, 1))
      op.zeroPoints = .groups
      op.zero = zero
      var others = [QuantizedWeight.Part(zeros)]
      if let order, try !isInOrder(order, op) {
        op.hasGroups = true
        others.append(.init(order))
      } else {
        if let common = try commonZero(zeros), common + zero == 1 << (bits - 1) {
          // All codes count from the middle.
          (op.zeroPoints, op.zero, others) = (.none, common + zero, [])
        }
        op.format = QuantizedWeight.format(
          bits: bits, group: op.group, columns: op.columns, hasZeroPoints: op.zeroPoints != .none,
          scalesFitHalf: try scales.fitsHalf())
      }
      try tensors.add(
        QuantizedWeight(stem + ".weight", [op.rows, op.columns], op, .init(codes), .init(scales), others))
    }
    tensors.finish("GPTQ")
  }

  /// Whether columns are in the order of their groups.
  private func isInOrder(_ order: CheckpointTensor, _ op: UnpackCodes) throws -> Bool {
    let groups = try order.integers()
    guard groups.count == op.columns else {
      throw order.failure("found \(groups.count) columns, expected \(op.columns)")
    }
    for group in groups where group < 0 || Int(group) >= op.groupCount {
      throw order.failure("found group \(group), expected 0 to \(op.groupCount - 1)")
    }
    return groups.indices.allSatisfy { Int(groups[$0]) == $0 / op.group }
  }

  /// The stored zero point that all groups share; nil if they differ.
  private func commonZero(_ zeros: CheckpointTensor) throws -> Int? {
    let mask: Int32 = 1 << bits - 1
    let words = try zeros.integers()
    guard let first = words.first.map({ $0 & mask }) else { return nil }
    // The bits of 32 codes in a row, word by word.
    var stream: [UInt32] = []
    for i in 0..<32 {
      let place = i * bits
      while stream.count * 32 <= place + bits - 1 { stream.append(0) }
      stream[place / 32] |= UInt32(bitPattern: first) << UInt32(place % 32)
      if place % 32 + bits > 32 { stream[place / 32 + 1] |= UInt32(bitPattern: first) >> UInt32(32 - place % 32) }
    }
    let row = try zeros.sizes(2, .i32)[1]
    guard row > 0 else { return nil }
    for (index, word) in words.enumerated() where UInt32(bitPattern: word) != stream[index % row % stream.count] {
      return nil
    }
    return Int(first)
  }
}
