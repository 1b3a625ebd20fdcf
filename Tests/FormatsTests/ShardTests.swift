import Base
import Formats
import Glibc
import TestSupport
import Testing

/// Checkpoints of several safetensors files with an index.
@Suite struct ShardTests {
  /// The tiny checkpoint in two files; `weightMap` changes the index before it is written.
  private func write(
    _ names: (String, String) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    change: (inout JSONObject) -> Void = { _ in }
  ) throws -> TemporaryFolder {
    var checkpoint = TinyCheckpoint()
    checkpoint.writesWeights = false
    let folder = try checkpoint.write()
    let parts = [Array(checkpoint.tensors[..<6]), Array(checkpoint.tensors[6...])]
    var map = JSONObject()
    for (name, part) in zip([names.0, names.1], parts) {
      if !name.contains("/") { try folder.write(name, FileBytes.safetensors(part)) }
      for tensor in part { map[tensor.name] = .string(name) }
    }
    change(&map)
    let index: JSON = ["metadata": ["total_size": 1], "weight_map": .object(map)]
    try folder.write("model.safetensors.index.json", index.text())
    return folder
  }

  @Test func readsBothShards() throws {
    let folder = try write()
    let model = try folder.load()
    #expect(model.archives.count == 2)
    #expect(model.constants.count == 12)
  }

  @Test(arguments: [
    "../model.safetensors", "/etc/passwd", "a/../model.safetensors", "..", ".", "", "a\\b", "sub/part.safetensors",
    "model\u{0}.safetensors",
  ])
  func refusesNames(name: String) throws {
    let folder = try write(("model-00001-of-00002.safetensors", "x")) { $0["model.norm.weight"] = .string(name) }
    expectFailure(.input, "shard", "plain name") { _ = try folder.load() }
  }

  @Test func refusesMissingAndContradictingShards() throws {
    let first = "model-00001-of-00002.safetensors"
    var folder = try write { $0["model.norm.weight"] = "model-3.safetensors" }
    expectFailure(.input, "'model-3.safetensors'") { _ = try folder.load() }
    folder = try write { $0["model.norm.weight"] = .string(first) }
    expectFailure(.input, "'model.norm.weight'", "says it is in '\(first)'") {
      _ = try folder.load()
    }
    folder = try write { $0["model.norm.weight"] = nil }
    expectFailure(.input, "'model.norm.weight'", "does not name it") { _ = try folder.load() }
    folder = try write { $0["model.more.weight"] = .string(first) }
    expectFailure(.input, "'model.more.weight' is not in the shard '\(first)'") {
      _ = try folder.load()
    }
    folder = try write { $0["model.norm.weight"] = 3 }
    expectFailure(.input, "'weight_map.model.norm.weight' is an integer") { _ = try folder.load() }
    try folder.write("model.safetensors.index.json", "{}")
    expectFailure(.input, "missing 'weight_map'") { _ = try folder.load() }
  }

  @Test func refusesTheSameTensorInTwoShards() throws {
    let folder = try write()
    let tensors = TinyCheckpoint().tensors
    try folder.write("model-00002-of-00002.safetensors", FileBytes.safetensors(Array(tensors[5...])))
    expectFailure(.input, "'\(tensors[5].name)'", "says it is in 'model-00001-of-00002.safetensors'") {
      _ = try folder.load()
    }
  }

  @Test func refusesLinksOutOfTheFolder() throws {
    let second = "model-00002-of-00002.safetensors"
    let folder = try write()
    let outside = try TemporaryFolder()
    #expect(rename(folder.path(second), outside.path("secret")) == 0)
    #expect(symlink(outside.path("secret"), folder.path(second)) == 0)
    expectFailure(.input, "symbolic link") { _ = try folder.load() }
    unlink(folder.path(second))
    #expect(link(outside.path("secret"), folder.path(second)) == 0)
    expectFailure(.input, "hard link") { _ = try folder.load() }
  }

  /// A hub cache links from `snapshots/REVISION` to the `blobs` beside it; other links are refused there too.
  @Test func followsLinksOfAHubCache() throws {
    let cache = try TemporaryFolder()
    let flat = try write()
    for name in ["blobs", "snapshots", "snapshots/abc"] { #expect(mkdir(cache.path(name), 0o755) == 0) }
    for name in flat.names() {
      #expect(rename(flat.path(name), cache.path("blobs/\(name)")) == 0)
      #expect(symlink("../../blobs/\(name)", cache.path("snapshots/abc/\(name)")) == 0)
    }
    #expect(try FormatRegistry.load(cache.path("snapshots/abc")).constants.count == 12)
    let shard = "model-00002-of-00002.safetensors"
    #expect(rename(cache.path("blobs/\(shard)"), cache.path("snapshots/stray")) == 0)
    unlink(cache.path("snapshots/abc/\(shard)"))
    #expect(symlink("../stray", cache.path("snapshots/abc/\(shard)")) == 0)
    expectFailure(.input, "symbolic link") { _ = try FormatRegistry.load(cache.path("snapshots/abc")) }
  }

  @Test func saysWhichWeightsAreMissing() throws {
    var checkpoint = TinyCheckpoint()
    checkpoint.writesWeights = false
    checkpoint.files["tf_model.h5"] = "x"
    let folder = try checkpoint.write()
    expectFailure(.input, "neither 'model.safetensors'", "nor 'pytorch_model.bin", "'tf_model.h5' is not read") {
      _ = try folder.load()
    }
  }
}
