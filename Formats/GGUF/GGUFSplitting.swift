import IR

extension Tokenizer {
  /// The splitters that a value of `tokenizer.ggml.pre` stands for, as llama.cpp has them; nil for an unknown one.
  ///
  /// Each expression cuts what the one before it left; what it finds and what is between are words.
  static func splitters(pre: String) -> [Splitter]? {
    guard let expressions = expressions(pre: pre) else { return nil }
    let patterns = expressions.compactMap { Pattern(expression: $0) }
    guard patterns.count == expressions.count else { return nil }
    return patterns.map { Splitter($0, .isolated) }
  }

  private static let gpt2 = #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#
  private static let llama3 =
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
  private static let qwen2 =
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
  private static let o200k =
    #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
  private static let tekken =
    #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
  private static let deepseek3 =
    ##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##
  private static let bloom = #" ?[^(\s|.,!?…。，、।۔،)]+"#

  private static func expressions(pre: String) -> [String]? {
    switch pre {
    case "default": [#"[\p{P}\$\+<=>\^~\|]+"#, gpt2, #"\p{N}+"#, "[0-9][0-9][0-9]"]
    case "gpt-2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe", "gigachat", "jina-es", "jina-de", "jina-v1-en",
      "jina-v2-es", "jina-v2-de", "trillion", "granite-docling":
      [gpt2]
    case "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "smaug-bpe", "dbrx",
      "chatglm-bpe", "glm4":
      [llama3]
    case "qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan": [qwen2]
    case "starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b": [#"\p{N}"#, gpt2]
    case "falcon": [#"[\p{P}\$\+<=>\^~\|`]+"#, gpt2, "[0-9][0-9][0-9]"]
    case "deepseek-coder": [#"[\r\n]"#, #"\s?\p{L}+"#, #"\s?\p{P}+"#, "[一-龥ࠀ-一가-퟿]+", #"\p{N}"#]
    case "deepseek-v3": [#"\p{N}{1,3}"#, "[一-龥぀-ゟ゠-ヿ]+", deepseek3]
    case "gpt-4o", "llama4": [o200k]
    case "tekken": [tekken]
    case "bloom", "poro-chat", "gpt3-finnish": [bloom]
    case "viking": [bloom, #"\p{N}"#]
    default: nil
    }
  }

  /// Values of `tokenizer.ggml.pre` with which a word that is a token as a whole is not merged from parts.
  static let wholeWords: Set<String> = [
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken",
  ]

  /// Values of `tokenizer.ggml.pre` with which a text begins with the first token unless the file says otherwise.
  static let beginning: Set<String> = [
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken",
  ]
}
