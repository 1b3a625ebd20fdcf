import Base
import IR
import Tensors

/// A decoder-only language model: what a checkpoint says about it, and the graph that it describes.
///
/// One function `main` with the inputs `tokens: i32[T]` and `position: i32[1]` (rows already in the cache), the states
/// `k0`, `v0`, `k1`, ... of shape `[C, kvHeads * headDim]`, and the output `logits: f32[L, V]` for the last `L` tokens.
///
///     x = embedding[tokens] * scale + positions,  x = block(x) for each block,  logits = head(norm(x))
struct Decoder: Sendable {
  /// Tokens.
  var vocabulary = 0
  /// Numbers per token between blocks.
  var width = 0
  /// The longest text the checkpoint is made for.
  var context = 0
  var embedding = DecoderEmbedding()
  var rotaries: [DecoderRotary] = []
  var blocks: [DecoderBlock] = []
  /// The norm after the last block.
  var norm: NormModule?
  var head = DecoderHead()
}

/// How tokens become numbers.
struct DecoderEmbedding: Sendable {
  /// A table with a row per position.
  struct Positions: Sendable {
    var module: String
    /// Rows of the table.
    var rows: Int
    /// The row of the first token.
    var first = 0
  }

  var module = "model.embed_tokens"
  /// Numbers per row, if not the width of the decoder: a projection goes between.
  var width: Int?
  var projection: LinearModule?
  /// What rows are multiplied by.
  var scale: Float = 1
  var positions: Positions?
  var norm: NormModule?
}

/// How the last numbers become logits.
struct DecoderHead: Sendable {
  var module = LinearModule("lm_head")
  /// Whether the rows of the embedding are the weights.
  var isTied = false
  /// Goes before, where rows of the embedding have another width than the decoder.
  var projection: LinearModule?
  /// What logits are multiplied by.
  var scale: Float = 1
  /// Logits `z` become `softcap * tanh(z / softcap)`.
  var softcap: Float?
}

/// A rotary embedding that blocks share.
struct DecoderRotary: Hashable, Sendable {
  /// Radians per position of each pair that turns.
  var inverseFrequencies: [Float]
  /// Those for a cache of more than so many rows, if they differ (LongRoPE).
  var long: Long?

  struct Long: Hashable, Sendable {
    var inverseFrequencies: [Float]
    var beyond: Int
  }

  /// Whether pairs are neighbours (GGUF, Cohere) instead of halves of what turns.
  var isInterleaved = false
  /// What cosines and sines are multiplied by.
  var factor: Float = 1
}

/// What all parts of a decoder's blocks share.
struct DecoderContext {
  /// The block being emitted.
  var layer = 0
  var width: Int
  /// Rows of the cache.
  var rows: Int
  var cacheType: CacheType
  /// Tokens of a call.
  var length: Symbol
  /// Tokens before those of a call: `i32[1]`.
  var position: ValueID
  /// The rotary embeddings of the decoder, and their tables.
  var rotaries: [DecoderRotary]
  var tables: [ValueID] = []
  /// Added to the scores of attention: `[heads, 1, rows]`, or none; by slopes.
  var biases: [AttentionSlopes: ValueID] = [:]
}

/// Attention, a feed-forward layer, or whatever else stands in a block.
protocol DecoderPart: Sendable {
  /// Emits the part for `x: f32[T, width]`; the result is of the same shape. The emitter's prefix is that of the block.
  func emit(_ x: ValueID, _ context: inout DecoderContext, in emitter: inout ModuleEmitter) throws -> ValueID
}

/// A block: attention and feed-forward layer with norms and residuals.
///
/// One after the other: `x = x + s * n2(attention(n1(x)))`, `x = x + s * n4(feedForward(n3(x)))`; side by side:
/// `x = x + s * n2(attention(n1(x))) + s * n4(feedForward(n3(x)))`. Norms that are nil are left out; `n3` of a block
/// with parts side by side is then `n1`.
struct DecoderBlock: Sendable {
  /// What a part's result is added to, and what becomes of the sum.
  enum Residual: Sendable {
    /// The input of the block.
    case input
    /// The normed input (BLOOM's `apply_residual_connection_post_layernorm`).
    case normed
    /// The input; the norms `n1` and `n3` are of the sums instead (OPT-350M, GPT-1).
    case normsSum
  }

  /// The name of the module, `model.layers.0`.
  var module: String
  var isParallel = false
  var residual = Residual.input
  /// What results of parts are multiplied by.
  var residualScale: Float = 1
  var attentionNorm: NormModule?
  var attentionOutputNorm: NormModule?
  var feedForwardNorm: NormModule?
  var feedForwardOutputNorm: NormModule?
  var attention: any DecoderPart
  var feedForward: any DecoderPart
}
