import Base
import Formats
import IR
import Tensors

/// How what passes do is checked (`--check`).
package struct CheckOptions: Sendable {
  /// A file with inputs beside the made-up ones: samples by the names of the inputs, or token ids.
  package var inputs: String?
  /// The largest mean KL divergence of next tokens from the model as it was read.
  package var maximumDivergence: Double?
  /// The largest relative error of an output from that of the model as it was read.
  package var maximumError: Double?
  /// Whether models of any size are checked.
  package var checksLarge = false

  package init() {}

  /// At most so many samples of a file are run.
  static let sampleLimit = 8

  /// What compares models.
  func certifier() -> Certifier {
    var options = Certifier.Options()
    options.maximumDivergence = maximumDivergence
    options.maximumError = maximumError
    if checksLarge { options.memoryLimit = nil }
    if let path = inputs { options.inputs = { try Self.inputs(path, of: $0) } }
    return Certifier(options)
  }

  /// The inputs of a function that a file gives: token ids where it takes tokens, else samples for the function that has them.
  private static func inputs(_ path: String, of graph: Graph) throws -> [FunctionInputs] {
    let names = graph.inputs.map { graph[$0].name }
    if names.contains("tokens") { return try tokens(path, of: graph, names).map { [$0] } ?? [] }
    guard graph.role == nil || graph.role == "main" else { return [] }
    let samples = try TensorArchives.samples(path, of: graph)
    guard !samples.isEmpty else { throw CompileError(.input, "'\(path)' holds no samples") }
    return samples.prefix(sampleLimit).map { inputs in
      FunctionInputs(
        inputs: inputs,
        symbols: FunctionInputs.sizes(for: graph).filter { symbol, _ in
          !graph.inputs.contains {
            graph.type(of: $0).shape.dims.contains { $0.symbols.contains { $0.name == symbol } }
          }
        })
    }
  }

  /// One call on all ids of a file, as far as the function takes them.
  private static func tokens(_ path: String, of graph: Graph, _ names: [String]) throws -> FunctionInputs? {
    guard names.allSatisfy({ $0 == "tokens" || $0 == "position" }) else { return nil }
    let archive = try NumPyArchive(path: path)
    let index = ["tokens", "ids"].lazy.compactMap { archive.names.firstIndex(of: $0) }.first
    guard let index = index ?? (archive.arrays.count == 1 ? 0 : nil), archive.arrays[index].type.isInteger else {
      throw CompileError(.input, "'\(path)' has no array 'tokens' of whole numbers")
    }
    let longest = graph.symbols.first { $0.name == "T" }?.maximum ?? 1
    let ids = try archive.arrays[index].integers.prefix(longest).map { id in
      guard let id = Int32(exactly: id) else {
        throw CompileError(.input, "'\(path)' has the id \(id), which no token has")
      }
      return id
    }
    guard !ids.isEmpty else { throw CompileError(.input, "'\(path)' holds no token ids") }
    return FunctionInputs(
      inputs: names.map { $0 == "tokens" ? Tensor(.i32, [ids.count], ids) : Tensor(.i32, [1], [Int32(0)]) },
      symbols: FunctionInputs.sizes(for: graph, ids.count))
  }
}
