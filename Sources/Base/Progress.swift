import Glibc
import Synchronization

/// Shows one line about long work on standard error, only if that is a terminal, and clears it at the end.
///
/// `update` may be called from any thread and as often as wanted; the line is redrawn at most ten times a second.
package final class Progress: Sendable {
  private struct State {
    var label = ""
    var drawn = false
    var lastDraw = ContinuousClock.now - .seconds(1)
  }

  private let state = Mutex(State())
  private let isVisible: Bool

  /// - Parameter isEnabled: false suppresses all output, as `--quiet` asks.
  package init(isEnabled: Bool = true) {
    isVisible = isEnabled && isatty(STDERR_FILENO) == 1
  }

  /// Shows `label` and, if given, how much of the work is done.
  package func update(_ label: @autoclosure () -> String, done: Int? = nil, of total: Int? = nil) {
    guard isVisible else { return }
    state.withLock { state in
      let now = ContinuousClock.now
      guard now - state.lastDraw >= .milliseconds(100) else { return }
      state.lastDraw = now
      state.label = label()
      var line = state.label
      if let done, let total, total > 0 { line += " \(100 * done / total)%" }
      state.drawn = true
      write("\r\u{1B}[K" + line.prefix(100))
    }
  }

  /// Removes the line, so that other output can follow.
  package func clear() {
    guard isVisible else { return }
    state.withLock { state in
      if state.drawn { write("\r\u{1B}[K") }
      state.drawn = false
    }
  }

  private func write(_ text: String) {
    var text = text
    text.withUTF8 { bytes in
      _ = Glibc.write(STDERR_FILENO, bytes.baseAddress, bytes.count)
    }
  }
}
