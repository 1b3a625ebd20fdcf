/// An error a person sees: one sentence, where it happened, and what was expected.
///
/// Every failure that input can cause is thrown as this type; `kind` decides the exit code of the command.
package struct CompileError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Whose fault it is, and with that the exit code (`sysexits.h` where a code exists there).
  package enum Kind: String, Hashable, Sendable {
    /// Wrong arguments.
    case usage
    /// A file or tensor that is damaged, contradictory or of the wrong form.
    case input
    /// A file that is well formed but asks for something that mcc does not do.
    case unsupported
    /// The C or Swift compiler is missing or refused the generated code.
    case toolchain
    /// A defect of mcc.
    case `internal`
    /// An output file that cannot be created.
    case create
    /// Failing input or output, or a full disk.
    case io
    /// A gate, check, verification or audit that says no.
    case check

    /// The process exit code of this kind.
    package var exitCode: Int32 {
      switch self {
      case .usage: 64
      case .input: 65
      case .unsupported: 69
      case .toolchain: 71
      case .internal: 70
      case .create: 73
      case .io: 74
      case .check: 1
      }
    }
  }

  /// The place an error speaks of: a file, and a byte offset or a line in it, or an object by name.
  package struct Subject: Hashable, Sendable, CustomStringConvertible {
    package var file: String?
    package var offset: Int?
    package var line: Int?
    package var column: Int?
    /// A named thing inside the file: a tensor, a node, a key.
    package var object: String?

    package init(
      file: String? = nil, offset: Int? = nil, line: Int? = nil, column: Int? = nil, object: String? = nil
    ) {
      self.file = file
      self.offset = offset
      self.line = line
      self.column = column
      self.object = object
    }

    package var description: String {
      var text = file ?? ""
      if let line { text += (text.isEmpty ? "line " : ":") + "\(line)" + (column.map { ":\($0)" } ?? "") }
      if let offset { text += (text.isEmpty ? "" : ", ") + "byte \(offset)" }
      if let object { text += (text.isEmpty ? "" : ", ") + object }
      return text
    }
  }

  package var kind: Kind
  /// A lower-case sentence without a full stop, with names in single quotes.
  package var message: String
  package var subject: Subject?
  package var notes: [String]
  /// The message of the error that led to this one.
  package var cause: String?

  package init(
    _ kind: Kind, _ message: String, subject: Subject? = nil, notes: [String] = [], cause: String? = nil
  ) {
    self.kind = kind
    self.message = message
    self.subject = subject
    self.notes = notes
    self.cause = cause
  }

  /// `message (place): cause; note: ...`, without the leading `error: `.
  package var description: String {
    var text = message
    if let subject, !subject.description.isEmpty { text += " (\(subject))" }
    if let cause { text += ": \(cause)" }
    for note in notes { text += "; note: \(note)" }
    return text
  }

  /// The same error with a place, unless it names one already.
  package func located(_ place: @autoclosure () -> Subject) -> CompileError {
    guard subject == nil else { return self }
    var copy = self
    copy.subject = place()
    return copy
  }

  /// The same error with one more note.
  package func noting(_ note: String) -> CompileError {
    var copy = self
    copy.notes.append(note)
    return copy
  }
}
