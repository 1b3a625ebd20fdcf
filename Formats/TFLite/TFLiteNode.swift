import Base
import IR
import Tensors

/// An operator of a TensorFlow Lite graph while it is imported.
struct TFLiteNode {
  /// The operator's name in the schema, such as `CONV_2D`.
  let type: String
  let index: Int
  /// Numbers of tensors; negative ones are left out.
  let inputs: [Int]
  let outputs: [Int]
  /// The table of options; nil if all have their defaults.
  let options: FlatTable?

  /// The number of an input that must be there.
  func input(_ index: Int) throws -> Int {
    guard let tensor = optionalInput(index) else { throw CompileError(.input, "'\(type)' has no input \(index)") }
    return tensor
  }

  /// The number of an input that may be left out.
  func optionalInput(_ index: Int) -> Int? {
    inputs.indices.contains(index) && inputs[index] >= 0 ? inputs[index] : nil
  }

  /// The number of the only output.
  func output() throws -> Int {
    guard outputs.count == 1 else { throw CompileError(.input, "'\(type)' has \(outputs.count) outputs, expected 1") }
    return outputs[0]
  }

  /// A whole number among the options.
  func integer<Field: RawRepresentable<Int>>(_ field: Field, default value: Int = 0) throws -> Int {
    Int(try options?.integer(field, Int32.self, default: Int32(value)) ?? Int32(value))
  }

  /// A number of one byte among the options.
  func byte<Field: RawRepresentable<Int>>(_ field: Field) throws -> Int8 {
    try options?.integer(field, Int8.self, default: 0) ?? 0
  }

  /// A truth value among the options.
  func flag<Field: RawRepresentable<Int>>(_ field: Field) throws -> Bool { try options?.flag(field) ?? false }

  /// A number among the options.
  func number<Field: RawRepresentable<Int>>(_ field: Field, default value: Float = 0) throws -> Float {
    try options?.number(field, default: value) ?? value
  }

  /// The activation that follows the operator.
  func activation<Field: RawRepresentable<Int>>(_ field: Field) throws -> TFLiteSchema.Activation {
    let number = try byte(field)
    guard let activation = TFLiteSchema.Activation(rawValue: number), activation != .signBit else {
      throw CompileError(.unsupported, "unsupported activation \(number) of '\(type)'")
    }
    return activation
  }
}

/// How one operator becomes IR: its name and a function that emits nodes and says what the outputs are.
struct TFLiteOperator: Sendable {
  let type: String
  let build: @Sendable (TFLiteNode, inout TFLiteImporter) throws -> Void

  init(_ type: String, _ build: @escaping @Sendable (TFLiteNode, inout TFLiteImporter) throws -> Void) {
    self.type = type
    self.build = build
  }
}

/// The operators that are read.
enum TFLiteOperators {
  /// All of them, one list per family.
  static let all: [TFLiteOperator] =
    convolution + products + elementwise + functions + reductions + shapes + slices + images

  /// All of them by name.
  static let byType: [String: TFLiteOperator] = Dictionary(
    all.map { ($0.type, $0) }, uniquingKeysWith: { first, _ in first })

  /// `[axis]` counted from the front.
  static func axis(_ axis: Int, rank: Int, _ type: String) throws -> Int {
    guard axis >= -rank, axis < rank else { throw CompileError(.input, "'\(type)' at axis \(axis) of \(rank) axes") }
    return axis < 0 ? axis + rank : axis
  }
}

extension TFLiteImporter {
  /// The sizes of a value; every value of a graph of TensorFlow Lite has known ones. Mutating, so that a constant that the
  /// argument adds is there when the graph is looked at.
  mutating func sizes(_ value: ValueID) throws -> [Int] {
    guard let sizes = builder.type(of: value).shape.fixedSizes else {
      throw CompileError(.internal, "a value of type \(builder.type(of: value)) has no known size")
    }
    return sizes
  }

  /// A value after an activation.
  mutating func activated(_ value: ValueID, _ activation: TFLiteSchema.Activation) throws -> ValueID {
    switch activation {
    case .none, .signBit: value
    case .relu: try builder.emit(ReLU(), value)
    case .relu6: try builder.emit(Clip(minimum: 0, maximum: 6), value)
    case .reluN1To1: try builder.emit(Clip(minimum: -1, maximum: 1), value)
    case .tanh: try builder.emit(Tanh(), value)
    }
  }
}
