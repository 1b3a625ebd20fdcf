import Base
import IR
import Tensors

extension GGUFSchema {
  /// The tensors of a GGUF file with the names and in the form of Hugging Face, `config` being the hyper-parameters that
  /// were read from it. Weights that change on the way become recipes; stacks of experts are cut.
  ///
  /// With `keepsPairs`, rows of queries and keys stay in the order of the file, for a network that turns neighbours.
  ///
  /// - Throws: ``CompileError`` naming a tensor that is not in the table, or if there are more or fewer blocks than said.
  func restored(
    _ tensors: [CheckpointTensor], _ config: JSONObject, keepsPairs: Bool
  ) throws -> [CheckpointTensor] {
    let heads = number("attention.head_count", in: config) ?? 1
    let kvHeads = number("attention.head_count_kv", in: config) ?? heads
    // Of two weights of one name in GGUF the later one is for feed-forward layers with a gate.
    let isGated = config["feed_forward_proj"]?.string?.hasPrefix("gated") ?? false
    let weights = Dictionary(self.weights.map { ($0.gguf, $0) }) { isGated ? $1 : $0 }
    let stacks = Dictionary(experts.map { ($0.gguf, $0.config) }) { first, _ in first }
    var result: [CheckpointTensor] = []
    result.reserveCapacity(tensors.count)
    for stack in self.stacks { try requireBlocks(stack, number(stack.count, in: config) ?? 0, tensors) }
    for tensor in tensors where !Self.factorNames.contains(tensor.name) {
      let (pattern, layer) = Self.pattern(of: tensor.name)
      if let weight = weights[pattern] {
        var change = weight.change
        if keepsPairs, case .pairRows = change { change = .none }
        result.append(change.undone(on: tensor, as: weight.config.at(layer), heads: heads, kvHeads: kvHeads))
      } else if let experts = stacks[pattern] {
        result += try Self.parts(of: tensor, experts.at(layer), count: number("expert_count", in: config) ?? 0)
      } else {
        throw CompileError(
          .unsupported, "tensor '\(tensor.name)' has no place in the architecture",
          subject: .init(file: tensor.file.path))
      }
    }
    return result
  }

  private func requireBlocks(_ stack: Stack, _ count: Int, _ tensors: [CheckpointTensor]) throws {
    var found = 0
    for tensor in tensors where tensor.name.hasPrefix(stack.prefix) {
      let rest = tensor.name.dropFirst(stack.prefix.count)
      if let number = Int(rest.prefix { $0 != "." }), number >= 0, number < Int.max {
        found = max(found, number + 1)
      }
    }
    guard found == count else {
      throw CompileError(
        .input, "'\(name).\(stack.count)' is \(count), but the tensors have \(found) blocks",
        subject: .init(file: tensors.first?.file.path))
    }
  }

  /// The matrices of a stack, which lie one after the other.
  private static func parts(of stack: CheckpointTensor, _ name: String, count: Int) throws -> [CheckpointTensor] {
    guard count > 0, let sizes = stack.type.shape.fixedSizes, sizes.count == 3, sizes[0] == count else {
      throw CompileError(
        .input, "tensor '\(stack.name)' has shape \(stack.shape), expected \(count) matrices",
        subject: .init(file: stack.file.path))
    }
    let bytes = stack.range.count / count
    return (0..<count).map { expert in
      var part = stack
      part.name = name.replacing("{e}", with: "\(expert)")
      part.type.shape = Shape(Array(sizes.dropFirst()))
      let start = stack.range.lowerBound + expert * bytes
      part.range = start..<start + bytes
      return part
    }
  }

  /// A name with `{}` for the first of its parts that is a number, and that number.
  static func pattern(of name: String) -> (pattern: String, layer: String) {
    var parts = name.split(separator: ".", omittingEmptySubsequences: false)
    guard let place = parts.firstIndex(where: { !$0.isEmpty && $0.utf8.allSatisfy { 48...57 ~= $0 } }) else {
      return (name, "")
    }
    let layer = String(parts[place])
    parts[place] = "{}"
    return (parts.joined(separator: "."), layer)
  }

  /// What GGUF calls the tensor that Hugging Face calls `name`; the name itself if it is not in the table.
  func nameInGGUF(_ name: String) -> String {
    let (pattern, layer) = Self.pattern(of: name)
    return weights.first { $0.config == pattern }?.gguf.at(layer) ?? name
  }
}

extension GGUFSchema.Change {
  /// A tensor of GGUF as Hugging Face has it.
  func undone(on tensor: CheckpointTensor, as name: String, heads: Int, kvHeads: Int) -> CheckpointTensor {
    var result = tensor
    result.name = name
    switch self {
    case .none, .wide: return result
    default: break
    }
    let stored = result
    let isWidened = stored.blocks != nil || !stored.type.isDense || isInFloat
    result.type = TensorType(isWidened ? .f32 : stored.type.element, sizes(of: stored.shape.fixedSizes ?? []))
    result.blocks = nil
    result.recipe = { model, builder in
      var value = try stored.constant(into: &model, &builder)
      if let blocks = stored.blocks { value = try builder.emit(DequantizeGGML(blocks), value) }
      if !builder.type(of: value).isDense { value = try builder.emit(Dequantize(.f32), value) }
      return try backward(&builder, value, heads: heads, kvHeads: kvHeads)
    }
    return result
  }

