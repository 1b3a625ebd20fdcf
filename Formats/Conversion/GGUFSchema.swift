import Base
import IR
import Tensors

/// How an architecture of GGUF and one of Hugging Face name the same network.
///
/// Tables instead of code, so that a checkpoint is converted in both directions from one place. Names of tensors hold `{}`
/// for the number of a layer.
struct GGUFSchema: Sendable {
  /// A hyper-parameter in both namings.
  struct Key: Sendable {
    enum Kind: Sendable { case int, float, bool }

    /// The key of GGUF without the name of the architecture.
    let gguf: String
    /// The keys of `config.json`; the first is written.
    let config: [String]
    let kind: Kind
    /// What GGUF readers take where the key is missing; nil if it must be there.
    let fallback: JSON?

    static func int(_ gguf: String, _ config: String..., or fallback: JSON? = nil) -> Key {
      Key(gguf: gguf, config: config, kind: .int, fallback: fallback)
    }

    static func float(_ gguf: String, _ config: String..., or fallback: JSON? = nil) -> Key {
      Key(gguf: gguf, config: config, kind: .float, fallback: fallback)
    }

    static func bool(_ gguf: String, _ config: String..., or fallback: JSON? = nil) -> Key {
      Key(gguf: gguf, config: config, kind: .bool, fallback: fallback)
    }
  }

  /// What happens to a weight on the way from Hugging Face to GGUF.
  enum Change: Sendable {
    case none
    /// Rows of each head from halves to neighbouring pairs, for rotary embedding of pairs; for queries or keys.
    case pairRows(keys: Bool)
    /// Gains around 0 to gains around 1.
    case addOne
    /// `[in, out]` to `[out, in]`.
    case transpose
    /// Rows `[heads, 3, width]` to `[3, heads, width]`.
    case groupRows
  }

  /// A weight in both namings.
  struct Weight: Sendable {
    let config: String
    let gguf: String
    let change: Change

    init(_ config: String, _ gguf: String, _ change: Change = .none) {
      self.config = config
      self.gguf = gguf
      self.change = change
    }
  }

  /// Matrices of experts that GGUF stacks.
  struct Experts: Sendable {
    /// The name of one, with `{}` for the layer and `{e}` for the expert.
    let config: String
    let gguf: String
  }

  /// `general.architecture`.
  let name: String
  /// `model_type` of `config.json`.
  let modelType: String
  let className: String
  var keys: [Key]
  var weights: [Weight]
  var experts: [Experts] = []
  /// Hyper-parameters that GGUF readers take for granted: the values they may have, missing ones aside. The first is
  /// written.
  var granted: [(key: String, values: [JSON])] = []
  /// The key of rotary width: whole heads if nil, a share of them under `partial_rotary_factor` else.
  var hasPartialRotary = false
  /// Whether there is rotary embedding at all.
  var hasRotary = true

  /// The pieces of names that most decoders share, `config` to `gguf`.
  static func decoder(_ pieces: [(String, String, Change)]) -> [Weight] {
    pieces.map { Weight("model.layers.{}.\($0.0)", "blk.{}.\($0.1)", $0.2) }
  }
}

extension GGUFSchema {
  /// The schema for a `general.architecture`; of several (Llama, Mistral, Mixtral) the one that the metadata fit.
  static func schema(gguf name: String, hasExperts: Bool) -> GGUFSchema? {
    all.first { $0.name == name && $0.experts.isEmpty == !hasExperts }
  }

  /// The schema for a `model_type`.
  static func schema(modelType: String) -> GGUFSchema? { all.first { $0.modelType == modelType } }

  private static let sizes: [Key] = [
    .int("block_count", "num_hidden_layers"), .int("context_length", "max_position_embeddings"),
    .int("embedding_length", "hidden_size"), .int("feed_forward_length", "intermediate_size"),
    .int("attention.head_count", "num_attention_heads"),
  ]
  private static let groups: [Key] = [.int("attention.head_count_kv", "num_key_value_heads")]
  private static let rmsEpsilon: [Key] = [.float("attention.layer_norm_rms_epsilon", "rms_norm_eps")]
  private static let ends = [
    Weight("model.embed_tokens.weight", "token_embd.weight"), Weight("model.norm.weight", "output_norm.weight"),
  ]
  private static let output = [Weight("lm_head.weight", "output.weight")]
  private static let feedForward: [(String, String, Change)] = [
    ("mlp.gate_proj.weight", "ffn_gate.weight", .none), ("mlp.up_proj.weight", "ffn_up.weight", .none),
    ("mlp.down_proj.weight", "ffn_down.weight", .none),
  ]
  private static let preNorms: [(String, String, Change)] = [
    ("input_layernorm.weight", "attn_norm.weight", .none),
    ("post_attention_layernorm.weight", "ffn_norm.weight", .none),
  ]

