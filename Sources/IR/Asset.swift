/// What a model carries besides numbers.
package enum Asset: Hashable, Sendable {
  case tokenizer(Tokenizer)
  case generation(GenerationSettings)
  /// Names of classes.
  case labels([String])
}

/// How a language model is sampled when the command line does not say; from `generation_config.json`.
package struct GenerationSettings: Hashable, Codable, Sendable {
  /// Whether tokens are drawn; false means the likeliest token is taken.
  package var samples = false
  @Exact package var temperature: Float = 1
  package var topK = 0
  @Exact package var topP: Float = 1
  @Exact package var repeatPenalty: Float = 1
  /// Ids that end a text.
  package var endIDs: [Int] = []
  package var beginID: Int?

  package init() {}
}
