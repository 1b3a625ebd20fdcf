import Tensors

/// A call of a kernel to be timed, with memory of the sizes that it reads and writes.
package struct TimedCall: Sendable {
  /// What stands for a parameter of the kernel.
  package enum Argument: Hashable, Sendable {
    /// A constant: copies of it take turns, so that it comes from where it would come from in a run.
    case constant(bytes: Int)
    /// Another operand that is read, always at the same place.
    case operand(bytes: Int)
    /// Memory that is written.
    case result(bytes: Int)
    /// Integers of one value.
    case integers(Int, count: Int, wide: Bool)
    case size(Int)
  }

  package var function: KernelFunction
  package var arguments: [Argument]
  package var threads: Int
  /// Calls of one group are timed in turn.
  package var group: Int

  package init(_ function: KernelFunction, _ arguments: [Argument], threads: Int, group: Int) {
    self.function = function
    self.arguments = arguments
    self.threads = threads
    self.group = group
  }

  /// Bytes of one copy of all constants.
  var constantBytes: Int {
    arguments.reduce(0) { if case .constant(let bytes) = $1 { $0 + bytes.aligned(to: 64) } else { $0 } }
  }
}

/// Seconds of one call.
package struct CallTime: Hashable, Sendable {
  /// In the fastest round.
  package var least: Double
  package var median: Double

  package init(least: Double, median: Double) {
    self.least = least
    self.median = median
  }
}
