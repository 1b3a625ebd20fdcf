import Base
import IR

extension Tokenizer {
  /// Reads a `tokenizer.json` with the model `WordPiece`: the normalizer `BertNormalizer`, the pre-tokenizer
  /// `BertPreTokenizer`, and a template of one token before and after the text. Everything else is refused by name.
  init(wordPieces json: JSONField, config: JSONField?, vocabulary: Int, limits: LoadLimits) throws {
    let model = json["model"]
    let mark = try model["continuing_subword_prefix"].string(or: "##")
    guard mark == "##" else {
      throw json.unsupported("'model.continuing_subword_prefix' '\(mark)' in a tokenizer, only '##'")
    }
    self.init(algorithm: .wordPiece)
    var words = try Self.words(json["normalizer"], of: json)
    words.limit =
      try model["max_input_chars_per_word"].exists
      ? model["max_input_chars_per_word"].int(in: 1...1 << 20) : 100
    self.words = words
    let splitter = try json["pre_tokenizer"]["type"].string()
    guard splitter == "BertPreTokenizer" else {
      throw json.unsupported("the pre-tokenizer '\(splitter)' of word pieces")
    }
    if json["decoder"].exists {
      let decoder = try json["decoder"]["type"].string()
      guard decoder == "WordPiece", try json["decoder"]["prefix"].string(or: mark) == mark else {
        throw json.unsupported("the decoder '\(decoder)' of word pieces")
      }
    }
    for entry in try json["added_tokens"].optionalElements() ?? [] where try entry["normalized"].bool(or: false) {
      throw json.unsupported("the added token '\(try entry["content"].string())' with 'normalized'")
    }
    var index = try readVocabulary(model, vocabulary: vocabulary, limits: limits)
    try readAddedTokens(json, &index, vocabulary: vocabulary, limits: limits)
    try readUnknown(json, index)
    try readTemplate(TokenizerPipeline(template: json), config)
    beginID = prefix.first
    endIDs = suffix
  }

  private static func words(_ normalizer: JSONField, of json: JSONField) throws -> Words {
    let kind = normalizer.exists ? try normalizer["type"].string() : "none"
    guard kind == "BertNormalizer" else { throw json.unsupported("the normalizer '\(kind)' of word pieces") }
    var words = Words()
    words.cleansText = try normalizer["clean_text"].bool(or: true)
    words.spacesIdeographs = try normalizer["handle_chinese_chars"].bool(or: true)
    words.lowersCase = try normalizer["lowercase"].bool(or: true)
    words.stripsAccents = try normalizer["strip_accents"].bool(or: words.lowersCase)
    return words
  }
}
