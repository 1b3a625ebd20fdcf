import Base
import IR
import Tensors

extension Checkpoint {
  /// Reads the tensors at `path`: a checkpoint that ``read(_:limits:)`` reads, or a file of weights of safetensors or
  /// PyTorch. Beside such a file `config.json` may be missing; the configuration is then empty.
  package static func readTensors(_ path: String, limits: LoadLimits = LoadLimits()) throws -> Checkpoint {
    let candidate = try Candidate(path: path)
    let format = try FormatRegistry.format(of: candidate)
    guard format is SafetensorsFormat.Type || format is PyTorchFormat.Type, let file = candidate.file else {
      return try read(path, limits: limits)
    }
    let folder = ArchivePath.folder(of: candidate.path)
    if CheckpointFolder(path: folder, limits: limits).contains("config.json") {
      return try Checkpoint(folder: folder, weights: file, limits: limits)
    }
    var checkpoint = Checkpoint(name: candidate.modelName, config: JSONObject())
    for tensor in try CheckpointFolder.tensors(of: file, limits) { try checkpoint.add(tensor, as: tensor.name) }
    return checkpoint
  }

  /// Throws an error that names the first thing in which `other`, at `otherPath`, is another network than this one, at
  /// `path`: a tensor that one of them lacks, a shape, an element type, or what the imported networks compute, whatever the
  /// configurations call it. A key of both configurations that makes the difference is named; so is what keys one of them
  /// lacks. Configurations of architectures that are not known must agree key by key.
  package func requireSameForm(as other: Checkpoint, _ path: String, _ otherPath: String) throws {
    func failure(_ message: String, _ notes: [String] = []) -> CompileError {
      CompileError(.input, message, subject: .init(file: otherPath), notes: notes)
    }
    let wanted = "in '\(path)'"
    for name in names {
      guard let type = type(of: name) else { continue }
      guard let found = other.type(of: name) else {
        throw failure("tensor '\(name)' is missing, which is \(wanted)")
      }
      guard found.shape == type.shape else {
        throw failure("tensor '\(name)' has shape \(found.shape), \(wanted) it has \(type.shape)")
      }
      guard found == type else {
        throw failure("tensor '\(name)' is \(found.elementDescription), \(wanted) it is \(type.elementDescription)")
      }
    }
    if let extra = other.names.first(where: { !contains($0) }) {
      throw failure("tensor '\(extra)' is not \(wanted)")
    }
    let keys = (config.keys + other.config.keys.filter { config[$0] == nil }).filter { key in
      let (value, found) = (config[key], other.config[key])
      let isNeutral =
        key != "model_type" && CheckpointConfig.isNeutral(key, value) && CheckpointConfig.isNeutral(key, found)
      return !isNeutral && value != found
    }
    guard !keys.isEmpty else { return }
    func sentence(_ key: String) -> String {
      let (value, found) = (config[key]?.text(), other.config[key]?.text())
      return "'\(key)' of the configuration is \(found ?? "missing"), \(wanted) it is \(value ?? "missing")"
    }
    guard let network = try? self.network() else { throw failure(sentence(keys[0])) }
    let difference: String?
    do {
      difference = try network.firstDifference(in: other.network(), from: "'\(path)'")
    } catch let error as CompileError {
      throw failure(sentence(keys[0]), [error.message])
    }
    guard let difference else { return }
    // The key alone, put into this configuration, must make a difference, or be refused.
    for key in keys where config[key] != nil && other.config[key] != nil {
      var changed = self
      changed.config[key] = other.config[key]
      if let found = try? changed.network(), network.firstDifference(in: found, from: "") == nil { continue }
      throw failure(sentence(key))
    }
    throw failure(difference, keys.map { sentence($0) })
  }

  /// The first file of the tokenizer that `other` has with another content, or that only one of both has; nil if there is
  /// none.
  package func differingCompanion(from other: Checkpoint) -> String? {
    let files = Dictionary(other.companions.map { ($0.name, $0.file) }, uniquingKeysWith: { first, _ in first })
    for (name, file) in companions where name.hasPrefix("tokenizer") && name != "tokenizer_config.json" {
      guard let found = files[name], found.size == file.size else { return name }
      let isEqual = withExtendedLifetime((found, file)) { found.bytes.elementsEqual(file.bytes) }
      if !isEqual { return name }
    }
    return nil
  }

  /// Replaces a tensor by what a recipe makes of it and of the tensors of that name in other checkpoints, in order.
  package mutating func combine(
    _ name: String, with others: [Checkpoint], _ recipe: (inout GraphBuilder, [ValueID]) throws -> ValueID
  ) throws {
    guard let value = values[name] else { throw CompileError(.internal, "missing tensor '\(name)'") }
    var inputs = [value]
    for other in others {
      guard let source = other.values[name] else {
        throw CompileError(.input, "missing tensor '\(name)'", subject: .init(file: other.name))
      }
      inputs.append(try graft(source, of: other))
    }
    values[name] = try recipe(&builder, inputs)
  }

  /// Replaces a tensor by one of a file that has the same type.
  package mutating func replace(_ name: String, by tensor: CheckpointTensor) throws {
    guard let value = values[name], builder.type(of: value) == tensor.type else {
      throw CompileError(.internal, "tensor '\(name)' is not of the type \(tensor.type)")
    }
    values[name] = try tensor.constant(into: &model, &builder)
  }

  /// Copies a recipe of another checkpoint.
  private mutating func graft(_ value: ValueID, of other: Checkpoint) throws -> ValueID {
    let graph = other.builder.graph
    if let id = graph.constant(of: value) {
      var constant = other.builder.constants[id]
      if case .archive(let archive, let range) = constant.source {
        constant.source = .archive(model.addArchive(other.model.archives[archive].file), range)
      }
      return builder.constant(constant)
    }
    guard let id = graph.definingNode(of: value), let result = graph[id].results.firstIndex(of: value) else {
      throw CompileError(.internal, "'%\(graph[value].name)' is no recipe")
    }
    let inputs = try graph[id].inputs.map { try graft($0, of: other) }
    return try builder.emitAll(graph[id].op, inputs)[result]
  }
}

extension TensorType {
  /// The element type, or the type with its encoding if it is quantized.
  fileprivate var elementDescription: String { isDense ? element.rawValue : "\(self)" }
}
