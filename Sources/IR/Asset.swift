/// What a model carries besides numbers.
package enum Asset: Hashable, Sendable {
  case tokenizer(Tokenizer)
  case generation(GenerationSettings)
  /// Names of classes.
  case labels([String])
}

/// How text becomes token ids and back: data read from `tokenizer.json` or a GGUF file.
package struct Tokenizer: Hashable, Codable, Sendable {
  /// How pieces are merged into tokens.
  package enum Algorithm: String, Hashable, Codable, Sendable {
    /// Merges by rank over characters, unknown characters as byte tokens (`<0x41>`): Llama 2 in tokenizer.json.
    case byteFallbackBPE = "byte_fallback_bpe"
    /// Joins the neighbours whose joined piece has the best score: SentencePiece BPE as stored in GGUF.
    case scoredBPE = "scored_bpe"
    /// Merges by rank over bytes shown as characters: GPT-2 and Llama 3.
    case byteLevelBPE = "byte_level_bpe"
    /// The longest token first, inside of a word with `##` before it: BERT (Devlin and others, 2018).
    case wordPiece = "word_piece"
  }

  /// How text is split into words that merges never cross.
  package enum Splitting: String, Hashable, Codable, Sendable {
    case none
    /// The regular expressions of these models, for the byte-level form.
    case gpt2, llama3, qwen2
    /// Before each `▁`.
    case metaspace
  }

  /// How text becomes the words that ``Algorithm/wordPiece`` looks up. Words end at white space; punctuation stands alone.
  package struct Words: Hashable, Codable, Sendable {
    /// Whether control characters are left out.
    package var cleansText = true
    /// Whether ideographs are words of their own.
    package var spacesIdeographs = true
    /// Whether accents are left out: canonical decomposition without nonspacing marks.
    package var stripsAccents = true
    package var lowersCase = true
    /// A word of more characters is unknown.
    package var limit = 100

    package init() {}
  }

  /// Where a space is put before text.
  package enum SpacePrefix: String, Hashable, Codable, Sendable {
    case none
    /// Before each piece of text between tokens that are recognised as a whole.
    case eachPiece = "each_piece"
    /// Only at the start of the text.
    case start
  }

  /// What a token is.
  package enum Kind: Int, Hashable, Codable, Sendable {
    case normal = 1
    case unknown = 2
    /// Stands for no text: not shown when decoding.
    case control = 3
    /// Added to the vocabulary with a plain text of its own, which decoding shows.
    case added = 4
    case unused = 5
    case byte = 6
  }

  package var algorithm: Algorithm
  package var splitting: Splitting = .none
  /// For ``Algorithm/wordPiece`` alone.
  package var words: Words?
  /// The text of each token as the checkpoint spells it: `▁` for a space or byte-level characters; plain text for
  /// `control` and `added` tokens.
  package var tokens: [String] = []
  /// One kind per token.
  package var kinds: [Kind] = []
  /// One score per token for `scoredBPE`, else empty.
  package var scores: [Float] = []
  /// Merges by rank, best first: the ids of the left and the right token, in turn; the result is the token whose text
  /// is both texts joined.
  package var merges: [Int32] = []
  /// Ids of tokens that are recognised in text as a whole, ascending.
  package var specials: [Int] = []
  /// Those of `specials` to which white space before them belongs.
  package var absorbsSpaceBefore: [Int] = []
  /// Those of `specials` to which white space after them belongs.
  package var absorbsSpaceAfter: [Int] = []
  /// Ids put before a text.
  package var prefix: [Int] = []
  /// Ids put behind a text.
  package var suffix: [Int] = []
  package var beginID: Int?
  package var endIDs: [Int] = []
  package var unknownID: Int?
  /// Where a space is put before text.
  package var spacePrefix: SpacePrefix = .none
  /// Whether that space is left out where the text begins with one.
  package var singlePrefix = false
  /// Whether characters without a token become byte tokens.
  package var byteFallback = false
  /// Whether a word that is a token as a whole is not merged from parts.
  package var ignoresMerges = false
  /// Whether neighbouring unknown characters become one unknown token.
  package var fusesUnknown = false
  /// Whether decoding drops one space at the start of the text.
  package var stripsLeadingSpace = false

  package init(algorithm: Algorithm) { self.algorithm = algorithm }
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
