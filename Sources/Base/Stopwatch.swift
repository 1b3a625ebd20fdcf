/// Measures elapsed time on the monotonic clock.
package struct Stopwatch: Sendable {
  private var start = ContinuousClock.now

  /// A stopwatch that starts now.
  package init() {}

  /// The time since the start, in seconds.
  package var seconds: Double {
    let elapsed = (ContinuousClock.now - start).components
    return Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18
  }

  /// The time since the start, in milliseconds.
  package var milliseconds: Double { seconds * 1e3 }

  /// Starts again.
  ///
  /// - Returns: the seconds since the previous start.
  @discardableResult
  package mutating func restart() -> Double {
    let elapsed = seconds
    start = .now
    return elapsed
  }
}
