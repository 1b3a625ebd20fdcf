import Foundation

/// Processor time of the calling thread: what code takes however many others run beside it.
package struct ThreadTime {
  private let start = Self.now

  /// Starts now; read it on the same thread.
  package init() {}

  /// The seconds since the start.
  package var seconds: Double { Self.now - start }

  private static var now: Double {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }
}
