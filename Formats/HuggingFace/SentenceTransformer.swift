import Base
import Glibc
import IR
import Tensors

/// What a folder of the library `sentence-transformers` says beyond the encoder: how the hidden states of a text become
/// one vector (Reimers and Gurevych, 2019).
///
/// `modules.json` lists the encoder, a pooling over tokens, and perhaps a division by the length; any other module is
/// refused by name. Without `modules.json` the vector is the mean of the hidden states, which is what the library does.
struct SentenceTransformer: Sendable {
  enum Pooling: String, Sendable, CaseIterable {
    case mean, max, cls
    case lastToken = "lasttoken"
  }

  var pooling = Pooling.mean
  var normalizes = false
  /// The most tokens of a text; nil if nothing is said.
  var longest: Int?

  /// Nil if the folder is none of that library.
  init?(_ folder: CheckpointFolder) throws {
    let limit = folder.limits.configBytes
    guard let modules = try folder.optionalJSONArray("modules.json", limit: limit) else { return nil }
    for (index, module) in modules.enumerated() {
      let type = try module["type"].string()
      let path = try module["path"].string(or: "")
      switch type.split(separator: ".").last {
      case "Transformer" where index == 0 && path.isEmpty: continue
      case "Pooling" where index == 1:
        guard ContainedFile.isPlainName(path), !path.contains("/") else {
          throw module.failure("path '\(path)' is no plain name of a folder")
        }
        try readPooling(folder.json("\(path)/config.json", limit: limit))
      case "Normalize" where index == modules.count - 1 && index > 0: normalizes = true
      default:
        throw CompileError(
          .unsupported, "the module '\(type)' at \(index) with path '\(path)' is not supported",
          subject: .init(file: module.file))
      }
    }
    guard modules.count >= 2 else {
      throw CompileError(
        .unsupported, "a sentence encoder without pooling is not supported",
        subject: .init(file: "\(folder.path)/modules.json"))
    }
    if let settings = try folder.optionalJSON("sentence_bert_config.json", limit: limit) { try readSettings(settings) }
  }

  private mutating func readPooling(_ config: JSONField) throws {
    var chosen: [Pooling] = []
    for (key, field) in try config.members() {
      switch key {
      case "word_embedding_dimension", "embedding_dimension", "include_prompt": continue
      case "pooling_mode":
        let name = try field.string()
        guard let pooling = Pooling(rawValue: name) else { throw unsupported(field, name) }
        chosen.append(pooling)
      case "pooling_mode_cls_token" where try field.bool(): chosen.append(.cls)
      case "pooling_mode_mean_tokens" where try field.bool(): chosen.append(.mean)
      case "pooling_mode_max_tokens" where try field.bool(): chosen.append(.max)
      case "pooling_mode_lasttoken" where try field.bool(): chosen.append(.lastToken)
      default: if field.value != .bool(false) { throw unsupported(field, key) }
      }
    }
    guard chosen.count == 1 else {
      throw CompileError(
        .unsupported, "a pooling of \(chosen.count) kinds is not supported, only of one",
        subject: .init(file: config.file))
    }
    pooling = chosen[0]
  }

  private func unsupported(_ field: JSONField, _ name: String) -> CompileError {
    CompileError(
      .unsupported, "the pooling '\(name)' is not supported, only mean, max, cls and lasttoken",
      subject: .init(file: field.file))
  }

  private mutating func readSettings(_ settings: JSONField) throws {
    for (key, field) in try settings.members() {
      switch key {
      case "max_seq_length": if field.exists { longest = try field.int(in: 1...1 << 30) }
      default: if field.exists, field.value != .bool(false) { throw settings.unsupported("'\(key)'") }
      }
    }
  }

  /// The mean of the hidden states.
  init() {}
}

extension SentenceTransformer {
  /// Writes what the library reads beside the encoder: `modules.json`, the settings of the pooling, and the most tokens of
  /// a text; `width` is that of a vector.
  ///
  /// - Throws: ``CompileError`` of kind `.create` if a folder cannot be made.
  func write(folder path: String, width: Int) throws {
    func module(_ index: Int, _ path: String, _ type: String) -> JSON {
      [
        "idx": .int(index), "name": .string("\(index)"), "path": .string(path),
        "type": .string("sentence_transformers.models.\(type)"),
      ]
    }
    let poolingName = "1_Pooling"
    let modules = [module(0, "", "Transformer"), module(1, poolingName, "Pooling")]
    let all = modules + (normalizes ? [module(2, "2_Normalize", "Normalize")] : [])
    try AtomicFile.write(JSON.array(all).bytes(pretty: true), to: "\(path)/modules.json")
    let folder = "\(path)/\(poolingName)"
    guard mkdir(folder, 0o755) == 0 || errno == EEXIST else {
      throw CompileError(.create, "cannot create the folder '\(folder)': \(describeErrno(errno))")
    }
    let settings: JSON = [
      "word_embedding_dimension": .int(width), "pooling_mode_cls_token": .bool(pooling == .cls),
      "pooling_mode_mean_tokens": .bool(pooling == .mean), "pooling_mode_max_tokens": .bool(pooling == .max),
      "pooling_mode_lasttoken": .bool(pooling == .lastToken),
    ]
    try AtomicFile.write(settings.bytes(pretty: true), to: "\(folder)/config.json")
    if let longest {
      let settings: JSON = ["max_seq_length": .int(longest), "do_lower_case": .bool(false)]
      try AtomicFile.write(settings.bytes(pretty: true), to: "\(path)/sentence_bert_config.json")
    }
  }

  /// Adds the output `embedding: f32[width]` to the function with the role `encode`, whose first output is one row per
  /// token.
  func addEmbedding(to model: inout Model) throws {
    guard let index = model.functions.firstIndex(where: { $0.role == "encode" }) else {
      throw CompileError(.unsupported, "a sentence encoder of an architecture that is no encoder is not supported")
    }
    var builder = GraphBuilder(graph: model.functions[index], constants: model.constants)
    builder.origin = Origin("pooling")
    guard let rows = builder.graph.outputs.first, let width = builder.type(of: rows).shape.last.fixedValue else {
      return
    }
    var x: ValueID
    switch pooling {
    case .mean: x = try builder.emit(Reduce(.mean, axes: [0], keepDims: true), rows)
    case .max: x = try builder.emit(Reduce(.max, axes: [0], keepDims: true), rows)
    case .cls: x = try builder.emit(Slice(axis: 0, start: 0, size: 1), rows)
    case .lastToken:
      x = try builder.emit(Slice(axis: 0, start: builder.type(of: rows).shape[0] - 1, size: 1), rows)
    }
    if normalizes {
      let square = try builder.emit(Multiply(), x, x)
      let sum = try builder.emit(Reduce(.sum, axes: [-1], keepDims: true), square)
      let length = try builder.emit(Sqrt(), sum)
      let least = builder.constant(.inline("least_length", .f32, [1], [Float(1e-12)]))
      x = try builder.emit(Divide(), x, builder.emit(Maximum(), length, least))
    }
    builder.output("embedding", try builder.emit(Reshape([.fixed(width)]), x))
    model.functions[index] = builder.graph
    model.constants = builder.constants
  }
}
