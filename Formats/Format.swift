import Base
import IR
import Tensors

/// A kind of checkpoint that mcc reads.
package protocol Format: Sendable {
  /// The name in messages and lists, such as `gguf`.
  static var name: String { get }

  /// One line for `mcc formats`.
  static var summary: String { get }

  /// Whether the file or folder is of this format, judged by its content, never by its name.
  static func sniff(_ candidate: Candidate) -> Bool

  /// Reads the checkpoint. Weights stay in the mapped files.
  ///
  /// - Throws: ``CompileError`` of kind `.input` for damage, `.unsupported` for what mcc does not do, with the file and
  ///   the tensor, key or byte.
  static func load(_ candidate: Candidate, _ options: LoadOptions) throws -> Model
}

/// What the caller of a format decides.
package struct LoadOptions: Sendable {
  /// Rows of the KV cache, at most the context length of the checkpoint; nil for the smaller of that and
  /// ``defaultContext``.
  package var context: Int?
  /// How the KV cache keeps keys and values; nil for f32 where the weights are f32, else f16.
  package var cacheType: CacheType?
  /// Ranges of named symbolic sizes of inputs.
  package var dimensions: [String: ClosedRange<Int>] = [:]
  /// A folder with a low-rank adapter of the checkpoint; nil for none.
  package var adapter: String?
  /// Whether its products stay beside the weights instead of being added to them.
  package var keepsAdapter = false
  /// A tokenizer file of the checkpoint, if it is not to be looked for under the usual names.
  package var tokenizer: String?
  package var limits = LoadLimits()

  /// The context length unless the checkpoint or the caller says otherwise.
  package static let defaultContext = 2048

  package init() {}

  package init(
    context: Int? = nil, cacheType: CacheType? = nil, dimensions: [String: ClosedRange<Int>] = [:],
    limits: LoadLimits = LoadLimits()
  ) {
    self.context = context
    self.cacheType = cacheType
    self.dimensions = dimensions
    self.limits = limits
  }
}

/// Bounds on what a checkpoint may declare, so that a small hostile file cannot ask for much memory or time.
package struct LoadLimits: Sendable {
  /// Bytes of a configuration file.
  package var configBytes = 16 << 20
  /// Bytes of a tokenizer file.
  package var tokenizerBytes = 256 << 20
  /// Bytes of a safetensors header; the limit of the reference implementation.
  package var headerBytes = 100_000_000
  /// Tensors of a checkpoint.
  package var tensors = 1 << 20
  /// Keys of metadata.
  package var metadataKeys = 1 << 16
  /// Bytes of one string.
  package var stringBytes = 16 << 20
  /// Elements of one array of metadata.
  package var arrayElements = 1 << 24
  /// Axes of a tensor.
  package var rank = 8
  /// Blocks of a network.
  package var layers = 4096
  /// Experts of a layer.
  package var experts = 4096
  /// Width of a layer, heads times their width included.
  package var width = 1 << 24
  /// Tokens of a vocabulary.
  package var tokens = 1 << 22
  /// Rows of a KV cache.
  package var context = 1 << 26

  package init() {}
}
