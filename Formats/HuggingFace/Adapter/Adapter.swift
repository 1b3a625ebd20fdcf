import Base
import IR
import Tensors

/// What `peft` trained beside a checkpoint: a folder with `adapter_config.json` and `adapter_model.safetensors`.
///
/// A module that was trained as a whole takes the place of the checkpoint's.
protocol Adapter: Sendable {
  /// The `peft_type` of `adapter_config.json`.
  static var kind: String { get }

  /// The tensors, which know what of them has been used.
  var file: AdapterFile { get set }

  /// The modules that it changes.
  var modules: [String] { get }

  /// Whether all that it adds can be kept beside the weights instead of being merged into them.
  var keepsAll: Bool { get }

  /// Reads and checks the adapter.
  ///
  /// - Throws: `CompileError` of kind `.input` for damage, `.unsupported` for what is not known, by name.
  init(_ folder: CheckpointFolder, _ config: JSONField) throws

  /// The tensor `name` of the checkpoint with what the adapter makes of it, as a recipe.
  mutating func merged(
    _ value: ValueID, of name: String, hasHead: Bool, into model: inout Model, _ builder: inout GraphBuilder
  ) throws -> ValueID
}

/// The kinds of adapters that are known.
enum AdapterRegistry {
  static let adapters: [any Adapter.Type] = [LowRankAdapter.self, ScaleAdapter.self]

  /// Reads the adapter in the folder at `path`.
  static func read(_ path: String, limits: LoadLimits) throws -> any Adapter {
    let folder = CheckpointFolder(path: path, limits: limits)
    let config = try folder.json("adapter_config.json", limit: limits.configBytes)
    let kind = try config["peft_type"].string()
    guard let type = adapters.first(where: { $0.kind == kind }) else {
      throw CompileError(
        .unsupported,
        "'peft_type' '\(kind)' is not supported for an adapter, only \(listed(adapters.map { $0.kind }, "and"))",
        subject: .init(file: config.file))
    }
    return try type.init(folder, config)
  }
}

/// The tensors of an adapter.
struct AdapterFile: Sendable {
  /// The folder.
  let place: String
  /// The file of the tensors.
  let path: String
  /// Tensors by module, with the words of the name behind it.
  private(set) var parts: [(module: String, words: [String], tensor: CheckpointTensor)] = []
  /// Tensors that stand in for those of the checkpoint.
  private var replacements: [String: CheckpointTensor] = [:]
  private var used: Set<String> = []

  private static let prefix = "base_model.model."

  /// Reads the file of a folder; the names of modules end before the word that begins with `marker`.
  init(_ folder: CheckpointFolder, marker: String) throws {
    place = folder.path
    let name = "adapter_model.safetensors"
    guard folder.contains(name) else {
      let notes = folder.contains("adapter_model.bin") ? ["'adapter_model.bin' is not read"] : []
      throw CompileError(.input, "'\(name)' is not in '\(place)'", notes: notes)
    }
    let mapped = try MappedFile(path: "\(place)/\(name)")
    path = mapped.path
    for tensor in try SafetensorsFile(mapped, limits: folder.limits).tensors {
      let subject = CompileError.Subject(file: path, object: "tensor '\(tensor.name)'")
      func unsupported(_ what: String) -> CompileError { CompileError(.unsupported, what, subject: subject) }
      guard tensor.name.hasPrefix(Self.prefix) else {
        throw unsupported("a tensor of an adapter begins with '\(Self.prefix)'")
      }
      guard [.f32, .f16, .bf16].contains(tensor.type.element), tensor.blocks == nil else {
        throw unsupported("element type \(tensor.type.element.rawValue), expected f32, f16 or bf16")
      }
      let words = tensor.name.dropFirst(Self.prefix.count).split(separator: ".").map(String.init)
      if let index = words.firstIndex(where: { $0.hasPrefix(marker) }) {
        parts.append((words[..<index].joined(separator: "."), Array(words[index...]), tensor))
        continue
      }
      let own = words.filter { $0 != "modules_to_save" && $0 != "default" }.joined(separator: ".")
      guard replacements.updateValue(tensor, forKey: own) == nil else { throw unsupported("the tensor occurs twice") }
    }
  }

  /// The tensor that stands in for the checkpoint's of that name.
  mutating func replacement(of name: String) -> CheckpointTensor? {
    guard let tensor = replacements[name] else { return nil }
    used.insert(name)
    return tensor
  }

  /// Notes that what the adapter has for a module was used.
  mutating func use(_ module: String) { used.insert(module) }

  /// Throws if one of the modules, or a tensor of its own, found no place.
  func requireAllUsed(_ modules: [String]) throws {
    let rest = (modules + replacements.keys).filter { !used.contains($0) }.sorted()
    guard let first = rest.first else { return }
    let others = rest.count > 1 ? ["\(rest.count) such modules, among them '\(rest[rest.count - 1])'"] : []
    throw CompileError(
      .input, "the adapter is for '\(first)', which the checkpoint does not have", subject: .init(file: place),
      notes: others)
  }

  /// A tensor as a constant.
  static func constant(
    _ tensor: CheckpointTensor, _ name: String, into model: inout Model, _ builder: inout GraphBuilder
  ) -> ValueID {
    builder.constant(
      Constant(name: name, type: tensor.type, source: .archive(model.addArchive(tensor.file), tensor.range)))
  }
}
