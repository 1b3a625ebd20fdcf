import Base
import IR
import Tensors

/// How an architecture of GGUF and one of Hugging Face name the same network.
///
/// Tables instead of code, so that GGUF files are read and written, compiled and converted, from one place. Names of tensors
/// hold `{}` for the number of a layer.
struct GGUFSchema: Sendable {
  /// A hyper-parameter in both namings.
  struct Key: Sendable {
    enum Kind: Sendable { case int, float, bool }

    /// The key of GGUF without the name of the architecture.
    let gguf: String
    /// The keys of `config.json`; the first is written.
    let config: [String]
    let kind: Kind
    /// What GGUF readers take where the key is missing; nil if it must be there.
    let fallback: JSON?

    static func int(_ gguf: String, _ config: String..., or fallback: JSON? = nil) -> Key {
      Key(gguf: gguf, config: config, kind: .int, fallback: fallback)
    }

    static func float(_ gguf: String, _ config: String..., or fallback: JSON? = nil) -> Key {
      Key(gguf: gguf, config: config, kind: .float, fallback: fallback)
    }

    static func bool(_ gguf: String, _ config: String..., or fallback: JSON? = nil) -> Key {
      Key(gguf: gguf, config: config, kind: .bool, fallback: fallback)
    }
  }

  /// What happens to a weight on the way from Hugging Face to GGUF.
  enum Change: Sendable {
    case none
    /// Rows of each head from halves to neighbouring pairs, for rotary embedding of pairs; for queries or keys.
    case pairRows(keys: Bool)
    /// Gains around 0 to gains around 1.
    case addOne
    /// `[in, out]` to `[out, in]`.
    case transpose
    /// Rows `[heads, 3, width]` to `[3, heads, width]`.
    case groupRows
    /// `[channels, 1, taps]` to `[channels, taps]`, in f32.
    case filter
    /// `x` to `-exp(x)`, in f32.
    case negativeExponential
    /// `x` times a number, in f32.
    case scale(Float)
    /// In f32, which readers ask for.
    case wide
  }

  /// A weight in both namings.
  struct Weight: Sendable {
    let config: String
    let gguf: String
    let change: Change

    init(_ config: String, _ gguf: String, _ change: Change = .none) {
      self.config = config
      self.gguf = gguf
      self.change = change
    }
  }

  /// Matrices of experts that GGUF stacks.
  struct Experts: Sendable {
    /// The name of one, with `{}` for the layer and `{e}` for the expert.
    let config: String
    let gguf: String
  }

  /// Tensors by which architectures of one name are told apart.
  struct Marks: Sendable {
    var has: [String] = []
    var lacks: [String] = []
  }

  /// A series of numbered blocks.
  struct Stack: Sendable {
    /// What the names of its tensors begin with.
    let prefix: String
    /// The key of GGUF for the number of blocks.
    let count: String
  }

  /// `general.architecture`.
  let name: String
  /// `model_type` of `config.json`.
  let modelType: String
  let className: String
  /// Further `model_type`s and classes that are written as this architecture.
  var otherModelTypes: [String] = []
  var otherClassNames: [String] = []
  /// What stands before the names of tensors of Hugging Face, or does not, by the class that saved them.
  var prefix: String?
  var stacks = [Stack(prefix: "blk.", count: "block_count")]
  var marks = Marks()
  var keys: [Key]
  var weights: [Weight]
  var experts: [Experts] = []
  /// Hyper-parameters that GGUF readers take for granted: the values they may have, missing ones aside. The first is
  /// written.
  var granted: [(key: String, values: [JSON])] = []
  /// Keys of GGUF without the name of the architecture that say nothing, but are to be there: what is written.
  var formalities: [(gguf: String, value: GGUFEntry)] = []
  /// Hyper-parameters without effect on what the network computes.
  var ignored: [String] = []
  /// Tensors of Hugging Face that the network does not read: copies of others, or numbers that follow from the
  /// configuration.
  var unread: [String] = []
  /// The key of rotary width: whole heads if nil, a share of them under `partial_rotary_factor` else.
  var hasPartialRotary = false
  /// Whether there is rotary embedding at all.
  var hasRotary = true
  /// The base of rotary embedding where the configuration says nothing.
  var defaultTheta = 10000.0
  /// Every so many layers one sees all keys, the others a window of them; nil if all layers are alike.
  var windowPeriod: Int?
  /// Whether layers with a window turn with the base 10000, whatever the base of the others.
  var hasLocalRotary = false
  /// The number of layers of the model whose scores are divided by the root of the width over the number of heads, not by
  /// that of the width of a head (llama.cpp goes by it, since GGUF does not say it).
  var layersScaledByWidth: Int?
  /// Whether a configuration that says nothing ties the output weights to the embedding.
  var isTiedByDefault = false

  /// The pieces of names that most decoders share, `config` to `gguf`.
  static func decoder(_ pieces: [(String, String, Change)]) -> [Weight] {
    pieces.map { Weight("model.layers.{}.\($0.0)", "blk.{}.\($0.1)", $0.2) }
  }
}

extension GGUFSchema {
  /// The schema for a `general.architecture`; of several (Llama, Mixtral) the one that the names of the tensors fit.
  static func schema(gguf name: String, tensors: Set<String>) -> GGUFSchema? {
    all.first { schema in
      schema.name == name && schema.marks.has.allSatisfy(tensors.contains)
        && !schema.marks.lacks.contains(where: tensors.contains)
    }
  }

  /// The schema for the `model_type` and the class of a configuration.
  static func schema(modelType: String, className: String?) -> GGUFSchema? {
    let fitting = all.filter { $0.modelType == modelType || $0.otherModelTypes.contains(modelType) }
    let own = fitting.first { $0.className == className || $0.otherClassNames.contains(className ?? "") }
    return own ?? fitting.first
  }

  /// The schema of a file.
  init(of file: inout GGUFFile) throws {
    guard let architecture = try file.metadata.optionalString("general.architecture") else {
      throw file.metadata.failure("missing 'general.architecture', expected a string")
    }
    guard let schema = Self.schema(gguf: architecture, tensors: Set(file.tensors.map(\.name))) else {
      var names: [String] = []
      for schema in Self.all where !names.contains(schema.name) { names.append(schema.name) }
      throw CompileError(
        .unsupported, "unknown architecture '\(architecture)'", subject: .init(file: file.file.path),
        notes: ["known are \(listed(names.map { "'\($0)'" }, "and"))"])
    }
    self = schema
    if name == Self.t5.name, try file.metadata.optionalDouble("\(name).\(Self.logitScale)") == 1 {
      foldHeadScale(width: try file.metadata.optionalInt("\(name).embedding_length", in: 1...1 << 30) ?? 1)
    }
  }

  /// The whole number that `config` has for a key of GGUF.
  func number(_ key: String, in config: JSONObject) -> Int? {
    keys.first { $0.gguf == key }.flatMap { config[$0.config[0]]?.int }
  }

  /// The number whose root divides the scores of attention.
  func scoreDivisor(layers: Int, width: Int, heads: Int, headDim: Int) -> Int {
    layers == layersScaledByWidth ? width / max(heads, 1) : headDim
  }

  /// Whether the rows of queries and keys lie so that rotary embedding turns pairs of neighbours.
  var pairsRows: Bool {
    weights.contains { weight in
      if case .pairRows = weight.change { return true }
      return false
    }
  }
}
