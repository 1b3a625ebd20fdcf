import Base

/// A pass that runs a model of language on windows of a text or of token ids.
package protocol TokenSampled: Pass {
  /// The file.
  var text: String { get }
  /// Windows; nil for the usual number.
  var samples: Int? { get }
  /// Tokens of a window; nil for the usual number.
  var length: Int? { get }
}

extension TokenSampled {
  /// The windows for the pass on a model of one function; `purpose` says what is done on them. Where no number is given,
  /// at most `usual`, spread over the text.
  ///
  /// - Throws: `CompileError` of kind `.usage` where samples cannot be read, `.unsupported` for models of several
  ///   functions, `.input` if there are none.
  package func windows(
    for model: Model, _ context: PassContext, _ purpose: String, usual: Int? = nil
  ) throws -> [FunctionInputs] {
    guard model.functions.count == 1 else {
      throw CompileError(.unsupported, "\(purpose) for models of one function, found \(model.functions.count)")
    }
    return try windows(for: model, context, usual: usual)[0]
  }

  /// The windows for the pass, for each function of the model; equally many for all. Where no number is given, at most
  /// `usual`, spread over the text.
  ///
  /// - Throws: `CompileError` of kind `.usage` where samples cannot be read, `.input` if there are none.
  package func windows(
    for model: Model, _ context: PassContext, usual: Int? = nil
  ) throws -> [[FunctionInputs]] {
    guard let read = context.tokenSamples else {
      throw CompileError(.usage, "samples cannot be read here", notes: ["the pass '\(name)' needs 'mcc'"])
    }
    let runs = try read(text, samples, length, model)
    guard runs.count == model.functions.count, let count = runs.first?.count, runs.allSatisfy({ $0.count == count })
    else { throw CompileError(.internal, "samples for \(runs.count) of \(model.functions.count) functions") }
    guard count > 0 else { throw CompileError(.input, "'\(text)' holds no samples") }
    guard samples == nil, let usual else { return runs }
    return runs.map { $0.spread(usual) }
  }
}
