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

  /// How weights are rounded.
  package enum Recipe: Hashable, Sendable, CustomStringConvertible {
    /// All layers alike.
    case spec(QuantizationSpec)
    /// Each layer in a format of its own, with so many bits on average.
    case bits(Double)
    /// The same, with weights, scales and tokenizer in so many bytes at most.
    case size(Int)

    package var description: String {
      switch self {
      case .spec(let spec): spec.description
      case .bits(let bits): "\(bits) bits"
      case .size(let bytes): "\(bytes) bytes"
      }
    }

    /// Reads a quantization such as `w4g32`, a number of bits, or a size such as `4MB`.
    ///
    /// - Throws: `CompileError` of kind `.usage`.
    package init(parsing text: String) throws {
      guard let bits = Double(text) else {
        if text.first?.isNumber ?? false, case .bytes(let bytes) = try QuantizationBudget(parsingSize: text) {
          self = .size(bytes)
          return
        }
        self = .spec(try QuantizationSpec(parsing: text))
        return
      }
      guard bits > 0, bits <= 16 else { throw CompileError(.usage, "a recipe has \(text) bits, expected up to 16") }
      self = .bits(bits)
    }
  }

  package var evaluation = ModelEvaluation()
  package var recipes: [Recipe] = []
  /// Whether programs are timed.
  package var measuresSpeed = true

  package init() {}

  /// The original first, then a row per recipe, in order.
  package func run(_ model: String, on input: ModelEvaluation.Input) async throws -> [Row] {
    let progress = Progress()
    defer { progress.clear() }
    let folder = try WorkFolder()
    var rounded = evaluation.options
    try await rounded.readTexts(for: model)
    var paths: [String] = [], bits: [Double?] = []
    let names = ["original"] + recipes.map(\.description)
    for (index, name) in names.enumerated() {
      progress.update("compiling \(name)", done: index, of: names.count)
      var options = CompileOptions()
      options.frontend = index == 0 ? ModelEvaluation.exact(evaluation.options) : rounded
      if index > 0 {
        switch recipes[index - 1] {
        case .spec(let spec):
          options.frontend.quantization = spec
          options.frontend.load.cacheType = spec.cacheType ?? options.frontend.load.cacheType
        case .bits(let bits): options.frontend.budget = .bits(bits)
        case .size(let bytes): options.frontend.budget = .bytes(bytes)
        }
      }
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
