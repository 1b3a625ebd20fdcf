import Base
import IR

/// A network that a `config.json` names: a configuration, and the graph it describes.
protocol Architecture: Sendable {
  /// The `model_type` of `config.json`.
  static var modelType: String { get }

  /// Further `model_type`s of the same network.
  static var otherModelTypes: [String] { get }

  /// The entry of `architectures` in `config.json`.
  static var className: String { get }

  /// Further entries of `architectures` that are the same network, or it with other outputs.
  static var otherClassNames: [String] { get }

  /// Reads and checks the configuration.
  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws

  /// The number of tokens the network knows.
  var vocabulary: Int { get }

  /// The most tokens of a text, for encoders that give hidden states; nil for all others.
  var longestText: Int? { get }

  /// Adds the functions of the network to `model`, taking their weights from `tensors`.
  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws
}

extension Architecture {
  static var otherModelTypes: [String] { [] }

  static var otherClassNames: [String] { [] }

  var longestText: Int? { nil }

  static func hasModelType(_ type: String) -> Bool { modelType == type || otherModelTypes.contains(type) }

  static func isCalled(_ name: String) -> Bool { className == name || otherClassNames.contains(name) }
}

/// An architecture that is a decoder, which formats with another order of rows adapt.
protocol DecoderArchitecture: Architecture {
  var decoder: Decoder { get set }
}

/// The architectures of Hugging Face checkpoints that mcc knows.
enum ArchitectureRegistry {
  static let architectures: [any Architecture.Type] = [
    Bert.self, Bloom.self, Cohere.self, DeepseekV2.self, DistilBert.self, Falcon.self, Gemma2.self, Gemma3.self,
    GPT2.self, GPTNeoX.self, Granite.self, Llama.self, Mamba.self, Mistral.self, Mixtral.self, Olmo2.self, OPT.self,
    Phi.self, Phi3.self, Qwen2.self, Qwen3.self, Qwen3Moe.self, Roberta.self, SmolLM3.self, StableLM.self,
    Starcoder2.self, T5.self, ViT.self, Whisper.self,
  ]

  /// The architecture that `config.json` asks for.
  static func architecture(of config: JSONField) throws -> any Architecture.Type {
    let classes = try config["architectures"].optionalElements()?.map { try $0.string() } ?? []
    let modelType = try config["model_type"].optionalString()
    let known = architectures
    func unknown(_ what: String) -> CompileError {
      CompileError(
        .unsupported, "unknown architecture \(what)", subject: .init(file: config.file),
        notes: ["known are \(listed(known.map { "\($0.className) ('\($0.modelType)')" }, "and"))"])
    }
    if let first = classes.first {
      guard classes.count == 1 else { throw unknown("\(listed(classes, "and")), expected one") }
      guard let found = known.first(where: { $0.isCalled(first) }) else { throw unknown("'\(first)'") }
      guard modelType.map(found.hasModelType) ?? true else {
        throw config.failure("architecture '\(first)' contradicts 'model_type', which is '\(modelType ?? "")'")
      }
      return found
    }
    guard let modelType else { throw config.failure("missing 'architectures' and 'model_type'") }
    guard let found = known.first(where: { $0.hasModelType(modelType) }) else { throw unknown("'\(modelType)'") }
    return found
  }
}
