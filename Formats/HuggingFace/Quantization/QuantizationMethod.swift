import Base
import IR

/// A way in which Hugging Face checkpoints keep weights as codes: `quant_method` of `quantization_config`.
protocol QuantizationMethod {
  /// The `quant_method`s that it reads.
  static var names: [String] { get }

  /// Reads and checks the configuration.
  init(_ config: JSONField) throws

  /// Puts one tensor in the place of the several that a weight is stored as.
  func join(_ tensors: inout QuantizedTensors) throws
}

/// The quantized forms that mcc reads.
enum QuantizationRegistry {
  static let methods: [any QuantizationMethod.Type] = [
    GPTQ.self, AWQ.self, CompressedTensors.self, BitsAndBytes.self, MXFP4.self, BitNet.self, BlockFloat8.self,
  ]

  /// Reads `quantization_config`, if there is one, and joins the tensors of quantized weights.
  ///
  /// - Returns: sentences about what is kept how.
  static func apply(_ config: JSONField, to tensors: inout CheckpointTensors) throws -> [String] {
    guard config.exists else { return [] }
    // Old versions of transformers wrote no method for bitsandbytes.
    let isOld = config["load_in_4bit"].exists || config["load_in_8bit"].exists
    let name = try config["quant_method"].optionalString() ?? (isOld ? "bitsandbytes" : "")
    guard let type = methods.first(where: { $0.names.contains(name) }) else {
      throw CompileError(
        .unsupported, "'quantization_config' with the 'quant_method' '\(name)' is not supported",
        subject: .init(file: config.file),
        notes: ["supported are \(listed(methods.flatMap { $0.names }, "and"))"])
    }
    var quantized = QuantizedTensors(tensors: tensors)
    let method = try type.init(config)
    try method.join(&quantized)
    tensors = quantized.tensors
    return quantized.notes
  }
}

/// The tensors of a checkpoint while those of quantized weights are joined.
struct QuantizedTensors {
  var tensors: CheckpointTensors
  private(set) var notes: [String] = []
  private var kept = 0, widened = 0

  init(tensors: CheckpointTensors) { self.tensors = tensors }

  /// The names before `suffix` of all tensors that have it, in order.
  func stems(_ suffix: String) -> [String] {
    tensors.all.filter { $0.name.hasSuffix(suffix) }.map { String($0.name.dropLast(suffix.count)) }
  }

  /// Takes a stored tensor out.
  mutating func part(_ name: String) throws -> CheckpointTensor {
    guard let tensor = tensors.remove(name) else {
      throw CompileError(.input, "missing tensor '\(name)' of a quantized weight", subject: .init(file: tensors.place))
    }
    return tensor
  }

  /// Takes a stored tensor out if it is there.
  mutating func optionalPart(_ name: String) -> CheckpointTensor? { tensors.remove(name) }

  /// Adds a weight that is made of the parts taken out, and counts how programs will read it.
  mutating func add(_ weight: QuantizedWeight) throws {
    if weight.isKept { kept += 1 } else { widened += 1 }
    try tensors.add(weight.tensor)
  }

  /// Adds a sentence for the user, once.
  mutating func note(_ text: String) { if !notes.contains(text) { notes.append(text) } }

  /// Says how many weights programs read as codes.
  mutating func finish(_ method: String) {
    if kept + widened == 0 { return }
    note(
      widened == 0
        ? "\(kept) \(method) weights keep their codes"
        : "\(kept) \(method) weights keep their codes; no kernel reads those of \(widened), which become f32")
  }
}
