import Base
import Formats
import IR
import Tensors
import TestSupport
import Testing

/// Encoders of the BERT family: what their files say is honoured, or refused by name.
@Suite struct BertTests {
  /// A BERT of width 4 with one block, and a folder of sentence-transformers around it.
  private static let bert: TinyCheckpoint = {
    var checkpoint = TinyCheckpoint()
    checkpoint.config = JSONObject(
      [
        ("architectures", ["BertModel"]), ("model_type", "bert"), ("hidden_size", 4), ("intermediate_size", 6),
        ("num_hidden_layers", 1), ("num_attention_heads", 2), ("vocab_size", 8), ("max_position_embeddings", 16),
        ("type_vocab_size", 2), ("layer_norm_eps", 1e-12), ("hidden_act", "gelu"), ("pad_token_id", 0),
        ("attention_probs_dropout_prob", 0.1), ("hidden_dropout_prob", 0.1), ("is_decoder", false),
        ("position_embedding_type", "absolute"),
      ] as [(String, JSON)])
    let block = "encoder.layer.0."
    checkpoint.tensors = [
      ("embeddings.word_embeddings.weight", [8, 4]), ("embeddings.position_embeddings.weight", [16, 4]),
      ("embeddings.token_type_embeddings.weight", [2, 4]), ("embeddings.LayerNorm.weight", [4]),
      ("embeddings.LayerNorm.bias", [4]),
      (block + "attention.self.query.weight", [4, 4]), (block + "attention.self.query.bias", [4]),
      (block + "attention.self.key.weight", [4, 4]), (block + "attention.self.key.bias", [4]),
      (block + "attention.self.value.weight", [4, 4]), (block + "attention.self.value.bias", [4]),
      (block + "attention.output.dense.weight", [4, 4]), (block + "attention.output.dense.bias", [4]),
      (block + "attention.output.LayerNorm.gamma", [4]), (block + "attention.output.LayerNorm.beta", [4]),
      (block + "intermediate.dense.weight", [6, 4]), (block + "intermediate.dense.bias", [6]),
      (block + "output.dense.weight", [4, 6]), (block + "output.dense.bias", [4]),
      (block + "output.LayerNorm.weight", [4]), (block + "output.LayerNorm.bias", [4]),
      ("pooler.dense.weight", [4, 4]), ("pooler.dense.bias", [4]),
    ]
    return checkpoint
  }()

  private static let modules = """
    [{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
     {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
     {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]
    """

  private func load(
    _ changes: [(String, JSON?)] = [], files: [String: String] = [:], _ options: LoadOptions = LoadOptions()
  ) throws -> Model {
    var checkpoint = Self.bert
    for (key, value) in changes { checkpoint.config[key] = value }
    checkpoint.files = files.filter { !$0.key.contains("/") }
    let folder = try checkpoint.write()
    for (name, text) in files where name.contains("/") {
      let inner = folder.path(String(name.prefix { $0 != "/" }))
      _ = try Command.run("/bin/mkdir", ["-p", inner])
      try folder.write(name, text)
    }
    return try folder.load(options)
  }

  private func embeddingOps(_ model: Model) throws -> [String] {
    let graph = try #require(model.function(role: "encode"))
    return graph.topologicalOrder().filter { graph[$0].origin?.text == "pooling" }.map { graph[$0].op.name }
  }

