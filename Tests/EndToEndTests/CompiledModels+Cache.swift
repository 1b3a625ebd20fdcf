import Base
import Driver
import Formats
import Testing
import TestSupport

/// What is asked of programs with caches of their own.
extension CompiledModels {
  /// The largest relative difference between the logits of a program of the bundled checkpoint and those of the evaluator,
  /// for so many tokens drawn from `seed`, which a program reads in several calls and the evaluator in one.
  static func check(_ program: String, tokens: Int, seed: UInt64) async throws -> Double {
    let folder = try TemporaryFolder()
    var generator = SplitMix64(seed: seed)
    let ids = (0..<tokens).map { _ in Int64(generator.int(below: 512)) }
    try NumPyArray(ids, [1, ids.count]).write(to: folder.path("ids.npy"))
    var check = ProgramCheck()
    check.inputs = [folder.path("ids.npy")]
    let result = try await check.run(model: stories, program: program)
    return try #require(result.differences.map(\.relative).max())
  }

  /// Of `tokens` tokens that a program generates one by one, the share that are the likeliest when all are read at once.
  static func likeliestShare(_ program: String, tokens: Int) throws -> Double {
    let folder = try TemporaryFolder()
    let line = try run(program, ["-n", "\(tokens)", "--temperature", "0", "--print-ids", "Once upon a time"])
    let ids = line.split { $0 == "," || $0.isWhitespace }.compactMap { Int64($0) }
    try #require(ids.count > 120)
    try NumPyArray(ids, [1, ids.count]).write(to: folder.path("ids.npy"))
    _ = try run(program, ["logits", "--ids", folder.path("ids.npy"), "--output", folder.path("logits.npz")])
    let logits = try NumPyArchive(path: folder.path("logits.npz")).require("output", file: "logits").doubles
    let vocabulary = logits.count / ids.count
    // The text begins with the prompt, whose tokens nothing chose.
    let places = 8..<(ids.count - 1)
    let same = places.count { place in
      let row = logits[place * vocabulary..<(place + 1) * vocabulary]
      let best = row.indices.max { row[$0] < row[$1] } ?? 0
      return best - row.startIndex == Int(ids[place + 1])
    }
    return Double(same) / Double(places.count)
  }
}
