import Glibc

/// Lines on the standard streams.
package enum Standard {
  /// Writes a line to standard output.
  package static func output(_ line: String) { write(line + "\n", to: STDOUT_FILENO) }

  /// Writes a line to standard error.
  package static func error(_ line: String) { write(line + "\n", to: STDERR_FILENO) }

  /// Writes all of a text; what a closed pipe does not take is dropped.
  package static func write(_ text: String, to descriptor: Int32) {
    let bytes = Array(text.utf8)
    var offset = 0
    while offset < bytes.count {
      let count = bytes.withUnsafeBytes {
        Glibc.write(descriptor, $0.baseAddress?.advanced(by: offset), bytes.count - offset)
      }
      if count < 0 && errno == EINTR { continue }
      if count <= 0 { return }
      offset += count
    }
  }
}
