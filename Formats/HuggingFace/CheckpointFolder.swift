import Base
import Glibc
import IR

/// The files of a Hugging Face checkpoint.
///
/// Files with fixed names are opened as the caller's folder has them. Names that the checkpoint itself gives (shards)
/// must be plain names of files inside the folder; links are followed only in a hub cache, from `snapshots/REVISION` to
/// the `blobs` beside it.
struct CheckpointFolder: Sendable {
  let path: String
  let limits: LoadLimits
  /// The file of the weights, if the caller named one; else it is looked for under the usual names.
  var weights: MappedFile?

  init(path: String, limits: LoadLimits, weights: MappedFile? = nil) {
    self.path = path
    self.limits = limits
    self.weights = weights
  }

  /// The folder of a file of weights, if its `config.json` is there.
  static func of(_ candidate: Candidate, _ options: LoadOptions) throws -> CheckpointFolder? {
    guard let file = candidate.file else { return nil }
    let folder = CheckpointFolder(
      path: ArchivePath.folder(of: candidate.path), limits: options.limits, weights: file)
    return folder.contains("config.json") ? folder : nil
  }

  private func failure(_ message: String, in file: String) -> CompileError {
    CompileError(.input, message, subject: .init(file: "\(path)/\(file)"))
  }

  /// Whether there is a file of that name.
  func contains(_ name: String) -> Bool { access("\(path)/\(name)", F_OK) == 0 }

  /// The JSON file of that fixed name, of at most `limit` bytes.
  func json(_ name: String, limit: Int) throws -> JSONField {
    let json = try document(name, limit: limit)
    try requireObject(json, name)
    return json
  }

  private func requireObject(_ json: JSONField, _ name: String) throws {
    guard json.value?.object != nil else {
      throw failure("the document is \(json.value?.kindDescription ?? "null"), expected an object", in: name)
    }
  }

  /// The file of that fixed name, of at most `limit` bytes.
  func mapped(_ name: String, limit: Int) throws -> MappedFile {
    let file = try MappedFile(path: "\(path)/\(name)")
    guard file.size <= limit else {
      throw failure("the file has \(file.size) bytes, at most \(limit) are allowed", in: name)
    }
    return file
  }

  private func document(_ name: String, limit: Int) throws -> JSONField {
    let file = try mapped(name, limit: limit)
    let json = try withExtendedLifetime(file) { try JSON.parse(file.bytes, file: file.path) }
    return JSONField(json, file: file.path)
  }

  /// The JSON file of that fixed name; nil if there is none.
  func optionalJSON(_ name: String, limit: Int) throws -> JSONField? {
    contains(name) ? try json(name, limit: limit) : nil
  }

  /// The JSON file of that fixed name, of which what is under `paths` stays text; nil if there is none.
  func optionalDocument(_ name: String, limit: Int, leaving paths: [[String]]) throws -> JSONDocument? {
    guard contains(name) else { return nil }
    let document = try JSONDocument(mapped(name, limit: limit), leaving: paths)
    try requireObject(document.root, name)
    return document
  }

  /// The elements of the JSON file of that fixed name, which is an array; nil if there is none.
  func optionalJSONArray(_ name: String, limit: Int) throws -> [JSONField]? {
    contains(name) ? try document(name, limit: limit).elements() : nil
  }

  /// The tensors of the file that the caller named, of `model.safetensors` or `pytorch_model.bin`, or of the shards that
  /// the index of either names.
  func tensors() throws -> CheckpointTensors {
    var tensors = CheckpointTensors(place: path)
    if let weights {
      for tensor in try Self.tensors(of: weights, limits) { try tensors.add(tensor) }
      return tensors
    }
    let names = ["model.safetensors", "pytorch_model.bin"]
    for name in names {
      if contains(name) {
        for tensor in try Self.tensors(of: MappedFile(path: "\(path)/\(name)"), limits) { try tensors.add(tensor) }
        return tensors
      }
      if contains(name + Self.indexSuffix) {
        try addShards(name + Self.indexSuffix, to: &tensors)
        return tensors
      }
    }
    let other = ["tf_model.h5", "flax_model.msgpack"].first { contains($0) }
    let notes = other.map { ["'\($0)' is not read"] } ?? []
    throw CompileError(
      .input, "neither \(listed(names.flatMap { ["'\($0)'", "'\($0)\(Self.indexSuffix)'"] }, "nor")) is in '\(path)'",
      notes: notes)
  }

  /// The tensors of a file of weights, whatever its name.
  static func tensors(of file: MappedFile, _ limits: LoadLimits) throws -> [CheckpointTensor] {
    if TorchFile.sniff(file) { return try TorchFile(file, limits: limits).tensors }
    return try SafetensorsFile(file, limits: limits).tensors
  }

  private static let indexSuffix = ".index.json"

  private func addShards(_ indexName: String, to tensors: inout CheckpointTensors) throws {
    let index = try json(indexName, limit: limits.headerBytes)
    let members = try index["weight_map"].members()
    guard members.count <= limits.tensors else {
      throw index.failure("\(members.count) tensors, at most \(limits.tensors) are allowed")
    }
    var shardOf: [String: String] = [:]
    var shards: [String] = []
    var known: Set<String> = []
    for (tensor, field) in members {
      let shard = try field.string()
      shardOf[tensor] = shard
      guard ContainedFile.isPlainName(shard), !shard.contains("/"), shard.utf8.count <= 255 else {
        throw index.failure("shard '\(shard)' of tensor '\(tensor)' is no plain name of a file in the folder")
      }
      if known.insert(shard).inserted { shards.append(shard) }
    }
    for shard in shards {
      for tensor in try Self.tensors(of: openNamed(shard, by: index), limits) {
        guard shardOf[tensor.name] == shard else {
          let said = shardOf[tensor.name].map { "says it is in '\($0)'" } ?? "does not name it"
          throw CompileError(
            .input, "tensor '\(tensor.name)' is in this shard, but the index \(said)",
            subject: .init(file: tensor.file.path))
        }
        try tensors.add(tensor)
      }
    }
    for (tensor, field) in members where tensors[tensor] == nil {
      throw index.failure("tensor '\(tensor)' is not in the shard '\(try field.string())' that the index names")
    }
  }

  /// Opens a shard whose name stands in the checkpoint itself.
  private func openNamed(_ name: String, by index: JSONField) throws -> MappedFile {
    let full = "\(path)/\(name)"
    if let target = resolved(full), let blobs = hubBlobs, target.hasPrefix(blobs) { return try MappedFile(path: full) }
    do {
      return try ContainedFile.open(name, in: path, named: "shard")
    } catch let error as CompileError {
      throw error.located(.init(file: index.file))
    }
  }

  /// Where a folder of a hub cache links to; nil if the folder is none.
  private var hubBlobs: String? {
    guard let parts = resolved(path)?.split(separator: "/"), parts.count >= 3, parts[parts.count - 2] == "snapshots"
    else {
      return nil
    }
    return "/" + parts.dropLast(2).joined(separator: "/") + "/blobs/"
  }

  private func resolved(_ path: String) -> String? {
    guard let absolute = realpath(path, nil) else { return nil }
    defer { free(absolute) }
    return String(cString: absolute)
  }
}
