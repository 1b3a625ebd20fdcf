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
    /// When work of the current extent was first told of, and how much of it was done then.
    var total: Int?
    var began = ContinuousClock.now
    var doneAtBegin = 0
  }

  private let state = Mutex(State())
  private let isVisible: Bool

  /// - Parameter isEnabled: false suppresses all output, as `--quiet` asks.
  package init(isEnabled: Bool = true) {
    isVisible = isEnabled && isatty(STDERR_FILENO) == 1
  }

  /// Shows `label` and, if given, how much of the work is done, and of long work how long the rest will take.
  package func update(_ label: @autoclosure () -> String, done: Int? = nil, of total: Int? = nil) {
    guard isVisible else { return }
    state.withLock { state in
      let now = ContinuousClock.now
      if state.total != total || done.map({ $0 < state.doneAtBegin }) ?? true {
        (state.total, state.began, state.doneAtBegin) = (total, now, done ?? 0)
      }
      guard now - state.lastDraw >= .milliseconds(100) else { return }
      state.lastDraw = now
      state.label = label()
      var line = state.label
      if let done, let total, total > 0 {
        line += " \(Int(100 * Double(done) / Double(total)))%"
        let seconds = Double((now - state.began).components.seconds)
        if let rest = Self.rest(seconds, done - state.doneAtBegin, total - done) { line += ", \(rest)" }
      }
      state.drawn = true
      write("\r\u{1B}[K" + line.prefix(100))
    }
  }

  /// How long the rest takes if it goes on as `done` did in some seconds; nil for short work.
  package static func rest(_ seconds: Double, _ done: Int, _ left: Int) -> String? {
    guard seconds >= 5, done > 0, left > 0 else { return nil }
    let rest = seconds * Double(left) / Double(done)
    guard rest >= 10, rest < 1e6 else { return nil }
    return rest < 90 ? "about \(Int(rest)) s left" : "about \(Int((rest / 60).rounded())) min left"
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