  @Test func readsAnEncoder() throws {
    let model = try load()
    let graph = try #require(model.function(role: "encode"))
    #expect(graph.inputs.map { graph[$0].name } == ["tokens"])
    #expect(graph.outputNames == ["output", "embedding"])
    #expect(graph.symbols.map(\.maximum) == [16])
    #expect(model[metadata: "context"] == "16" && model[metadata: "vocabulary"] == "8")
    // Without modules.json the embedding is the mean of the hidden states.
    #expect(try embeddingOps(model) == ["reduce", "reshape"])
    let attention = graph.nodeIDs.compactMap { graph[$0].op as? Attention }
    #expect(
      attention.map(\.heads) == [2] && attention.allSatisfy { !$0.causal && $0.scale == 1 / Float(2).squareRoot() })
  }

  @Test func readsTheModulesOfSentenceTransformers() throws {
    let files = [
      "modules.json": Self.modules, "sentence_bert_config.json": #"{"max_seq_length": 12, "do_lower_case": false}"#,
      "1_Pooling/config.json": #"{"word_embedding_dimension": 4, "pooling_mode_mean_tokens": true}"#,
    ]
    let model = try load(files: files)
    #expect(model.function(role: "encode")?.symbols.map(\.maximum) == [12])
    #expect(try embeddingOps(model).contains("divide"))
    #expect(try load(files: files, LoadOptions(context: 16)).function(role: "encode")?.symbols.map(\.maximum) == [16])
    let first = files.merging(["1_Pooling/config.json": #"{"pooling_mode": "cls"}"#]) { $1 }
    #expect(try embeddingOps(load(files: first)).contains("slice"))
    expectFailure(.usage, "a context of 17, but the checkpoint allows 1 to 16") {
      _ = try load(LoadOptions(context: 17))
    }
  }

  private func load(_ options: LoadOptions) throws -> Model { try load([], files: [:], options) }

  @Test(
    arguments: [
      ("hidden_act", "prelu", "'hidden_act' 'prelu'"), ("position_embedding_type", "relative_key", "'relative_key'"),
      ("is_decoder", true, "'is_decoder'"), ("add_cross_attention", true, "'add_cross_attention'"),
      ("embedding_size", 128, "'embedding_size'"), ("quantization_config", ["bits": 8], "'quantization_config'"),
      ("architectures", ["BertForQuestionAnswering"], "unknown architecture 'BertForQuestionAnswering'"),
    ] as [(String, JSON, String)])
  func refusesAsUnsupported(key: String, value: JSON, message: String) {
    expectFailure(.unsupported, message, "config.json") { _ = try load([(key, value)]) }
  }

  @Test(
    arguments: [
      ("hidden_size", nil, "missing 'hidden_size'"), ("num_attention_heads", 3, "3 attention heads do not divide"),
      ("type_vocab_size", 3, "token_type_embeddings.weight' has shape [2, 4], expected [3, 4]"),
      ("max_position_embeddings", 8, "position_embeddings.weight' has shape"),
      ("layer_norm_eps", 2.0, "expected 0 to 1"),
      ("num_hidden_layers", 2, "missing tensor 'encoder.layer.1.attention.self.query.weight'"),
    ] as [(String, JSON?, String)])
  func refuses(key: String, value: JSON?, message: String) {
    expectFailure(.input, message, "/") { _ = try load([(key, value)]) }
  }

  @Test(
    arguments: [
      ("modules.json", #"[{"path": "", "type": "a.Transformer"}]"#, "without pooling"),
      (
        "modules.json", #"[{"path": "", "type": "a.Transformer"}, {"path": "2_Dense", "type": "a.Dense"}]"#,
        "the module 'a.Dense' at 1"
      ), ("modules.json", #"[{"path": "0_T", "type": "a.Transformer"}]"#, "the module 'a.Transformer' at 0"),
      ("1_Pooling/config.json", #"{"pooling_mode_weightedmean_tokens": true}"#, "'pooling_mode_weightedmean_tokens'"),
      ("1_Pooling/config.json", #"{"pooling_mode": "weightedmean"}"#, "'weightedmean'"),
      (
        "1_Pooling/config.json", #"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}"#,
        "a pooling of 2 kinds"
      ), ("sentence_bert_config.json", #"{"do_lower_case": true}"#, "'do_lower_case'"),
    ])
  func refusesModules(file: String, text: String, message: String) {
    var files = [
      "modules.json": Self.modules, "1_Pooling/config.json": #"{"pooling_mode_mean_tokens": true}"#,
    ]
    files[file] = text
    expectFailure(.unsupported, message, "json") { _ = try load(files: files) }
  }

  @Test func refusesPathsOutOfTheFolder() {
    let modules = #"[{"path": "", "type": "a.Transformer"}, {"path": "..", "type": "a.Pooling"}]"#
    expectFailure(.input, "path '..' is no plain name") { _ = try load(files: ["modules.json": modules]) }
  }

  // MARK: Word pieces

  private static let wordPieces: JSON = [
    "added_tokens": [
      ["id": 0, "content": "[UNK]", "special": true, "normalized": false],
      ["id": 1, "content": "[CLS]", "special": true, "normalized": false],
      ["id": 2, "content": "[SEP]", "special": true, "normalized": false],
    ],
    "normalizer": ["type": "BertNormalizer", "lowercase": true, "strip_accents": nil],
    "pre_tokenizer": ["type": "BertPreTokenizer"],
    "post_processor": ["type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]],
    "decoder": ["type": "WordPiece", "prefix": "##"],
    "model": [
      "type": "WordPiece", "unk_token": "[UNK]", "max_input_chars_per_word": 30,
      "vocab": ["[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "##a": 4],
    ],
  ]

  private func tokenizer(_ json: JSON) throws -> Tokenizer {
    var checkpoint = Self.bert
    checkpoint.tokenizer = json
    return try #require(try checkpoint.write().load().tokenizer)
  }

  @Test func readsWordPieces() throws {
    let found = try tokenizer(Self.wordPieces)
    #expect(found.algorithm == .wordPiece && found.tokens == ["[UNK]", "[CLS]", "[SEP]", "a", "##a"])
    #expect(found.prefix == [1] && found.suffix == [2] && found.unknownID == 0 && found.specials == [0, 1, 2])
    #expect(found.wordLimit == 30 && found.mark == "##")
    #expect(found.normalizers.map(\.bert) == [Tokenizer.Normalizer.Bert()])
    #expect(found.splitters.map(\.behavior) == [.removed, .isolated] && found.decoders.map(\.kind) == [.wordPieces])
    let cased = try tokenizer(Self.wordPieces.setting("normalizer", "lowercase", to: false))
    #expect(cased.normalizers[0].bert?.lowersCase == false && cased.normalizers[0].bert?.stripsAccents == false)
  }

  @Test(
    arguments: [
      (["normalizer", "type"], "Odd", "the normalizer 'Odd'"),
      (["pre_tokenizer", "type"], "UnicodeScripts", "the pre-tokenizer 'UnicodeScripts'"),
      (["decoder", "type"], "CTC", "the decoder 'CTC'"),
      (["normalizer", "colour"], 1, "the setting 'colour' of 'BertNormalizer'"),
    ] as [([String], JSON, String)])
  func refusesTokenizers(path: [String], value: JSON, message: String) {
    let json =
      path.count == 1
      ? Self.wordPieces.setting(path[0], to: value) : Self.wordPieces.setting(path[0], path[1], to: value)
    expectFailure(.unsupported, message, "tokenizer.json") { _ = try tokenizer(json) }
  }
}
