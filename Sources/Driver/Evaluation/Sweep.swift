import Base
import CodeGen
import IR

/// Compiles a model by several recipes and judges each: quality against size and speed.
package struct Sweep {
  /// What was found of one recipe.
  package struct Row: Hashable, Sendable {
    /// The quantization, or `original`.
    package var recipe: String
    /// Bits of a weight of the linear layers and convolutions, scales included.
    package var bitsPerWeight: Double?
    /// Tokens per second, one after the other; nil for what is no model of language.
    package var speed: Double?
    package var result: ModelEvaluation.Result
  }

  package var evaluation = ModelEvaluation()
  package var recipes: [QuantizationSpec] = []
  /// Whether programs are timed.
  package var measuresSpeed = true

  package init() {}

  /// The original first, then a row per recipe, in order.
  package func run(_ model: String, on input: ModelEvaluation.Input) async throws -> [Row] {
    let progress = Progress()
    defer { progress.clear() }
    let folder = try WorkFolder()
    var paths: [String] = [], bits: [Double?] = []
    let names = ["original"] + recipes.map(\.description)
    for (index, name) in names.enumerated() {
      progress.update("compiling \(name)", done: index, of: names.count)
      var options = CompileOptions()
      options.frontend = index == 0 ? ModelEvaluation.exact(evaluation.options) : evaluation.options
      if index > 0 {
        let recipe = recipes[index - 1]
        options.frontend.quantization = recipe
        options.frontend.load.cacheType = recipe.cacheType ?? options.frontend.load.cacheType
      }
      try await options.frontend.readTexts(for: model)
      let path = folder.file("\(index)")
      options.output = path
      var compiler = Compiler(options)
      bits.append(try await compiler.compile(model).bitsPerWeight?.average)
      paths.append(path)
    }
    var results = try await evaluation.run(Array(paths.dropFirst()), reference: paths[0], on: input)
    var rows: [Row] = []
    for index in results.indices {
      results[index].name = names[index]
      progress.update("timing \(names[index])", done: index, of: names.count)
      let speed = measuresSpeed ? try await Self.speed(paths[index]) : nil
      rows.append(Row(recipe: names[index], bitsPerWeight: bits[index], speed: speed, result: results[index]))
    }
    return rows
  }

  /// Tokens per second of a program that decodes.
  private static func speed(_ path: String) async throws -> Double? {
    let answer = try await ChildProcess.run(
      path, ["bench", "--prefill", "0", "--decode", "32", "--repeat", "3", "--json"])
    guard answer.succeeded else { return nil }
    return try JSON.parse(answer.output, file: path)["decode_tokens_per_second"]?.double
  }
}
