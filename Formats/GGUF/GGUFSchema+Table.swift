import Base

extension GGUFSchema {
  static let sizes: [Key] = [
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
    GGUFSchema(
      name: "llama", modelType: "mixtral", className: "MixtralForCausalLM",
      marks: Marks(has: ["blk.0.ffn_gate_exps.weight"]),
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
      granted: [silu, noWindow, ("router_jitter_noise", [0.0, nil])], defaultTheta: 1e6),
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
      ], windowPeriod: 2, layersScaledByWidth: 46, isTiedByDefault: true),
    GGUFSchema(
      name: "gemma3", modelType: "gemma3_text", className: "Gemma3ForCausalLM",
      keys: sizes + groups + rmsEpsilon + [.int("attention.sliding_window", "sliding_window")],
      weights: gemmaWeights + output + decoder(headNorms(.addOne)),
      granted: [
        ("hidden_activation", ["gelu_pytorch_tanh"]), ("attention_bias", [false]), ("attn_logit_softcapping", [nil]),
        ("final_logit_softcapping", [nil]), ("use_bidirectional_attention", [false, nil]),
      ], defaultTheta: 1e6, windowPeriod: 6, hasLocalRotary: true, layersScaledByWidth: 62, isTiedByDefault: true),
    GGUFSchema(
      name: "phi3", modelType: "phi3", className: "Phi3ForCausalLM",
      keys: sizes + groups + rmsEpsilon + [
        .int(
          "rope.scaling.original_context_length", "original_max_position_embeddings", "max_position_embeddings"),
        .int("attention.sliding_window", "sliding_window", or: .null),
      ],
      weights: ends + output
        + decoder(
          preNorms + [
            ("self_attn.qkv_proj.weight", "attn_qkv.weight", .none),
            ("self_attn.o_proj.weight", "attn_output.weight", .none),
            ("mlp.gate_up_proj.weight", "ffn_up.weight", .none), ("mlp.down_proj.weight", "ffn_down.weight", .none),
          ]),
      granted: [silu], hasPartialRotary: true),
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
      ], hasRotary: false, isTiedByDefault: true),
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
    GGUFSchema(
      name: "mamba", modelType: "mamba", className: "MambaForCausalLM",
      keys: [
        .int("block_count", "num_hidden_layers"), .int("embedding_length", "hidden_size"),
        .int("ssm.conv_kernel", "conv_kernel"), .int("ssm.inner_size", "intermediate_size"),
        .int("ssm.state_size", "state_size"), .int("ssm.time_step_rank", "time_step_rank"),
        .float("attention.layer_norm_rms_epsilon", "layer_norm_epsilon"),
      ],
      weights: [
        Weight("backbone.embeddings.weight", "token_embd.weight"),
        Weight("backbone.norm_f.weight", "output_norm.weight"),
        Weight("lm_head.weight", "output.weight"),
      ]
        + [
          ("norm.weight", "attn_norm.weight", Change.none), ("mixer.in_proj.weight", "ssm_in.weight", .none),
          ("mixer.conv1d.weight", "ssm_conv1d.weight", .filter), ("mixer.conv1d.bias", "ssm_conv1d.bias", .none),
          ("mixer.x_proj.weight", "ssm_x.weight", .none), ("mixer.dt_proj.weight", "ssm_dt.weight", .none),
          ("mixer.dt_proj.bias", "ssm_dt.bias", .none), ("mixer.A_log", "ssm_a", .negativeExponential),
          ("mixer.D", "ssm_d", .none), ("mixer.out_proj.weight", "ssm_out.weight", .none),
        ].map { Weight("backbone.layers.{}.\($0.0)", "blk.{}.\($0.1)", $0.2) },
      granted: [silu, ("use_bias", [false]), ("use_conv_bias", [true])],
      // A context as long as one likes, no attention and no layers besides the mixers.
      formalities: [
        ("context_length", .u32(1 << 20)), ("feed_forward_length", .u32(0)), ("attention.head_count", .u32(0)),
      ],
      ignored: [
        "expand", "residual_in_fp32", "rescale_prenorm_residual", "time_step_floor", "time_step_init_scheme",
        "time_step_max", "time_step_min", "time_step_scale", "use_associative_scan", "use_mambapy", "n_layer",
        "d_model",
        "rms_norm", "fused_add_norm", "ssm_cfg", "pad_vocab_size_multiple", "d_inner",
      ], hasRotary: false, isTiedByDefault: true),
    // Queries, keys and values with biases, but not what follows them: as in Qwen 2.
    GGUFSchema(
      name: "llama", modelType: "qwen2", className: "Qwen2ForCausalLM",
      marks: Marks(has: ["blk.0.attn_q.bias"], lacks: ["blk.0.attn_output.bias"]), keys: sizes + groups + rmsEpsilon,
      weights: ends + output + decoder(attention(paired: true, biases: true) + preNorms + feedForward),
      granted: [silu, ("use_sliding_window", [false])]),
    llama("llama", "LlamaForCausalLM"), llama("mistral", "MistralForCausalLM"), bert, t5, t5Encoder,
  ]
}
