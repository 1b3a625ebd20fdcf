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

  private func failure(_ message: String, in file: String) -> CompileError {
    CompileError(.input, message, subject: .init(file: "\(path)/\(file)"))
  }

  /// Whether there is a file of that name.
  func contains(_ name: String) -> Bool { access("\(path)/\(name)", F_OK) == 0 }

  /// The JSON file of that fixed name, of at most `limit` bytes.
  func json(_ name: String, limit: Int) throws -> JSONField {
    let json = try document(name, limit: limit)
    guard json.value?.object != nil else {
      throw failure("the document is \(json.value?.kindDescription ?? "null"), expected an object", in: name)
    }
    return json
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

  /// The elements of the JSON file of that fixed name, which is an array; nil if there is none.
  func optionalJSONArray(_ name: String, limit: Int) throws -> [JSONField]? {
    contains(name) ? try document(name, limit: limit).elements() : nil
  }

  /// The tensors of `model.safetensors`, or of the shards that `model.safetensors.index.json` names.
  func tensors() throws -> CheckpointTensors {
    var tensors = CheckpointTensors(place: path)
    if contains("model.safetensors") {
      let file = try SafetensorsFile(MappedFile(path: "\(path)/model.safetensors"), limits: limits)
      for tensor in file.tensors { try tensors.add(tensor) }
    } else if contains(Self.indexName) {
      try addShards(to: &tensors)
    } else {
      let other = ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack"]
        .first { contains($0) }
      let notes = other.map { ["'\($0)' is not read"] } ?? []
      throw CompileError(
        .input, "neither 'model.safetensors' nor '\(Self.indexName)' is in '\(path)'", notes: notes)
    }
    return tensors
  }

  private static let indexName = "model.safetensors.index.json"

  private func addShards(to tensors: inout CheckpointTensors) throws {
    let index = try json(Self.indexName, limit: limits.headerBytes)
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
      let file = try SafetensorsFile(openNamed(shard, by: index), limits: limits)
      for tensor in file.tensors {
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
