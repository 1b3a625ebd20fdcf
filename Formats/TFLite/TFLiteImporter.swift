import Base
import IR
import Tensors

/// Builds the function `@main` of a model from the first graph of a TensorFlow Lite file.
///
/// A tensor of 8-bit codes with one scale stands as u8 codes in the IR (signed codes plus 128, its ``AffineCode`` too);
/// operators without a form on codes compute on the numbers these stand for and round their result. Images keep channels
/// last, the order of TensorFlow Lite.
struct TFLiteImporter {
  let file: MappedFile
  var model: Model
  var builder: GraphBuilder
  private(set) var tensors: [TFLiteTensor] = []
  /// What has been computed, by tensor number: numbers, or the u8 codes of a quantized tensor.
  private var values: [Int: ValueID] = [:]
  /// Numbers that codes stand for, so that several users share them.
  private var numbers: [Int: ValueID] = [:]

  /// Sizes that the caller gives for open ones, by name.
  private let dims: [String: ClosedRange<Int>]
  /// The names of open sizes.
  private var openSizes: [String] = []

  private static let nodeLimit = 200_000

  private init(file: MappedFile, name: String, dims: [String: ClosedRange<Int>]) {
    self.file = file
    self.dims = dims
    model = Model(name: name)
    builder = GraphBuilder(name: "main", role: "main")
  }

  /// The model in a file.
  static func load(
    _ file: MappedFile, name: String, dims: [String: ClosedRange<Int>] = [:], limits: LoadLimits
  ) throws -> Model {
    var importer = TFLiteImporter(file: file, name: name, dims: dims)
    do {
      try importer.importModel(FlatBuffer(file).root(identifier: TFLiteSchema.identifier), limits)
    } catch let error as CompileError {
      var located = error
      if located.subject == nil { located.subject = .init(file: file.path) }
      if located.subject?.file == nil { located.subject?.file = file.path }
      throw located
    }
    return importer.model
  }

  private mutating func importModel(_ root: FlatTable, _ limits: LoadLimits) throws {
    typealias Field = TFLiteSchema.Model
    let version = try root.integer(Field.version, UInt32.self, default: 0)
    guard version == 3 else {
      throw CompileError(.unsupported, "unsupported version \(version) of the TensorFlow Lite schema, expected 3")
    }
    let graphs = try root.tables(Field.subgraphs)
    guard graphs.count > 0 else { throw CompileError(.input, "the file has no graph") }
    let graph = try graphs.table(0, "the file")
    let list = try graph.tables(TFLiteSchema.SubGraph.tensors)
    guard list.count <= limits.tensors else {
      throw CompileError(.input, "\(list.count) tensors, at most \(limits.tensors) are accepted")
    }
    let buffers = try root.tables(Field.buffers)
    for index in 0..<list.count {
      tensors.append(
        try TFLiteTensor(list.table(index, "the graph"), index: index, buffers: buffers, limits: limits))
    }
    let inputs = try graph.integers(TFLiteSchema.SubGraph.inputs, Int32.self, limit: 1 << 16)
    let outputs = try graph.integers(TFLiteSchema.SubGraph.outputs, Int32.self, limit: 1 << 16)
    guard !outputs.isEmpty else { throw CompileError(.input, "the graph has no outputs") }
    for index in inputs { try addInput(index) }
    for name in dims.keys.sorted() where !openSizes.contains(name) {
      throw CompileError(
        .usage, "no input has the open size '\(name)'",
        notes: [openSizes.isEmpty ? "all sizes are fixed" : "open sizes: \(openSizes.joined(separator: ", "))"])
    }
    let codes = try operatorCodes(root)
    let operators = try graph.tables(TFLiteSchema.SubGraph.operators)
    guard operators.count <= Self.nodeLimit else {
      throw CompileError(.input, "\(operators.count) operators, at most \(Self.nodeLimit) are accepted")
    }
    for index in 0..<operators.count {
      try addOperator(operators.table(index, "the graph"), index: index, codes: codes)
    }
    var names: Set<String> = []
    for index in outputs {
      let tensor = try tensor(index, "the graph's outputs")
      guard names.insert(tensor.name).inserted else {
        throw CompileError(.input, "two outputs are named '\(tensor.name)'")
      }
      var value = try raw(index)
      if code(of: tensor) != nil, tensor.element == .i8 { value = try signed(value) }
      builder.output(tensor.name.isEmpty ? "output\(index)" : tensor.name, value)
    }
    model.constants = builder.constants
    model.functions = [builder.graph]
    model[metadata: "format"] = "tflite"
  }