  private static func attention(paired: Bool, biases: Bool) -> [(String, String, Change)] {
    var list: [(String, String, Change)] = []
    for kind in biases ? ["weight", "bias"] : ["weight"] {
      list += [
        ("self_attn.q_proj.\(kind)", "attn_q.\(kind)", paired ? .pairRows(keys: false) : .none),
        ("self_attn.k_proj.\(kind)", "attn_k.\(kind)", paired ? .pairRows(keys: true) : .none),
        ("self_attn.v_proj.\(kind)", "attn_v.\(kind)", .none),
        ("self_attn.o_proj.\(kind)", "attn_output.\(kind)", .none),
      ]
    }
    return list
  }

  private static func headNorms(_ change: Change) -> [(String, String, Change)] {
    [
      ("self_attn.q_norm.weight", "attn_q_norm.weight", change),
      ("self_attn.k_norm.weight", "attn_k_norm.weight", change),
    ]
  }

  private static let gemmaWeights =
    [
      Weight("model.embed_tokens.weight", "token_embd.weight"),
      Weight("model.norm.weight", "output_norm.weight", .addOne),
    ]
    + decoder(
      attention(paired: false, biases: false) + feedForward + [
        ("input_layernorm.weight", "attn_norm.weight", .addOne),
        ("post_attention_layernorm.weight", "post_attention_norm.weight", .addOne),
        ("pre_feedforward_layernorm.weight", "ffn_norm.weight", .addOne),
        ("post_feedforward_layernorm.weight", "post_ffw_norm.weight", .addOne),
      ])

  private static let silu: (key: String, values: [JSON]) = ("hidden_act", ["silu", "swish"])
  private static let noWindow: (key: String, values: [JSON]) = ("sliding_window", [nil])

  private static func llama(_ modelType: String, _ className: String) -> GGUFSchema {
    GGUFSchema(
      name: "llama", modelType: modelType, className: className, keys: sizes + groups + rmsEpsilon,
      weights: ends + output
        + decoder(
          attention(paired: true, biases: true) + preNorms + feedForward
            + ["gate", "up", "down"].map { ("mlp.\($0)_proj.bias", "ffn_\($0).bias", .none) }),
      granted: [silu, noWindow])
  }

