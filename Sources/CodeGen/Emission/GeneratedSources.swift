import IR

/// The sources of one model, without the fixed runtime.
package struct GeneratedSources: Sendable {
  /// A file of text.
  package struct File: Hashable, Sendable {
    package var name: String
    package var text: String
    /// How to compile it, of a C source.
    package var flags: [String]

    package init(name: String, text: String, flags: [String] = []) {
      self.name = name
      self.text = text
      self.flags = flags
    }
  }

  /// What a program looks like to its user.
  package enum Face: Hashable, Sendable {
    /// Continues texts: a function with the role `decode`.
    case languageModel
    /// Gives texts embeddings: a function with the role `encode` over tokens.
    case encoder
    /// Maps named tensors to named tensors.
    case network
  }

  /// `model.c` and the files of kernels.
  package var sources: [File]
  /// `model.h`, `kernels.h`, and what kernels in Swift take from C.
  package var headers: [File]
  /// Ties the code to its bundle.
  package var identity: UInt64
  /// What the program looks like to its user.
  package var face: Face
}