  /// Name and number of the operators that nodes refer to.
  private func operatorCodes(_ root: FlatTable) throws -> [String] {
    typealias Field = TFLiteSchema.OperatorCode
    let list = try root.tables(TFLiteSchema.Model.operatorCodes)
    guard list.count <= 4096 else { throw CompileError(.input, "\(list.count) kinds of operators") }
    return try (0..<list.count).map { index in
      let table = try list.table(index, "the file")
      let old = Int(try table.integer(Field.deprecatedBuiltinCode, Int8.self, default: 0))
      let number = max(old, Int(try table.integer(Field.builtinCode, Int32.self, default: 0)))
      guard let name = BuiltinOperator.name(number) else { return "number \(number)" }
      return name == "CUSTOM" ? "CUSTOM '\(try table.string(Field.customCode))'" : name
    }
  }

  private mutating func addInput(_ index: Int) throws {
    let tensor = try tensor(index, "the graph's inputs")
    guard values[index] == nil, tensor.data == nil else {
      throw CompileError(.input, "input '\(tensor.name)' is given twice, or is a constant")
    }
    let name = tensor.name.isEmpty ? "input\(index)" : tensor.name
    let value = builder.input(name, TensorType(tensor.element, try sizes(of: tensor, name)))
    values[index] = code(of: tensor) != nil && tensor.element == .i8 ? try unsigned(value) : value
  }

  /// The sizes of an input, with those that the caller gives for open ones.
  private mutating func sizes(of tensor: TFLiteTensor, _ input: String) throws -> [Int] {
    var sizes = tensor.sizes
    for axis in tensor.openAxes {
      let name = "\(input).\(axis)"
      openSizes.append(name)
      guard let range = dims[name] else { continue }
      guard range.count == 1, range.lowerBound > 0 else {
        throw CompileError(
          .unsupported, "the size '\(name)' of a TensorFlow Lite model must be one number, found \(range)")
      }
      sizes[axis] = range.lowerBound
    }
    _ = try TensorType.checkedByteCount(sizes: sizes, element: tensor.element, of: "input '\(input)'")
    return sizes
  }

  private mutating func addOperator(_ table: FlatTable, index: Int, codes: [String]) throws {
    typealias Field = TFLiteSchema.Operator
    let kind = Int(try table.integer(Field.opcodeIndex, UInt32.self, default: 0))
    guard codes.indices.contains(kind) else {
      throw CompileError(.input, "operator \(index) is of kind \(kind), of which there are \(codes.count)")
    }
    let node = TFLiteNode(
      type: codes[kind], index: index, inputs: try table.integers(Field.inputs, Int32.self, limit: 1 << 16),
      outputs: try table.integers(Field.outputs, Int32.self, limit: 1 << 16), options: try table.table(Field.options))
    let place = CompileError.Subject(file: file.path, object: "subgraph 0, operator \(index)")
    guard let mapping = TFLiteOperators.byType[node.type] else {
      var error = CompileError(.unsupported, "unsupported operator '\(node.type)'", subject: place)
      if let near = nearest(node.type, in: TFLiteOperators.all.map(\.type)) {
        error.notes.append("nearest is '\(near)'")
      }
      throw error
    }
    builder.origin = Origin("\(node.type)_\(index)")
    defer { builder.origin = nil }
    do {
      try mapping.build(node, &self)
    } catch let error as CompileError {
      var located = error
      if located.subject?.offset == nil, located.subject?.object == nil { located.subject = place }
      throw located
    }
  }
}