  /// All that are known.
  static let all: [GGUFSchema] = [
    llama("llama", "LlamaForCausalLM"), llama("mistral", "MistralForCausalLM"),
    GGUFSchema(
      name: "llama", modelType: "mixtral", className: "MixtralForCausalLM",
      keys: sizes + groups + rmsEpsilon + [
        .int("expert_count", "num_local_experts", "num_experts"), .int("expert_used_count", "num_experts_per_tok"),
      ],
      weights: ends + output
        + decoder(
          attention(paired: true, biases: false) + preNorms + [
            ("block_sparse_moe.gate.weight", "ffn_gate_inp.weight", .none)
          ]),
      experts: [("w1", "gate"), ("w2", "down"), ("w3", "up")].map {
        Experts(
          config: "model.layers.{}.block_sparse_moe.experts.{e}.\($0.0).weight",
          gguf: "blk.{}.ffn_\($0.1)_exps.weight")
      },
      granted: [silu, noWindow, ("router_jitter_noise", [0.0, nil])]),
    GGUFSchema(
      name: "qwen2", modelType: "qwen2", className: "Qwen2ForCausalLM", keys: sizes + groups + rmsEpsilon,
      weights: ends + output + decoder(attention(paired: false, biases: true) + preNorms + feedForward),
      granted: [silu, ("use_sliding_window", [false])]),
    GGUFSchema(
      name: "qwen3", modelType: "qwen3", className: "Qwen3ForCausalLM", keys: sizes + groups + rmsEpsilon,
      weights: ends + output
        + decoder(attention(paired: false, biases: false) + headNorms(.none) + preNorms + feedForward),
      granted: [silu, ("use_sliding_window", [false]), ("attention_bias", [false])]),
    GGUFSchema(
      name: "qwen3moe", modelType: "qwen3_moe", className: "Qwen3MoeForCausalLM",
      keys: sizes + groups + rmsEpsilon + [
        .int("expert_count", "num_experts", "num_local_experts"), .int("expert_used_count", "num_experts_per_tok"),
        .int("expert_feed_forward_length", "moe_intermediate_size"),
      ],
      weights: ends + output
        + decoder(
          attention(paired: false, biases: false) + headNorms(.none) + preNorms + [
            ("mlp.gate.weight", "ffn_gate_inp.weight", .none)
          ]),
      experts: ["gate", "up", "down"].map {
        Experts(
          config: "model.layers.{}.mlp.experts.{e}.\($0)_proj.weight", gguf: "blk.{}.ffn_\($0)_exps.weight")
      },
      granted: [
        silu, ("use_sliding_window", [false]), ("attention_bias", [false]), ("norm_topk_prob", [true]),
        ("decoder_sparse_step", [1]), ("mlp_only_layers", [[]]),
      ]),
    GGUFSchema(
      name: "gemma2", modelType: "gemma2", className: "Gemma2ForCausalLM",
      keys: sizes + groups + rmsEpsilon + [
        .float("attn_logit_softcapping", "attn_logit_softcapping", or: 50),
        .float("final_logit_softcapping", "final_logit_softcapping", or: 30),
        .int("attention.sliding_window", "sliding_window", or: 4096),
      ], weights: gemmaWeights,
      granted: [
        ("hidden_activation", ["gelu_pytorch_tanh"]), ("hidden_act", ["gelu_pytorch_tanh"]),
        ("attention_bias", [false]),
      ]),
    GGUFSchema(
      name: "gemma3", modelType: "gemma3_text", className: "Gemma3ForCausalLM",
      keys: sizes + groups + rmsEpsilon + [.int("attention.sliding_window", "sliding_window")],
      weights: gemmaWeights + output + decoder(headNorms(.addOne)),
      granted: [
        ("hidden_activation", ["gelu_pytorch_tanh"]), ("attention_bias", [false]), ("attn_logit_softcapping", [nil]),
        ("final_logit_softcapping", [nil]), ("use_bidirectional_attention", [false, nil]),
      ]),
    GGUFSchema(
      name: "phi3", modelType: "phi3", className: "Phi3ForCausalLM",
      keys: sizes + groups + rmsEpsilon + [
        .int(
          "rope.scaling.original_context_length", "original_max_position_embeddings", "max_position_embeddings")
      ],
      weights: ends + output
        + decoder(
          preNorms + [
            ("self_attn.qkv_proj.weight", "attn_qkv.weight", .none),
            ("self_attn.o_proj.weight", "attn_output.weight", .none),
            ("mlp.gate_up_proj.weight", "ffn_up.weight", .none), ("mlp.down_proj.weight", "ffn_down.weight", .none),
          ]),
      granted: [silu, noWindow], hasPartialRotary: true),
    GGUFSchema(
      name: "gpt2", modelType: "gpt2", className: "GPT2LMHeadModel",
      keys: [
        .int("block_count", "n_layer"), .int("context_length", "n_positions"), .int("embedding_length", "n_embd"),
        .int("feed_forward_length", "n_inner"), .int("attention.head_count", "n_head"),
        .float("attention.layer_norm_epsilon", "layer_norm_epsilon"),
      ],
      weights: [
        Weight("transformer.wte.weight", "token_embd.weight"), Weight("transformer.wpe.weight", "position_embd.weight"),
        Weight("transformer.ln_f.weight", "output_norm.weight"), Weight("transformer.ln_f.bias", "output_norm.bias"),
        Weight("lm_head.weight", "output.weight"),
      ]
        + [
          ("ln_1", "attn_norm", Change.none), ("ln_2", "ffn_norm", .none), ("attn.c_attn", "attn_qkv", .transpose),
          ("attn.c_proj", "attn_output", .transpose), ("mlp.c_fc", "ffn_up", .transpose),
          ("mlp.c_proj", "ffn_down", .transpose),
        ].flatMap { config, gguf, change in
          [
            Weight("transformer.h.{}.\(config).weight", "blk.{}.\(gguf).weight", change),
            Weight("transformer.h.{}.\(config).bias", "blk.{}.\(gguf).bias"),
          ]
        },
      granted: [
        ("activation_function", ["gelu_new"]), ("scale_attn_weights", [true]),
        ("scale_attn_by_inverse_layer_idx", [false]), ("add_cross_attention", [false]),
      ], hasRotary: false),
    GGUFSchema(
      name: "gptneox", modelType: "gpt_neox", className: "GPTNeoXForCausalLM",
      keys: sizes + [
        .float("attention.layer_norm_epsilon", "layer_norm_eps"),
        .bool("use_parallel_residual", "use_parallel_residual", or: true),
      ],
      weights: [
        Weight("gpt_neox.embed_in.weight", "token_embd.weight"),
        Weight("gpt_neox.final_layer_norm.weight", "output_norm.weight"),
        Weight("gpt_neox.final_layer_norm.bias", "output_norm.bias"), Weight("embed_out.weight", "output.weight"),
      ]
        + [
          ("input_layernorm", "attn_norm", Change.none), ("post_attention_layernorm", "ffn_norm", .none),
          ("attention.query_key_value", "attn_qkv", .groupRows), ("attention.dense", "attn_output", .none),
          ("mlp.dense_h_to_4h", "ffn_up", .none), ("mlp.dense_4h_to_h", "ffn_down", .none),
        ].flatMap { config, gguf, change in
          ["weight", "bias"].map {
            Weight("gpt_neox.layers.{}.\(config).\($0)", "blk.{}.\(gguf).\($0)", change)
          }
        },
      granted: [("hidden_act", ["gelu"]), ("attention_bias", [true]), ("is_decoder", [false, true])],
      hasPartialRotary: true),
    GGUFSchema(
      name: "olmo2", modelType: "olmo2", className: "Olmo2ForCausalLM", keys: sizes + groups + rmsEpsilon,
      weights: ends + output
        + decoder(
          attention(paired: false, biases: false) + headNorms(.none) + feedForward + [
            ("post_attention_layernorm.weight", "post_attention_norm.weight", .none),
            ("post_feedforward_layernorm.weight", "post_ffw_norm.weight", .none),
          ]),
      granted: [silu, ("attention_bias", [false])]),
  ]
}
