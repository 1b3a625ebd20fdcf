import Base
import IR
import Tensors

/// An adapter of factors (IA3; Liu and others, "Few-shot parameter-efficient fine-tuning", 2022) as `peft` saves it.
///
/// With factors `l` of outputs, `ia3_l[N, 1]`, a module stands for `l (x W^T + b)`: row `i` of `W` and number `i` of the bias
/// are multiplied by `l_i`. With factors of inputs (feed-forward modules), `ia3_l[1, K]`, it stands for `(l x) W^T + b`: column `j`
/// of `W` is multiplied by `l_j`. Products are computed in f32 and rounded to the type of the weight.
struct ScaleAdapter: Adapter {
  static let kind = "IA3"

  private struct Factors: Sendable {
    var tensor: CheckpointTensor
    var count: Int
    var areOfInputs: Bool
  }

  var file: AdapterFile
  private var factors: [String: Factors] = [:]
  private let hasTransposedWeights: Bool

  var modules: [String] { Array(factors.keys) }
  var keepsAll: Bool { factors.isEmpty }

  /// Keys that describe training or where things came from, or follow from the tensors.
  private static let withoutEffect: Set<String> = [
    "peft_type", "fan_in_fan_out", "auto_mapping", "base_model_name_or_path", "inference_mode", "modules_to_save",
    "peft_version", "revision", "target_modules", "feedforward_modules", "task_type", "exclude_modules",
    "init_ia3_weights",
  ]

  init(_ folder: CheckpointFolder, _ config: JSONField) throws {
    hasTransposedWeights = try config["fan_in_fan_out"].bool(or: false)
    for (key, field) in try config.members() where !Self.withoutEffect.contains(key) && field.exists {
      guard field.value == .bool(false) else {
        throw CompileError(
          .unsupported, "'\(key)' is not supported for an adapter", subject: .init(file: config.file))
      }
    }
    file = try AdapterFile(folder, marker: "ia3_")
    for (module, words, tensor) in file.parts {
      let subject = CompileError.Subject(file: file.path, object: "tensor '\(tensor.name)'")
      guard words == ["ia3_l"] else {
        throw CompileError(
          .unsupported, "'\(words.joined(separator: "."))' is not supported, only ia3_l", subject: subject)
      }
      guard let sizes = tensor.shape.fixedSizes, sizes.count == 2, sizes.contains(1) else {
        throw CompileError(
          .unsupported, "factors of shape \(tensor.shape) are not supported, only [N, 1] and [1, K]", subject: subject)
      }
      factors[module] = Factors(tensor: tensor, count: sizes[0] * sizes[1], areOfInputs: sizes[0] == 1 && sizes[1] > 1)
    }
  }

  mutating func merged(
    _ value: ValueID, of name: String, hasHead: Bool, into model: inout Model, _ builder: inout GraphBuilder
  ) throws -> ValueID {
    let kind = [".weight", ".bias"].first { name.hasSuffix($0) } ?? ""
    let module = String(name.dropLast(kind.count))
    guard !kind.isEmpty, let own = factors[module] else { return value }
    file.use(module)
    let type = builder.type(of: value)
    let isBias = kind == ".bias"
    if isBias, own.areOfInputs { return value }
    // The axis of inputs is the last one, but for weights that are stored transposed.
    let axis = isBias ? 0 : own.areOfInputs == hasTransposedWeights ? 0 : 1
    guard type.rank == (isBias ? 1 : 2), type.shape[axis] == .fixed(own.count) else {
      throw CompileError(
        .input, "the adapter of '\(module)' has \(own.count) factors for \(type) along axis \(axis)",
        subject: .init(file: file.place))
    }
    var sizes = [Dim](repeating: 1, count: type.rank)
    sizes[axis] = .fixed(own.count)
    let line = AdapterFile.constant(own.tensor, "\(module).ia3_l", into: &model, &builder)
    let factor = try builder.emit(Reshape(sizes), builder.cast(line, to: .f32))
    let product = try builder.emit(Multiply(), builder.cast(value, to: .f32), factor)
    return try builder.cast(product, to: type.element)
  }
}