  /// The sizes in Hugging Face of a weight with these sizes in GGUF.
  private func sizes(of stored: [Int]) -> [Int] {
    switch self {
    case .transpose: stored.reversed()
    case .filter: stored.count == 2 ? [stored[0], 1, stored[1]] : stored
    case .none, .pairRows, .addOne, .groupRows, .negativeExponential, .scale, .wide: stored
    }
  }

  /// Whether the numbers become f32.
  private var isInFloat: Bool {
    switch self {
    case .addOne, .filter, .negativeExponential, .scale, .wide: true
    case .none, .pairRows, .transpose, .groupRows: false
    }
  }

  /// The weight of Hugging Face from that of GGUF.
  private func backward(
    _ builder: inout GraphBuilder, _ value: ValueID, heads: Int, kvHeads: Int
  ) throws -> ValueID {
    let rows = builder.type(of: value).shape.dims.first?.fixedValue ?? 0
    switch self {
    case .none, .wide: return value
    case .pairRows(let keys):
      let count = max(keys ? kvHeads : heads, 1)
      return try builder.reorderRows(value, parts: [count, rows / count / 2, 2], permutation: [0, 2, 1])
    case .addOne:
      let gain = try builder.cast(value, to: .f32)
      return try builder.emit(Subtract(), gain, builder.constant(.inline("one", .f32, [1], [Float(1)])))
    case .transpose: return try builder.emit(Transpose([1, 0]), value)
    case .groupRows: return try builder.transposeRows(value, [3, heads])
    case .scale(let factor):
      let x = try builder.cast(value, to: .f32)
      return try builder.emit(Divide(), x, builder.constant(.inline("scale", .f32, [1], [factor])))
    case .filter:
      let sizes = sizes(of: builder.type(of: value).shape.fixedSizes ?? [])
      return try builder.emit(Reshape(sizes.map { .fixed($0) }), builder.cast(value, to: .f32))
    case .negativeExponential:
      return try builder.emit(Log(), builder.emit(Negate(), builder.cast(value, to: .f32)))
    }
  }

  /// The weight of GGUF from that of Hugging Face.
  func forward(_ builder: inout GraphBuilder, _ value: ValueID, heads: Int, kvHeads: Int) throws -> ValueID {
    let rows = builder.type(of: value).shape.dims.first?.fixedValue ?? 0
    switch self {
    case .none: return value
    case .pairRows(let keys):
      let count = max(keys ? kvHeads : heads, 1)
      return try builder.reorderRows(value, parts: [count, 2, rows / count / 2], permutation: [0, 2, 1])
    case .addOne:
      let gain = try builder.cast(value, to: .f32)
      return try builder.emit(Add(), gain, builder.constant(.inline("one", .f32, [1], [Float(1)])))
    case .transpose: return try builder.emit(Transpose([1, 0]), value)
    case .groupRows: return try builder.transposeRows(value, [heads, 3])
    case .scale(let factor):
      let x = try builder.cast(value, to: .f32)
      return try builder.emit(Multiply(), x, builder.constant(.inline("scale", .f32, [1], [factor])))
    case .wide: return try builder.cast(value, to: .f32)
    case .filter:
      let dims = builder.type(of: value).shape.dims
      guard dims.count == 3, dims[1] == 1 else { return value }
      return try builder.emit(Reshape([dims[0], dims[2]]), builder.cast(value, to: .f32))
    case .negativeExponential:
      return try builder.emit(Negate(), builder.emit(Exp(), builder.cast(value, to: .f32)))
    }
  }
}

extension String {
  /// The name with the number of a layer for `{}`.
  func at(_ layer: some CustomStringConvertible) -> String { replacing("{}", with: layer.description) }
}

extension GraphBuilder {
  /// The numbers of a value in `type`, quantized ones included.
  mutating func cast(_ value: ValueID, to type: DType) throws -> ValueID {
    let stored = self.type(of: value)
    if !stored.isDense { return try emit(Dequantize(type), value) }
    return stored.element == type ? value : try emit(Cast(type), value)
  }

  /// Rows `[a, b, ...]` as `[b, a, ...]`: slices one behind the other instead of a transposition, so that no more than some
  /// rows are computed at a time.
  mutating func transposeRows(_ value: ValueID, _ parts: [Int]) throws -> ValueID {
    let rows = type(of: value).shape.dims.first?.fixedValue ?? 0
    let count = rows / max(parts[0] * parts[1], 1)
    var slices: [ValueID] = []
    for inner in 0..<parts[1] {
      for outer in 0..<parts[0] {
        let start = (outer * parts[1] + inner) * count
        slices.append(try emit(Slice(axis: 0, start: .fixed(start), size: .fixed(count)), value))
      }
    }
    return try emit(Concat(axis: 0), slices)
  }

  /// The numbers of a value with their rows in the order of another reading: the first axis, parted into `parts`, with the
  /// parts in the order `permutation`.
  mutating func reorderRows(_ value: ValueID, parts: [Int], permutation: [Int]) throws -> ValueID {
    let shape = type(of: value).shape
    let rest = Array(shape.dims.dropFirst())
    let parted = try emit(Reshape(parts.map { .fixed($0) } + rest), value)
    let order = permutation + rest.indices.map { parts.count + $0 }
    return try emit(Reshape(shape.dims), emit(Transpose(order), parted))
  }
}
