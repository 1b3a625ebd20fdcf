import Base
import IR
import Passes
import Tensors

extension FrontendOptions {
  /// The windows that passes read where they do not say it.
  private static let usualSamples = 64
  private static let usualLength = 512
  /// Of a long text so many times the tokens that are needed are read, to spread windows over them.
  private static let spread = 8

  /// Reads the texts that passes calibrate on, with the tokenizer of the model at `path`; to be called before the
  /// passes run.
  ///
  /// - Throws: `CompileError` if a text cannot be read or the model has no tokenizer, of kind `.usage` for less than a window
  ///   or a token.
  package mutating func readTexts(for path: String) async throws {
    var wanted: [(path: String, most: Int)] = []
    for case let pass as any TokenSampled in pipeline?.passes ?? [] where !pass.text.isEmpty {
      for case (let option, let count?) in [("samples", pass.samples), ("length", pass.length)] where count < 1 {
        throw CompileError(.usage, "'\(option)' of the pass '\(pass.name)' is \(count), expected at least 1")
      }
      wanted.append((pass.text, Self.most(pass.samples, pass.length)))
    }
    if pipeline == nil, let calibration { wanted.append((calibration.samples, Self.most(calibration.count, nil))) }
    wanted = try wanted.filter { try !CalibrationSamples.isArchive($0.path) }
    guard !wanted.isEmpty else { return }
    let model = try ModelLoader.load(path, load)
    for (path, most) in wanted where texts[path].map({ $0.ids.count < most }) ?? true {
      texts[path] = try await TokenText(path, model, most: most)
    }
  }

  private static func most(_ count: Int?, _ length: Int?) -> Int {
    let tokens = (count ?? usualSamples).multipliedReportingOverflow(by: length ?? usualLength)
    return tokens.overflow || tokens.partialValue > 1 << 28 ? 1 << 31 : tokens.partialValue * spread
  }

  /// The samples for a pass, for each function of the model; see `PassContext.tokenSamples`.
  static func windows(
    _ path: String, _ count: Int?, _ length: Int?, _ model: Model, _ texts: [String: TokenText]
  ) throws -> [[FunctionInputs]] {
    guard let function = model.functions.first else { throw CompileError(.input, "'\(model.name)' has no function") }
    let isArchive = try CalibrationSamples.isArchive(path)
    guard CalibrationSamples.takesTokens(function) else {
      guard isArchive else {
        throw CompileError(
          .usage, "'\(model.name)' does not read text; '\(path)' is no archive of inputs (.npy, .npz)")
      }
      guard model.functions.count == 1 else {
        throw CompileError(
          .unsupported,
          "'@\(function.name)' of '\(model.name)' does not read text, and samples are for models of one function then")
      }
      let samples = try TensorArchives.samples(path, of: function)
      return [samples.prefix(count ?? samples.count).map { FunctionInputs(inputs: $0) }]
    }
    let limit = function.type(of: function.inputs[0]).shape.maximumSizes.first ?? 1
    if let length, length > limit {
      throw CompileError(.usage, "windows of \(length) tokens do not fit into the context of \(limit)")
    }
    let each = length ?? min(usualLength, limit)
    let runs: [[Int32]]
    if isArchive {
      let windows = try CalibrationSamples.ids(path, for: model).flatMap { row in
        stride(from: 0, to: row.count, by: each).map { Array(row[$0..<min($0 + each, row.count)]) }
      }
      if let count, windows.count < count {
        throw CompileError(.input, "'\(path)' has \(windows.count) windows of \(each) ids, expected \(count)")
      }
      runs = Array(windows.prefix(count ?? usualSamples))
    } else {
      guard let text = texts[path] else { throw CompileError(.usage, "the text '\(path)' is not read by this command") }
      runs = try windows(path, text, count, each)
    }
    return try CalibrationSamples.inputs(runs, of: model, path)
  }

  /// The windows of a text; at least one must be full.
  private static func windows(_ path: String, _ text: TokenText, _ count: Int?, _ each: Int) throws -> [[Int32]] {
    guard text.lines != nil else {
      let needed = count ?? 1
      guard text.windowCount(length: each) >= needed else {
        let around = each - text.step(each)
        throw CompileError(
          .input,
          "'\(path)' has \(text.ids.count) tokens, but \(needed) \(needed == 1 ? "window" : "windows") of \(each) "
            + "\(needed == 1 ? "takes" : "take") \(needed * text.step(each))"
            + (around > 0 ? ", besides \(around) that the tokenizer puts into each" : ""))
      }
      return text.spread(count: count ?? usualSamples, length: each)
    }
    guard text.ids.count >= text.step(each) else {
      throw CompileError(
        .input, "the lines of '\(path)' have \(text.ids.count) tokens, at least \(text.step(each)) are needed")
    }
    if let count, text.windowCount(length: each) < count {
      throw CompileError(
        .input, "the lines of '\(path)' give \(text.windowCount(length: each)) samples, expected \(count)")
    }
    return text.spread(
      count: count ?? text.windowCount(holding: usualSamples * usualLength, length: each), length: each)
  }
}
