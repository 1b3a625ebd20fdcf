import Base
import CodeGen
import Formats
import IR
import Tensors

/// How networks of tensors do on samples: against labels, and against a reference's outputs or recorded ones.
///
/// The archive has an array per input, samples stacked along the first axis (`TensorArchives.samples`), and may have `label`,
/// a place in the first output per sample, and `expected`, the first output of a reference.
struct SampleEvaluation {
  /// What a program gave for a sample.
  private struct Outputs {
    var names: [String]
    var arrays: [[Double]]
  }

  func run(
    _ programs: [EvaluatedProgram], _ reference: EvaluatedProgram?, _ path: String, _ progress: Progress
  ) async throws -> [ModelEvaluation.Result] {
    let all = (reference.map { [$0] } ?? []) + programs
    let graph = try Self.inputs(of: all[0])
    let samples = try TensorArchives.samples(path, of: graph)
    guard !samples.isEmpty else { throw CompileError(.input, "'\(path)' holds no samples") }
    let archive = try NumPyArchive(path: path)
    let labels = try (archive["label"] ?? archive["labels"]).map { try Self.labels($0, samples.count, path) }
    let expected = reference == nil ? archive["expected"]?.doubles : nil
    guard expected == nil || expected?.count.isMultiple(of: samples.count) == true else {
      throw CompileError(.input, "'\(path)' has 'expected' of a size that is no multiple of \(samples.count) samples")
    }
    guard labels != nil || expected != nil || reference != nil else {
      throw CompileError(
        .usage, "'\(path)' has neither 'label' nor 'expected', and there is no reference to compare with",
        notes: ["give one with --reference"])
    }
    let folder = try WorkFolder()
    var right = [Int](repeating: 0, count: all.count)
    var comparisons = [OutputComparison](repeating: OutputComparison(), count: all.count)
    for (index, inputs) in samples.enumerated() {
      progress.update("judging", done: index, of: samples.count)
      var arguments: [String] = []
      for (place, (id, tensor)) in zip(graph.inputs, inputs).enumerated() {
        let file = folder.file("input\(place).npy")
        try NumPyArray(tensor.view).write(to: file)
        arguments += ["--input", "\(graph[id].name)=\(file)"]
      }
      var original: Outputs?
      for (place, program) in all.enumerated() {
        let outputs = try await Self.outputs(program, arguments, folder)
        if let labels, let first = outputs.arrays.first, Self.place(first) == labels[index] { right[place] += 1 }
        if let original {
          try Self.compare(outputs, original, program, &comparisons[place])
        } else if let expected {
          let each = expected.count / samples.count
          let wanted = Outputs(names: [], arrays: [Array(expected[(index * each)..<((index + 1) * each)])])
          try Self.compare(
            Outputs(names: [], arrays: Array(outputs.arrays.prefix(1))), wanted, program, &comparisons[place])
        }
        if reference != nil, place == 0 { original = outputs }
      }
    }
    return all.indices.map { place in
      var measures = comparisons[place].measures
      if labels != nil {
        measures.insert(.init(kind: .accuracy, value: Double(right[place]) / Double(samples.count)), at: 0)
      }
      measures.append(.init(kind: .count, value: Double(samples.count)))
      return .init(name: all[place].name, bytes: all[place].bytes, measures: measures)
    }
  }

  /// A function with the inputs that the manifest of a program tells, open sizes at their smallest.
  private static func inputs(of program: EvaluatedProgram) throws -> Graph {
    guard let function = program.manifest["functions"]?.array?.first else {
      throw CompileError(.input, "the manifest of '\(program.name)' names no function")
    }
    var builder = GraphBuilder(name: "main", role: "main", symbols: [])
    for input in function["inputs"]?.array ?? [] {
      guard let name = input["name"]?.string, let type = input["type"]?.string.flatMap({ DType(rawValue: $0) }) else {
        throw CompileError(.input, "the manifest of '\(program.name)' has an input without name or type")
      }
      let dims = (input["shape"]?.array ?? []).map { Dim.fixed(min(max($0.int ?? 1, 1), 1 << 30)) }
      _ = builder.input(name, TensorType(type, Shape(dims)))
    }
    return builder.graph
  }

  private static func labels(_ array: NumPyArray, _ count: Int, _ path: String) throws -> [Int] {
    guard array.type.isInteger, array.count == count else {
      throw CompileError(
        .input,
        "'\(path)' has labels of the shape \(array.shape), expected one whole number for each of \(count) samples")
    }
    return array.integers.map { Int($0) }
  }

  private static func outputs(
    _ program: EvaluatedProgram, _ arguments: [String], _ folder: WorkFolder
  ) async throws -> Outputs {
    let file = folder.file("outputs.npz")
    try await program.run(arguments + ["--output", file])
    let archive = try NumPyArchive(path: file)
    return Outputs(names: archive.names, arrays: archive.arrays.map(\.doubles))
  }

  private static func compare(
    _ found: Outputs, _ wanted: Outputs, _ program: EvaluatedProgram, _ comparison: inout OutputComparison
  ) throws {
    guard found.names == wanted.names, found.arrays.map(\.count) == wanted.arrays.map(\.count) else {
      throw CompileError(.usage, "'\(program.name)' gives other outputs than the reference")
    }
    comparison.add(found.arrays.flatMap(\.self), reference: wanted.arrays.flatMap(\.self))
  }

  private static func place(_ values: [Double]) -> Int? { values.indices.max { values[$0] < values[$1] } }
}