extension TFLiteImporter {
  /// The tensor of that number.
  func tensor(_ index: Int, _ user: @autoclosure () -> String) throws -> TFLiteTensor {
    guard tensors.indices.contains(index) else {
      throw CompileError(.input, "\(user()) name tensor \(index) of \(tensors.count)")
    }
    return tensors[index]
  }

  /// How the 8-bit codes of a tensor with one scale stand for numbers, with signed codes moved to 0 ... 255; nil for tensors
  /// that hold numbers.
  func code(of tensor: TFLiteTensor) -> AffineCode? {
    guard tensor.element == .i8 || tensor.element == .u8, let quantization = tensor.quantization,
      quantization.count == 1
    else { return nil }
    let code = AffineCode(
      scale: scale(at: quantization.scales.lowerBound),
      zeroPoint: quantization.zeroPoints[0] &+ (tensor.element == .i8 ? 128 : 0))
    return code.isValid ? code : nil
  }

  private func scale(at offset: Int) -> Float {
    Float(bitPattern: UInt32(littleEndian: file.bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
  }

  /// A constant of the file.
  mutating func constant(_ name: String, _ type: TensorType, _ range: Range<Int>) throws -> ValueID {
    var constant = Constant(name: name, type: type, source: .archive(model.addArchive(file), range))
    // Few elements are kept inline, so that shapes and axes can be read off the IR.
    if type.maximumCount <= Constant.inlineLimit { constant.source = .inline([UInt8](try file.slice(range))) }
    return builder.constant(constant)
  }

  /// A number as a constant.
  func one(_ value: Float) -> Constant { .inline("number", .f32, [], [value]) }

  mutating func number(_ value: Float) -> ValueID { builder.constant(one(value)) }

  /// Bytes -128 ... 127 as 0 ... 255.
  mutating func unsigned(_ value: ValueID) throws -> ValueID { try moved(value, by: 128, to: .u8) }

  /// Bytes 0 ... 255 as -128 ... 127.
  mutating func signed(_ value: ValueID) throws -> ValueID { try moved(value, by: -128, to: .i8) }

  private mutating func moved(_ value: ValueID, by offset: Int32, to element: DType) throws -> ValueID {
    let step = builder.constant(.inline("offset", .i32, [], [offset]))
    let wide = try builder.emit(Cast(.i32), value)
    return try builder.emit(Cast(element), builder.emit(Add(), wide, step))
  }

  /// The u8 codes of a quantized tensor, the numbers of any other.
  mutating func raw(_ index: Int) throws -> ValueID {
    let tensor = try tensor(index, "the inputs")
    if let value = values[index] { return value }
    guard let data = tensor.data else {
      throw CompileError(.input, "tensor \(index) ('\(tensor.name)') is used before it is computed")
    }
    var value = try constant(tensor.name, tensor.type, data)
    if code(of: tensor) != nil, tensor.element == .i8 { value = try unsigned(value) }
    values[index] = value
    return value
  }

  /// The numbers of a tensor: what codes stand for, in f32; other elements as they are.
  mutating func real(_ index: Int) throws -> ValueID {
    let tensor = try tensor(index, "the inputs")
    if let value = numbers[index] { return value }
    let value: ValueID
    if let code = code(of: tensor) {
      value = try builder.emit(DequantizeLinear(code), raw(index))
    } else if let quantization = tensor.quantization, tensor.element.isInteger {
      value = try scaled(tensor, quantization)
    } else {
      value = try raw(index)
    }
    numbers[index] = value
    return value
  }

  /// The numbers of whole ones with several scales or more than 8 bits.
  private mutating func scaled(
    _ tensor: TFLiteTensor, _ quantization: TFLiteTensor.Quantization
  ) throws -> ValueID {
    var shape = [Int](repeating: 1, count: tensor.sizes.count)
    if quantization.count > 1 { shape[quantization.axis] = quantization.count }
    var value = try builder.emit(Cast(.f32), raw(tensor.index))
    if quantization.zeroPoints.contains(where: { $0 != 0 }) {
      guard Set(quantization.zeroPoints).count == 1 else {
        throw CompileError(.unsupported, "tensor '\(tensor.name)' has more than one zero point")
      }
      value = try builder.emit(Subtract(), value, number(Float(quantization.zeroPoints[0])))
    }
    let scales = try constant("\(tensor.name)_scales", TensorType(.f32, shape), quantization.scales)
    return try builder.emit(Multiply(), value, scales)
  }

  /// Says what a result is: numbers, which are rounded where the tensor is quantized.
  mutating func define(_ index: Int, numbers value: ValueID) throws {
    let tensor = try tensor(index, "the outputs")
    if let code = code(of: tensor) {
      try define(index, raw: builder.emit(QuantizeLinear(code), value))
    } else {
      guard tensor.quantization == nil || !tensor.element.isInteger else {
        throw CompileError(
          .unsupported, "a result is quantized to \(tensor.element.rawValue) ('\(tensor.name)'), expected 8 bits")
      }
      try define(index, raw: value)
    }
  }

  /// Says what a result is: the codes of a quantized tensor, the numbers of any other.
  mutating func define(_ index: Int, raw value: ValueID) throws {
    let tensor = try tensor(index, "the outputs")
    let element = code(of: tensor) == nil ? tensor.element : .u8
    let found = builder.type(of: value).element
    guard found == element else {
      throw CompileError(
        .input, "'\(tensor.name)' has the element type \(tensor.element.rawValue), its operator gives \(found.rawValue)"
      )
    }
    _ = try TensorType.checkedByteCount(
      sizes: builder.type(of: value).shape.maximumSizes, element: .f64, of: "'\(tensor.name)'")
    guard values.updateValue(value, forKey: index) == nil else {
      throw CompileError(.input, "tensor \(index) ('\(tensor.name)') is computed twice")
    }
    if builder.graph.definingNode(of: value) != nil, !tensor.name.isEmpty {
      builder.graph.rename(value, to: GraphBuilder.valueName(tensor.name))
    }
  }

  /// The whole numbers of a tensor that must be known on import, at most 4096 of them.
  mutating func integers(_ index: Int) throws -> [Int] {
    let tensor = try tensor(index, "the inputs")
    let value = try raw(index)
    guard tensor.element == .i32 || tensor.element == .i64, builder.type(of: value).maximumCount <= 4096 else {
      throw CompileError(
        .input, "tensor '\(tensor.name)' is \(builder.type(of: value)), expected at most 4096 whole numbers")
    }
    var known = model
    known.constants = builder.constants
    guard isSmallRecipe(value), let numbers = try? ConstantEvaluator(known, builder.graph).tensor(value) else {
      throw CompileError(.unsupported, "tensor '\(tensor.name)' is computed at run time, expected a constant")
    }
    if tensor.element == .i64 { return numbers.array(of: Int64.self).map { Int(clamping: $0) } }
    return numbers.array(of: Int32.self).map(Int.init)
  }

  /// Whether a value follows from constants by few operators on few bytes.
  private func isSmallRecipe(_ value: ValueID) -> Bool {
    var bytes = 0
    var seen: Set<ValueID> = []
    var stack = [value]
    while let next = stack.popLast() {
      guard seen.insert(next).inserted else { continue }
      bytes += builder.type(of: next).maximumByteCount
      guard bytes <= 1 << 16, seen.count <= 256 else { return false }
      guard let node = builder.graph.definingNode(of: next) else {
        guard builder.graph.constant(of: next) != nil else { return false }
        continue
      }
      stack += builder.graph[node].inputs
    }
    return true
  }

  /// The first of a list of f32 numbers that must be a constant of the file.
  func float(_ index: Int) throws -> Float {
    let tensor = try tensor(index, "the inputs")
    guard tensor.element == .f32, let data = tensor.data, data.count >= 4 else {
      throw CompileError(.unsupported, "tensor '\(tensor.name)' is no constant of f32")
    }
    return scale(at: data.lowerBound)
  }
}
