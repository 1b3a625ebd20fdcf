/// How text becomes token ids and back: data read from `tokenizer.json`, `tokenizer.model` or a GGUF file.
///
/// Tokens that are recognised as a whole are cut out of the text; `normalizers` change what is between them; `splitters`
/// cut that into words; the algorithm turns each word into tokens. `decoders` undo that.
package struct Tokenizer: Hashable, Codable, Sendable {
  /// How words become tokens.
  package enum Algorithm: String, Hashable, Codable, Sendable, CaseIterable {
    /// Merges by rank over characters (Sennrich and others, 2016), in the form of Llama 2 with unknown characters as byte
    /// tokens (`<0x41>`).
    case byteFallbackBPE = "byte_fallback_bpe"
    /// Joins the neighbours whose joined piece has the best score: SentencePiece BPE as stored in GGUF.
    case scoredBPE = "scored_bpe"
    /// Merges by rank over bytes shown as characters: GPT-2 and Llama 3. The last splitter is then `bytes`.
    case byteLevelBPE = "byte_level_bpe"
    /// The longest token first, inside of a word with `##` before it: BERT (Devlin and others, 2018).
    case wordPiece = "word_piece"
    /// The tokens with the largest sum of scores (Kudo, 2018).
    case unigram
    /// Each word is a token.
    case wordLevel = "word_level"
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

  /// A token that is recognised in text as a whole.
  package struct Added: Hashable, Codable, Sendable {
    package var id: Int
    /// Whether white space before it belongs to it.
    package var stripsLeft = false
    /// Whether white space after it belongs to it.
    package var stripsRight = false
    /// Whether it is not recognised beside a letter or digit.
    package var singleWord = false
    /// Whether it is looked for, normalized, in normalized text.
    package var normalized = false

    package init(id: Int) { self.id = id }
  }

  package var algorithm: Algorithm
  /// The text of each token as the checkpoint spells it.
  package var tokens: [String] = []
  /// One kind per token.
  package var kinds: [Kind] = []
  /// One score per token for `scoredBPE` and `unigram`, else empty.
  package var scores: [Double] = []
  /// Merges by rank, best first: the ids of the left and the right token, in turn; the result is the token whose text
  /// is both texts joined, without the `mark` of the right one.
  package var merges: [Int32] = []
  /// Tokens that are recognised in text as a whole, by id.
  package var added: [Added] = []
  /// How text is changed before it is split, in order.
  package var normalizers: [Normalizer] = []
  /// How text is cut into words, in order.
  package var splitters: [Splitter] = []
  /// How the texts of tokens become text, in order.
  package var decoders: [TokenDecoder] = []
  /// Ids put before a text.
  package var prefix: [Int] = []
  /// Ids put behind a text.
  package var suffix: [Int] = []
  package var beginID: Int?
  package var endIDs: [Int] = []
  package var unknownID: Int?
  /// What tokens inside of a word begin with: `##`.
  package var mark = ""
  /// What the last token of a word ends with: `</w>`.
  package var endMark = ""
  /// For word pieces: a word of more characters is unknown.
  package var wordLimit = 100
  /// Whether what has no token becomes byte tokens.
  package var byteFallback = false
  /// Whether a word that is a token as a whole is not merged from parts.
  package var ignoresMerges = false
  /// Whether neighbouring unknown characters become one unknown token.
  package var fusesUnknown = false

  package init(algorithm: Algorithm) { self.algorithm = algorithm }

  /// Ids of tokens that are recognised in text as a whole.
  package var specials: [Int] { added.map(\.id) }
}

extension Tokenizer {
  /// What is looked for in text.
  package struct Pattern: Hashable, Codable, Sendable {
    /// The scanners of generated programs. Those without comment are the expressions of these models.
    package enum Rule: String, Hashable, Codable, Sendable, CaseIterable {
      /// A plain text.
      case text
      /// Characters of one set.
      case run
      /// `\w+|[^\w\s]+`.
      case words
      case gpt2, llama3, qwen2, qwen35, o200k, tekken, deepseek3, clip
      /// `clip` without the tokens around a text.
      case clipWords = "clip_words"
    }

    package var rule: Rule
    package var text: String?
    package var run: Run?

    /// Looks for a plain text.
    package init(text: String) {
      rule = .text
      self.text = text
    }

    /// Looks for what a scanner finds.
    package init(_ rule: Rule) { self.rule = rule }

    /// Looks for characters of one set.
    package init(_ run: Run) {
      rule = .run
      self.run = run
    }
  }

  /// A run of characters of one set.
  package struct Run: Hashable, Codable, Sendable {
    /// A class of characters; what each holds is said in `Runtime/unicode_classes.h`, which has them in this order.
    package enum Class: String, Hashable, Codable, Sendable, CaseIterable {
      case upper, lower, letter, mark, number, punctuation, symbol, space, delimiter, numeric, word, nonspacing
      case removed, accent, decimal, identifier
    }

    /// What may stand before the run.
    package enum Lead: String, Hashable, Codable, Sendable, CaseIterable {
      case none
      /// One U+0020.
      case space
      /// One character of white space.
      case white
    }

    package var lead = Lead.none
    /// The least number of characters.
    package var least = 1
    /// The largest number of characters; 0: any.
    package var most = 1
    /// Whether the set is what is not in classes and ranges.
    package var negated = false
    /// Whether the run must end with the text.
    package var atEnd = false
    package var classes: [Class] = []
    /// The first and the last character of each range, in turn.
    package var ranges: [Int] = []

    package init(_ classes: Class...) { self.classes = classes }
  }

  /// A change of text.
  package struct Normalizer: Hashable, Codable, Sendable {
    package enum Kind: String, Hashable, Codable, Sendable, CaseIterable {
      case nfc, nfd, nfkc, nfkd, lowercase
      case stripAccents = "strip_accents"
      /// Control characters and spaces as in neural translation.
      case nmt
      /// Cleaning, ideographs, accents and case as in BERT.
      case bert
      /// White space, or `text` again and again, at the start and at the end.
      case strip
      /// What `pattern` finds by `text`.
      case replace
      /// `text` before text that is not empty.
      case prepend
      /// The map of SentencePiece in `text`, in base 64.
      case charsmap
      /// Bytes as the characters by which GPT-2 shows them.
      case bytes
    }

    /// What ``Kind/bert`` does.
    package struct Bert: Hashable, Codable, Sendable {
      package var cleansText = true
      package var spacesIdeographs = true
      package var stripsAccents = true
      package var lowersCase = true

      package init() {}
    }

    package var kind: Kind
    package var text: String?
    package var pattern: Pattern?
    package var bert: Bert?
    /// For ``Kind/strip``.
    package var left = false
    package var right = false
    /// For ``Kind/prepend``: whether only text at the very start gets it.
    package var onlyFirst = false
    /// For ``Kind/charsmap``: whether whole graphemes are looked up, else the longest key.
    package var byGraphemes = false

    package init(_ kind: Kind) { self.kind = kind }
  }

  /// A step of cutting text into words.
  package struct Splitter: Hashable, Codable, Sendable {
    package enum Kind: String, Hashable, Codable, Sendable, CaseIterable {
      /// At what `pattern` finds.
      case split
      /// Spaces become `text`, which is also put before the text as `prefix` says.
      case spaces
      /// A space is put before text that does not begin with one.
      case spacePrefix = "space_prefix"
      /// Bytes as the characters by which GPT-2 shows them.
      case bytes
    }

    /// What becomes of what was found.
    package enum Behavior: String, Hashable, Codable, Sendable, CaseIterable {
      case isolated, removed
      case withPrevious = "with_previous"
      case withNext = "with_next"
      case contiguous
    }

    /// Which words ``Kind/spaces`` puts its text before, unless they begin with it.
    package enum Prefix: String, Hashable, Codable, Sendable, CaseIterable { case never, first, always }

    package var kind: Kind
    package var pattern: Pattern?
    package var behavior = Behavior.isolated
    /// Whether what is not found counts as found, and the other way round.
    package var inverted = false
    package var text: String?
    package var prefix = Prefix.never

    package init(_ kind: Kind) { self.kind = kind }

    package init(_ pattern: Pattern, _ behavior: Behavior, inverted: Bool = false) {
      kind = .split
      self.pattern = pattern
      self.behavior = behavior
      self.inverted = inverted
    }
  }

  /// A step from the texts of tokens to text.
  package struct TokenDecoder: Hashable, Codable, Sendable {
    package enum Kind: String, Hashable, Codable, Sendable, CaseIterable {
      /// Joins all, and reads the characters by which GPT-2 shows bytes.
      case bytes
      /// `<0x0A>` is a byte; runs of bytes that are no UTF-8 become U+FFFD, one for each.
      case byteTokens = "byte_tokens"
      /// `text` is a space; with `flag` it is left out of the first token.
      case spaces
      /// A space before each token but the first, unless it begins with `text`, which is left out; with `flag` some
      /// spaces before punctuation are left out.
      case wordPieces = "word_pieces"
      /// Joins all.
      case fuse
      /// At most `left` times `text` at the start, `right` times at the end.
      case strip
      /// `text` by `content`.
      case replace
      /// `text` is a space, but not in the last token.
      case wordEnds = "word_ends"
      /// A space before each token but the first.
      case separate
    }

    package var kind: Kind
    package var text: String?
    package var content: String?
    package var flag = false
    package var left = 0
    package var right = 0

    package init(_ kind: Kind, text: String? = nil) {
      self.kind = kind
      self.text = text
    }
  }
}
