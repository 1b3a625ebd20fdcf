import Base
import CodeGen
import Formats

/// How far the embeddings of encoders are from a reference's.
struct SentenceEvaluation {
  /// Judges programs on the lines of a file.
  func run(
    _ programs: [EvaluatedProgram], _ reference: EvaluatedProgram?, _ path: String, _ progress: Progress
  ) async throws -> [ModelEvaluation.Result] {
    let folder = try WorkFolder()
    guard try !CalibrationSamples.isArchive(path) else {
      throw CompileError(.input, "'\(path)' holds arrays; encoders are judged on sentences, one in each line")
    }
    let lines = try MappedFile.text(path: path).split(separator: UInt8(ascii: "\n"))
      .map { $0.last == UInt8(ascii: "\r") ? $0.dropLast() : $0 }
      .filter { line in line.contains { $0 > UInt8(ascii: " ") } }
    guard !lines.isEmpty else { throw CompileError(.input, "'\(path)' holds no sentence") }
    let file = folder.file("sentences"), output = folder.file("rows.npy")
    try AtomicFile.write(Array(lines.joined(separator: [UInt8(ascii: "\n")])), to: file)
    var original: [[Double]]?
    var results: [ModelEvaluation.Result] = []
    let all = (reference.map { [$0] } ?? []) + programs
    for (index, program) in all.enumerated() {
      progress.update("judging", done: index, of: all.count)
      try await program.run(["--file", file, "--output", output])
      let rows = try Self.rows(output, count: lines.count, program)
      var comparison = OutputComparison()
      if let original {
        guard original[0].count == rows[0].count else {
          throw CompileError(.usage, "'\(program.name)' gives \(rows[0].count) numbers, not \(original[0].count)")
        }
        for (row, wanted) in zip(rows, original) { comparison.add(row, reference: wanted) }
      }
      if reference != nil, index == 0 { original = rows }
      results.append(
        .init(
          name: program.name, bytes: program.bytes,
          measures: comparison.measures + [.init(kind: .count, value: Double(lines.count))]))
    }
    return results
  }

  private static func rows(_ path: String, count: Int, _ program: EvaluatedProgram) throws -> [[Double]] {
    let array = try NumPyArray.read(path: path)
    guard array.shape.count == 2, array.shape[0] == count, array.shape[1] > 0 else {
      throw CompileError(.check, "'\(program.name)' gives rows of the shape \(array.shape) for \(count) sentences")
    }
    let numbers = array.doubles
    return (0..<count).map { Array(numbers[($0 * array.shape[1])..<(($0 + 1) * array.shape[1])]) }
  }
}
