import Base
import IR
import Tensors

/// A tensor of a checkpoint: its type and where its bytes lie.
package struct CheckpointTensor: Sendable {
  package var name: String
  /// The type of what is stored: of blocks their bytes, `u8[..., bytes of a row]`.
  package var type: TensorType
  /// The blocks of ggml that rows of bytes are; nil if the numbers have a type of their own.
  package var blocks: GGMLBlock?
  package var file: MappedFile
  /// The bytes in the file.
  package var range: Range<Int>
  /// How far apart, in elements, neighbours along each axis lie; nil if they lie in order.
  package var strides: [Int]?
  /// The element type as the checkpoint calls it, if mcc has none for it: then `type` is that of the bytes.
  package var foreignType: String?
  /// What makes the numbers of a quantized tensor from several stored ones; `type` is then that of the numbers.
  package var recipe: (@Sendable (inout Model, inout GraphBuilder) throws -> ValueID)?

  package init(
    name: String, type: TensorType, blocks: GGMLBlock? = nil, file: MappedFile, range: Range<Int>,
    strides: [Int]? = nil, foreignType: String? = nil
  ) {
    self.name = name
    self.type = type
    self.blocks = blocks
    self.file = file
    self.range = range
    self.strides = strides
    self.foreignType = foreignType
  }

  /// The stored tensor as a constant, seen with other sizes if they are given.
  ///
  /// - Throws: `CompileError` if mcc has no type for the numbers.
  package func constant(
    _ sizes: [Int]? = nil, into model: inout Model, _ builder: inout GraphBuilder
  ) throws -> ValueID {
    if let recipe { return try recipe(&model, &builder) }
    if let foreignType {
      throw CompileError(
        .unsupported, "dtype \(foreignType) is not supported",
        subject: .init(file: file.path, object: "tensor '\(name)'"))
    }
    let source = ConstantSource.archive(model.addArchive(file), range)
    if let strides, let shape = type.shape.fixedSizes {
      let line = TensorType(type.element, [range.count / type.element.byteCount])
      let value = builder.constant(Constant(name: name, type: line, source: source))
      let view = try builder.emit(StridedView(shape, strides: strides), value)
      return try sizes.map { try builder.emit(Reshape($0.map { .fixed($0) }), view) } ?? view
    }
    let stored = sizes.map { TensorType(type.element, $0, encoding: type.encoding) } ?? type
    return builder.constant(Constant(name: name, type: stored, source: source))
  }

  /// The shape of the numbers.
  package var shape: Shape {
    guard let blocks, let sizes = type.shape.fixedSizes, let bytes = sizes.last else { return type.shape }
    return Shape(sizes.dropLast() + [bytes / blocks.byteCount * blocks.length])
  }
}

/// The tensors of a checkpoint by name, which an architecture takes one after the other.
///
/// A tensor is handed out only with the shape the architecture expects, and what nobody took is an error: so a
/// checkpoint and its configuration cannot disagree silently.
package struct CheckpointTensors: Sendable {
  /// What messages call the checkpoint: a file or folder.
  package let place: String
  private var tensors: [CheckpointTensor] = []
  private var index: [String: Int] = [:]
  private var isTaken: [Bool] = []
  /// What ``takeAdapted(_:_:into:_:)`` adds to weights, and whether it is to be taken out again.
  var adapter: (any Adapter)?
  var separatesAdapter = false
  /// What the file calls a tensor, for messages, where that is not its name here.
  var nameInFile: @Sendable (String) -> String = { $0 }
  /// Positions of tensors that others have been made of.
  private var isRemoved: Set<Int> = []

  package init(place: String) { self.place = place }

  /// The number of tensors.
  package var count: Int { tensors.count - isRemoved.count }

  /// All tensors, in the order of the files.
  package var all: [CheckpointTensor] {
    isRemoved.isEmpty ? tensors : tensors.enumerated().filter { !isRemoved.contains($0.offset) }.map { $0.element }
  }

  package subscript(name: String) -> CheckpointTensor? { index[name].map { tensors[$0] } }

  /// Adds a tensor; a name that exists already is an error.
  package mutating func add(_ tensor: CheckpointTensor) throws {
    if let earlier = self[tensor.name] {
      let notes = earlier.file.path == tensor.file.path ? [] : ["the other one is in '\(earlier.file.path)'"]
      throw CompileError(
        .input, "tensor '\(tensor.name)' occurs twice", subject: .init(file: tensor.file.path), notes: notes)
    }
    index[tensor.name] = tensors.count
    tensors.append(tensor)
    isTaken.append(false)
  }

  /// Removes the tensor of that name, for a tensor that is made of others.
  package mutating func remove(_ name: String) -> CheckpointTensor? {
    guard let position = index[name] else { return nil }
    let tensor = tensors[position]
    index[name] = nil
    isRemoved.insert(position)
    isTaken[position] = true
    return tensor
  }

  /// Notes that a tensor is known and deliberately not used.
  package mutating func ignore(_ name: String) {
    if let position = index[name] { isTaken[position] = true }
  }

  /// The tensor `name` with the given sizes and one of `elements`, or quantized, as a dense value: a constant of
  /// `builder`, widened by an operator if it is quantized.
  package mutating func take(
    _ name: String, _ sizes: [Int], elements: [DType] = [.f32, .f16, .bf16], into model: inout Model,
    _ builder: inout GraphBuilder
  ) throws -> ValueID {
    guard let position = index[name] else {
      var notes: [String] = []
      if let near = nearest(name, in: all.prefix(4096).map(\.name)) { notes = ["did you mean '\(nameInFile(near))'?"] }
      throw CompileError(.input, "missing tensor '\(nameInFile(name))'", subject: .init(file: place), notes: notes)
    }
    let tensor = tensors[position]
    isTaken[position] = true
    let subject = CompileError.Subject(file: tensor.file.path, object: "tensor '\(nameInFile(name))'")
    guard tensor.shape == Shape(sizes) else {
      throw CompileError(
        .input, "tensor '\(nameInFile(name))' has shape \(tensor.shape), expected \(Shape(sizes))",
        subject: .init(file: tensor.file.path))
    }
    guard tensor.blocks != nil || tensor.foreignType != nil || elements.contains(tensor.type.element) else {
      throw CompileError(
        .unsupported,
        "element type \(tensor.type.element.rawValue), expected \(listed(elements.map(\.rawValue), "or"))",
        subject: subject)
    }
    let value = try tensor.constant(into: &model, &builder)
    if tensor.recipe != nil { return value }
    if let blocks = tensor.blocks { return try builder.emit(DequantizeGGML(blocks), value, name: name) }
    return tensor.type.isDense ? value : try builder.emit(Dequantize(.f32), value, name: name)
  }

  /// Throws if a tensor has not been taken.
  package func requireAllTaken() throws {
    let rest = zip(tensors, isTaken).filter { !$0.1 }.map { $0.0.name }
    guard let first = rest.first else { return }
    let others = rest.count > 1 ? ["\(rest.count) such tensors, among them '\(nameInFile(rest[rest.count - 1]))'"] : []
    throw CompileError(
      .unsupported, "tensor '\(nameInFile(first))' has no place in the architecture",
      subject: .init(file: self[first]?.file.path), notes: others)
  }
}

/// `a, b or c`.
func listed(_ names: [String], _ conjunction: String) -> String {
  guard names.count > 1 else { return names.first ?? "nothing" }
  return names.dropLast().joined(separator: ", ") + " \(conjunction) " + names[names.count - 1]
}
