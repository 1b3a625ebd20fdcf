import Base
import IR
import Tensors

/// A checkpoint as data, in the naming of Hugging Face: what `mcc convert` reads every format into and writes every format
/// from.
///
/// Tensors are constants or recipes on constants, so that nothing is computed before it is written.
package struct Checkpoint {
  package var name: String
  /// The hyper-parameters as `config.json` spells them.
  package var config: JSONObject
  /// The members of `generation_config.json`.
  package var generation: JSONObject?
  /// Files of the tokenizer and the like, which a folder takes over as they are.
  package var companions: [(name: String, file: MappedFile)] = []
  /// Reads what the checkpoint says about text, for a network that knows so many tokens; nil if it says nothing.
  package var text: (@Sendable (Int) throws -> CheckpointText?)?
  /// How hidden states become the vector of a text, for encoders of sentences.
  var sentences: SentenceTransformer?
  /// What could not be represented as it was.
  package var notes: [String] = []
  /// The names of the tensors in order.
  package private(set) var names: [String] = []
  var values: [String: ValueID] = [:]
  /// The shapes of tensors that are not those of their values.
  private var shapes: [String: Shape] = [:]
  /// Tensors that are computed row by row from their values.
  private var codings: [String: RowCoding] = [:]
  /// The tensors as they were read.
  private var sources: [CheckpointTensor] = []
  /// How matrices made of constants are quantized, by the names of these.
  package var quantization: [String: BlockFormat] = [:]
  var model: Model
  var builder = GraphBuilder(name: "tensors")

  package init(name: String, config: JSONObject) {
    self.name = name
    self.config = config
    model = Model(name: name)
  }

  /// Adds a tensor of a file under `name`; quantized ones become recipes.
  package mutating func add(_ tensor: CheckpointTensor, as name: String) throws {
    var value = try tensor.constant(into: &model, &builder)
    if let blocks = tensor.blocks, tensor.recipe == nil { value = try builder.emit(DequantizeGGML(blocks), value) }
    if !builder.type(of: value).isDense { value = try builder.emit(Dequantize(.f32), value) }
    try set(name, value)
    var source = tensor
    source.name = name
    sources.append(source)
  }

  /// The network that the configuration and the tensors, as they were read, describe, without a tokenizer.
  package func network(_ options: LoadOptions = LoadOptions()) throws -> Model {
    let place = sources.first?.file.path ?? name
    var tensors = CheckpointTensors(place: place)
    for source in sources { try tensors.add(source) }
    let root = JSONField(.object(config), file: place)
    var (model, _) = try HuggingFaceFormat.network(root, &tensors, name: name, options, sentences: sentences)
    model.compact()
    try Verifier.verify(model)
    return model
  }

  /// Adds a small tensor of numbers.
  package mutating func add(_ numbers: [Float], as name: String) throws {
    try set(name, builder.constant(.inline(name, .f32, [numbers.count], numbers)))
  }

  private mutating func set(_ name: String, _ value: ValueID) throws {
    guard values.updateValue(value, forKey: name) == nil else {
      throw CompileError(.input, "tensor '\(name)' occurs twice", subject: .init(file: model.archives.first?.file.path))
    }
    names.append(name)
  }

  /// Adds a small tensor of whole numbers.
  mutating func add(integers: [Int], as name: String) throws {
    try set(name, builder.constant(.inline(name, .i64, [integers.count], integers.map { Int64($0) })))
  }

  /// Adds a tensor whose rows are computed from those of another one, or puts it in the place of that one.
  mutating func derive(_ name: String, from source: String, _ coding: RowCoding) throws {
    guard let value = values[source] else { throw CompileError(.internal, "missing tensor '\(source)'") }
    if name != source { try set(name, value) }
    codings[name] = coding
  }

  /// Whether there is a tensor of that name.
  package func contains(_ name: String) -> Bool { values[name] != nil }

  /// The type of a tensor; nil if there is none of that name.
  package func type(of name: String) -> TensorType? {
    if let coding = codings[name] { return coding.type }
    guard let type = values[name].map({ builder.type(of: $0) }) else { return nil }
    return shapes[name].map { type.with(shape: $0) } ?? type
  }

  /// Replaces a tensor by a recipe on it, under another name.
  package mutating func rename(
    _ name: String, to other: String, _ recipe: (inout GraphBuilder, ValueID) throws -> ValueID = { $1 }
  ) throws {
    guard let value = values.removeValue(forKey: name), let place = names.firstIndex(of: name) else {
      throw CompileError(.input, "missing tensor '\(name)'", subject: .init(file: self.name))
    }
    names.remove(at: place)
    try set(other, try recipe(&builder, value))
  }

  /// Replaces matrices of one type by their stack.
  package mutating func stack(_ parts: [String], to other: String) throws {
    var inputs: [ValueID] = []
    for part in parts {
      guard let value = values.removeValue(forKey: part) else {
        throw CompileError(.input, "missing tensor '\(part)'", subject: .init(file: name))
      }
      inputs.append(value)
    }
    let gone = Set(parts)
    names.removeAll { gone.contains($0) }
    // Computed as one matrix of all rows, of which a few are needed at a time.
    try set(other, try builder.emit(Concat(axis: 0), inputs))
    if let first = inputs.first { shapes[other] = Shape([.fixed(inputs.count)] + builder.type(of: first).shape.dims) }
  }

  /// Drops a tensor.
  package mutating func remove(_ name: String) {
    values[name] = nil
    codings[name] = nil
    names.removeAll { $0 == name }
  }

  /// Computes a tensor in blocks of rows: `sink` is called with each block and the offset of its bytes, from several
  /// threads, in no fixed order.
  package func stream(_ name: String, to sink: @Sendable (Int, UnsafeRawBufferPointer) throws -> Void) throws {
    guard let value = values[name] else { throw CompileError(.internal, "missing tensor '\(name)'") }
    var model = model
    model.constants = builder.constants
    // An evaluator keeps what it computed whole, so that each tensor has its own.
    let coding = codings[name]
    try ConstantEvaluator(model, builder.graph).stream(value) { _, offset, bytes in
      if let coding { try coding.map(bytes, at: offset, to: sink) } else { try sink(offset, bytes) }
    }
  }

  /// Computes a tensor and writes it to the end of a file; one that is stored as it is to be is copied.
  package func write(_ name: String, to file: AtomicFile) throws {
    let start = try file.reserve(type(of: name)?.byteCount ?? 0)
    if let parts = stored(name) {
      var offset = start
      for (source, range) in parts {
        try Self.copy(source, range, to: file, at: offset)
        offset += range.count
      }
      return
    }
    try stream(name) { offset, bytes in try file.write(bytes, at: start + offset) }
  }

  /// Where a tensor, or the parts of a stack one after the other, lie as they are; nil if it is computed.
  private func stored(_ name: String) -> [(MappedFile, Range<Int>)]? {
    guard codings[name] == nil, let value = values[name] else { return nil }
    var parts = [value]
    if shapes[name] != nil, let node = builder.graph.definingNode(of: value), builder.graph[node].op is Concat {
      parts = builder.graph[node].inputs
    }
    var places: [(MappedFile, Range<Int>)] = []
    for part in parts {
      guard let id = builder.graph.constant(of: part),
        case .archive(let archive, let range) = builder.constants[id].source
      else { return nil }
      places.append((model.archives[archive].file, range))
    }
    return places
  }

  /// Copies bytes on all cores, through buffers that stay in a core's cache.
  private static func copy(_ source: MappedFile, _ range: Range<Int>, to file: AtomicFile, at start: Int) throws {
    let reader = FileReader(source)
    try parallelFor(range.count, grain: 8 << 20) { part in
      try withUnsafeTemporaryAllocation(byteCount: min(part.count, 1 << 19), alignment: 64) { buffer in
        for offset in stride(from: part.lowerBound, to: part.upperBound, by: buffer.count) {
          let bytes = UnsafeMutableRawBufferPointer(rebasing: buffer.prefix(part.upperBound - offset))
          let place = range.lowerBound + offset..<range.lowerBound + offset + bytes.count
          if reader?.read(into: bytes, at: place.lowerBound) != true {
            bytes.copyMemory(from: try source.slice(place))
            source.release(place)
          }
          try file.write(UnsafeRawBufferPointer(bytes), at: start + offset)
        }
      }
    }
  }

  /// Quantizes the tensors that are made of the constants named in `formats`, if they are matrices or stacks of them that
  /// `fits` accepts.
  ///
  /// - Returns: the names of those that it did not accept.
  @discardableResult mutating func quantize(
    _ formats: [String: BlockFormat], where fits: (BlockFormat, TensorType) -> Bool = { _, _ in true }
  ) throws -> [String] {
    var left: [String] = []
    for name in names {
      guard let value = values[name], builder.type(of: value).rank >= 2, builder.type(of: value).isDense,
        let format = constants(of: value).lazy.compactMap({ formats[$0] }).first
      else { continue }
      if fits(format, builder.type(of: value)) {
        values[name] = try builder.emit(Quantize(format), value)
      } else {
        left.append(name)
      }
    }
    return left
  }

  /// The names of the constants that a value is made of.
  private func constants(of value: ValueID) -> Set<String> {
    var names: Set<String> = []
    var stack = [value]
    while let next = stack.popLast() {
      if let id = builder.graph.constant(of: next) { names.insert(builder.constants[id].name) }
      if let node = builder.graph.definingNode(of: next) { stack += builder.graph[node].inputs }
    }
    return names
  }
}
