/// A pass that runs a model of language on windows of a text or of token ids.
package protocol TokenSampled: Pass {
  /// The file.
  var text: String { get }
  /// Windows; nil for the usual number.
  var samples: Int? { get }
  /// Tokens of a window; nil for the usual number.
  var length: Int? { get }
}
